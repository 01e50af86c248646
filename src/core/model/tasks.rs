//! What Mesos is given for nodes, both of clusters and of runs: the executor that runs `km node`, and its tasks. Pure.
use std::time::Duration;

use super::agents::{HeldOffer, take};
use super::pods::PodPort;
use super::resources::Amount;
use crate::protocol::artifacts::KmProgram;
use crate::protocol::launch::{PodLaunch, PortMapping, TaskData};
use mesos::types::{Bytes, CommandInfo, ExecutorInfo, ExecutorType, Resource, TaskInfo, Uri};

/// Identifies an executor.
pub struct ExecutorNames {
    /// Never reused.
    pub id: String,
    /// For humans.
    pub name: String,
    /// Name of the cluster.
    pub source: String,
}

/// An executor that runs `km node` as `user`. `grace`: how long it may run after SHUTDOWN.
pub fn executor(
    km: &KmProgram,
    user: &str,
    names: ExecutorNames,
    resources: Vec<Resource>,
    grace: Duration,
) -> ExecutorInfo {
    let uri = Uri {
        value: km.url.clone(),
        executable: Some(true),
        extract: Some(false),
        cache: Some(true),
        output_file: Some("km".to_owned()),
    };
    let command = CommandInfo {
        uris: vec![uri],
        shell: Some(true),
        // Mesos' fetcher verifies nothing, and the fetched binary is about to run as root.
        value: Some(format!("echo \"{}  km\" | sha256sum -c - && exec ./km node", km.sha256)),
        user: Some(user.to_owned()),
        ..CommandInfo::default()
    };
    ExecutorInfo {
        kind: Some(ExecutorType::Custom),
        executor_id: names.id.into(),
        command: Some(command),
        resources,
        name: Some(names.name),
        source: Some(names.source),
        shutdown_grace_period: Some(grace.into()),
        ..ExecutorInfo::default()
    }
}

/// A task with the executor's info exactly as saved.
pub fn task_info(
    id: &str,
    name: String,
    agent: &str,
    executor: &ExecutorInfo,
    resources: Vec<Resource>,
    data: &TaskData,
) -> TaskInfo {
    TaskInfo {
        name,
        task_id: id.into(),
        agent_id: agent.into(),
        resources,
        executor: Some(executor.clone()),
        data: serde_json::to_vec(data).ok().map(Bytes),
        ..TaskInfo::default()
    }
}

/// A pod's task, with the name that Mesos shows.
pub fn pod_task(
    id: &str,
    launch: PodLaunch,
    agent: &str,
    executor: &ExecutorInfo,
    resources: Vec<Resource>,
) -> TaskInfo {
    let name = format!("{}.{}", launch.name, launch.namespace);
    task_info(id, name, agent, executor, resources, &TaskData::Pod(launch))
}

/// What to do with declared ports that request no host port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// Each must be granted one.
    Granted,
    /// Each is granted one, as long as any are left.
    WhileThereAre,
    /// They are granted none.
    Left,
}

/// Takes what a pod needs, and maps its ports to the agent's ports. Returns `None`, and takes nothing, if the offers do
/// not cover it.
pub fn take_for_pod(
    offers: &mut [HeldOffer],
    amount: Amount,
    wanted: &[PodPort],
    unnamed: Unnamed,
) -> Option<(Vec<Resource>, Vec<PortMapping>)> {
    let mut free: Vec<u16> = offers
        .iter()
        .flat_map(|offer| &offer.resources)
        .filter(|resource| resource.name == "ports")
        .flat_map(Resource::intervals)
        .flat_map(|(begin, end)| begin..=end)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| wanted.iter().all(|wanted| wanted.host_port != Some(*port)))
        .collect();
    free.sort_unstable();
    free.reverse();
    let mut mappings = Vec::new();
    for PodPort { container_port, host_port, protocol } in wanted {
        let found = match unnamed {
            Unnamed::Left => *host_port,
            _ => host_port.or_else(|| free.pop()),
        };
        match found {
            Some(host_port) => {
                mappings.push(PortMapping { container_port: *container_port, host_port, protocol: protocol.clone() })
            }
            None if unnamed == Unnamed::Granted => return None,
            None => {}
        }
    }
    // Mesos does not distinguish between TCP and UDP: both use one port.
    let mut ports: Vec<u16> = mappings.iter().map(|mapping| mapping.host_port).collect();
    ports.sort_unstable();
    ports.dedup();
    Some((take(offers, amount, &ports)?, mappings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Time;

    #[test]
    fn ports_that_name_none_are_granted_left_or_the_pod_waits() {
        let offer = |last| HeldOffer {
            id: "o".into(),
            resources: vec![Resource::ranges("ports", [(31000, last)])],
            since: Time(0),
        };
        let port = |container_port, host_port| PodPort { container_port, host_port, protocol: "TCP".to_owned() };
        let wanted = [port(80, None), port(81, Some(31000)), port(82, None)];
        let mapped = |last, unnamed| {
            let mut offers = [offer(last)];
            let (_, mappings) = take_for_pod(&mut offers, Amount::default(), &wanted, unnamed)?;
            Some(mappings.iter().map(|each| (each.container_port, each.host_port)).collect::<Vec<_>>())
        };
        assert_eq!(mapped(31002, Unnamed::Granted), Some(vec![(80, 31001), (81, 31000), (82, 31002)]));
        assert_eq!(mapped(31001, Unnamed::Granted), None);
        assert_eq!(mapped(31001, Unnamed::WhileThereAre), Some(vec![(80, 31001), (81, 31000)]));
        assert_eq!(mapped(31002, Unnamed::Left), Some(vec![(81, 31000)]));
    }
}
