//! `kmctl render`: every file that would land on a host, in the API or on a node, in a folder. Needs no host.
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Context as _;

use super::context::Context;
use super::failure::{Code, Failure};
use super::provision;
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
use kmctl_core::protocol::host::Item;
use kmctl_core::protocol::launch::{FORMAT, Grant, NodeLaunch};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Cgroup hierarchy of the example node
    #[arg(long, default_value = "v2", value_parser = ["v1", "v2"])]
    cgroup: String,
}

/// Runs `kmctl render`.
pub fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { cgroup } = args;
    let Some(out) = context.settings.out.clone() else {
        return Err(Failure::message(Code::Usage, "no folder to write to").hint("kmctl render --out DIR"));
    };
    let mut loaded = context.cluster()?;
    // No bundle is made for it: the files that it writes are the same with an empty one, except for the lists of programs.
    let (contents, text) = match provision::open_bundle(&mut loaded)? {
        Some(bundle) => (bundle.manifest().clone(), bundle.manifest_text().to_owned()),
        None => (provision::empty_bundle(&loaded), String::new()),
    };
    let secret = provision::optional(&loaded.cluster.spec.mesos.secret_file)?;
    let inputs = provision::inputs(&loaded, contents.clone(), text, secret.as_deref())?;
    let mut count = 0;
    let mut write = |path: &str, text: &str| -> Result<(), Failure> {
        let path = out.join(path.trim_start_matches('/'));
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        count += 1;
        Ok(())
    };
    for (host, manifest) in loaded.cluster.spec.control_plane.hosts.iter().zip(provision::manifests(&loaded, &inputs)?)
    {
        for item in &manifest.items {
            if let Item::File { path, text, .. } = item {
                write(&format!("{}{path}", manifest.host), text)?;
            }
        }
        let settings = plan::settings(&loaded.cluster, host, &inputs.bundle)?;
        for template in &render::API {
            write(template.path, &render::render(template, &settings)?)?;
        }
    }
    let launch = example_launch(&loaded, &contents);
    let place = Place { cgroup_v1: cgroup == "v1", ..Place::example() };
    let deps = DepsSpec::for_launch(&launch, &place);
    write("node/kubelet.yaml", &KubeletConfiguration::for_launch(&launch, &place).to_document())?;
    write("node/deps.yaml", &deps.to_document())?;
    for (name, text) in rendered(&deps) {
        write(&format!("node/{name}"), &text)?;
    }
    write("node/candidate.yaml", &candidate_of(&launch)?)?;
    context.progress.note("", &format!("{count} files in {}", out.display()));
    Ok(Code::Ok)
}

/// The Node object that stands for the agent before its kubelet runs.
fn candidate_of(launch: &NodeLaunch) -> Result<String, Failure> {
    let version: Version = launch.kubernetes_version.parse()?;
    let row = version.row().map_err(|error| Failure::new(Code::Invalid, error))?;
    let spec = NodeSpec {
        name: launch.node_name.clone(),
        agent: "(the agent's id)".to_owned(),
        labels: std::collections::BTreeMap::new(),
        address: Some(launch.node_ip),
        capacity: Amount::new(4000, 8192),
        disk: 0,
        pod_cidr: (launch.network_mode == NetworkMode::HostPorts).then(|| launch.pod_cidr.clone()),
        declared_features: row.declared_features,
    };
    let node = candidate(spec, "2026-01-01T00:00:00Z");
    Ok(serde_yaml::to_string(&node).context("write the candidate's Node")?)
}

/// A node that does not exist, on an address kept for documentation.
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
