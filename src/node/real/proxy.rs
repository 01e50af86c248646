//! The stock kube-proxy. With granted host ports it reads the cluster through the local view, else from the API server
//! with the kubelet's client certificate.
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
use super::ports::RealPorts;
use super::proxy_lock::ProxySlot;
use crate::cluster::NetworkMode;

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
}

impl KubeProxy {
    /// For one run.
    pub fn new(spec: DepsSpec, api: Arc<RealApi>, ports: Arc<RealPorts>, lock: ProxySlot) -> Self {
        KubeProxy { spec, api, ports, lock, view: Mutex::new(None) }
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
        let folders = &self.spec.folders;
        let kubeconfig = folders.settings("kube-proxy.kubeconfig");
        let text = match self.spec.network.mode {
            NetworkMode::HostPorts => self.through_view()?,
            NetworkMode::Cni => document(&self.api.server().await?, folders, &User::Certificate(&client_certificate())),
        };
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

/// What is not in its kubeconfig.
pub fn flags(spec: &DepsSpec, health_port: u16, metrics_port: u16) -> Vec<String> {
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
