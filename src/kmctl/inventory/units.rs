//! The state of the control plane's systemd units on a host.
use serde::Serialize;

use crate::host::{Command, Host, HostError};

/// The units of a control-plane host, in the order of their dependencies.
pub const UNITS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "km-scheduler", "km-endpoints"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// The name without `.service`.
    pub name: String,
    /// `active`, `failed`, `activating` …, or `missing` if it is not installed.
    pub state: String,
    /// The detailed state: `running`, `auto-restart` …
    pub detail: String,
    /// How often systemd has restarted it by itself.
    pub restarts: u64,
}

impl Unit {
    /// Whether it is active and running.
    pub fn runs(&self) -> bool {
        self.state == "active" && self.detail == "running"
    }
}

/// Queries all units.
pub async fn look(host: &dyn Host) -> Result<Vec<Unit>, HostError> {
    let mut argv = vec!["systemctl", "show", "--property=Id,LoadState,ActiveState,SubState,NRestarts"];
    let names: Vec<String> = UNITS.iter().map(|unit| format!("{unit}.service")).collect();
    argv.extend(names.iter().map(String::as_str));
    let output = host.run(Command::new(argv)).await?;
    if !output.success() {
        return Err(HostError::Unsupported(format!("failed to query systemd: {}", output.last_words())));
    }
    Ok(read(&output.text()))
}

/// Parses blocks of `Key=value` lines, one per unit.
fn read(text: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut unit = Unit::default();
        let mut loaded = true;
        for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "Id" => unit.name = value.trim_end_matches(".service").to_owned(),
                "LoadState" => loaded = value != "not-found",
                "ActiveState" => unit.state = value.to_owned(),
                "SubState" => unit.detail = value.to_owned(),
                "NRestarts" => unit.restarts = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        if !loaded {
            unit = Unit { state: "missing".to_owned(), name: unit.name, ..Unit::default() };
        }
        units.push(unit);
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    #[tokio::test]
    async fn units_are_told_with_their_state() {
        let answer = "Id=etcd.service\nLoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\n\n\
                      NRestarts=7\nId=kube-scheduler.service\nLoadState=loaded\nActiveState=activating\n\
                      SubState=auto-restart\n\nId=km-endpoints.service\nLoadState=not-found\nActiveState=inactive\n\
                      SubState=dead\nNRestarts=0\n";
        let host = FakeHost::new("cp1").answers("systemctl show", 0, answer);
        let units = look(&host).await.unwrap();
        let seen: Vec<_> = units.iter().map(|u| (u.name.as_str(), u.state.as_str(), u.restarts, u.runs())).collect();
        let expected = [
            ("etcd", "active", 0, true),
            ("kube-scheduler", "activating", 7, false),
            ("km-endpoints", "missing", 0, false),
        ];
        assert_eq!(seen, expected);
    }
}
