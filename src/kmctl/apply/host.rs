//! Installs `km` on a host and has it apply the manifest.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::sync::mpsc;

use super::ApplyError;
use super::limits::Limits;
use super::stream::{self, Missing, Part};
use crate::host::{Command, Host, Output};
use crate::inventory::Found;
use crate::inventory::look;
use kmctl_core::bundle::{Bundle, hex_digest};
use kmctl_core::progress::{Progress, Step};
use kmctl_core::protocol::host::{
    Change, EXIT_LOCKED, EtcdBootstrap, Event, HostManifest, Item, KM, LeaveRequest, LockOwner, MemberSpec, Observed,
    Planned, Section,
};

/// The host prints something at least every two seconds. Unpacking one big file on a slow disk is the longest silence.
const APPLY: Duration = Duration::from_secs(180);

/// Writes standard input to a new file and renames it when it is complete. `$1` is the path, `$2` its size: SSH ensures
/// that the received bytes are those sent, but a connection that ends early looks like the end of the file.
const RECEIVE: &str = r#"set -e
mkdir -p "$(dirname "$1")"
new="$1.kmctl-new"
cat >"$new"
[ "$(wc -c <"$new")" -eq "$2" ] || { rm -f "$new"; echo "the upload is incomplete" >&2; exit 1; }
chmod 0755 "$new"
mv "$new" "$1""#;

/// What is the same for all hosts of a run.
#[derive(Clone)]
pub struct Work {
    /// The bundle. `None` if it is not available, which is fine as long as no host lacks a file of it.
    pub bundle: Option<Arc<Bundle>>,
    /// Secret files by their path on the host.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The `km` beside this kmctl, and its sha256.
    pub km: (PathBuf, String),
    /// The cluster's id.
    pub cluster_id: String,
    /// Whether a new cluster may take the place of an older one.
    pub begin_anew: bool,
    /// Who runs this.
    pub holder: LockOwner,
    /// Where work is reported.
    pub progress: Progress,
    /// How much is done concurrently.
    pub limits: Limits,
    /// Files of the bundle that were verified: once is enough for all hosts.
    pub verified: Arc<Verified>,
}

/// Files of the bundle by their path on the hosts.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files that are correct. A task that verifies files holds the lock, so that the others wait for the result.
    files: tokio::sync::Mutex<BTreeSet<String>>,
    /// Files whose verification was reported to the operator.
    told: Mutex<BTreeSet<String>>,
}

/// Sends `km` to a host that lacks it or has a different one.
pub async fn install(host: &dyn Host, work: &Work) -> Result<(), ApplyError> {
    let (path, _) = &work.km;
    let step = work.progress.step(host.name(), "Installing km");
    let failed = |source| ApplyError::Km { path: path.clone(), source };
    let file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let command = Command::new(["sh", "-c", RECEIVE, "sh", KM, &total.to_string()]).privileged().timeout(APPLY);
    let (sent, mut moved) = mpsc::channel(16);
    let (lines, _) = mpsc::channel(1);
    let run = host.run_with_input(command, Box::new(file), sent, lines);
    let watch = async {
        while let Some(bytes) = moved.recv().await {
            step.bytes(bytes, total);
        }
    };
    let (output, ()) = tokio::join!(run, watch);
    let what = "install km";
    let output = output.map_err(|source| ApplyError::Host { what, host: host.name().to_owned(), source })?;
    if !output.success() {
        return Err(ApplyError::Refused { what, host: host.name().to_owned(), answer: output.last_words() });
    }
    step.done("Installed km");
    Ok(())
}

/// Updates `km`, and inspects the host again if `km` was not there to compare.
pub(super) async fn prepare(
    host: &dyn Host,
    manifest: &HostManifest,
    found: Found,
    work: &Work,
) -> Result<Found, ApplyError> {
    let current = matches!(&found, Found::Observed(found) if found.km.as_ref() == Some(&work.km.1));
    if current {
        return Ok(found);
    }
    verify(host, &missing(manifest, &found), work).await?;
    install(host, work).await?;
    let found = look(host, manifest).await?;
    if let Found::Observed(seen) = &found
        && seen.km.as_ref() != Some(&work.km.1)
    {
        let answer = "the installed file differs from the uploaded one".to_owned();
        return Err(ApplyError::Refused { what: "install km", host: host.name().to_owned(), answer });
    }
    Ok(found)
}

/// What is known of a host after it was sent the binaries that it lacked.
pub(super) fn with_programs(manifest: &HostManifest, mut found: Found) -> Found {
    if let Found::Observed(found) = &mut found {
        let items = manifest.items.iter().zip(&mut found.items);
        let programs = items.filter(|(item, _)| item.section() == Section::Programs);
        programs.for_each(|(_, seen)| seen.observed = Observed::Same);
    }
    found
}

/// Files of the bundle that are missing on the host or differ.
pub(super) fn missing(manifest: &HostManifest, found: &Found) -> Missing {
    let differs = |index: usize| match found {
        Found::Observed(found) => found.items.get(index).is_none_or(|item| item.observed != Observed::Same),
        Found::Bare(_) => true,
    };
    let items = manifest.items.iter().enumerate().filter(|(index, _)| differs(*index));
    items.filter_map(|(_, item)| item.program()).map(|file| file.path.clone()).collect()
}

/// Whether files of the bundle must be sent to a host.
pub(crate) fn lacks_programs(manifest: &HostManifest, found: &Found) -> bool {
    !missing(manifest, found).is_empty()
}

/// Verifies the files of the bundle that a host needs, before any of them is sent. Each file is read once for all
/// hosts: a later caller waits here and finds it verified.
async fn verify(host: &dyn Host, missing: &Missing, work: &Work) -> Result<(), ApplyError> {
    let news = {
        let mut told = work.verified.told.lock().unwrap_or_else(PoisonError::into_inner);
        missing.iter().filter(|path| told.insert((*path).clone())).count()
    };
    let step = (news > 0 && work.bundle.is_some()).then(|| work.progress.step(host.name(), "Verifying the bundle"));
    verify_files(missing, work).await?;
    if let Some(step) = step {
        step.done("Verified the bundle");
    }
    Ok(())
}

async fn verify_files(missing: &Missing, work: &Work) -> Result<(), ApplyError> {
    let Some(bundle) = work.bundle.clone() else { return Ok(()) };
    let mut verified = work.verified.files.lock().await;
    let unverified: Missing = missing.iter().filter(|path| !verified.contains(*path)).cloned().collect();
    if !unverified.is_empty() {
        let wanted = unverified.clone();
        let outcome = tokio::task::spawn_blocking(move || stream::verify(&bundle, &wanted)).await;
        if let Ok(outcome) = outcome {
            outcome.map_err(ApplyError::Bundle)?;
        }
        verified.extend(unverified);
    }
    Ok(())
}

/// Verifies what a host lacks of the bundle while other facts are still being collected. An error is reported when the
/// host is about to be sent something.
pub async fn verify_ahead(hosts: Vec<(HostManifest, Found)>, work: Work) {
    for (manifest, found) in hosts {
        if verify_files(&missing(&manifest, &found), &work).await.is_err() {
            return;
        }
    }
}

/// Reads the keys that all hosts share, by path, in base64. They are passed to the other hosts through this process's
/// memory, on standard input.
pub(super) async fn read_keys(host: &dyn Host, keys: &HostManifest) -> Result<BTreeMap<String, String>, ApplyError> {
    let what = "read the shared keys";
    let name = || host.name().to_owned();
    let stdin = serde_json::to_vec(keys).unwrap_or_default();
    let command = Command::new([KM, "host", "export"]).privileged().stdin(stdin);
    let output = host.run(command).await.map_err(|source| ApplyError::Host { what, host: name(), source })?;
    let refused = |answer| ApplyError::Refused { what, host: name(), answer };
    if !output.success() {
        return Err(refused(output.last_words()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| refused(error.to_string()))
}

/// Removes a member from etcd. A host whose member remains sends the request.
pub(super) async fn leave(
    host: &dyn Host,
    (cluster, asker): (&str, &MemberSpec),
    name: &str,
    work: &Work,
) -> Result<Counts, ApplyError> {
    let (cluster, member, name) = (cluster.to_owned(), asker.clone(), name.to_owned());
    let request = LeaveRequest { cluster, member, name, holder: work.holder.clone() };
    let stdin = serde_json::to_vec(&request).unwrap_or_default();
    let command = Command::new([KM, "host", "leave"]).privileged().stdin(stdin).timeout(APPLY);
    tell(host, command, &work.progress, LEAVE).await
}

/// What is shown of a step: while it runs, and when it is done.
#[derive(Clone, Copy)]
pub(crate) struct StepText {
    pub(crate) running: &'static str,
    pub(crate) done: &'static str,
}

/// A command of `km host`, in messages.
pub(super) struct Act {
    /// In errors, after "failed to".
    pub(super) what: &'static str,
    pub(super) text: StepText,
}

const LEAVE: Act = Act {
    what: "remove an etcd member",
    text: StepText { running: "Removing an etcd member", done: "Removed an etcd member" },
};

/// Runs a command of `km host` that prints events.
pub(super) async fn tell(
    host: &dyn Host,
    command: Command,
    progress: &Progress,
    act: Act,
) -> Result<Counts, ApplyError> {
    let (_, moved) = mpsc::channel(1);
    let (lines, events) = mpsc::channel(64);
    let mut show = ProgressReporter::new(host.name(), progress, act.text, 0);
    let (output, ()) = tokio::join!(host.run_lines(command, lines), show.follow(moved, events));
    let what = act.what;
    let output = output.map_err(|source| ApplyError::Host { what, host: host.name().to_owned(), source })?;
    show.end(what, &output)
}

/// Has the host apply a part of its manifest, reported as `text`. Also returns whether files of the bundle were sent.
pub(super) async fn send(
    host: &dyn Host,
    (text, part): (StepText, &Part),
    missing: &Missing,
    shared: &BTreeMap<String, String>,
    etcd: &EtcdBootstrap,
    work: &Work,
) -> Result<(Counts, bool), ApplyError> {
    let uploads = !missing.is_empty();
    // The semaphore lives as long as the run and is never closed.
    let _permit = if uploads { work.limits.uploads.acquire().await.ok() } else { None };
    if !missing.is_empty() {
        if work.bundle.is_none() {
            return Err(ApplyError::NoBundle { host: host.name().to_owned(), count: missing.len() });
        }
        verify(host, missing, work).await?;
    }
    let secrets = work.secrets.iter().map(|(path, bytes)| (path.clone(), BASE64_STANDARD.encode(bytes))).collect();
    let stream = stream::stream(work.bundle.as_ref(), part, missing, &secrets, shared, etcd, &work.holder)?;
    let command = Command::new([KM, "host", "apply"]).privileged().timeout(APPLY);
    let (sent, moved) = mpsc::channel(16);
    let (lines, events) = mpsc::channel(64);
    let run = host.run_with_input(command, stream.reader, sent, lines);
    let total = if missing.is_empty() { 0 } else { stream.bytes };
    // If something is started first, sending the missing files is a separate step after it.
    let starts = |item: &Item| item.planned() == Planned::Running;
    let first = part.manifest.items.iter().find(|item| starts(item) || item.section() == Section::Programs);
    let text = if total > 0 && !first.is_some_and(starts) { SENDING } else { text };
    let mut show = ProgressReporter::new(host.name(), &work.progress, text, total);
    let (output, ()) = tokio::join!(run, show.follow(moved, events));
    let what = "apply the manifest";
    let output = output.map_err(|source| ApplyError::Host { what, host: host.name().to_owned(), source })?;
    show.end(what, &output).map(|counts| (counts, uploads))
}

/// The step that shows which files of the bundle are sent to a host.
const SENDING: StepText = StepText { running: "Uploading binaries", done: "Uploaded binaries" };

/// How many items a host changed and how many were already correct.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub changed: usize,
    pub unchanged: usize,
}

/// Turns a host's events into progress, and its last one into an outcome.
pub(crate) struct ProgressReporter<'a> {
    host: &'a str,
    progress: &'a Progress,
    total: u64,
    sending: Option<(Step, StepText)>,
    open: Option<(String, Step)>,
    failure: Option<ApplyError>,
    counts: Counts,
}

impl<'a> ProgressReporter<'a> {
    pub(crate) fn new(host: &'a str, progress: &'a Progress, text: StepText, total: u64) -> Self {
        ProgressReporter {
            host,
            progress,
            total,
            sending: Some((progress.step(host, text.running), text)),
            open: None,
            failure: None,
            counts: Counts::default(),
        }
    }

    pub(crate) async fn follow(&mut self, mut moved: mpsc::Receiver<u64>, mut events: mpsc::Receiver<String>) {
        let mut moving = true;
        loop {
            tokio::select! {
                biased;
                line = events.recv() => match line {
                    Some(line) => {
                        if let Ok(event) = serde_json::from_str(&line) {
                            self.event(event);
                        }
                    }
                    None => return,
                },
                bytes = moved.recv(), if moving => match bytes {
                    Some(bytes) if self.total > 0 => {
                        if let Some((sending, _)) = &self.sending {
                            sending.bytes(bytes.min(self.total), self.total);
                        }
                    }
                    Some(_) => {}
                    None => moving = false,
                },
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Started { item } if item.starts_with('/') => {
                let start = || (self.progress.step(self.host, SENDING.running), SENDING);
                self.sending.get_or_insert_with(start).0.at(&item);
            }
            Event::Started { item } => {
                self.finish_sending();
                let step = self.progress.step(self.host, &item);
                self.open = Some((item, step));
            }
            Event::Waiting { item: _, seconds, last } => {
                if let Some((_, step)) = &self.open {
                    step.at(&format!("{seconds}s: {last}"));
                }
            }
            Event::Done { item, change } => {
                if let Some((_, step)) = self.open.take_if(|(open, _)| *open == item) {
                    match change {
                        Change::Unchanged => step.unchanged("unchanged"),
                        Change::Healthy => step.done(&item),
                        change => step.done(&format!("{item} {}", past(change))),
                    }
                } else if change.is_change() && self.sending.is_none() {
                    self.progress.note(self.host, &format!("{item} {}", past(change)));
                }
            }
            Event::Incomplete { item, remains } => {
                if let Some((_, step)) = self.open.take_if(|(open, _)| *open == item) {
                    step.failed("not everywhere");
                }
                for what in remains {
                    self.progress.note(self.host, &what);
                }
            }
            Event::Finished { changed, unchanged } => {
                self.finish_sending();
                self.counts = Counts { changed, unchanged };
            }
            Event::Failed { item: Some(item), causes, journal } => {
                if let Some((sending, _)) = self.sending.take() {
                    sending.failed("failed");
                }
                if let Some((_, step)) = self.open.take() {
                    step.failed("failed");
                }
                self.failure = Some(ApplyError::Item { host: self.host.to_owned(), item, causes, journal });
            }
            // The item's failure, reported before, says more.
            Event::Failed { item: None, causes, .. } => {
                let what = "change the host";
                let answer = causes.join(": ");
                self.failure.get_or_insert(ApplyError::Refused { what, host: self.host.to_owned(), answer });
            }
        }
    }

    fn finish_sending(&mut self) {
        if let Some((sending, text)) = self.sending.take() {
            sending.done(text.done);
        }
    }

    pub(crate) fn end(&mut self, what: &'static str, output: &Output) -> Result<Counts, ApplyError> {
        if output.success() {
            self.finish_sending();
            return Ok(self.counts);
        }
        let host = self.host.to_owned();
        if output.status == EXIT_LOCKED {
            let answer = match self.failure.take() {
                Some(ApplyError::Refused { answer, .. }) => answer,
                _ => output.last_words(),
            };
            return Err(ApplyError::Locked { host, answer });
        }
        let refused = || ApplyError::Refused { what, host, answer: output.last_words() };
        Err(self.failure.take().unwrap_or_else(refused))
    }
}

fn past(change: Change) -> &'static str {
    match change {
        Change::Unchanged => "unchanged",
        Change::Created => "created",
        Change::Updated => "updated",
        Change::Started => "started",
        Change::Restarted => "restarted",
        Change::Healthy => "healthy",
        Change::Removed => "removed",
    }
}

/// The `km` beside this executable, and its sha256.
pub fn km_beside_kmctl() -> Result<(PathBuf, String), ApplyError> {
    let failed = |path: PathBuf| move |source| ApplyError::Km { path, source };
    let own = std::env::current_exe().map_err(failed("kmctl".into()))?;
    let path = own.with_file_name("km");
    let mut file = File::open(&path).map_err(failed(path.clone()))?;
    let (sha256, _) = hex_digest(&mut file).map_err(failed(path.clone()))?;
    Ok((path, sha256))
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
