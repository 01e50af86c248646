//! The pods' DNS on this machine, and the bridge with its address. The bridge has no ports: it only holds the address,
//! so that the server can listen before the first pod exists.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;

use super::super::deps::{DepError, Names};
use super::super::dns::answer::Zone;
use super::super::dns::forward::Forward;
use super::super::dns::serve::NameServer;
use super::super::view::translate::Resource;
use super::super::view::upstream::{ListOf, Upstream};
use super::cleanup::run_program;
use kmctl_core::cluster::{Network, NetworkMode, clash, routes};
use kmctl_core::node::spec::{DepsSpec, PodNetwork};

const PORT: u16 = 53;

/// Index of the address in the Services' network that pods with the user's CNI plugin query.
const SERVICES_RESOLVER: u32 = 10;

/// The DNS of a run.
pub struct RealNames {
    spec: DepsSpec,
    upstream: Arc<dyn Upstream>,
    /// Answers while the run lives.
    serving: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl RealNames {
    /// For one run.
    pub fn new(spec: DepsSpec, upstream: Arc<dyn Upstream>) -> Self {
        RealNames { spec, upstream, serving: Mutex::new(None) }
    }
}

/// A node without an API server has no Services to resolve: its pods query the machine's resolvers.
pub struct NoNames;

#[async_trait]
impl Names for NoNames {
    async fn open(&self) -> Result<(), DepError> {
        Ok(())
    }
}

#[async_trait]
impl Names for RealNames {
    async fn open(&self) -> Result<(), DepError> {
        let network = &self.spec.network;
        let (gateway, prefix) = match network.mode {
            NetworkMode::HostPorts => own_network(network)?,
            NetworkMode::Cni => (services_resolver(network)?, 32),
        };
        // The user's plugin may not use bridges, so a failure is only logged.
        if network.mode == NetworkMode::Cni
            && let Err(error) = see_bridged_packets().await
        {
            tracing::info!("packets on bridges are not filtered: {}", error.chain());
        }
        make_bridge(&network.bridge, gateway, prefix).await?;
        let zone = Zone::new(&network.cluster_domain, gateway.into())
            .ok_or_else(|| DepError::Refused(format!("`{}` is not a DNS domain", network.cluster_domain)))?;
        let resolvers = &network.resolv_conf;
        // A host without the file has no resolvers; queries are then refused.
        let forward = Forward::new(&std::fs::read_to_string(resolvers).unwrap_or_default(), gateway.into())?;
        let server = NameServer::bind(SocketAddr::new(IpAddr::V4(gateway), PORT))?;
        let slices = ListOf::rewritten(Resource::EndpointSlices, "v1");
        let serving = tokio::spawn(server.serve(zone, forward, slices, self.upstream.clone()));
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(serving));
        Ok(())
    }
}

/// The bridge's address in the pods' network, and the network's prefix length. No other device may have a route there.
fn own_network(network: &PodNetwork) -> Result<(Ipv4Addr, u8), DepError> {
    let refused = |why: String| DepError::Refused(format!("network.podCIDR `{}` {why}", network.pod_cidr));
    let pods: Network = network.pod_cidr.parse().map_err(refused)?;
    let gateway = pods.host(1).ok_or_else(|| refused("has no address for the bridge".to_owned()))?;
    let table = std::fs::read_to_string("/proc/net/route").map_err(DepError::io("read the routes of the machine"))?;
    if let Some((route, free)) = clash(&pods, &routes(&table), &network.bridge) {
        let free = free.map(|free| format!("; {free} is unused on this machine")).unwrap_or_default();
        let (taken, device) = (route.network, &route.device);
        return Err(refused(format!("overlaps the route of this machine to {taken} on {device}{free}")));
    }
    Ok((gateway, pods.prefix))
}

/// The address in the Services' network that pods with the user's plugin query. It is this machine's own until a
/// Service has it (by convention CoreDNS); then kube-proxy replaces it with that Service's endpoints.
fn services_resolver(network: &PodNetwork) -> Result<Ipv4Addr, DepError> {
    let refused = |why: String| DepError::Refused(format!("kubernetes.serviceCIDR `{}` {why}", network.service_cidr));
    let services: Network = network.service_cidr.parse().map_err(refused)?;
    services.host(SERVICES_RESOLVER).ok_or_else(|| refused("has no tenth address".to_owned()))
}

/// An answer between two pods of one node passes only the bridge. If the firewall does not see it there, the caller
/// gets the answer from an address that it never called.
async fn see_bridged_packets() -> Result<(), DepError> {
    const SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if !Path::new(SWITCH).exists() {
        // Fails if there are no modules; then the switch does not exist below either.
        let _ = run_program("modprobe", &["br_netfilter"], None).await;
    }
    match std::fs::read_to_string(SWITCH) {
        Ok(value) if value.trim() == "1" => Ok(()),
        Ok(_) => std::fs::write(SWITCH, "1").map_err(|source| {
            DepError::Refused(format!("{SWITCH} is disabled and not writable ({source}): set it to 1 on this agent"))
        }),
        Err(_) => Err(DepError::Refused(
            "kernel module br_netfilter is not loaded: load it on this agent (modprobe br_netfilter)".to_owned(),
        )),
    }
}

/// The address includes the route to the whole pod network, so that packets to a removed pod do not leave the machine.
async fn make_bridge(bridge: &str, gateway: Ipv4Addr, prefix: u8) -> Result<(), DepError> {
    if !Path::new("/sys/class/net").join(bridge).exists() {
        run_program("ip", &["link", "add", "name", bridge, "type", "bridge"], None).await?;
    }
    let address = format!("{gateway}/{prefix}");
    run_program("ip", &["address", "replace", &address, "dev", bridge], None).await?;
    run_program("ip", &["link", "set", "dev", bridge, "up"], None).await.map(|_| ())
}
