//! `km node` and `km node-child`, as the command line starts them.
use std::os::unix::process::CommandExt;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use super::deps::DepError;

/// Gives the process a mount namespace of its own. Must be called before any thread exists: a namespace is left per
/// thread.
pub fn enter_mount_namespace() -> Result<(), DepError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(DepError::io("leave the agent's mount namespace (km node needs root)"))?;
    // What the host mounts later must be seen; what the node mounts must not be, and dies with its last process.
    let change = |flags, what: &str| {
        mount(None::<&str>, "/", None::<&str>, flags | MsFlags::MS_REC, None::<&str>).map_err(DepError::io(what))
    };
    change(MsFlags::MS_SLAVE, "follow the host's mounts")?;
    change(MsFlags::MS_SHARED, "share mounts inside the node")
}

/// Becomes the program `argv`, with a process group of its own, and ends with `parent`. Returns only what went wrong.
pub fn become_child(parent: i32, argv: &[String]) -> DepError {
    let Some((program, arguments)) = argv.split_first() else {
        return DepError::Refused("no program to become".to_owned());
    };
    let prepared = set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| setpgid(Pid::from_raw(0), Pid::from_raw(0)))
        .map_err(DepError::io("leave the parent's process group"));
    if let Err(error) = prepared {
        return error;
    }
    // It may have ended before the kernel was told to send the signal.
    if nix::unistd::getppid() != Pid::from_raw(parent) {
        return DepError::Refused("the node agent is gone".to_owned());
    }
    let source = std::process::Command::new(program).args(arguments).exec();
    DepError::Io { what: format!("start {program}"), source }
}
