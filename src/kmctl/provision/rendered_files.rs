//! Every file that would be installed on a host, in the API or on a node.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;

use super::{empty_bundle, inputs, manifests, mesos_secret, open_bundle};
use crate::failure::{Code, Failure};
use crate::{plan, render};
use kmctl_core::bundle::{Manifest, Purpose};
use kmctl_core::cluster::{Loaded, NetworkMode, quantity};
use kmctl_core::k8s::Version;
use kmctl_core::model::candidate::{NodeSpec, candidate};
use kmctl_core::model::resources::Amount;
use kmctl_core::node::KubeletConfiguration;
use kmctl_core::node::rendered;
use kmctl_core::node::spec::{DepsSpec, Place};
use kmctl_core::protocol::artifacts::listed;
use kmctl_core::protocol::launch::{FORMAT, Grant, NodeLaunch};

/// Relative paths and texts: a directory per host, and one for an example node with the given cgroup hierarchy. No
/// bundle is created: the files are the same with an empty one, except for the lists of binaries.
///
/// # Errors
/// A file that cannot be read, or a setting in cluster.yaml that cannot be rendered.
pub fn rendered_files(loaded: &mut Loaded, cgroup_v1: bool) -> Result<Vec<(String, String)>, Failure> {
    let (contents, text) = match open_bundle(loaded)? {
        Some(bundle) => (bundle.manifest().clone(), bundle.manifest_text().to_owned()),
        None => (empty_bundle(loaded), String::new()),
    };
    let secret = mesos_secret(loaded)?;
    let inputs = inputs(loaded, contents.clone(), text, secret.as_deref())?;
    let mut files: Vec<(String, String)> = Vec::new();
    for (host, manifest) in loaded.cluster.spec.control_plane.hosts.iter().zip(manifests(loaded, &inputs)?) {
        for item in &manifest.items {
            if let Some(text) = item.kind().text() {
                files.push((format!("{}{}", manifest.host, item.name()), text.to_owned()));
            }
        }
        let settings = plan::settings(&loaded.cluster, host, &inputs.bundle)?;
        for template in &render::API {
            // The same for every host.
            if files.iter().all(|(path, _)| path != template.path) {
                files.push((template.path.to_owned(), render::render(template, &settings)?));
            }
        }
    }
    let launch = example_launch(loaded, &contents);
    let place = Place { cgroup_v1, ..Place::example() };
    let deps = DepsSpec::for_launch(&launch, &place);
    files.push(("node/kubelet.yaml".to_owned(), KubeletConfiguration::for_launch(&launch, &place).to_document()));
    files.push(("node/deps.yaml".to_owned(), deps.to_document()));
    files.extend(rendered(&deps).into_iter().map(|(name, text)| (format!("node/{name}"), text)));
    files.push(("node/candidate.yaml".to_owned(), candidate_of(&launch)?));
    Ok(files)
}

/// The Node object that represents the agent before its kubelet runs.
fn candidate_of(launch: &NodeLaunch) -> Result<String, Failure> {
    let version: Version = launch.kubernetes_version.parse()?;
    let row = version.row().map_err(|error| Failure::new(Code::Invalid, error))?;
    let spec = NodeSpec {
        name: launch.node_name.clone(),
        agent: "(the agent's id)".to_owned(),
        labels: BTreeMap::new(),
        address: Some(launch.node_ip),
        capacity: Amount::new(4000, 8192),
        disk: 0,
        pod_cidr: (launch.network_mode == NetworkMode::HostPorts).then(|| launch.pod_cidr.clone()),
        declared_features: row.declared_features,
    };
    let node = candidate(spec, "2026-01-01T00:00:00Z");
    Ok(serde_yaml::to_string(&node).context("failed to serialize the Node of a candidate")?)
}

/// A made-up node, on an address reserved for documentation.
fn example_launch(loaded: &Loaded, contents: &Manifest) -> NodeLaunch {
    let spec = &loaded.cluster.spec;
    let overhead = &spec.nodes.overhead;
    NodeLaunch {
        format: FORMAT,
        cluster: loaded.cluster.metadata.name.clone(),
        node_name: "agent-1".to_owned(),
        node_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        api_servers: vec![format!("https://{}", spec.control_plane.endpoint)],
        ca_certificate: "(the cluster's certificate authority)".to_owned(),
        bootstrap_token: "(made at launch, used once)".to_owned(),
        kubernetes_version: spec.kubernetes.version.clone(),
        root_dir: spec.nodes.root_dir.clone().into(),
        network_mode: spec.network.mode,
        proxy_mode: spec.network.proxy_mode,
        pod_cidr: spec.network.pod_cidr.clone(),
        service_cidr: spec.kubernetes.service_cidr.clone(),
        cluster_domain: spec.kubernetes.cluster_domain.clone(),
        artifacts: contents
            .files
            .iter()
            .filter(|file| file.purposes.contains(&Purpose::Node))
            .map(|file| listed(file, Vec::new()))
            .collect(),
        overhead: Grant {
            cpus: overhead.cpu.parse().map_or(0.0, quantity::Millicores::cores),
            mem: overhead.memory.parse().map_or(0.0, quantity::Bytes::megabytes),
        },
    }
}
