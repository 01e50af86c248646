//! Reaching and looking at all hosts at once. One that does not answer keeps nobody: the others go on, and it joins
//! them if it still comes.
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::context::Context;
use super::failure::Failure;
use super::provision::{self, Seen, Wanted};
use crate::apply::{ApplyError, Limits, lacks_programs, patience, shown};
use crate::host::{Host, SshHost};
use crate::inventory::Found;
use crate::inventory::look;
use kmctl_core::bundle::Bundle;
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::HostManifest;

/// For whom the others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For everybody who may still answer.
    All,
    /// For as long as it pays.
    Most,
}

/// How the hosts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// For whom the others wait.
    pub(crate) wait: Wait,
    /// The bounds of nodes are wanted as in cluster.yaml, whatever was set live.
    pub(crate) reset_scale: bool,
}

/// What became of one host's task.
pub(crate) enum Slot<T> {
    /// It is there.
    Here(T),
    /// It failed.
    Failed(ApplyError),
    /// It may still come.
    Late(JoinHandle<Result<T, ApplyError>>),
}

/// Takes the first host that was reached, for what does not wait until all are looked at.
pub(crate) type Reached = mpsc::Sender<Arc<dyn Host>>;

/// A host that was looked at: itself and what was found.
pub(crate) type Looked = (Arc<dyn Host>, Found);

/// Everything that was found out about the hosts.
pub(crate) struct Sight {
    /// In cluster.yaml's order.
    pub(crate) seen: Vec<Seen>,
    /// Those that may still come, with their manifests.
    pub(crate) late: Vec<(HostManifest, JoinHandle<Result<Looked, ApplyError>>)>,
    /// Those that failed.
    pub(crate) failed: Vec<(String, ApplyError)>,
}

impl Sight {
    /// Tells why hosts failed, before a command gives up because of them.
    pub(crate) fn tell_failed(&self, context: &Context) {
        for (host, error) in &self.failed {
            let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            context.progress.note(host, &causes.join(": "));
        }
    }

    /// Waits until nobody may still come. `order` are the names of all hosts, in cluster.yaml's order.
    pub(crate) async fn wait_for_late(&mut self, order: &[&str]) {
        for (manifest, task) in std::mem::take(&mut self.late) {
            match arrived(&manifest.host, task).await {
                Ok((host, found)) => self.seen.push((host, manifest, found)),
                Err(error) => self.failed.push((manifest.host, error)),
            }
        }
        self.seen.sort_by_key(|(_, manifest, _)| order.iter().position(|name| *name == manifest.host));
    }

    /// Hosts that were not seen, in no order.
    pub(crate) fn unseen(&self) -> Vec<String> {
        let late = self.late.iter().map(|(manifest, _)| manifest.host.clone());
        late.chain(self.failed.iter().map(|(host, _)| host.clone())).collect()
    }
}

/// Waits for a host that is late.
pub(crate) async fn arrived(name: &str, task: JoinHandle<Result<Looked, ApplyError>>) -> Result<Looked, ApplyError> {
    task.await.unwrap_or_else(|error| {
        let answer = error.to_string();
        Err(ApplyError::Refused { what: "look at the host", host: name.to_owned(), answer })
    })
}

/// Waits for the tasks of named hosts, as `wait` says. What is not there in the end is late.
pub(crate) async fn gather<T: Send + 'static>(
    mut tasks: Vec<(String, JoinHandle<Result<T, ApplyError>>)>,
    wait: Wait,
    told: &dyn Fn(&str, Duration),
) -> Vec<Slot<T>> {
    let started = Instant::now();
    let all = tasks.len();
    let mut slots: Vec<Option<Slot<T>>> = (0..all).map(|_| None).collect();
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
                        let slot = match outcome {
                            Ok(Ok(value)) => {
                                arrived.push(started.elapsed());
                                Slot::Here(value)
                            }
                            Ok(Err(error)) => {
                                failed += 1;
                                Slot::Failed(error)
                            }
                            Err(error) => {
                                failed += 1;
                                let host = "this machine".to_owned();
                                Slot::Failed(ApplyError::Refused { what: "work", host, answer: error.to_string() })
                            }
                        };
                        if let Some(place) = slots.get_mut(number) {
                            *place = Some(slot);
                        }
                    }
                },
                () = over => break,
            }
        }
    }
    let waited = started.elapsed();
    slots
        .into_iter()
        .zip(tasks)
        .map(|(slot, (name, task))| {
            slot.unwrap_or_else(|| {
                told(&name, waited);
                Slot::Late(task)
            })
        })
        .collect()
}

async fn numbered<T>(number: usize, task: &mut JoinHandle<T>) -> (usize, Result<T, JoinError>) {
    (number, task.await)
}

/// Connects to all hosts, works out what they should have, and looks at them.
pub(crate) async fn look_around(
    context: &Context,
    loaded: &Loaded,
    bundle: Option<Bundle>,
    limits: &Limits,
    manner: Manner,
    reached: Option<Reached>,
) -> Result<(Wanted, Sight), Failure> {
    let Manner { wait, reset_scale } = manner;
    let connections = connect(context, loaded, limits, wait, reached.clone()).await;
    let here: Vec<Arc<dyn Host>> = connections
        .iter()
        .filter_map(|(_, slot)| match slot {
            Slot::Here(host) => Some(host.clone()),
            _ => None,
        })
        .collect();
    if here.is_empty() {
        return Err(nobody(context, connections));
    }
    if !provision::is_known(bundle.as_ref(), loaded, &here).await? {
        // `plan` needs it as `up` does: what differs on a host is told by the sha256 of every file. It touches no host, and
        // the `up` that follows finds it. A cluster that has its files on a host is planned for without a download.
        return with_new_bundle(context, loaded, connections, limits, manner, reached).await;
    }
    let mut wanted = match provision::wanted(loaded, bundle, &here).await {
        Ok(wanted) => wanted,
        // What is missing may lie on one of the hosts that were not reached.
        Err(failure) if connections.iter().any(|(_, slot)| matches!(slot, Slot::Failed(_))) => {
            context.progress.note("", &failure.summary().0);
            return Err(nobody(context, connections));
        }
        Err(failure) => return Err(failure),
    };
    if reset_scale {
        provision::reset_scale(&mut wanted);
    }
    let sight = look_at(context, connections, &wanted, wait).await;
    let lacks_files = sight.seen.iter().any(|(_, manifest, found)| lacks_programs(manifest, found));
    if lacks_files && wanted.bundle.is_none() && loaded.cluster.spec.bundle.is_none() {
        // Another operator made the cluster, and now it gets a host, or a host has lost files.
        let made = super::bundle::make(&loaded.cluster.spec.kubernetes.version, context).await?;
        return Box::pin(look_around(context, loaded, Some(made), limits, manner, reached)).await;
    }
    if sight.seen.is_empty() && sight.late.is_empty() {
        let errors: Vec<_> = sight.failed.into_iter().map(|(_, error)| error).collect();
        let hosts = errors.len();
        return Err(provision::failed(context, errors, hosts));
    }
    Ok((wanted, sight))
}

/// Makes the bundle that cluster.yaml does not name, and looks around again.
async fn with_new_bundle(
    context: &Context,
    loaded: &Loaded,
    connections: Vec<(String, Slot<Arc<dyn Host>>)>,
    limits: &Limits,
    manner: Manner,
    reached: Option<Reached>,
) -> Result<(Wanted, Sight), Failure> {
    // The download may take minutes, after which an idle connection is often cut.
    drop(connections);
    let made = super::bundle::make(&loaded.cluster.spec.kubernetes.version, context).await?;
    Box::pin(look_around(context, loaded, Some(made), limits, manner, reached)).await
}

/// Connections by host, in cluster.yaml's order.
pub(crate) async fn connect(
    context: &Context,
    loaded: &Loaded,
    limits: &Limits,
    wait: Wait,
    reached: Option<Reached>,
) -> Vec<(String, Slot<Arc<dyn Host>>)> {
    let hosts = &loaded.cluster.spec.control_plane.hosts;
    let tasks = hosts.iter().map(|host| {
        let (settings, progress) = (context.ssh_settings(loaded, host), context.progress.clone());
        let (name, connections, reached) = (host.name.clone(), limits.connections.clone(), reached.clone());
        let task = tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = connections.acquire_owned().await.ok();
            match SshHost::connect(settings, &progress).await {
                Ok(host) => {
                    let host = Arc::new(host) as Arc<dyn Host>;
                    if let Some(reached) = reached {
                        // It has room for one, which is all that is wanted.
                        let _ = reached.try_send(host.clone());
                    }
                    Ok(host)
                }
                Err(source) => Err(ApplyError::Unreachable { host: name, source }),
            }
        });
        (host.name.clone(), task)
    });
    let slots = gather(tasks.collect(), wait, &|name, waited| go_on_without(context, name, waited)).await;
    hosts.iter().map(|host| host.name.clone()).zip(slots).collect()
}

fn go_on_without(context: &Context, name: &str, waited: Duration) {
    context.progress.note(name, &format!("has not answered for {}; the others go on", shown(waited)));
}

/// Looks at those that were reached; whoever is late is looked at when it comes.
pub(crate) async fn look_at(
    context: &Context,
    connections: Vec<(String, Slot<Arc<dyn Host>>)>,
    wanted: &Wanted,
    wait: Wait,
) -> Sight {
    let step = context.progress.step("", "look at the hosts");
    let mut sight = Sight { seen: Vec::new(), late: Vec::new(), failed: Vec::new() };
    let (mut looks, mut manifests) = (Vec::new(), Vec::new());
    for ((name, slot), manifest) in connections.into_iter().zip(wanted.manifests.iter().cloned()) {
        let wants = manifest.clone();
        match slot {
            Slot::Failed(error) => sight.failed.push((name, error)),
            Slot::Here(host) => {
                looks.push((name, tokio::spawn(async move { look_once(host, &wants).await })));
                manifests.push(manifest);
            }
            Slot::Late(connection) => {
                let look = tokio::spawn(async move {
                    let host = connection.await.map_err(|error| {
                        let answer = error.to_string();
                        ApplyError::Refused { what: "connect", host: wants.host.clone(), answer }
                    })??;
                    look_once(host, &wants).await
                });
                sight.late.push((manifest, look));
            }
        }
    }
    let names: Vec<String> = looks.iter().map(|(name, _)| name.clone()).collect();
    let slots = gather(looks, wait, &|name, waited| go_on_without(context, name, waited)).await;
    for ((name, slot), manifest) in names.into_iter().zip(slots).zip(manifests) {
        match slot {
            Slot::Here((host, found)) => sight.seen.push((host, manifest, found)),
            Slot::Failed(error) => sight.failed.push((name, error)),
            Slot::Late(task) => sight.late.push((manifest, task)),
        }
    }
    step.done(&match (sight.seen.len(), sight.failed.len() + sight.late.len()) {
        (_, 0) => "done".to_owned(),
        (seen, missing) => format!("{seen} of {} answered", seen + missing),
    });
    sight
}

async fn look_once(host: Arc<dyn Host>, manifest: &HostManifest) -> Result<Looked, ApplyError> {
    let found = look(host.as_ref(), manifest).await?;
    Ok((host, found))
}

/// The failure of a command that did not reach the hosts that it needs.
pub(crate) fn nobody<T>(context: &Context, connections: Vec<(String, Slot<T>)>) -> Failure {
    let hosts = connections.len();
    let errors = connections.into_iter().filter_map(|(_, slot)| match slot {
        Slot::Failed(error) => Some(error),
        _ => None,
    });
    provision::failed(context, errors.collect(), hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, seconds: f64, works: bool) -> (String, JoinHandle<Result<u32, ApplyError>>) {
        let task = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            let answer = "no route".to_owned();
            if works { Ok(1) } else { Err(ApplyError::Refused { what: "connect", host: "x".to_owned(), answer }) }
        });
        (name.to_owned(), task)
    }

    async fn outcome(tasks: Vec<(String, JoinHandle<Result<u32, ApplyError>>)>, wait: Wait) -> (String, f64) {
        let started = Instant::now();
        let slots = gather(tasks, wait, &|_, _| ()).await;
        let letter = |slot: &Slot<u32>| match slot {
            Slot::Here(_) => 'h',
            Slot::Failed(_) => 'f',
            Slot::Late(_) => 'l',
        };
        (slots.iter().map(letter).collect(), started.elapsed().as_secs_f64())
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
