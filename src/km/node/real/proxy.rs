//! The stock kube-proxy. With granted host ports it reads the cluster through the local view, otherwise from the API
//! server with the kubelet's client certificate.
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;

use super::super::deps::{DepError, PortAllocator, Program, Service};
use super::super::view::api::ApiUpstream;
use super::super::view::lists::Lists;
use super::super::view::serve::LocalApiServer;
use super::api::RealApi;
use super::cleanup::run_program;
use super::kubeconfig::{User, client_certificate, document, for_own_authority, write_private};
use super::packet_filter::PacketFilter;
use super::ports::RealPorts;
use super::proxy_lock::ProxySlot;
use super::{forward, shown};
use kmctl_core::cluster::{NetworkMode, ProxyMode};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::kube_proxy::{HEALTH_PORT, KUBECONFIG, METRICS_PORT, argv};
use kmctl_core::node::programs::search_path;
use kmctl_core::node::spec::DepsSpec;

const POLL: Duration = Duration::from_millis(200);

/// The kube-proxy of a run.
pub struct KubeProxy {
    spec: DepsSpec,
    api: Arc<RealApi>,
    ports: Arc<RealPorts>,
    lock: ProxySlot,
    /// The local view and its kubeconfig, while the run lives.
    view: Mutex<Option<(AbortOnDropHandle<()>, String)>>,
    filter: PacketFilter,
    /// The task that reports kube-proxy's mode to the API.
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

    /// Adds rules that accept the packets that kube-proxy forwards, where kube-proxy does not accept them itself.
    async fn let_through(&self) -> Result<(), DepError> {
        let program = |rest: &str| self.filter.program(&format!("{}-{rest}", family(self.spec.node.ip).iptables));
        let saved = run_program(&program("save"), &["-t", "filter"], None).await?;
        match forward::script(&self.spec.node.cluster, &saved) {
            Some(script) => run_program(&program("restore"), &["--noflush", "--wait"], Some(script)).await.map(drop),
            None => Ok(()),
        }
    }

    /// The kubeconfig for the local view, which is started on first use.
    fn through_view(&self) -> Result<String, DepError> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = view.as_ref() {
            return Ok(text.clone());
        }
        let door = LocalApiServer::open()?;
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
        // Writing these rules is the first step after the first synchronization. Unlike the health check, they do not
        // depend on a port.
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

/// The names of an address family in the different tools.
struct Family {
    iptables: &'static str,
    save: &'static str,
    nft: &'static str,
}

const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family { iptables: "iptables", save: "iptables-save", nft: "ip" },
        IpAddr::V6(_) => Family { iptables: "ip6tables", save: "ip6tables-save", nft: "ip6" },
    }
}

/// The command that lists the rules, and the text in its output once kube-proxy has written them.
fn synchronised(mode: ProxyMode, node: IpAddr) -> (&'static str, Vec<&'static str>, &'static str) {
    let family = family(node);
    match mode {
        ProxyMode::Iptables => (family.save, vec!["-t", "nat"], "-j KUBE-SERVICES"),
        ProxyMode::Nftables => ("nft", vec!["list", "table", family.nft, "kube-proxy"], "service-ips"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
