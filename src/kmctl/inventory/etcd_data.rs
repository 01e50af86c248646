//! etcd's data on a host, read with a shell.
use kmctl_core::protocol::host::{DATA_LABEL, DATA_RECORD, ETCD_DATA, ETCD_WAL, EtcdData, STATE};

/// A shell function `etcd_data` that prints a line for each fact of [`EtcdData`] that is true. It needs only a POSIX shell
/// and `stat` of coreutils.
pub(super) fn shell() -> String {
    below("")
}

/// As [`shell`], in a directory.
fn below(root: &str) -> String {
    format!(
        r#"etcd_data() {{
  [ ! -e {root}{DATA_RECORD} ] || printf 'data-record %s\n' "$(tr -d '\n' <{root}{DATA_RECORD})"
  [ ! -e {root}{DATA_LABEL} ] || printf 'data-label %s\n' "$(cat {root}{DATA_LABEL})"
  [ ! -d {root}{ETCD_DATA} ] || echo data-exists
  [ "$(stat -Lc %d {root}{ETCD_DATA} 2>/dev/null)" = "$(stat -Lc %d {root}{STATE} 2>/dev/null)" ] ||
    [ ! -d {root}{ETCD_DATA} ] || [ ! -d {root}{STATE} ] || echo data-mounted
  [ ! -d {root}{ETCD_WAL} ] || echo data-wal
  [ ! -e {root}{STATE}/units/etcd.service ] || echo data-unit-recorded
}}
"#
    )
}

/// Takes a line of what `etcd_data` prints. Returns whether it was one.
pub(super) fn take(data: &mut EtcdData, key: &str, value: &str) -> bool {
    match key {
        // An unreadable record counts as that of a host that is older than the record.
        "data-record" => data.record = serde_json::from_str(value).ok(),
        "data-label" => data.label = Some(value.trim().to_owned()),
        "data-exists" => data.exists = true,
        "data-mounted" => data.mounted = true,
        "data-wal" => data.wal = true,
        "data-unit-recorded" => data.unit_recorded = true,
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::protocol::host::{DataState, Loss};

    #[test]
    fn the_shell_finds_what_was_there_and_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
        let look = || {
            let script = format!("{}etcd_data", below(&folder.path().display().to_string()));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let mut data = EtcdData::default();
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                let (key, value) = line.split_once(' ').unwrap_or((line, ""));
                assert!(take(&mut data, key, value), "{line}");
            }
            data
        };
        assert_eq!(look(), EtcdData::default());
        std::fs::create_dir_all(at(ETCD_WAL)).unwrap();
        std::fs::create_dir_all(at(STATE)).unwrap();
        std::fs::write(at(DATA_LABEL), "1\n").unwrap();
        std::fs::write(at(DATA_RECORD), "{\"id\":\"1\",\"mounted\":false,\"started\":true}\n").unwrap();
        assert_eq!(look().state(), DataState::Present);
        std::fs::remove_dir_all(at(ETCD_DATA)).unwrap();
        assert_eq!(look().state(), DataState::Lost(Loss::NoDirectory));
    }
}
