//! A control-plane host of a test's own: a real sshd and the real `km host` in mount, process and host-name namespaces.
//!
//! `/etc`, `/var/lib` and `/usr/local` are overlays over this machine's, so what a run installs lies in the test's own
//! folder. systemd is a script that keeps a file per unit; nothing is executed when a unit starts, and what would
//! answer then is in [`super::components`].
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fixture::sshd::Sshd;

/// Process 1 of the machine, whose name `kmctl check` looks at. `$1` is the machine's folder, `$2` its name, and the
/// rest is what runs there.
const INIT: &str = r#"#!/bin/sh
set -e
machine=$1 name=$2
shift 2
echo "$name" >/proc/sys/kernel/hostname
for part in etc var/lib usr/local; do
  mount -t overlay overlay -o "lowerdir=/$part,upperdir=$machine/$part,workdir=$machine/work/$part" "/$part"
done
for program in systemctl journalctl; do
  mount --bind "$machine/$program" "/usr/bin/$program"
done
# What the administrator of the machine that runs the tests runs at each login has no place there.
mount -t tmpfs -o mode=0700 tmpfs /root
"$@"
"#;

/// A unit UNIT is enabled while `UNIT.enabled` exists, and runs while `UNIT.active` does. A test makes `UNIT.fails`, and
/// its start fails; or `UNIT.held`, and its start takes until that is gone; or `UNIT.hidden`, and telling its state does.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd UNITS || exit 1
action=$1
shift
stop() { rm -f "$1.active"; }
case $action in
--version) echo 'systemd 252 (252.38-1~deb12u1)' ;;
is-system-running) echo running ;;
daemon-reload | reset-failed) ;;
is-active) for unit; do :; done; [ -e "$unit.active" ] ;;
enable) for unit; do case $unit in --*) ;; *) : >"$unit.enabled" ;; esac; done ;;
disable) for unit; do :; done; rm -f "$unit.enabled"; stop "$unit" ;;
stop) stop "$1" ;;
restart)
  if [ -e "$1.fails" ]; then
    echo "Job for $1 failed because the control process exited with error code." >&2
    exit 1
  fi
  while [ -e "$1.held" ]; do sleep 0.1; done
  # What they do first: etcd makes its data, km scheduler keeps its framework's id.
  case $1 in
  etcd.service)
    before=$(sed -n 's/^ExecStartPre=//p' /etc/systemd/system/etcd.service)
    $before || { echo "Job for $1 failed because the control process exited with error code." >&2; exit 1; }
    mkdir -p -m 0700 /var/lib/etcd/member/wal
    ;;
  km-scheduler.service) echo the-framework >/var/lib/kmctl/scheduler/framework-id ;;
  esac
  : >"$1.active"
  ;;
show)
  for unit; do
    case $unit in --*) continue ;; esac
    while [ -e "$unit.hidden" ]; do sleep 0.1; done
    echo "Id=$unit"
    if [ -e "/etc/systemd/system/$unit" ]; then echo LoadState=loaded; else echo LoadState=not-found; fi
    if [ -e "$unit.active" ]; then
      printf 'ActiveState=active\nSubState=running\n'
    else
      printf 'ActiveState=inactive\nSubState=dead\n'
    fi
    if [ -e "$unit.enabled" ]; then echo UnitFileState=enabled; else echo UnitFileState=; fi
    printf 'NeedDaemonReload=no\nNRestarts=0\nInvocationID=1\n\n'
  done
  ;;
*)
  echo "systemctl of the tests does not know $action" >&2
  exit 1
  ;;
esac
"#;

/// What a unit that failed has said.
const JOURNALCTL: &str = r#"#!/bin/sh
echo 'listen tcp 127.0.0.1:2379: bind: address already in use'
"#;

/// A running machine; ended with all its processes when dropped.
pub struct Machine {
    folder: PathBuf,
    sshd: Sshd,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Machine {
    /// Starts a machine that keeps everything in a new folder `name` of `parent`.
    pub fn start(parent: &Path, name: &str, address: Ipv4Addr) -> Machine {
        let folder = parent.join(name);
        for part in ["etc", "var/lib", "usr/local", "work/etc", "work/var/lib", "work/usr/local", "units"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        let units = folder.join("units");
        let programs = [
            ("systemd", INIT.to_owned()),
            ("systemctl", SYSTEMCTL.replace("UNITS", &units.display().to_string())),
            ("journalctl", JOURNALCTL.to_owned()),
        ];
        for (program, text) in programs {
            let path = folder.join(program);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        // `kmctl check` tells the distribution; it shall be the same one on every machine that runs the tests.
        std::fs::write(folder.join("etc/os-release"), "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap();
        let sshd = Sshd::launch(SocketAddr::from((address, 22)), &["ed25519"], "", |argv| {
            let mut command = Command::new("unshare");
            // With the first process, every other one of the machine ends.
            command.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
            command.arg(folder.join("systemd")).arg(&folder).arg(name).args(argv).stdin(Stdio::null());
            command
        });
        Machine { folder, sshd, name: name.to_owned(), address }
    }

    /// A file of the machine that a run has written, seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// Everything that a run has changed there: paths with modes, and what is in files.
    pub fn changes(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut changes = BTreeMap::new();
        let mut folders: Vec<PathBuf> = ["etc", "var/lib", "usr/local"].iter().map(|part| self.path(part)).collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let about = std::fs::symlink_metadata(&path).unwrap();
                let content = if about.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
                if about.is_dir() {
                    folders.push(path.clone());
                }
                changes.insert(path, (about.permissions().mode(), content));
            }
        }
        changes
    }

    /// The file that says something about a unit; see [`SYSTEMCTL`].
    pub fn unit(&self, unit: &str, what: &str) -> PathBuf {
        self.folder.join("units").join(format!("{unit}.service.{what}"))
    }

    /// How many commands it has been asked to run.
    pub fn commands(&self) -> usize {
        self.sshd.log().matches("Starting session").count()
    }

    /// The key that is let in.
    pub fn login(&self) -> PathBuf {
        self.sshd.path("login")
    }

    /// Its line of known_hosts.
    pub fn known(&self) -> String {
        format!("{} {}\n", self.address, self.host_key())
    }

    /// `type base64` of its host key.
    pub fn host_key(&self) -> String {
        self.sshd.public("ed25519")
    }

    /// Runs a script there, as an administrator with an SSH client would.
    pub fn run(&self, script: &str) {
        let known = self.sshd.path("known");
        std::fs::write(&known, self.known()).unwrap();
        let output = Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o"])
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-i")
            .arg(self.login())
            .arg(format!("root@{}", self.address))
            .arg(script)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
