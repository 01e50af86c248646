//! What `check` inspects: hosts and Mesos, and whether they meet the requirements. It needs no bundle: its findings
//! about hosts and agents do not depend on the files in one.
use std::sync::Arc;

use serde::Serialize;

use super::clients;
use super::session::Session;
use crate::failure::Failure;
use crate::host::Host;
use crate::inventory::machine::{self, Machine};
use crate::inventory::mesos::Master;
use crate::plan::preflight::{
    AgentGroup, Finding, eligible, group, judge_clocks, judge_machine, judge_mesos, judge_ownership, judge_routes,
};
use kmctl_core::cluster::{Cluster, HostSpec, Loaded};
use kmctl_core::text::count;

/// Everything that was inspected.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The cluster's name.
    pub cluster: String,
    /// In cluster.yaml's order.
    pub hosts: Vec<HostReport>,
    /// `None` if Mesos could not be queried. A finding says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesos: Option<MesosReport>,
    /// Errors first.
    pub findings: Vec<Finding>,
}

/// A control-plane host.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// As in cluster.yaml.
    pub name: String,
    /// As in cluster.yaml.
    pub address: String,
    /// `None` if the host could not be inspected. A finding says why.
    pub machine: Option<Machine>,
}

/// What was found out about Mesos.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MesosReport {
    /// What the leading master reports.
    #[serde(flatten)]
    pub master: Master,
    /// Agents that are alike.
    pub groups: Vec<AgentGroup>,
    /// How many agents could become nodes.
    pub fit: usize,
}

/// Inspects all hosts, and Mesos through the first of them that answers.
pub(super) async fn inspect(session: &Session, loaded: &Loaded) -> Report {
    let specs = &loaded.cluster.spec.control_plane.hosts;
    let looks = futures::future::join_all(specs.iter().map(|spec| inspect_host(session, loaded, spec))).await;
    let mut findings = Vec::new();
    let mut hosts = Vec::new();
    let mut first: Option<Arc<dyn Host>> = None;
    for (spec, look) in specs.iter().zip(looks) {
        let machine = match look {
            Ok((host, machine)) => {
                findings.extend(judge_ownership(&loaded.cluster.metadata.name, &spec.name, &machine));
                findings.extend(judge_machine(&spec.name, &machine));
                findings.extend(judge_routes(&loaded.cluster, &spec.name, &machine));
                first.get_or_insert(host);
                Some(machine)
            }
            Err(failure) => {
                let (text, hint) = failure.summary();
                let cure = hint.unwrap_or_else(|| format!("check SSH access from this machine: ssh {}", spec.address));
                findings.push(Finding::error(&spec.name, text, cure));
                None
            }
        };
        hosts.push(HostReport { name: spec.name.clone(), address: spec.address.clone(), machine });
    }
    let seen: Vec<_> = hosts.iter().filter_map(|host| Some((host.name.as_str(), host.machine.as_ref()?))).collect();
    findings.extend(judge_clocks(&seen));
    let mesos = match first {
        Some(host) => match query_mesos(session, loaded, host).await {
            Ok(master) => {
                findings.extend(judge_mesos(&loaded.cluster, &master));
                Some(mesos_report(&loaded.cluster, master))
            }
            Err(failure) => {
                let (text, hint) = clients::text_and_hint(&failure);
                findings.push(Finding::error("mesos", text, hint));
                None
            }
        },
        None => None,
    };
    findings.sort_by_key(|finding| finding.level);
    Report { cluster: loaded.cluster.metadata.name.clone(), hosts, mesos, findings }
}

async fn inspect_host(
    session: &Session,
    loaded: &Loaded,
    spec: &HostSpec,
) -> Result<(Arc<dyn Host>, Machine), Failure> {
    let step = session.progress.step(&spec.name, "Inspecting the host");
    let looked = async {
        let host = session.connect(loaded, spec).await?;
        let machine = machine::look(&host).await?;
        Ok::<_, Failure>((Arc::new(host) as Arc<dyn Host>, machine))
    }
    .await;
    match &looked {
        Ok(_) => step.done("Inspected the host"),
        Err(_) => step.failed("failed"),
    }
    looked
}

async fn query_mesos(session: &Session, loaded: &Loaded, host: Arc<dyn Host>) -> Result<Master, Failure> {
    let step = session.progress.step("mesos", "Querying the Mesos master and agents");
    let asked = clients::master(host, loaded).await;
    match &asked {
        Ok(master) => step.done(&format!("Found {}", count(master.agents.len(), "Mesos agent"))),
        Err(_) => step.failed("failed"),
    }
    asked
}

/// The report on Mesos.
pub(crate) fn mesos_report(cluster: &Cluster, master: Master) -> MesosReport {
    let groups = group(cluster, &master.agents);
    let fit = eligible(cluster, &master.agents).count();
    MesosReport { master, groups, fit }
}
