//! `km mesos teardown`: tears down this cluster's framework. Idempotent.
use kmctl_core::text;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CommandError;
use super::connection::{masters, settings};
use mesos::operator::{Executor, Framework, Operator};
use mesos::scheduler::{Call, Scheduler};
use mesos::types::FrameworkId;
use mesos::{Masters, MesosError};

/// File in the state directory that holds the framework's id.
const FRAMEWORK_ID_FILE: &str = "framework-id";

/// Options of `km mesos teardown`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Settings file of km scheduler
    #[arg(long, default_value = "/etc/kmctl/scheduler.yaml")]
    config: PathBuf,
    /// Seconds to wait until its executors are gone from their agents
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

/// Tears down the framework with the recorded id, and every other one with this cluster's name and principal.
pub(super) async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let settings = settings(&arguments.config)?;
    let masters = masters(&settings)?;
    let file = settings.state_dir.join(FRAMEWORK_ID_FILE);
    let known = read_id(&file)?;
    let operator = Operator::leading(&masters).await?;
    let living = operator.frameworks().await?.frameworks;
    let ours = ours(&living, known.as_ref(), &settings.mesos.framework_name, &settings.mesos.principal);
    // Read first: after a framework's teardown the master no longer lists its executors.
    let places = if arguments.wait > 0 { places(&operator, &ours).await? } else { Vec::new() };
    for framework in &ours {
        end(&operator, &masters, framework).await?;
        eprintln!("Stopped Mesos framework {}", framework.framework_info.id.as_ref().map_or("", FrameworkId::as_str));
    }
    if ours.is_empty() {
        eprintln!("Mesos has no framework {}", settings.mesos.framework_name);
    }
    wait_for_executors(&masters, places, Duration::from_secs(arguments.wait)).await;
    // The id is no longer valid; a scheduler that used it would be refused.
    match std::fs::remove_file(&file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::File { what: "remove", path: file, source })
        }
        _ => Ok(()),
    }
}

/// An agent that runs executors of these frameworks.
struct Place {
    host: String,
    endpoint: String,
    prefix: String,
    frameworks: Vec<FrameworkId>,
}

async fn places(operator: &Operator, ours: &[&Framework]) -> Result<Vec<Place>, MesosError> {
    let frameworks: Vec<FrameworkId> =
        ours.iter().filter_map(|framework| framework.framework_info.id.clone()).collect();
    let executors = operator.executors().await?.executors;
    let mine =
        |executor: &Executor| executor.executor_info.framework_id.as_ref().is_some_and(|id| frameworks.contains(id));
    let agents = operator.agents().await?.agents;
    Ok(agents
        .iter()
        .filter(|agent| {
            executors.iter().any(|executor| {
                mine(executor) && executor.agent_id.is_some() && executor.agent_id == agent.agent_info.id
            })
        })
        .filter_map(|agent| {
            Some(Place {
                host: agent.agent_info.hostname.clone(),
                endpoint: agent.endpoint()?.to_owned(),
                prefix: agent.path(),
                frameworks: frameworks.clone(),
            })
        })
        .collect())
}

/// Agents stop executors asynchronously. If an executor still runs at the deadline, or an agent does not answer, that
/// is printed and left to the agent, which ends executors after their grace period.
async fn wait_for_executors(masters: &Masters, mut places: Vec<Place>, patience: Duration) {
    let started = Instant::now();
    let mut told = Instant::now();
    while !places.is_empty() {
        let mut left = Vec::new();
        for place in places {
            match executors_left(masters, &place).await {
                Ok(0) => eprintln!("Stopped all executors on {}", place.host),
                Ok(count) => {
                    if told.elapsed() >= Duration::from_secs(2) {
                        eprintln!("{} stopping on {}", text::count(count, "executor"), place.host);
                    }
                    left.push(place);
                }
                Err(error) => eprintln!("failed to query the executors of {}: {error}", place.host),
            }
        }
        places = left;
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
        }
        if started.elapsed() >= patience {
            for place in &places {
                eprintln!("executors are still running on {}", place.host);
            }
            return;
        }
        if !places.is_empty() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn executors_left(masters: &Masters, place: &Place) -> Result<usize, MesosError> {
    let agent = Operator::agent(masters.reach(&place.endpoint), place.prefix.clone());
    let asked = tokio::time::timeout(Duration::from_secs(5), agent.executors()).await;
    // An agent that does not answer in time is queried again.
    let Ok(found) = asked else { return Ok(1) };
    let mine = |executor: &&Executor| {
        executor.executor_info.framework_id.as_ref().is_some_and(|id| place.frameworks.contains(id))
    };
    Ok(found?.executors.iter().filter(mine).count())
}

fn read_id(file: &Path) -> Result<Option<FrameworkId>, CommandError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim()).filter(|id| !id.is_empty()).map(FrameworkId::from)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CommandError::File { what: "read", path: file.to_owned(), source }),
    }
}

/// This cluster's frameworks. The name alone is not sufficient: any framework may use it.
fn ours<'a>(living: &'a [Framework], id: Option<&FrameworkId>, name: &str, principal: &str) -> Vec<&'a Framework> {
    living
        .iter()
        .filter(|framework| {
            let info = &framework.framework_info;
            let same_name = info.name == name && info.principal.as_deref().unwrap_or_default() == principal;
            same_name || (id.is_some() && info.id.as_ref() == id)
        })
        .collect()
}

/// Tears down through the operator API. If that is forbidden, subscribes as the framework, which may always tear itself
/// down.
async fn end(operator: &Operator, masters: &Masters, framework: &Framework) -> Result<(), MesosError> {
    let Some(id) = &framework.framework_info.id else { return Ok(()) };
    match operator.teardown(id).await {
        Ok(()) => Ok(()),
        Err(MesosError::Forbidden { .. } | MesosError::Unauthenticated { .. }) => {
            let (_subscription, caller) =
                match Scheduler::new(masters.clone()).subscribe(&framework.framework_info, &[]).await {
                    Err(MesosError::FrameworkRemoved) => return Ok(()),
                    other => other?,
                };
            caller.call(Call::Teardown).await
        }
        // It ended on its own after it was listed.
        Err(MesosError::Refused { status: 400, message, .. }) if message.contains("No framework found") => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::types::FrameworkInfo;

    fn framework(id: &str, name: &str, principal: Option<&str>) -> Framework {
        let framework_info = FrameworkInfo {
            id: Some(id.into()),
            name: name.into(),
            principal: principal.map(str::to_owned),
            ..FrameworkInfo::default()
        };
        Framework { framework_info, ..Framework::default() }
    }

    #[test]
    fn only_frameworks_of_this_cluster_are_ended() {
        let living = [
            framework("1", "kubernetes-demo", Some("kmctl")),
            framework("2", "kubernetes-demo", Some("somebody")),
            framework("3", "spark", Some("kmctl")),
            framework("4", "renamed", Some("kmctl")),
        ];
        let ids = |known: Option<&str>| -> Vec<String> {
            let known = known.map(FrameworkId::from);
            let found = ours(&living, known.as_ref(), "kubernetes-demo", "kmctl");
            found.iter().map(|framework| framework.framework_info.id.clone().unwrap().value).collect()
        };
        assert_eq!(ids(None), ["1"]);
        assert_eq!(ids(Some("4")), ["1", "4"]);
        assert_eq!(ids(Some("gone")), ["1"]);
    }

    #[test]
    fn without_authentication_a_framework_has_no_principal() {
        let living = [framework("1", "kubernetes-demo", None)];
        assert_eq!(ours(&living, None, "kubernetes-demo", "").len(), 1);
        assert!(ours(&living, None, "kubernetes-demo", "kmctl").is_empty());
    }
}
