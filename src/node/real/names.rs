//! The pods' DNS on this machine, and the bridge that it answers at. The bridge plugin would make the bridge with the
//! first pod; made before, the address is there to listen at.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;

use super::super::deps::{DepError, Names};
use super::super::dns::answer::Zone;
use super::super::dns::forward::Forward;
use super::super::dns::serve::NameServer;
use super::super::spec::{DepsSpec, PodNetwork};
use super::super::view::translate::Resource;
use super::super::view::upstream::{ListOf, Upstream};
use super::remains::run_program;
use crate::cluster::{Network, NetworkMode};
use crate::k8s::Version;

const PORT: u16 = 53;

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

#[async_trait]
impl Names for RealNames {
    async fn open(&self) -> Result<(), DepError> {
        let network = &self.spec.network;
        if network.mode == NetworkMode::Cni {
            return Ok(());
        }
        let refused = |why: String| DepError::Refused(format!("network.podCIDR `{}` {why}", network.pod_cidr));
        let pods: Network = network.pod_cidr.parse().map_err(refused)?;
        let gateway = pods.host(1).ok_or_else(|| refused("has no address for the bridge".to_owned()))?;
        let routes = std::fs::read_to_string("/proc/net/route").map_err(DepError::io("read the machine's routes"))?;
        if let Some(why) = clash(&routes, pods, &network.bridge) {
            return Err(refused(why));
        }
        see_bridged_packets().await?;
        make_bridge(network, gateway, pods.prefix).await?;
        let zone = Zone::new(&network.cluster_domain, gateway.into())
            .ok_or_else(|| DepError::Refused(format!("`{}` is no DNS domain", network.cluster_domain)))?;
        let resolvers = &network.resolv_conf;
        // A host without the file has no resolvers, which is told to who asks.
        let forward = Forward::new(&std::fs::read_to_string(resolvers).unwrap_or_default(), gateway.into())?;
        let server = NameServer::bind(SocketAddr::new(IpAddr::V4(gateway), PORT))?;
        let version: Result<Version, _> = self.spec.node.kubernetes_version.parse();
        let slices =
            ListOf::rewritten(Resource::EndpointSlices, version.map_or("v1", |version| version.endpoint_slices()));
        let serving = tokio::spawn(server.serve(zone, forward, slices, self.upstream.clone()));
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(serving));
        Ok(())
    }
}

/// A pod's answer to a pod beside it passes only the bridge; where the firewall does not see it there, the caller gets
/// it from an address that it never called.
async fn see_bridged_packets() -> Result<(), DepError> {
    const SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if !Path::new(SWITCH).exists() {
        // Fails where there are no modules, and then the switch is missing below, too.
        let _ = run_program("modprobe", &["br_netfilter"], None).await;
    }
    match std::fs::read_to_string(SWITCH) {
        Ok(value) if value.trim() == "1" => Ok(()),
        Ok(_) => std::fs::write(SWITCH, "1").map_err(|source| {
            DepError::Refused(format!("{SWITCH} is off and cannot be written ({source}): set it to 1 on this agent"))
        }),
        Err(_) => Err(DepError::Refused(
            "the kernel module br_netfilter is not loaded and cannot be: load it on this agent (modprobe br_netfilter)"
                .to_owned(),
        )),
    }
}

/// As the bridge plugin would, with an Ethernet address that stays: else it would be that of some pod's link, and
/// change when that pod goes.
async fn make_bridge(network: &PodNetwork, gateway: Ipv4Addr, prefix: u8) -> Result<(), DepError> {
    let bridge = network.bridge.as_str();
    if !Path::new("/sys/class/net").join(bridge).exists() {
        let [a, b, c, d] = gateway.octets();
        let ethernet = format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        run_program("ip", &["link", "add", "name", bridge, "address", &ethernet, "type", "bridge"], None).await?;
    }
    let address = format!("{gateway}/{prefix}");
    run_program("ip", &["address", "replace", &address, "dev", bridge], None).await?;
    run_program("ip", &["link", "set", "dev", bridge, "up"], None).await.map(|_| ())
}

/// Why pods cannot have the network `pods` on a machine with these routes (/proc/net/route), if so. Routes of `bridge`
/// are the pods' own.
fn clash(routes: &str, pods: Network, bridge: &str) -> Option<String> {
    let taken: Vec<(Network, &str)> = routes
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (device, destination) = (fields.next()?, fields.next()?);
            let mask = fields.nth(5)?;
            // In the machine's byte order.
            let number = |text: &str| u32::from_str_radix(text, 16).map(u32::from_be).ok();
            let prefix = u8::try_from(number(mask)?.leading_ones()).ok()?;
            Some((Network::around(Ipv4Addr::from(number(destination)?), prefix), device))
        })
        // A default route, also one in parts, is for what nobody else has.
        .filter(|(network, device)| network.prefix >= 8 && *device != bridge)
        .collect();
    let (route, device) = taken.iter().find(|(network, _)| network.meets(&pods))?;
    let networks: Vec<Network> = taken.iter().map(|(network, _)| *network).collect();
    let free = pods.free_like(&networks).map(|free| format!("; {free} is free here")).unwrap_or_default();
    Some(format!("meets this machine's route to {route} by {device}{free}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        docker0\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

    #[test]
    fn a_route_that_meets_the_pods_network_is_told_with_a_free_one() {
        let pods = |text: &str| text.parse::<Network>().unwrap();
        let text = clash(ROUTES, pods("172.30.0.0/16"), "km0").unwrap();
        assert_eq!(text, "meets this machine's route to 172.30.0.0/16 by docker0; 172.31.0.0/16 is free here");
        assert!(clash(ROUTES, pods("172.16.0.0/12"), "km0").is_some());
        assert!(clash(ROUTES, pods("10.0.0.0/8"), "km0").unwrap().contains("route to 10.0.0.0/24 by eth0"));
        assert_eq!(clash(ROUTES, pods("172.31.0.0/16"), "km0"), None, "default routes do not count");
        assert_eq!(clash(ROUTES, pods("172.30.0.0/16"), "docker0"), None, "left from an earlier pod of ours");
        assert_eq!(clash("", pods("172.30.0.0/16"), "km0"), None);
    }
}
