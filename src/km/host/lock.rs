//! The lock that lets one run at a time change a host.
use kmctl_core::protocol::host::LockOwner;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::AgentError;
use super::files::Root;
use kmctl_core::protocol::host::STATE;

/// How long a run waits for another: the host notices within seconds that a killed `kmctl` is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Held until dropped, or until the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

fn path(root: &Root) -> std::path::PathBuf {
    root.at(STATE).join("lock")
}

/// Takes the lock, waiting up to `PATIENCE` for another run to end.
pub(crate) fn take(root: &Root, mut holder: LockOwner) -> Result<Lock, AgentError> {
    let path = path(root);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(AgentError::file("make the folder", folder))?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(AgentError::file("open", &path))?;
    let started = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                holder.pid = std::process::id();
                holder.since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let text = serde_json::to_vec(&holder).unwrap_or_default();
                lock.set_len(0)
                    .and_then(|()| lock.seek(SeekFrom::Start(0)))
                    .and_then(|_| lock.write_all(&text))
                    .map_err(AgentError::file("write", &path))?;
                return Ok(Lock(lock));
            }
            Err((refused, _)) => {
                if started.elapsed() >= PATIENCE {
                    return Err(AgentError::Locked(read(refused)));
                }
                file = refused;
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// The current holder of the lock, if any.
pub(crate) fn holder(root: &Root) -> Option<LockOwner> {
    let file = File::open(path(root)).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err((file, _)) => Some(read(file)),
    }
}

fn read(mut file: File) -> LockOwner {
    let mut text = String::new();
    // An unreadable holder is shown as unknown; only the lock itself matters.
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
    serde_json::from_str(&text).unwrap_or_default()
}
