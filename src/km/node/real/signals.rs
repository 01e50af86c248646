//! Signals to processes that may already be gone.
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

/// Sends SIGTERM.
pub fn terminate(pid: i32) {
    let _ = send(Pid::from_raw(pid), Signal::SIGTERM);
}

/// Sends SIGKILL.
pub fn kill(pid: i32) {
    let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Every process whose command line contains `text`, except this process and its ancestors.
pub fn naming(text: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = ancestors();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| !own.contains(pid))
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}

fn ancestors() -> Vec<i32> {
    let mut found = Vec::new();
    let mut pid = std::process::id() as i32;
    while pid > 0 && !found.contains(&pid) {
        found.push(pid);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|id| id.trim().parse().ok());
        pid = parent.unwrap_or(0);
    }
    found
}
