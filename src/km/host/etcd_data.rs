//! etcd's data on this host: labelled before the first start, recorded outside of their directory, and compared before
//! every start. A start without them would begin an empty cluster, or bring back a member that has forgotten its vote.
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::{AccessFlags, access};

use kmctl_core::protocol::host::{DATA_LABEL, DATA_RECORD, DataRecord, ETCD_DATA, ETCD_WAL, EtcdData, STATE};

use super::AgentError;
use super::files::Root;

/// What is there of the data.
pub(crate) fn read(root: &Root) -> Result<EtcdData, AgentError> {
    let record = match root.text(DATA_RECORD)? {
        Some(text) => Some(serde_json::from_str(&text).map_err(|error| AgentError::Input {
            what: format!("read {DATA_RECORD}"),
            source: std::io::Error::other(error),
        })?),
        None => None,
    };
    let is_directory = |path: &str| fs::metadata(root.at(path)).is_ok_and(|found| found.is_dir());
    Ok(EtcdData {
        record,
        label: root.text(DATA_LABEL)?.map(|text| text.trim().to_owned()),
        exists: is_directory(ETCD_DATA),
        mounted: is_mounted(root),
        wal: is_directory(ETCD_WAL),
        unit_recorded: root.mode(&format!("{STATE}/units/etcd.service")).is_some(),
    })
}

/// Whether the data are on another file system than the host's own state. That holds for a mount point, and for a symbolic
/// link to a directory on a disk that is mounted elsewhere.
fn is_mounted(root: &Root) -> bool {
    let device = |path: &str| fs::metadata(root.at(path)).ok().map(|found| found.dev());
    device(ETCD_DATA).is_some_and(|data| device(STATE).is_some_and(|own| own != data))
}

/// Labels the directory and records the label: before the first start, or for data that were there before the record.
pub(crate) fn label(root: &Root, started: bool) -> Result<(), AgentError> {
    let record = DataRecord { id: uuid::Uuid::new_v4().simple().to_string(), mounted: is_mounted(root), started };
    // In this order: a record without a label would mean that the data are others.
    root.write(DATA_LABEL, 0o600, format!("{}\n", record.id).as_bytes())?;
    write(root, &record)
}

/// Records that etcd has started and votes. Its first start is over, and with it what configured that.
pub(crate) fn started(root: &Root, environment: &str) -> Result<(), AgentError> {
    if let Some(record) = read(root)?.record.filter(|record| !record.started) {
        write(root, &DataRecord { started: true, ..record })?;
    }
    root.remove(environment).map(drop)
}

fn write(root: &Root, record: &DataRecord) -> Result<(), AgentError> {
    let mut text = serde_json::to_vec(record).unwrap_or_default();
    text.push(b'\n');
    root.write(DATA_RECORD, 0o644, &text)
}

/// Fails if etcd must not start. Its unit runs this before each start, so that a disk that is not mounted yet is waited for.
///
/// # Errors
/// What is wrong with the data's directory, and what to do about it.
pub(crate) fn check(root: &Root, environment: &str) -> Result<(), AgentError> {
    let first = root.mode(environment).is_some();
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    read(root)?.may_start(first).map_err(|loss| {
        AgentError::Refused(format!(
            "{ETCD_DATA} on {host} {loss}: etcd does not start, since it would begin without its data. Mount the disk; if the \
             data are lost, run `kmctl up`"
        ))
    })?;
    // etcd itself would say so only after a while, and again every two seconds.
    access(&root.at(ETCD_DATA), AccessFlags::W_OK)
        .map_err(|error| AgentError::Refused(format!("{ETCD_DATA} on {host} cannot be written: {}", error.desc())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::protocol::host::{DataState, Loss};

    const ENVIRONMENT: &str = "/etc/kubernetes/etcd-initial.env";

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path(), None);
        root.make_directory(ETCD_DATA, 0o700).unwrap();
        root.make_directory(STATE, 0o755).unwrap();
        (folder, root)
    }

    #[test]
    fn etcd_starts_once_with_an_empty_directory_and_then_only_with_its_data() {
        let (_folder, root) = root();
        assert!(check(&root, ENVIRONMENT).is_err(), "nothing configures a first start");
        label(&root, false).unwrap();
        root.write(ENVIRONMENT, 0o644, b"ETCD_INITIAL_CLUSTER_STATE=new\n").unwrap();
        check(&root, ENVIRONMENT).unwrap();
        root.make_directory(ETCD_WAL, 0o700).unwrap();
        check(&root, ENVIRONMENT).unwrap();
        started(&root, ENVIRONMENT).unwrap();
        assert_eq!(root.mode(ENVIRONMENT), None, "the first start is over");
        check(&root, ENVIRONMENT).unwrap();

        fs::remove_dir_all(root.at("/var/lib/etcd/member")).unwrap();
        let refused = check(&root, ENVIRONMENT).unwrap_err().to_string();
        assert!(refused.starts_with("/var/lib/etcd on ") && refused.contains(" is empty"), "{refused}");
        fs::remove_dir_all(root.at(ETCD_DATA)).unwrap();
        assert!(check(&root, ENVIRONMENT).unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn data_of_another_disk_are_not_taken_for_the_hosts_own() {
        let (_folder, root) = root();
        label(&root, true).unwrap();
        root.make_directory(ETCD_WAL, 0o700).unwrap();
        root.write(DATA_LABEL, 0o600, b"another\n").unwrap();
        assert_eq!(read(&root).unwrap().state(), DataState::Lost(Loss::OtherData));
        assert!(check(&root, ENVIRONMENT).is_err());
    }

    #[test]
    fn a_first_start_on_a_directory_that_vanished_is_refused() {
        let (_folder, root) = root();
        label(&root, false).unwrap();
        root.write(ENVIRONMENT, 0o644, b"ETCD_INITIAL_CLUSTER_STATE=new\n").unwrap();
        root.remove(DATA_LABEL).unwrap();
        assert!(check(&root, ENVIRONMENT).is_err());
    }
}
