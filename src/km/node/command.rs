//! `km node` and `km node-child`, as the command line starts them.
use std::os::unix::process::CommandExt;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use super::deps::DepError;

/// Gives the process its own mount namespace. Must be called before any other thread exists: a namespace is changed per
/// thread.
pub fn enter_mount_namespace() -> Result<(), DepError> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(DepError::io("leave the mount namespace of the Mesos agent (requires root)"))?;
    // Later mounts of the host must be visible here. Mounts of the node must not be visible on the host, and disappear
    // with its last process.
    let change = |flags, what: &str| {
        mount(None::<&str>, "/", None::<&str>, flags | MsFlags::MS_REC, None::<&str>).map_err(DepError::io(what))
    };
    change(MsFlags::MS_SLAVE, "follow the mounts of the host")?;
    change(MsFlags::MS_SHARED, "share mounts inside the node")
}

/// Replaces this process with the binary `argv`, in its own process group; it is killed when `parent` ends. Returns
/// only on failure.
pub fn become_child(parent: i32, argv: &[String]) -> DepError {
    let Some((program, arguments)) = argv.split_first() else {
        return DepError::Refused("no command".to_owned());
    };
    let prepared = set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| setpgid(Pid::from_raw(0), Pid::from_raw(0)))
        .map_err(DepError::io("leave the parent's process group"));
    if let Err(error) = prepared {
        return error;
    }
    // The parent may have ended before the death signal was set.
    if nix::unistd::getppid() != Pid::from_raw(parent) {
        return DepError::Refused("the node agent has exited".to_owned());
    }
    let source = std::process::Command::new(program).args(arguments).exec();
    DepError::Io { what: format!("start {program}"), source }
}
