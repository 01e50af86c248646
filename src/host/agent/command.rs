//! The command line of `km host`. It is run by `kmctl`, not by people; everything comes over standard input.
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::events::{Event, Reporter};
use super::files::Root;
use super::{AgentError, EXIT_LOCKED, HostManifest, Item, RemoveRequest, apply, objects, observe, remove};

/// `km host`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Works in this folder instead of the host; systemd, health checks and the API are left out.
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
    /// Ends the process, as kill -9 would, after so many durable steps (for tests).
    #[arg(long, global = true, hide = true)]
    stop_after: Option<u32>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// Compares the host with the manifest on standard input.
    Inspect,
    /// Makes the host what the stream on standard input says.
    Apply,
    /// Prints the keys that every control-plane host shares, for the manifest on standard input.
    Export,
    /// Has km scheduler take every node down and clean the agents, and waits for that.
    PurgeNodes,
    /// Removes what was installed.
    Remove,
}

/// Runs `km host`.
pub fn run(arguments: Arguments) -> ExitCode {
    let Arguments { action, root, stop_after } = arguments;
    let root = Root::new(&root, stop_after);
    let mut out = io::stdout().lock();
    let outcome = match action {
        Action::Inspect => inspect(&root, &mut out),
        Action::Export => export(&root, &mut out),
        Action::Apply => {
            let mut reporter = Reporter::new(&mut out);
            let mut stream = BufReader::with_capacity(1 << 20, io::stdin().lock());
            apply::apply(&root, &mut stream, &mut reporter, Timestamp::now())
        }
        Action::PurgeNodes => objects::purge_nodes(&root, &mut Reporter::new(&mut out)),
        Action::Remove => {
            let mut reporter = Reporter::new(&mut out);
            read_input::<RemoveRequest>("the request").and_then(|request| remove::remove(&root, request, &mut reporter))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = apply::causes(&error);
            eprintln!("error: {}", causes.join("\ncaused by: "));
            if matches!(action, Action::Apply | Action::Remove | Action::PurgeNodes) {
                // An item's failure has been reported with its journal already; the last event counts either way.
                let event = Event::Failed { item: None, causes, journal: Vec::new() };
                let _ = Reporter::new(&mut out).send(&event);
            }
            match error {
                AgentError::Locked(_) => ExitCode::from(u8::try_from(EXIT_LOCKED).unwrap_or(1)),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn inspect(root: &Root, out: &mut dyn Write) -> Result<(), AgentError> {
    let manifest: HostManifest = read_input("the manifest")?;
    print(out, &observe::observe(root, &manifest, Timestamp::now())?)
}

fn export(root: &Root, out: &mut dyn Write) -> Result<(), AgentError> {
    let manifest: HostManifest = read_input("the manifest")?;
    let mut files = BTreeMap::new();
    for path in manifest.items.iter().filter(|item| item.is_shared()).flat_map(Item::paths) {
        if let Some(bytes) = root.bytes(&path)? {
            files.insert(path, BASE64_STANDARD.encode(bytes));
        }
    }
    print(out, &files)
}

fn read_input<T: DeserializeOwned>(what: &str) -> Result<T, AgentError> {
    let failed = |source| AgentError::Input { what: format!("read {what}"), source };
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(io::Error::other(error)))
}

fn print(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), AgentError> {
    serde_json::to_writer(&mut *out, value).map_err(|_| AgentError::Deserted)?;
    writeln!(out).and_then(|()| out.flush()).map_err(|_| AgentError::Deserted)
}
