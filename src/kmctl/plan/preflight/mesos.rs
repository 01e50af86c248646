//! Whether a Mesos cluster can run this cluster's nodes.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::agents::{eligible, reason_against};
use super::finding::Finding;
use crate::inventory::mesos::{Agent, Flags, Master};
use kmctl_core::cluster::{Cluster, Network, NetworkMode, host_port, port_range};
use kmctl_core::text::{count, duration};
use mesos::types::parse_duration;

/// Fault domains, which region-aware frameworks need, were added in this version (Mesos' CHANGELOG, 1.5.0).
const LEAST_VERSION: (u64, u64) = (1, 5);

/// The only release line that this project is tested with.
const TESTED_VERSION: (u64, u64) = (1, 11);

/// `km` is 14 MB and must be fetched and started before this Mesos timeout.
const LEAST_REGISTRATION: Duration = Duration::from_secs(30);

/// Below this, the logs of a failed node are removed before the operator can read them.
const LEAST_GC_DELAY: Duration = Duration::from_secs(3600);

/// What is wrong with Mesos and its agents. Findings that several agents share are reported once.
pub fn judge_mesos(cluster: &Cluster, master: &Master) -> Vec<Finding> {
    let mut found = judge_master(cluster, master);
    found.extend(judge_fit(cluster, master));
    let mut shared: BTreeMap<(usize, String, String), (Finding, Vec<&str>)> = BTreeMap::new();
    for agent in &master.agents {
        for (order, finding) in judge_agent(cluster, agent).into_iter().enumerate() {
            let key = (order, finding.text.clone(), finding.cure.clone());
            shared.entry(key).or_insert((finding, Vec::new())).1.push(&agent.hostname);
        }
    }
    found.extend(twins(&master.agents));
    let mut shared: Vec<_> = shared.into_values().collect();
    shared.sort_by_key(|(finding, agents)| (finding.level, std::cmp::Reverse(agents.len())));
    found.extend(shared.into_iter().map(|(finding, agents)| Finding { about: names(&agents), ..finding }));
    found
}

/// The first few names, and how many more there are.
fn names(agents: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown = agents.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match agents.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{shown} and {}", count(more, "more agent")),
        _ => shown,
    }
}

/// What is wrong with the master, regardless of its agents, which change over time.
pub fn judge_master(cluster: &Cluster, master: &Master) -> Vec<Finding> {
    let spec = &cluster.spec;
    let mut found = Vec::new();
    found.extend(judge_version("mesos", &master.version));
    let flag = |name: &str| master.flags.get(name).map(String::as_str);
    if flag("authenticate_http_frameworks") == Some("true") && spec.mesos.principal.is_empty() {
        found.push(Finding::error(
            "mesos",
            "the master requires authentication, but spec.mesos.principal is empty",
            "set spec.mesos.principal and spec.mesos.secretFile to an entry of the master's --credentials",
        ));
    }
    if let Some(allowed) = flag("roles") {
        for role in spec.mesos.roles.iter().filter(|role| !allowed.split(',').any(|one| one.trim() == **role)) {
            let text = format!("the master's --roles does not list {role}");
            found.push(Finding::error("mesos", text, format!("add {role} to it, or change spec.mesos.roles")));
        }
    }
    for role in &spec.mesos.roles {
        for (resource, unit, least) in [("cpus", "CPU", 1.0), ("mem", "MiB memory", 1024.0)] {
            if let Some(limit) = master.limits.get(role).and_then(|limits| limits.get(resource))
                && *limit < least
            {
                let text = format!("role {role} has a quota of {limit} {unit}, hardly enough for one node");
                found.push(Finding::warning("mesos", text, format!("raise the quota of {role} with Mesos' /quota")));
            }
        }
    }
    for framework in &master.frameworks {
        if framework.principal != spec.mesos.principal {
            let name = &spec.mesos.framework_name;
            let text = format!("framework {name} already exists with principal `{}`", framework.principal);
            found.push(Finding::error(
                "mesos",
                text,
                "set another spec.mesos.frameworkName; names are unique per cluster",
            ));
        }
    }
    if master.unreachable > 0 {
        let text = format!("{} unreachable from the master", count(master.unreachable, "agent"));
        found.push(Finding::warning("mesos", text, "inspect them, or remove them from Mesos with MARK_AGENT_GONE"));
    }
    for unknown in &master.unknown {
        let cure = "allow the principal to view it in Mesos' ACLs; the check is incomplete without it";
        found.push(Finding::warning("mesos", format!("not visible: {unknown}"), cure));
    }
    found
}

/// Whether enough agents can become nodes.
fn judge_fit(cluster: &Cluster, master: &Master) -> Option<Finding> {
    let fit = eligible(cluster, &master.agents).count();
    let least = cluster.spec.nodes.min;
    if fit == 0 {
        let reason = |agent: &Agent| Some((agent.hostname.clone(), reason_against(cluster, agent)?));
        let why = match master.agents.first().and_then(reason) {
            Some((agent, reason)) => format!("no Mesos agent is eligible to run nodes; {agent}: {reason}"),
            None => "Mesos has no agents".to_owned(),
        };
        Some(Finding::error("mesos", why, "start agents with enough resources, or relax spec.nodes"))
    } else if fit < least as usize {
        let text = format!("nodes.min is {least}, but only {} eligible to run nodes", are(fit));
        Some(Finding::warning("mesos", text, "add agents, or lower nodes.min"))
    } else {
        None
    }
}

fn are(agents: usize) -> String {
    format!("{} {}", count(agents, "agent"), if agents == 1 { "is" } else { "are" })
}

fn judge_version(about: &str, version: &str) -> Option<Finding> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let seen = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if seen < LEAST_VERSION {
        let text = format!("Mesos {version} is too old: it does not support fault domains");
        return Some(Finding::error(about, text, "upgrade to Mesos 1.11"));
    }
    (seen < TESTED_VERSION).then(|| {
        let text = format!("Mesos {version} is older than 1.11, with which kmctl is tested");
        Finding::warning(about, text, "upgrade to Mesos 1.11, which also supports task limits")
    })
}

fn judge_agent(cluster: &Cluster, agent: &Agent) -> Vec<Finding> {
    let mut found = Vec::new();
    let about = agent.hostname.as_str();
    found.extend(judge_version(about, &agent.version));
    found.extend(judge_ports(cluster, agent));
    found.extend(judge_address(cluster, agent));
    let Some(own) = &agent.flags else { return found };
    let flag = |name: &str| own.flags.get(name).map_or("", String::as_str);
    if flag("launcher") != "linux" {
        found.push(Finding::warning(
            about,
            format!("launcher is {}: pod resource limits are not enforced", flag("launcher")),
            "start the agent as root with --launcher=linux; Mesos 1.11 needs cgroup v1 for it",
        ));
    } else {
        // With the linux launcher the machine has cgroup v1 hierarchies: Mesos 1.11 knows no others.
        let isolators: Vec<&str> = flag("isolation").split(',').map(str::trim).collect();
        for wanted in ["cgroups/cpu", "cgroups/mem"] {
            if !isolators.contains(&wanted) && !isolators.contains(&"cgroups/all") {
                let text = format!("isolator {wanted} is disabled: Mesos does not enforce allocations of nodes");
                found.push(Finding::error(about, text, format!("add {wanted} to the agent's --isolation")));
            }
        }
    }
    if let Some(recover) = own.flags.get("recover")
        && recover != "reconnect"
    {
        let text = format!("--recover={recover}: a restart of the agent stops all nodes");
        found.push(Finding::error(about, text, "start the agent with --recover=reconnect, the default"));
    }
    for (name, least, what) in [
        ("executor_registration_timeout", LEAST_REGISTRATION, "too short to fetch and start km"),
        ("executor_reregistration_timeout", Duration::from_secs(1), "nodes may be stopped when the agent restarts"),
        ("gc_delay", LEAST_GC_DELAY, "logs of failed nodes are removed early"),
    ] {
        if let Some(value) = own.flags.get(name)
            && parse_duration(value).is_some_and(|value| value < least)
        {
            let text = format!("--{name}={value}: {what}");
            found.push(Finding::warning(about, text, format!("raise it to at least {}", duration(least))));
        }
    }
    if let Some(cores) = own.machine_cpus
        && agent.resources.cpus > cores
    {
        let text = format!("offers {} CPU on {cores} cores", agent.resources.cpus);
        found.push(Finding::warning(
            about,
            text,
            "lower cpus in the agent's --resources; Kubernetes uses no more than the machine has",
        ));
    }
    if let Some(memory) = own.machine_mem
        && agent.resources.mem > memory
    {
        let text = format!("offers {:.0} MiB memory, the machine has {memory:.0} MiB", agent.resources.mem);
        found.push(Finding::error(about, text, "lower mem in the agent's --resources below the machine's memory"));
    }
    found
}

fn judge_ports(cluster: &Cluster, agent: &Agent) -> Option<Finding> {
    let about = agent.hostname.as_str();
    let ranges: Vec<(u16, u16)> =
        agent.ports.trim_matches(['[', ']']).split(',').filter_map(|range| port_range(range.trim())).collect();
    if ranges.is_empty() {
        return Some(Finding::warning(
            about,
            "offers no ports: pods with host ports cannot run there",
            "add ports to the agent's --resources, e.g. ports:[31000-32000]",
        ));
    }
    let (first, last) = port_range(&cluster.spec.kubernetes.node_port_range)?;
    let (from, to) = ranges.into_iter().find(|(from, to)| first <= *to && *from <= last)?;
    Some(Finding::error(
        about,
        format!("offered ports {from}-{to} overlap kubernetes.nodePortRange {first}-{last}"),
        "choose another nodePortRange; kube-proxy would use ports that Mesos allocated to other tasks",
    ))
}

/// Packets for the pods' own network do not leave their node, so an agent with an address in it could not be reached.
fn judge_address(cluster: &Cluster, agent: &Agent) -> Option<Finding> {
    let address: Ipv4Addr = host_port(&agent.address)?.0.parse().ok()?;
    let spec = &cluster.spec;
    let networks = [
        ("network.podCIDR", &spec.network.pod_cidr, spec.network.mode == NetworkMode::HostPorts),
        ("kubernetes.serviceCIDR", &spec.kubernetes.service_cidr, true),
    ];
    let parsed = networks.map(|(key, text, counts)| (key, text.parse::<Network>().ok().filter(|_| counts)));
    let (key, network) =
        parsed.iter().find_map(|(key, network)| Some((key, network.filter(|n| n.contains(address))?)))?;
    let mut taken = vec![Network::around(address, 16)];
    taken.extend(parsed.iter().filter_map(|(_, network)| *network));
    let cure = match network.free_like(&taken) {
        Some(free) => format!("set {key} to {free} if it is unused"),
        None => format!("set {key} to a network without agents"),
    };
    Some(Finding::error(&agent.hostname, format!("address {address} is in {key} {network}"), cure))
}

/// Two agents on one kernel with the same cgroup root destroy each other's containers when one restarts.
fn twins(agents: &[Agent]) -> Vec<Finding> {
    let mut seen: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut found = Vec::new();
    for agent in agents {
        let Some(root) = agent.flags.as_ref().and_then(|own| cgroups_root(&own.flags)) else { continue };
        let address = agent.address.rsplit_once(':').map_or(agent.address.as_str(), |(host, _)| host);
        if let Some(other) = seen.insert((address, root), &agent.hostname) {
            found.push(Finding::error(
                &names(&[other, &agent.hostname]),
                format!(
                    "both run on {address} with --cgroups_root={root}: a restart of one stops the nodes of the other"
                ),
                "set a different --cgroups_root for each agent",
            ));
        }
    }
    found
}

fn cgroups_root(flags: &Flags) -> Option<&str> {
    (flags.get("launcher").map(String::as_str) == Some("linux")).then(|| flags.get("cgroups_root"))?.map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::mesos::{AgentFlags, Framework, Pressure};

    fn cluster() -> Cluster {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "kmctl.io/v1alpha1", "kind": "Cluster", "metadata": { "name": "demo" },
            "spec": {
                "mesos": { "master": "10.0.0.5:5050", "frameworkName": "kubernetes-demo" },
                "controlPlane": { "endpoint": "10.0.0.11:6443", "hosts": [{ "address": "10.0.0.11" }] },
                "nodes": { "constraints": [{ "attribute": "rack", "in": ["r1", "r2"] }] }
            }
        }))
        .unwrap()
    }

    fn agent(name: &str) -> Agent {
        let flags = [
            ("launcher", "linux"),
            ("isolation", "cgroups/cpu,cgroups/mem"),
            ("recover", "reconnect"),
            ("gc_delay", "1weeks"),
            ("executor_registration_timeout", "1mins"),
            ("executor_reregistration_timeout", "2secs"),
            ("cgroups_root", "mesos"),
        ];
        Agent {
            id: format!("id-{name}"),
            hostname: name.to_owned(),
            address: format!("{name}:5051"),
            version: "1.11.0".to_owned(),
            active: true,
            attributes: [("rack".to_owned(), "r1".to_owned())].into(),
            resources: Pressure { cpus: 2.0, mem: 3072.0 },
            ports: "[31000-32000]".to_owned(),
            flags: Some(AgentFlags {
                flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                machine_cpus: Some(2.0),
                machine_mem: Some(4096.0),
            }),
            ..Agent::default()
        }
    }

    fn master(agents: Vec<Agent>) -> Master {
        Master { version: "1.11.0".to_owned(), agents, ..Master::default() }
    }

    fn texts(found: &[Finding]) -> Vec<String> {
        found.iter().map(|finding| format!("{:?} {}: {}", finding.level, finding.about, finding.text)).collect()
    }

    #[test]
    fn a_good_cluster_has_no_findings() {
        let found = judge_mesos(&cluster(), &master(vec![agent("a1"), agent("a2")]));
        assert_eq!(texts(&found), [""; 0]);
    }

    #[test]
    fn every_flaw_of_an_agent_is_found() {
        type Spoil = fn(&mut Agent);
        fn set(agent: &mut Agent, name: &str, value: &str) {
            agent.flags.as_mut().unwrap().flags.insert(name.to_owned(), value.to_owned());
        }
        let table: [(Spoil, &str); 15] = [
            (|a| a.version = "1.4.2".to_owned(), "Error a1: Mesos 1.4.2 is too old: it does not support fault domains"),
            (
                |a| a.version = "1.9.0".to_owned(),
                "Warning a1: Mesos 1.9.0 is older than 1.11, with which kmctl is tested",
            ),
            (|a| a.ports.clear(), "Warning a1: offers no ports: pods with host ports cannot run there"),
            (
                |a| a.ports = "[1000-2000, 29000-32000]".to_owned(),
                "Error a1: offered ports 29000-32000 overlap kubernetes.nodePortRange 28000-29999",
            ),
            (|a| set(a, "launcher", "posix"), "Warning a1: launcher is posix: pod resource limits are not enforced"),
            (
                |a| set(a, "isolation", "cgroups/cpu,posix/mem"),
                "Error a1: isolator cgroups/mem is disabled: Mesos does not enforce allocations of nodes",
            ),
            (|a| set(a, "recover", "cleanup"), "Error a1: --recover=cleanup: a restart of the agent stops all nodes"),
            (
                |a| set(a, "executor_registration_timeout", "10secs"),
                "Warning a1: --executor_registration_timeout=10secs: too short to fetch and start km",
            ),
            (
                |a| set(a, "executor_reregistration_timeout", "500ms"),
                "Warning a1: --executor_reregistration_timeout=500ms: nodes may be stopped when the agent restarts",
            ),
            (|a| set(a, "gc_delay", "1mins"), "Warning a1: --gc_delay=1mins: logs of failed nodes are removed early"),
            (|a| a.resources.cpus = 8.0, "Warning a1: offers 8 CPU on 2 cores"),
            (|a| a.resources.mem = 8192.0, "Error a1: offers 8192 MiB memory, the machine has 4096 MiB"),
            (
                |a| a.address = "172.30.9.9:5051".to_owned(),
                "Error a1: address 172.30.9.9 is in network.podCIDR 172.30.0.0/16",
            ),
            (
                |a| a.address = "10.96.0.200:5051".to_owned(),
                "Error a1: address 10.96.0.200 is in kubernetes.serviceCIDR 10.96.0.0/16",
            ),
            (
                |a| a.address = "a2:5052".to_owned(),
                "Error a1, a2: both run on a2 with --cgroups_root=mesos: a restart of one stops the nodes of the other",
            ),
        ];
        for (spoil, expected) in table {
            let mut one = agent("a1");
            spoil(&mut one);
            let found = judge_mesos(&cluster(), &master(vec![one, agent("a2")]));
            assert_eq!(texts(&found), [expected]);
            assert!(found.iter().all(|finding| !finding.cure.is_empty()));
        }
    }

    #[test]
    fn every_flaw_of_the_master_is_found() {
        type Spoil = fn(&mut Master, &mut Cluster);
        let table: [(Spoil, &str); 9] = [
            (
                |m, _| drop(m.flags.insert("authenticate_http_frameworks".to_owned(), "true".to_owned())),
                "Error mesos: the master requires authentication, but spec.mesos.principal is empty",
            ),
            (
                |m, _| drop(m.flags.insert("roles".to_owned(), "dev, ops".to_owned())),
                "Error mesos: the master's --roles does not list kubernetes",
            ),
            (
                |m, _| drop(m.limits.insert("kubernetes".to_owned(), [("cpus".to_owned(), 0.5)].into())),
                "Warning mesos: role kubernetes has a quota of 0.5 CPU, hardly enough for one node",
            ),
            (|m, _| m.unreachable = 2, "Warning mesos: 2 agents unreachable from the master"),
            (|_, c| c.spec.nodes.min = 3, "Warning mesos: nodes.min is 3, but only 1 agent is eligible to run nodes"),
            (|m, _| m.agents.clear(), "Error mesos: Mesos has no agents"),
            (
                |m, _| drop(m.agents[0].attributes.insert("rack".to_owned(), "r9".to_owned())),
                "Error mesos: no Mesos agent is eligible to run nodes; a1: nodes.constraints: attribute rack is r9",
            ),
            (
                |m, _| m.agents[0].reserved = [("dev".to_owned(), Pressure { cpus: 2.0, mem: 3000.0 })].into(),
                "Error mesos: no Mesos agent is eligible to run nodes; a1: 0 CPU, 72 MiB for role kubernetes, \
                 but overhead and the smallest pod need 0.5 CPU, 576 MiB",
            ),
            (
                |m, _| {
                    m.frameworks.push(Framework {
                        id: "F".to_owned(),
                        connected: true,
                        active: true,
                        principal: "other".to_owned(),
                        tasks: Vec::new(),
                    });
                },
                "Error mesos: framework kubernetes-demo already exists with principal `other`",
            ),
        ];
        for (spoil, expected) in table {
            let (mut cluster, mut master) = (cluster(), master(vec![agent("a1")]));
            spoil(&mut master, &mut cluster);
            assert_eq!(texts(&judge_mesos(&cluster, &master)), [expected]);
        }
    }

    #[test]
    fn a_flaw_that_agents_share_is_told_once() {
        let agents = (1..=5).map(|index| {
            let mut one = agent(&format!("a{index}"));
            one.ports.clear();
            one
        });
        let found = judge_mesos(&cluster(), &master(agents.collect()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].about, "a1, a2, a3 and 2 more agents");
    }
}
