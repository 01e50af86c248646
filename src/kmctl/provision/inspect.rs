//! Connects to all hosts and inspects them concurrently. A host that does not answer does not delay the others: they
//! continue without it, and it joins them if it answers later.
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::desired_state::{self, DesiredState, desired_state};
use super::session::Session;
use super::{bundles, failures};
use crate::apply::{ApplyError, Limits, lacks_programs, patience, shown};
use crate::failure::Failure;
use crate::host::{Host, SshHost};
use crate::inventory::{Found, look};
use kmctl_core::bundle::Bundle;
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::HostManifest;
use kmctl_core::text::count;

/// Which hosts the others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// For every host that may still answer.
    All,
    /// For most hosts, and then only as long as [`patience`] allows.
    Most,
}

/// How the hosts are inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InspectOptions {
    /// Which hosts the others wait for.
    pub(super) wait: Wait,
    /// Set the bounds of nodes to those in cluster.yaml, whatever was set live.
    pub(super) reset_scale: bool,
}

/// The outcome of one host's task.
pub(super) enum Pending<T> {
    /// It succeeded.
    Here(T),
    Failed(ApplyError),
    /// It may still succeed.
    Late(JoinHandle<Result<T, ApplyError>>),
}

/// Receives the first host that was reached, for work that need not wait until all are inspected.
pub(super) type Reached = mpsc::Sender<Arc<dyn Host>>;

/// A host, what it should have, and what was found there.
#[derive(Clone)]
pub(super) struct InspectedHost {
    pub(super) host: Arc<dyn Host>,
    pub(super) manifest: HostManifest,
    pub(super) found: Found,
}

/// The inspection of a host that has not answered yet.
pub(super) type Inspecting = JoinHandle<Result<InspectedHost, ApplyError>>;

/// Everything that was found out about the hosts.
pub(super) struct Inspection {
    /// In cluster.yaml's order.
    pub(super) inspected: Vec<InspectedHost>,
    /// Hosts that may still answer, with their manifests.
    pub(super) late: Vec<(HostManifest, Inspecting)>,
    /// Hosts that failed.
    pub(super) failed: Vec<(String, ApplyError)>,
}

impl Inspection {
    /// Whether every host was inspected.
    pub(super) fn is_complete(&self) -> bool {
        self.late.is_empty() && self.failed.is_empty()
    }

    /// Reports why hosts failed, before a command gives up because of them.
    pub(super) fn report_failures(&self, session: &Session) {
        for (host, error) in &self.failed {
            let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            session.progress.note(host, &causes.join(": "));
        }
    }

    /// Waits until all late hosts have answered or failed. `order` contains the names of all hosts, in cluster.yaml's
    /// order.
    pub(super) async fn wait_for_late(&mut self, order: &[&str]) {
        for (manifest, task) in std::mem::take(&mut self.late) {
            match arrived(&manifest.host, task).await {
                Ok(inspected) => self.inspected.push(inspected),
                Err(error) => self.failed.push((manifest.host, error)),
            }
        }
        self.inspected.sort_by_key(|one| order.iter().position(|name| *name == one.manifest.host));
    }

    /// Hosts that were not seen, in no particular order.
    pub(super) fn unseen(&self) -> Vec<String> {
        let late = self.late.iter().map(|(manifest, _)| manifest.host.clone());
        late.chain(self.failed.iter().map(|(host, _)| host.clone())).collect()
    }
}

/// Waits for a late host.
pub(super) async fn arrived(name: &str, task: Inspecting) -> Result<InspectedHost, ApplyError> {
    task.await.unwrap_or_else(|error| {
        let answer = error.to_string();
        Err(ApplyError::Refused { what: "inspect the host", host: name.to_owned(), answer })
    })
}

/// Waits for the tasks of named hosts, as `wait` requires. Tasks that are not finished in the end are late.
pub(super) async fn gather<T: Send + 'static>(
    mut tasks: Vec<(String, JoinHandle<Result<T, ApplyError>>)>,
    wait: Wait,
    told: &dyn Fn(&str, Duration),
) -> Vec<Pending<T>> {
    let started = Instant::now();
    let all = tasks.len();
    let mut outcomes: Vec<Option<Pending<T>>> = (0..all).map(|_| None).collect();
    {
        let mut pending: FuturesUnordered<_> =
            tasks.iter_mut().enumerate().map(|(number, (_, task))| numbered(number, task)).collect();
        let (mut arrived, mut failed) = (Vec::new(), 0);
        loop {
            let until = match wait {
                Wait::All => None,
                Wait::Most => patience(&arrived, all - failed).map(|patience| started + patience),
            };
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let over = pin!(over);
            tokio::select! {
                biased;
                next = pending.next() => match next {
                    None => break,
                    Some((number, outcome)) => {
                        let outcome = match outcome {
                            Ok(Ok(value)) => {
                                arrived.push(started.elapsed());
                                Pending::Here(value)
                            }
                            Ok(Err(error)) => {
                                failed += 1;
                                Pending::Failed(error)
                            }
                            Err(error) => {
                                failed += 1;
                                let host = "this machine".to_owned();
                                let answer = error.to_string();
                                Pending::Failed(ApplyError::Refused { what: "run a task", host, answer })
                            }
                        };
                        if let Some(place) = outcomes.get_mut(number) {
                            *place = Some(outcome);
                        }
                    }
                },
                () = over => break,
            }
        }
    }
    let waited = started.elapsed();
    outcomes
        .into_iter()
        .zip(tasks)
        .map(|(outcome, (name, task))| {
            outcome.unwrap_or_else(|| {
                told(&name, waited);
                Pending::Late(task)
            })
        })
        .collect()
}

async fn numbered<T>(number: usize, task: &mut JoinHandle<T>) -> (usize, Result<T, JoinError>) {
    (number, task.await)
}

/// Connects to all hosts, computes what they should have, and inspects them.
pub(super) async fn inspect(
    session: &Session,
    loaded: &Loaded,
    bundle: Option<Bundle>,
    limits: &Limits,
    options: InspectOptions,
    reached: Option<Reached>,
) -> Result<(DesiredState, Inspection), Failure> {
    let InspectOptions { wait, reset_scale } = options;
    let connections = connect(session, loaded, limits, wait, reached.clone()).await;
    let here = connected(&connections);
    if here.is_empty() {
        return Err(unreachable_hosts_error(session, connections));
    }
    if !desired_state::is_known(bundle.as_ref(), loaded, &here).await? {
        // `plan` needs it as `up` does, because hosts are compared by the sha256 of every file. Creating it touches no
        // host, and the following `up` finds it. A cluster that has its files on a host is planned for without a
        // download.
        return with_new_bundle(session, loaded, connections, limits, options, reached).await;
    }
    let mut desired = match desired_state(loaded, bundle, &here).await {
        Ok(desired) => desired,
        // What is missing may be on one of the hosts that were not reached.
        Err(failure) if connections.iter().any(|(_, outcome)| matches!(outcome, Pending::Failed(_))) => {
            session.progress.note("", &failure.summary().0);
            return Err(unreachable_hosts_error(session, connections));
        }
        Err(failure) => return Err(failure),
    };
    if reset_scale {
        desired_state::reset_scale(&mut desired);
    }
    let inspection = inspect_connected(session, connections, &desired, wait).await;
    let lacks_files = inspection.inspected.iter().any(|one| lacks_programs(&one.manifest, &one.found));
    if lacks_files && desired.bundle.is_none() && loaded.cluster.spec.bundle.is_none() {
        // Another operator created the cluster and a host is now being added, or a host has lost files.
        let made = bundles::make(session, &loaded.cluster.spec.kubernetes.version).await?;
        return Box::pin(inspect(session, loaded, Some(made), limits, options, reached)).await;
    }
    if inspection.inspected.is_empty() && inspection.late.is_empty() {
        let errors: Vec<_> = inspection.failed.into_iter().map(|(_, error)| error).collect();
        let hosts = errors.len();
        return Err(failures::of_hosts(session, errors, hosts));
    }
    Ok((desired, inspection))
}

/// Creates the bundle that cluster.yaml does not name, and inspects the hosts again.
async fn with_new_bundle(
    session: &Session,
    loaded: &Loaded,
    connections: Vec<(String, Pending<Arc<dyn Host>>)>,
    limits: &Limits,
    options: InspectOptions,
    reached: Option<Reached>,
) -> Result<(DesiredState, Inspection), Failure> {
    // The download may take minutes, during which an idle connection is often cut.
    drop(connections);
    let made = bundles::make(session, &loaded.cluster.spec.kubernetes.version).await?;
    Box::pin(inspect(session, loaded, Some(made), limits, options, reached)).await
}

/// The hosts that were reached.
pub(super) fn connected(connections: &[(String, Pending<Arc<dyn Host>>)]) -> Vec<Arc<dyn Host>> {
    let reached = connections.iter().filter_map(|(_, outcome)| match outcome {
        Pending::Here(host) => Some(host.clone()),
        Pending::Failed(_) | Pending::Late(_) => None,
    });
    reached.collect()
}

/// Connects to all hosts. Returns them in cluster.yaml's order.
pub(super) async fn connect(
    session: &Session,
    loaded: &Loaded,
    limits: &Limits,
    wait: Wait,
    reached: Option<Reached>,
) -> Vec<(String, Pending<Arc<dyn Host>>)> {
    let hosts = &loaded.cluster.spec.control_plane.hosts;
    let tasks = hosts.iter().map(|host| {
        let (settings, progress) = (session.ssh_settings(loaded, host), session.progress.clone());
        let (name, connections, reached) = (host.name.clone(), limits.connections.clone(), reached.clone());
        let task = tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = connections.acquire_owned().await.ok();
            match SshHost::connect(settings, &progress).await {
                Ok(host) => {
                    let host = Arc::new(host) as Arc<dyn Host>;
                    if let Some(reached) = reached {
                        // It has room for one, which is enough.
                        let _ = reached.try_send(host.clone());
                    }
                    Ok(host)
                }
                Err(source) => Err(ApplyError::Unreachable { host: name, source }),
            }
        });
        (host.name.clone(), task)
    });
    let outcomes = gather(tasks.collect(), wait, &|name, waited| continue_without(session, name, waited)).await;
    hosts.iter().map(|host| host.name.clone()).zip(outcomes).collect()
}

fn continue_without(session: &Session, name: &str, waited: Duration) {
    session.progress.note(name, &format!("no response after {}; continuing without it", shown(waited)));
}

/// Inspects the hosts that were reached. Late hosts are inspected when they answer.
pub(super) async fn inspect_connected(
    session: &Session,
    connections: Vec<(String, Pending<Arc<dyn Host>>)>,
    desired: &DesiredState,
    wait: Wait,
) -> Inspection {
    let step = session.progress.step("", &format!("Inspecting {}", count(connections.len(), "host")));
    let mut inspection = Inspection { inspected: Vec::new(), late: Vec::new(), failed: Vec::new() };
    let (mut looks, mut manifests) = (Vec::new(), Vec::new());
    for ((name, outcome), manifest) in connections.into_iter().zip(desired.manifests.iter().cloned()) {
        let wants = manifest.clone();
        match outcome {
            Pending::Failed(error) => inspection.failed.push((name, error)),
            Pending::Here(host) => {
                looks.push((name, tokio::spawn(inspect_one(host, wants))));
                manifests.push(manifest);
            }
            Pending::Late(connection) => {
                let look = tokio::spawn(async move {
                    let host = connection.await.map_err(|error| {
                        let answer = error.to_string();
                        ApplyError::Refused { what: "run a task", host: wants.host.clone(), answer }
                    })??;
                    inspect_one(host, wants).await
                });
                inspection.late.push((manifest, look));
            }
        }
    }
    let names: Vec<String> = looks.iter().map(|(name, _)| name.clone()).collect();
    let outcomes = gather(looks, wait, &|name, waited| continue_without(session, name, waited)).await;
    for ((name, outcome), manifest) in names.into_iter().zip(outcomes).zip(manifests) {
        match outcome {
            Pending::Here(inspected) => inspection.inspected.push(inspected),
            Pending::Failed(error) => inspection.failed.push((name, error)),
            Pending::Late(task) => inspection.late.push((manifest, task)),
        }
    }
    step.done(&match (inspection.inspected.len(), inspection.failed.len() + inspection.late.len()) {
        (seen, 0) => format!("Inspected {}", count(seen, "host")),
        (seen, missing) => format!("Inspected {seen} of {}", count(seen + missing, "host")),
    });
    inspection
}

async fn inspect_one(host: Arc<dyn Host>, manifest: HostManifest) -> Result<InspectedHost, ApplyError> {
    let found = look(host.as_ref(), &manifest).await?;
    Ok(InspectedHost { host, manifest, found })
}

/// The failure of a command that did not reach the hosts that it needs.
pub(super) fn unreachable_hosts_error<T>(session: &Session, connections: Vec<(String, Pending<T>)>) -> Failure {
    let hosts = connections.len();
    let errors = connections.into_iter().filter_map(|(_, outcome)| match outcome {
        Pending::Failed(error) => Some(error),
        _ => None,
    });
    failures::of_hosts(session, errors.collect(), hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, seconds: f64, works: bool) -> (String, JoinHandle<Result<u32, ApplyError>>) {
        let task = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            let answer = "no route".to_owned();
            if works { Ok(1) } else { Err(ApplyError::Refused { what: "run a task", host: "x".to_owned(), answer }) }
        });
        (name.to_owned(), task)
    }

    async fn outcome(tasks: Vec<(String, JoinHandle<Result<u32, ApplyError>>)>, wait: Wait) -> (String, f64) {
        let started = Instant::now();
        let outcomes = gather(tasks, wait, &|_, _| ()).await;
        let letter = |outcome: &Pending<u32>| match outcome {
            Pending::Here(_) => 'h',
            Pending::Failed(_) => 'f',
            Pending::Late(_) => 'l',
        };
        (outcomes.iter().map(letter).collect(), started.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_host_is_waited_for_no_longer_than_a_second_and_by_plan_until_it_fails() {
        let hosts = || vec![task("cp1", 0.2, true), task("cp2", 0.3, true), task("cp3", 10.0, false)];
        assert_eq!(outcome(hosts(), Wait::Most).await, ("hhl".to_owned(), 1.0));
        assert_eq!(outcome(hosts(), Wait::All).await, ("hhf".to_owned(), 10.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_refused_at_once_keeps_nobody() {
        let hosts = vec![task("cp1", 0.2, true), task("cp2", 0.0, false)];
        assert_eq!(outcome(hosts, Wait::Most).await, ("hf".to_owned(), 0.2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_alone_has_all_the_time_that_it_needs() {
        assert_eq!(outcome(vec![task("cp1", 7.0, true)], Wait::Most).await, ("h".to_owned(), 7.0));
        let two = vec![task("cp1", 0.1, true), task("cp2", 7.0, true)];
        assert_eq!(outcome(two, Wait::Most).await, ("hh".to_owned(), 7.0));
    }
}
