//! The stock kube-proxy, with the kubelet's client certificate.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::config::KubeletConfiguration;
use super::super::deps::{DepError, PortAllocator, Program, Service};
use super::super::spec::DepsSpec;
use super::api::RealApi;
use super::containerd::{path, search_path};
use super::kubeconfig::{User, client_certificate, document, write_private};
use super::proxy_lock::ProxySlot;

const POLL: Duration = Duration::from_millis(200);
const HEALTH_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// The kube-proxy of a run.
pub struct KubeProxy {
    spec: DepsSpec,
    api: Arc<RealApi>,
    ports: Arc<dyn PortAllocator>,
    lock: ProxySlot,
}

impl KubeProxy {
    /// For one run.
    pub fn new(spec: DepsSpec, api: Arc<RealApi>, ports: Arc<dyn PortAllocator>, lock: ProxySlot) -> Self {
        KubeProxy { spec, api, ports, lock }
    }
}

#[async_trait]
impl Service for KubeProxy {
    fn name(&self) -> &'static str {
        "kube-proxy"
    }

    async fn program(&self, _: &KubeletConfiguration) -> Result<Program, DepError> {
        self.lock.fill()?;
        let folders = &self.spec.folders;
        let kubeconfig = folders.settings("kube-proxy.kubeconfig");
        let text = document(&self.api.server().await, folders, &User::Certificate(&client_certificate()));
        write_private(&kubeconfig, &text)?;
        let mut argv =
            vec![path(&folders.programs().join("kube-proxy")), format!("--kubeconfig={}", path(&kubeconfig))];
        argv.extend(flags(&self.spec, self.ports.own(HEALTH_PORT)?, self.ports.own(METRICS_PORT)?));
        Ok(Program {
            name: self.name().to_owned(),
            argv,
            environment: vec![("PATH".to_owned(), search_path(&self.spec))],
        })
    }

    async fn ready(&self) -> Result<(), DepError> {
        // Its first act after the first synchronisation; the chain is there whatever the port of its health check.
        loop {
            let saved = super::remains::run_program("iptables-save", &["-t", "nat"], None).await;
            if saved.is_ok_and(|rules| rules.contains("-j KUBE-SERVICES")) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn flags(spec: &DepsSpec, health_port: u16, metrics_port: u16) -> Vec<String> {
    vec![
        format!("--hostname-override={}", spec.node.name),
        "--proxy-mode=iptables".to_owned(),
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
