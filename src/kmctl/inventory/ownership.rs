//! Whose a host is, read with a shell: `km` may not be installed there, or be of another version.
use kmctl_core::protocol::host::{EMPTY_FILE_SYSTEM, HostMark, MARK, Ownership, SCHEDULER_CONFIGURATION, TRACES};

/// A shell function `ownership` that prints `mark`, `unmarked` and `trace` lines. It needs only a POSIX shell.
pub(super) fn shell() -> String {
    below("")
}

/// As [`shell`], in a directory.
fn below(root: &str) -> String {
    let traces = TRACES.join(" ");
    format!(
        r#"ownership() {{
  if [ -e {root}{MARK} ]; then printf 'mark %s\n' "$(tr -d '\n' <{root}{MARK})"
  elif [ -e {root}{SCHEDULER_CONFIGURATION} ]; then
    printf 'unmarked %s\n' "$(sed -n 's/^cluster: *//p' {root}{SCHEDULER_CONFIGURATION} | head -n 1)"
  fi
  for trace in {traces}; do
    if [ -d "{root}$trace" ]; then
      [ -z "$(ls -A "{root}$trace" | grep -vx {EMPTY_FILE_SYSTEM})" ] || printf 'trace %s\n' "$trace"
    elif [ -e "{root}$trace" ]; then printf 'trace %s\n' "$trace"
    fi
  done
}}
"#
    )
}

/// Takes a line of what `ownership` prints. Returns whether it was one.
///
/// # Errors
/// The host's mark cannot be read.
pub(super) fn take(ownership: &mut Ownership, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "mark" => ownership.mark = Some(HostMark::parse(value)?),
        "unmarked" if value.is_empty() => {}
        "unmarked" => ownership.unmarked = Some(value.to_owned()),
        "trace" => drop(ownership.traces.insert(value.to_owned())),
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::protocol::host::MARK_FORMAT;

    fn read(text: &str) -> Result<Ownership, String> {
        let mut ownership = Ownership::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap();
            assert!(take(&mut ownership, key, value)?, "{line}");
        }
        Ok(ownership)
    }

    #[test]
    fn marks_configurations_and_traces_are_read() {
        let found = read(
            "mark {\"format\":1,\"cluster\":\"demo\",\"id\":\"1\",\"member\":\"cp1\"}\ntrace /var/lib/etcd\ntrace \
             /etc/kubernetes/pki\n",
        )
        .unwrap();
        assert_eq!(found.mark.map(|mark| (mark.cluster, mark.member)), Some(("demo".to_owned(), "cp1".to_owned())));
        assert_eq!(found.traces.len(), 2);
        assert_eq!(read("unmarked demo\n").unwrap().unmarked.as_deref(), Some("demo"));
        assert_eq!(read("unmarked \n").unwrap(), Ownership::default());
    }

    #[test]
    fn a_mark_that_cannot_be_read_is_no_missing_one() {
        for text in ["mark ", "mark {}", "mark {\"format\":2,\"cluster\":\"demo\",\"id\":\"1\",\"member\":\"cp1\"}"] {
            assert!(read(text).unwrap_err().contains(MARK), "{text}");
        }
    }

    /// The shell and `km host inspect` must find the same.
    #[test]
    fn the_shell_finds_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
        for folder in
            ["/etc/kubernetes/manifests", "/var/lib/etcd/lost+found", "/etc/rancher/k3s/data", "/var/lib/kmctl"]
        {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("/etc/kubernetes/admin.conf"), "theirs").unwrap();
        let run = || {
            let script = format!("{}ownership", below(&folder.path().display().to_string()));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(), "trace /etc/kubernetes/admin.conf\ntrace /etc/rancher/k3s\n");
        let mark =
            HostMark { format: MARK_FORMAT, cluster: "demo".to_owned(), id: "1".to_owned(), member: "cp1".to_owned() };
        std::fs::write(at(MARK), format!("{}\n", serde_json::to_string(&mark).unwrap())).unwrap();
        assert_eq!(read(&run()).unwrap().mark, Some(mark));
    }
}
