//! Whose this host is. Compared under the lock before anything is changed, whatever kmctl has found before.
use std::fs;

use kmctl_core::protocol::host::{
    Change, EMPTY_FILE_SYSTEM, HostMark, MARK, MarkClaim, Ownership, OwnershipError, SCHEDULER_CONFIGURATION, TRACES,
};

use super::AgentError;
use super::files::Root;

/// What etcd creates in its data directory once it has started.
const MEMBER: &str = "/var/lib/etcd/member";

/// What the host says about whose it is.
pub(crate) fn read(root: &Root) -> Result<Ownership, AgentError> {
    let mark = match root.text(MARK)? {
        Some(text) => Some(HostMark::parse(&text).map_err(AgentError::Refused)?),
        None => None,
    };
    let unmarked = match root.text(SCHEDULER_CONFIGURATION)? {
        Some(text) if mark.is_none() => text.lines().find_map(|line| line.strip_prefix("cluster: ")).map(str::to_owned),
        _ => None,
    };
    let traces = TRACES.iter().filter(|path| is_used(root, path)).map(|path| (*path).to_owned()).collect();
    Ok(Ownership { mark, unmarked, traces })
}

/// Whether it is a file, or a directory that is not empty.
fn is_used(root: &Root, path: &str) -> bool {
    let path = root.at(path);
    match fs::read_dir(&path) {
        Ok(mut entries) => entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != EMPTY_FILE_SYSTEM)),
        Err(_) => path.exists(),
    }
}

/// Gives the host its mark, unless it has it.
///
/// # Errors
/// The host belongs to another cluster, or another tool uses it.
pub(crate) fn claim(root: &Root, claim: &MarkClaim) -> Result<Change, AgentError> {
    let MarkClaim { mark: wanted, instead_of } = claim;
    let ownership = read(root)?;
    ownership.judge(&wanted.cluster, &wanted.member).map_err(refused)?;
    let change = match ownership.mark {
        Some(mark) if mark == *wanted => return Ok(Change::Unchanged),
        // Before etcd has data, nothing depends on the id.
        Some(mark) if instead_of.as_ref() == Some(&mark.id) && !root.is_directory(MEMBER) => Change::Updated,
        Some(mark) => {
            let HostMark { cluster, id, .. } = mark;
            return Err(AgentError::Refused(format!(
                "the host belongs to another cluster {cluster}, with the id {id}, and this run is for {}",
                wanted.id
            )));
        }
        None => Change::Created,
    };
    let mut text = serde_json::to_vec(wanted).unwrap_or_default();
    text.push(b'\n');
    root.write(MARK, 0o644, &text)?;
    Ok(change)
}

/// Fails if the host is not this member of this cluster, and is not new either.
pub(crate) fn check(root: &Root, cluster: &str, member: &str) -> Result<(), AgentError> {
    read(root)?.judge(cluster, member).map_err(refused)
}

fn refused(error: OwnershipError) -> AgentError {
    AgentError::Refused(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::protocol::host::MARK_FORMAT;

    fn claimed(cluster: &str, id: &str, member: &str, instead_of: Option<&str>) -> MarkClaim {
        let (cluster, id, member) = (cluster.to_owned(), id.to_owned(), member.to_owned());
        let mark = HostMark { format: MARK_FORMAT, cluster, id, member };
        MarkClaim { mark, instead_of: instead_of.map(str::to_owned) }
    }

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path(), None);
        (folder, root)
    }

    #[test]
    fn a_new_host_is_marked_once() {
        let (_folder, root) = root();
        assert_eq!(read(&root).unwrap(), Ownership::default());
        let ours = claimed("demo", "1", "cp1", None);
        assert_eq!(claim(&root, &ours).unwrap(), Change::Created);
        assert_eq!(claim(&root, &ours).unwrap(), Change::Unchanged);
        assert_eq!(read(&root).unwrap().mark, Some(ours.mark));
    }

    #[test]
    fn a_host_of_another_cluster_or_member_is_left_alone() {
        let (_folder, root) = root();
        claim(&root, &claimed("demo", "1", "cp1", None)).unwrap();
        let before = root.bytes(MARK).unwrap();
        for other in [
            claimed("other", "1", "cp1", None),
            claimed("demo", "1", "cp2", None),
            claimed("demo", "2", "cp1", None),
            claimed("demo", "2", "cp1", Some("3")),
        ] {
            assert!(matches!(claim(&root, &other), Err(AgentError::Refused(_))), "{other:?}");
            assert_eq!(root.bytes(MARK).unwrap(), before);
        }
        assert!(check(&root, "demo", "cp1").is_ok());
        assert!(check(&root, "other", "cp1").is_err() && check(&root, "demo", "cp2").is_err());
    }

    #[test]
    fn another_id_replaces_one_that_no_data_belong_to() {
        let (_folder, root) = root();
        claim(&root, &claimed("demo", "1", "cp1", None)).unwrap();
        assert_eq!(claim(&root, &claimed("demo", "2", "cp1", Some("1"))).unwrap(), Change::Updated);
        root.make_directory(MEMBER, 0o700).unwrap();
        assert!(claim(&root, &claimed("demo", "3", "cp1", Some("2"))).is_err());
    }

    #[test]
    fn a_host_that_another_tool_uses_is_not_marked() {
        for (path, is_file) in [("/etc/kubernetes/admin.conf", true), ("/var/lib/rancher/k3s/server", false)] {
            let (_folder, root) = root();
            match is_file {
                true => root.write(path, 0o600, b"theirs").unwrap(),
                false => root.make_directory(path, 0o700).unwrap(),
            }
            assert!(claim(&root, &claimed("demo", "1", "cp1", None)).is_err(), "{path}");
            assert_eq!(root.bytes(MARK).unwrap(), None);
        }
    }

    #[test]
    fn an_empty_disk_is_no_trace() {
        let (_folder, root) = root();
        root.make_directory("/var/lib/etcd/lost+found", 0o700).unwrap();
        assert_eq!(claim(&root, &claimed("demo", "1", "cp1", None)).unwrap(), Change::Created);
    }

    #[test]
    fn a_host_of_before_the_mark_receives_it_by_its_configuration() {
        let (_folder, root) = root();
        root.write(SCHEDULER_CONFIGURATION, 0o644, b"# Written by kmctl\ncluster: demo\nmesos: {}\n").unwrap();
        root.make_directory(MEMBER, 0o700).unwrap();
        assert!(claim(&root, &claimed("other", "1", "cp1", None)).is_err());
        assert_eq!(claim(&root, &claimed("demo", "1", "cp1", None)).unwrap(), Change::Created);
        assert_eq!(read(&root).unwrap().unmarked, None);
    }

    #[test]
    fn an_unreadable_mark_is_refused() {
        let (_folder, root) = root();
        for text in ["", "{}", r#"{"format":9,"cluster":"demo","id":"1","member":"cp1"}"#] {
            root.write(MARK, 0o644, text.as_bytes()).unwrap();
            assert!(claim(&root, &claimed("demo", "1", "cp1", None)).is_err(), "{text}");
        }
    }
}
