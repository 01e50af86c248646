//! The only place where the real objects are built.
use std::net::IpAddr;
use std::sync::Arc;

use super::super::deps::{ApiClient, DepError, Executor, KubeletDeps, Service};
use super::super::view::api::ApiUpstream;
use super::api::RealApi;
use super::cgroup_tree::Tree;
use super::cgroups::RealCgroups;
use super::clock::RealClock;
use super::cluster_dns::{NoNames, RealNames};
use super::containerd::Containerd;
use super::fetch::RealFetcher;
use super::folders::RealMounter;
use super::kubelet::Kubelet;
use super::packet_filter::PacketFilter;
use super::ports::RealPorts;
use super::processes::RealLauncher;
use super::proxy::KubeProxy;
use super::proxy_lock::ProxySlot;
use kmctl_core::node::spec::DepsSpec;

/// Rounds over all URLs of an artifact in a run. Few, because a user waits for it and needs to see the failure soon.
const ONCE_ATTEMPTS: u32 = 4;

/// Builds the objects of a node without an API server: `api` is the source of its pods, and `kubelet` reads them there.
/// There is no kube-proxy, because there are no Services.
pub fn build_once(
    spec: DepsSpec,
    executor: Arc<dyn Executor>,
    api: Arc<dyn ApiClient>,
    kubelet: Arc<dyn Service>,
) -> Result<KubeletDeps, DepError> {
    let read = |file: &str| std::fs::read_to_string(file).map_err(DepError::io(format!("read {file}")));
    let tree = Tree::read(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, &spec.cgroups);
    let ports = Arc::new(RealPorts::new(IpAddr::from([127, 0, 0, 1])));
    Ok(KubeletDeps {
        node_task: spec.node.node_task.clone(),
        executor,
        api,
        artifacts: Arc::new(RealFetcher::new(spec.folders.clone(), spec.artifacts.clone()).attempts(ONCE_ATTEMPTS)),
        mounter: Arc::new(RealMounter::new(spec.clone(), tree.clone(), ProxySlot::default())),
        cgroups: Arc::new(RealCgroups::new(tree, &spec.cgroups)),
        ports: ports.clone(),
        names: Arc::new(NoNames),
        launcher: Arc::new(RealLauncher::new(spec.logs())),
        services: vec![Arc::new(Containerd::new(spec.clone(), ports, PacketFilter::new(spec))), kubelet],
        clock: Arc::new(RealClock::new()),
    })
}

/// Builds a node's objects. `token`: the launch's one-time bootstrap token.
pub fn build(spec: DepsSpec, token: String, executor: Arc<dyn Executor>) -> Result<KubeletDeps, DepError> {
    let read = |file: &str| std::fs::read_to_string(file).map_err(DepError::io(format!("read {file}")));
    let tree = Tree::read(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, &spec.cgroups);
    let api = Arc::new(RealApi::new(spec.clone()));
    let ports = Arc::new(RealPorts::new(spec.node.ip));
    let lock = ProxySlot::default();
    let filter = PacketFilter::new(spec.clone());
    Ok(KubeletDeps {
        node_task: spec.node.node_task.clone(),
        executor,
        api: api.clone(),
        artifacts: Arc::new(RealFetcher::new(spec.folders.clone(), spec.artifacts.clone())),
        mounter: Arc::new(RealMounter::new(spec.clone(), tree.clone(), lock.clone())),
        cgroups: Arc::new(RealCgroups::new(tree, &spec.cgroups)),
        ports: ports.clone(),
        names: Arc::new(RealNames::new(spec.clone(), Arc::new(ApiUpstream::new(api.clone())))),
        launcher: Arc::new(RealLauncher::new(spec.folders.sandbox.clone())),
        // Each depends on the one before: the kubelet on its runtime, kube-proxy on the kubelet's certificate.
        services: vec![
            Arc::new(Containerd::new(spec.clone(), ports.clone(), filter.clone())),
            Arc::new(Kubelet::new(spec.clone(), api.clone(), token)),
            Arc::new(KubeProxy::new(spec, api, ports, lock, filter)),
        ],
        clock: Arc::new(RealClock::new()),
    })
}
