//! The state of a machine before anything is installed on it, read with one shell command.
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::ownership;
use crate::host::{Command, Host, HostError};
use kmctl_core::cluster::{Route, routes};
use kmctl_core::protocol::host::Ownership;

/// Prints `key value` lines. Needs only a POSIX shell and what every systemd distribution has. `$@` are the ports to
/// check.
const LOOK: &str = r#"
say() { printf '%s %s\n' "$1" "$2"; }
say time "$(date +%s.%N)"
say uid "$(id -u)"
say machine "$(uname -m)"
say kernel "$(uname -r)"
say hostname "$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"
[ -r /etc/os-release ] && say os "$(. /etc/os-release; echo "$PRETTY_NAME")"
say init "$(cat /proc/1/comm)"
say systemd "$(systemctl --version 2>/dev/null | head -n 1)"
say state "$(systemctl is-system-running 2>/dev/null)"
say cpus "$(nproc)"
say memory "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
for folder in /var/lib /usr/local/lib /etc; do
  say "free:$folder" "$(df -Pk "$folder" | tail -n 1 | { read -r device size used free rest; echo "$free"; })"
  [ -w "$folder" ] || say "readonly:$folder" yes
done
for port in "$@"; do
  line=$(ss -Hltnp "sport = :$port" 2>/dev/null | head -n 1)
  case $line in
  '') ;;
  *'users:(("'*) say "port:$port" "$(echo "$line" | sed 's/.*users:(("\([^"]*\)".*/\1/')" ;;
  # A socket of the kernel's, or of a process in a container.
  *) say "port:$port" "an unknown program" ;;
  esac
done
while read -r line; do say routes "$line"; done </proc/net/route
ownership
exit 0
"#;

/// Ports that the control plane listens on, and our own processes that may be using them already.
pub const PORTS: [(u16, &str); 7] = [
    (2379, "etcd"),
    (2380, "etcd"),
    (6443, "kube-apiserver"),
    (10257, "kube-controller"),
    (10259, "kube-scheduler"),
    (10270, "km"),
    (10271, "km"),
];

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// User id of a privileged command.
    pub uid: Option<u32>,
    /// CPU architecture, as printed by `uname -m`.
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// The hostname that it reports.
    pub hostname: String,
    /// Distribution and version.
    pub os: String,
    /// Name of process 1.
    pub init: String,
    /// systemd's version line. Empty without systemd.
    pub systemd: String,
    /// The system state reported by systemd: running, degraded …
    pub state: String,
    /// Number of CPUs.
    pub cpus: u64,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Free KiB by directory.
    pub free_kib: BTreeMap<String, u64>,
    /// Directories that cannot be written.
    pub readonly: Vec<String>,
    /// Processes that listen on the control plane's ports.
    pub ports: BTreeMap<u16, String>,
    /// Whose it is.
    pub ownership: Ownership,
    /// Its routes, without the default ones.
    pub routes: Vec<Route>,
    /// How far its clock is ahead of ours, in seconds.
    pub ahead: f64,
    /// The uncertainty of `ahead`: half the round-trip time.
    pub within: f64,
}

/// Inspects a machine. Changes nothing.
pub async fn look(host: &dyn Host) -> Result<Machine, HostError> {
    let script = format!("{}{LOOK}", ownership::shell());
    let mut argv: Vec<String> = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    argv.extend(PORTS.iter().map(|(port, _)| port.to_string()));
    let before = now();
    let output = host.run(Command::new(argv).privileged()).await?;
    let after = now();
    if !output.success() {
        let what = format!("failed to run a shell as root (exit status {}): {}", output.status, output.last_words());
        return Err(HostError::Unsupported(what));
    }
    read(&output.text(), before, after).map_err(HostError::Unsupported)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

fn read(text: &str, before: f64, after: f64) -> Result<Machine, String> {
    let mut machine = Machine::default();
    for line in text.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match key.split_once(':').unwrap_or((key, "")) {
            ("time", _) => {
                // The time was read somewhere between the two: the middle is off by at most half of the interval.
                machine.ahead = value.parse::<f64>().map_or(0.0, |seen| seen - f64::midpoint(before, after));
                machine.within = (after - before) / 2.0;
            }
            ("uid", _) => machine.uid = value.parse().ok(),
            ("machine", _) => machine.architecture = value.to_owned(),
            ("kernel", _) => machine.kernel = value.to_owned(),
            ("hostname", _) => machine.hostname = value.to_owned(),
            ("os", _) => machine.os = value.to_owned(),
            ("init", _) => machine.init = value.to_owned(),
            ("systemd", _) => machine.systemd = value.to_owned(),
            ("state", _) => machine.state = value.to_owned(),
            ("cpus", _) => machine.cpus = value.parse().unwrap_or(0),
            ("memory", _) => machine.memory_kib = value.parse().unwrap_or(0),
            ("free", folder) => {
                machine.free_kib.insert(folder.to_owned(), value.parse().unwrap_or(0));
            }
            ("readonly", folder) => machine.readonly.push(folder.to_owned()),
            ("port", port) => {
                if let Ok(port) = port.parse() {
                    machine.ports.insert(port, value.to_owned());
                }
            }
            ("routes", _) => machine.routes.extend(routes(value)),
            (key, _) => drop(ownership::take(&mut machine.ownership, key, value)?),
        }
    }
    Ok(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::LocalHost;

    #[tokio::test]
    async fn this_machine_is_seen_as_it_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = look(&LocalHost).await.unwrap();
        drop(listener);
        assert!(!machine.architecture.is_empty() && machine.cpus > 0 && machine.memory_kib > 0, "{machine:?}");
        assert!(machine.free_kib["/var/lib"] > 0);
        assert!(machine.ahead.abs() <= machine.within + 0.001, "{machine:?}");
    }

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_round_trip() {
        let machine = read(
            "time 1003.5\nport:6443 nginx\nreadonly:/etc yes\nroutes docker0 00001EAC 00000000 0001 0 0 0 0000FFFF 0\n",
            1000.0,
            1001.0,
        )
        .unwrap();
        assert_eq!((machine.ahead, machine.within), (3.0, 0.5));
        assert_eq!(machine.ports[&6443], "nginx");
        assert_eq!(machine.readonly, ["/etc"]);
        let route = Route { network: "172.30.0.0/16".parse().unwrap(), device: "docker0".to_owned() };
        assert_eq!(machine.routes, [route]);
    }
}
