//! The command line of `km host`. It is run by `kmctl`, not interactively; all input is read from standard input.
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::{apply, etcd, etcd_data, observe, purge, remove};
use kmctl_core::protocol::host::Event;
use kmctl_core::protocol::host::{ETCD_ENVIRONMENT, EXIT_LOCKED, HostManifest, Item, LeaveRequest, RemoveRequest};

/// `km host`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Use this directory instead of the host; systemd, health checks and the API are skipped
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
    /// Ends the process, as kill -9 would, after so many durable steps (for tests).
    #[arg(long, global = true, hide = true)]
    stop_after: Option<u32>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Action {
    /// Compare this host with the manifest on standard input
    Inspect,
    /// Apply the stream on standard input to this host
    Apply,
    /// Print the keys that all control-plane hosts share, for the manifest on standard input
    Export,
    /// Remove all nodes, clean up agents, and wait until it is done
    PurgeNodes,
    /// Allow nodes again after a purge
    ForgetPurge,
    /// Uninstall
    Remove,
    /// Remove the etcd member of a host that is no longer part of the cluster
    Leave,
    /// Fail if etcd must not start because its data are missing; run by etcd's unit
    CheckEtcdData,
}

/// Runs `km host`.
pub fn run(arguments: Arguments) -> ExitCode {
    let Arguments { action, root, stop_after } = arguments;
    let root = Root::new(&root, stop_after);
    if action.reports_events() {
        std::thread::spawn(end_without_reader);
    }
    let mut out = io::stdout().lock();
    let mut input = BufReader::with_capacity(1 << 20, io::stdin().lock());
    match perform(action, &root, &mut input, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", apply::causes(&error).join("\ncaused by: "));
            ExitCode::from(status_of(&error))
        }
    }
}

impl Action {
    /// Whether the action holds the lock and reports events.
    fn reports_events(self) -> bool {
        match self {
            Action::Apply | Action::Remove | Action::Leave | Action::PurgeNodes => true,
            Action::Inspect | Action::Export | Action::ForgetPurge | Action::CheckEtcdData => false,
        }
    }
}

/// Ends the process when the reader of its events is gone, as a kill would. Otherwise the operator's next run would
/// find the host locked by a step that reports nothing for a long time, such as the restart of a unit. The next run
/// completes it.
fn end_without_reader() {
    let out = io::stdout();
    // With no requested events, poll still reports that the other end was closed. It returns early only on signals.
    while let Err(nix::errno::Errno::EINTR) =
        poll(&mut [PollFd::new(out.as_fd(), PollFlags::empty())], PollTimeout::NONE)
    {}
    std::process::exit(i32::from(status_of(&AgentError::Deserted)));
}

/// The exit status of a failed run.
pub fn status_of(error: &AgentError) -> u8 {
    match error {
        AgentError::Locked(_) => u8::try_from(EXIT_LOCKED).unwrap_or(1),
        _ => 1,
    }
}

/// Performs one action with the given standard input and output.
pub fn perform(action: Action, root: &Root, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), AgentError> {
    let outcome = match action {
        Action::Inspect => return inspect(root, input, out),
        Action::Export => return export(root, input, out),
        Action::CheckEtcdData => return etcd_data::check(root, ETCD_ENVIRONMENT),
        Action::Apply => apply::apply(root, input, &mut Reporter::new(out), Timestamp::now()),
        Action::ForgetPurge => return purge::forget_purge(root),
        Action::PurgeNodes => purge::purge_nodes(root, &mut Reporter::new(out)),
        Action::Remove => read_input::<RemoveRequest>(input, "the request")
            .and_then(|request| remove::remove(root, request, &mut Reporter::new(out))),
        Action::Leave => read_input::<LeaveRequest>(input, "the request")
            .and_then(|request| etcd::leave(root, &request, &mut Reporter::new(out))),
    };
    outcome.inspect_err(|error| {
        // An item's failure has already been reported with its journal; only the last event counts.
        let event = Event::Failed { item: None, causes: apply::causes(error), journal: Vec::new() };
        let _ = Reporter::new(out).send(&event);
    })
}

fn inspect(root: &Root, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), AgentError> {
    let manifest: HostManifest = read_input(input, "the manifest")?;
    print(out, &observe::observe(root, &manifest, Timestamp::now())?)
}

fn export(root: &Root, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), AgentError> {
    let manifest: HostManifest = read_input(input, "the manifest")?;
    let mut files = BTreeMap::new();
    for path in manifest.items.iter().filter(|item| item.is_shared()).flat_map(Item::paths) {
        if let Some(bytes) = root.bytes(&path)? {
            files.insert(path, BASE64_STANDARD.encode(bytes));
        }
    }
    print(out, &files)
}

fn read_input<T: DeserializeOwned>(input: &mut dyn BufRead, what: &str) -> Result<T, AgentError> {
    let failed = |source| AgentError::Input { what: format!("read {what}"), source };
    let mut text = Vec::new();
    input.read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(io::Error::other(error)))
}

fn print(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), AgentError> {
    serde_json::to_writer(&mut *out, value).map_err(|_| AgentError::Deserted)?;
    writeln!(out).and_then(|()| out.flush()).map_err(|_| AgentError::Deserted)
}
