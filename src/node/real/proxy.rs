//! The stock kube-proxy. With granted host ports it reads the cluster through the local view, else from the API server
//! with the kubelet's client certificate.
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;

use super::super::config::KubeletConfiguration;
use super::super::deps::{DepError, PortAllocator, Program, Service};
use super::super::spec::DepsSpec;
use super::super::view::api::ApiUpstream;
use super::super::view::lists::Lists;
use super::super::view::serve::Door;
use super::api::RealApi;
use super::containerd::{path, search_path};
use super::kubeconfig::{User, client_certificate, document, for_own_authority, write_private};
use super::packet_filter::PacketFilter;
use super::ports::RealPorts;
use super::proxy_lock::ProxySlot;
use super::remains::run_program;
use super::{forward, shown};
use crate::cluster::{NetworkMode, ProxyMode};

const POLL: Duration = Duration::from_millis(200);
const HEALTH_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// The kube-proxy of a run.
pub struct KubeProxy {
    spec: DepsSpec,
    api: Arc<RealApi>,
    ports: Arc<RealPorts>,
    lock: ProxySlot,
    /// The local view and the kubeconfig for it, while the run lives.
    view: Mutex<Option<(AbortOnDropHandle<()>, String)>>,
    filter: PacketFilter,
    /// Tells the API how it works.
    telling: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl KubeProxy {
    /// For one run, with rules of this kind.
    pub fn new(
        spec: DepsSpec,
        api: Arc<RealApi>,
        ports: Arc<RealPorts>,
        lock: ProxySlot,
        filter: PacketFilter,
    ) -> Self {
        KubeProxy { spec, api, ports, lock, view: Mutex::new(None), filter, telling: Mutex::new(None) }
    }

    /// Lets through what kube-proxy sends on, where it does not do that itself.
    async fn let_through(&self) -> Result<(), DepError> {
        let program = |rest: &str| self.filter.program(&format!("{}-{rest}", family(self.spec.node.ip).iptables));
        let saved = run_program(&program("save"), &["-t", "filter"], None).await?;
        match forward::script(&self.spec.node.cluster, &saved) {
            Some(script) => run_program(&program("restore"), &["--noflush", "--wait"], Some(script)).await.map(drop),
            None => Ok(()),
        }
    }

    /// The kubeconfig for the local view, which begins with the first use.
    fn through_view(&self) -> Result<String, DepError> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = view.as_ref() {
            return Ok(text.clone());
        }
        let door = Door::open()?;
        let text = for_own_authority(&door.url, &door.certificate, &User::Token(&door.token));
        let upstream = Arc::new(ApiUpstream::new(self.api.clone()));
        let lists = Lists::new(self.spec.node.ip, self.ports.translations(), upstream.clone());
        let serving = AbortOnDropHandle::new(tokio::spawn(door.serve(lists, upstream)));
        *view = Some((serving, text.clone()));
        Ok(text)
    }
}

#[async_trait]
impl Service for KubeProxy {
    fn name(&self) -> &'static str {
        "kube-proxy"
    }

    async fn program(&self, _: &KubeletConfiguration) -> Result<Program, DepError> {
        self.lock.fill()?;
        let choice = self.filter.choice().await?;
        if choice.mode == ProxyMode::Nftables && choice.iptables.is_some() {
            self.let_through().await?;
        }
        let folders = &self.spec.folders;
        let kubeconfig = folders.settings(KUBECONFIG);
        let text = match self.spec.network.mode {
            NetworkMode::HostPorts => self.through_view()?,
            NetworkMode::Cni => document(&self.api.server().await?, folders, &User::Certificate(&client_certificate())),
        };
        write_private(&kubeconfig, &text)?;
        let ports = (self.ports.own(HEALTH_PORT)?, self.ports.own(METRICS_PORT)?);
        Ok(Program {
            name: self.name().to_owned(),
            argv: argv(&self.spec, choice.mode, ports),
            environment: vec![("PATH".to_owned(), search_path(&self.spec))],
        })
    }

    async fn ready(&self) -> Result<(), DepError> {
        // Its first act after the first synchronisation; the rules are there whatever the port of its health check.
        loop {
            if let Ok(choice) = self.filter.choice().await {
                let (program, arguments, sign) = synchronised(choice.mode, self.spec.node.ip);
                let program = if program == "nft" { program.to_owned() } else { self.filter.program(program) };
                if run_program(&program, &arguments, None).await.is_ok_and(|rules| rules.contains(sign)) {
                    let telling = shown::tell(self.api.clone(), self.spec.node.name.clone(), choice.clone());
                    *self.telling.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(AbortOnDropHandle::new(tokio::spawn(telling)));
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

const KUBECONFIG: &str = "kube-proxy.kubeconfig";

/// How it is started; `ports` are those of its health check and of its metrics.
fn argv(spec: &DepsSpec, mode: ProxyMode, ports: (u16, u16)) -> Vec<String> {
    let folders = &spec.folders;
    let kubeconfig = path(&folders.settings(KUBECONFIG));
    let mut argv = vec![path(&folders.programs().join("kube-proxy")), format!("--kubeconfig={kubeconfig}")];
    argv.extend(flags(spec, mode, ports.0, ports.1));
    argv
}

/// The same, where the machine has what was asked for and its usual ports are free.
pub(super) fn usual(spec: &DepsSpec) -> Vec<String> {
    argv(spec, spec.network.proxy_mode, (HEALTH_PORT, METRICS_PORT))
}

/// How programs call the family of an address.
struct Family {
    iptables: &'static str,
    save: &'static str,
    nft: &'static str,
    /// Length of a prefix that leaves one address, and the addresses of the machine alone.
    one: u8,
    loopback: &'static str,
}

const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => {
            Family { iptables: "iptables", save: "iptables-save", nft: "ip", one: 32, loopback: "127.0.0.0/8" }
        }
        IpAddr::V6(_) => {
            Family { iptables: "ip6tables", save: "ip6tables-save", nft: "ip6", one: 128, loopback: "::1/128" }
        }
    }
}

/// What to list, and what is in it once kube-proxy has written its rules.
fn synchronised(mode: ProxyMode, node: IpAddr) -> (&'static str, Vec<&'static str>, &'static str) {
    let family = family(node);
    match mode {
        ProxyMode::Iptables => (family.save, vec!["-t", "nat"], "-j KUBE-SERVICES"),
        ProxyMode::Nftables => ("nft", vec!["list", "table", family.nft, "kube-proxy"], "service-ips"),
    }
}

/// Where NodePorts answer: at the node's own address, in either mode. An agent is shared, and its other addresses are
/// somebody's: a gateway's, a virtual address, a network that must not see the cluster. With iptables also at 127.0.0.1,
/// where the kernel can do it in no other way.
fn node_port_addresses(mode: ProxyMode, node: IpAddr) -> String {
    let Family { one, loopback, .. } = family(node);
    match (mode, node) {
        (ProxyMode::Iptables, IpAddr::V4(_)) => format!("{node}/{one},{loopback}"),
        _ => format!("{node}/{one}"),
    }
}

/// What is not in its kubeconfig.
pub fn flags(spec: &DepsSpec, mode: ProxyMode, health_port: u16, metrics_port: u16) -> Vec<String> {
    vec![
        format!("--hostname-override={}", spec.node.name),
        // Named: unset means iptables now and nftables in a later version.
        match mode {
            ProxyMode::Iptables => "--proxy-mode=iptables".to_owned(),
            ProxyMode::Nftables => "--proxy-mode=nftables".to_owned(),
        },
        format!("--nodeport-addresses={}", node_port_addresses(mode, spec.node.ip)),
        format!("--cluster-cidr={}", spec.network.pod_cidr),
        format!("--healthz-bind-address={}:{health_port}", spec.node.ip),
        // Zero is refused.
        format!("--metrics-bind-address=127.0.0.1:{metrics_port}"),
        // The machine's connection tracking is its operator's; changing it needs privileges that nested agents lack.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        "--v=2".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::launch;
    use crate::node::spec::Place;

    #[test]
    fn node_ports_answer_at_the_nodes_own_address_in_either_mode() {
        let spec = DepsSpec::for_launch(&launch::example(), &Place::example());
        let flag = |mode| {
            let flags = flags(&spec, mode, 10256, 10249);
            assert!(flags.iter().filter(|flag| flag.starts_with("--proxy-mode=")).count() == 1, "{flags:?}");
            flags.into_iter().find(|flag| flag.starts_with("--nodeport-addresses=")).unwrap()
        };
        assert_eq!(flag(ProxyMode::Iptables), "--nodeport-addresses=192.0.2.21/32,127.0.0.0/8");
        assert_eq!(flag(ProxyMode::Nftables), "--nodeport-addresses=192.0.2.21/32");
        assert_eq!(node_port_addresses(ProxyMode::Iptables, "2001:db8::5".parse().unwrap()), "2001:db8::5/128");
    }

    #[test]
    fn a_proxy_is_ready_by_the_rules_of_its_mode_and_of_the_nodes_family() {
        let of = |mode, node: &str| {
            let (program, arguments, sign) = synchronised(mode, node.parse().unwrap());
            format!("{program} {}: {sign}", arguments.join(" "))
        };
        assert_eq!(of(ProxyMode::Iptables, "192.0.2.21"), "iptables-save -t nat: -j KUBE-SERVICES");
        assert_eq!(of(ProxyMode::Nftables, "192.0.2.21"), "nft list table ip kube-proxy: service-ips");
        assert_eq!(of(ProxyMode::Nftables, "2001:db8::5"), "nft list table ip6 kube-proxy: service-ips");
    }
}
