//! systemd: the state of units, the records of what they were started with, and starting and stopping them.
use kmctl_core::protocol::host::UnitState;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::AgentError;
use super::files::Root;
use kmctl_core::protocol::host::STATE;

/// Interval of the progress reports while a command runs.
const WAITING: Duration = Duration::from_secs(2);

/// Queries systemd for all units at once. Empty in a private root.
pub(crate) fn states(root: &Root, names: &[String]) -> Result<BTreeMap<String, UnitState>, AgentError> {
    if !root.is_host() || names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut arguments = vec!["show", "--property=Id,ActiveState,UnitFileState,NeedDaemonReload,InvocationID"];
    arguments.extend(names.iter().map(String::as_str));
    let mut states = parse(&systemctl(&arguments)?);
    for (name, state) in &mut states {
        state.recorded = root.mode(&record(name)).is_some();
    }
    Ok(states)
}

fn parse(text: &str) -> BTreeMap<String, UnitState> {
    let mut states = BTreeMap::new();
    for block in text.split("\n\n") {
        let mut id = String::new();
        let mut state = UnitState::default();
        for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "Id" => id = value.to_owned(),
                "ActiveState" => state.active = value.to_owned(),
                "UnitFileState" => state.enabled = value.to_owned(),
                "InvocationID" => state.invocation = value.to_owned(),
                "NeedDaemonReload" => state.stale_definition = value == "yes",
                _ => {}
            }
        }
        states.insert(id, state);
    }
    states
}

/// Directory of the records of what units were started with.
pub(crate) fn records() -> String {
    format!("{STATE}/units")
}

fn record(name: &str) -> String {
    format!("{}/{name}", records())
}

/// Loads changed unit files.
pub(crate) fn reload(root: &Root) -> Result<(), AgentError> {
    if root.is_host() { systemctl(&["daemon-reload"]).map(drop) } else { Ok(()) }
}

/// Enables units at boot. All in one command, because systemd reloads all unit files after each.
pub(crate) fn enable(root: &Root, names: &[&str]) -> Result<(), AgentError> {
    if !root.is_host() || names.is_empty() {
        return Ok(());
    }
    systemctl(&[&["enable", "--quiet"], names].concat()).map(drop)
}

/// Restarts a unit. `failed`: systemd lists it as failed.
pub(crate) fn restart(root: &Root, name: &str, failed: bool) -> Result<(), AgentError> {
    if root.is_host() {
        if failed {
            // systemd refuses to start a unit that failed too often.
            systemctl(&["reset-failed", name]).ok();
        }
        systemctl(&["restart", name])?;
    }
    Ok(())
}

/// The fingerprint of the files that a unit was started with, if a run has started it.
pub(crate) fn started_with(root: &Root, name: &str) -> Result<Option<String>, AgentError> {
    root.text(&record(name))
}

/// Records what a unit was started with.
pub(crate) fn record_start(root: &Root, name: &str, fingerprint: &str) -> Result<(), AgentError> {
    root.write(&record(name), 0o600, fingerprint.as_bytes())
}

/// Records that a unit started by a run now has changed files. The record itself is kept: it shows that other
/// components rely on the unit.
pub(crate) fn outdate(root: &Root, name: &str) -> Result<(), AgentError> {
    let record = record(name);
    if root.mode(&record).is_some() { root.write(&record, 0o600, b"older files") } else { Ok(()) }
}

/// Stops and disables a unit; returns whether it was running or enabled. `waiting` is called every two seconds with the
/// elapsed time.
pub(crate) fn stop(
    root: &Root,
    name: &str,
    waiting: &mut dyn FnMut(Duration) -> Result<(), AgentError>,
) -> Result<bool, AgentError> {
    if !root.is_host() {
        return Ok(true);
    }
    let there = states(root, &[name.to_owned()])?
        .get(name)
        .is_some_and(|state| state.active != "inactive" || state.enabled == "enabled");
    if there {
        systemctl_patiently(&["disable", "--quiet", "--now", name], waiting)?;
        // Otherwise systemd keeps listing a unit that exited with an error as failed.
        systemctl(&["reset-failed", name]).ok();
    }
    Ok(there)
}

/// The last lines of a unit's journal.
pub(crate) fn journal(name: &str) -> Vec<String> {
    Command::new("journalctl")
        .args(["--no-pager", "--output=cat", "--lines=20", "--unit", name])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

fn systemctl(arguments: &[&str]) -> Result<String, AgentError> {
    systemctl_patiently(arguments, &mut |_| Ok(()))
}

fn systemctl_patiently(
    arguments: &[&str],
    waiting: &mut dyn FnMut(Duration) -> Result<(), AgentError>,
) -> Result<String, AgentError> {
    let mut command = Command::new("systemctl");
    command.args(arguments);
    run_patiently(command, &format!("systemctl {}", arguments.join(" ")), waiting)
}

fn run_patiently(
    mut command: Command,
    what: &str,
    waiting: &mut dyn FnMut(Duration) -> Result<(), AgentError>,
) -> Result<String, AgentError> {
    let failed = |source| AgentError::Input { what: format!("run {what}"), source };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(failed)?;
    let started = Instant::now();
    // A run starts some dozens of commands, most of which end within milliseconds: a waiting thread notices that at
    // once.
    let (ended, outcome) = channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let output = loop {
        match outcome.recv_timeout(WAITING) {
            Ok(output) => break output.map_err(failed)?,
            Err(RecvTimeoutError::Timeout) => waiting(started.elapsed())?,
            Err(RecvTimeoutError::Disconnected) => return Err(failed(std::io::Error::other("its thread ended"))),
        }
    };
    let what = what.to_owned();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(AgentError::Unit { what, output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_program_is_told_so_every_two_seconds() {
        let mut told = Vec::new();
        let mut sleep = Command::new("sleep");
        sleep.arg("4.5");
        run_patiently(sleep, "sleep", &mut |since| {
            told.push(since.as_secs());
            Ok(())
        })
        .unwrap();
        assert_eq!(told, [2, 4]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo no >&2; exit 3"]);
        let error = run_patiently(shell, "sh", &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "sh: no");
    }

    #[test]
    fn systemctl_show_is_read_unit_by_unit() {
        let text = "Id=etcd.service\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\nInvocationID=ab\n\n\
                    InvocationID=\nId=km-scheduler.service\nActiveState=inactive\nUnitFileState=\nNeedDaemonReload=yes\n";
        let states = parse(text);
        assert_eq!(
            states["etcd.service"],
            UnitState {
                active: "active".to_owned(),
                enabled: "enabled".to_owned(),
                invocation: "ab".to_owned(),
                stale_definition: false,
                recorded: false
            }
        );
        assert!(states["km-scheduler.service"].stale_definition);
        assert_eq!(states["km-scheduler.service"].active, "inactive");
    }
}
