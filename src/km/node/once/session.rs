//! A run on Mesos: the executor's first task describes the run, the other tasks are its pods, and the framework sends
//! their descriptions as messages.
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::super::decide::{Order, Report, TaskState};
use super::super::deps::{DepError, Executor};
use super::super::real;
use super::super::run::NodeAgent;
use super::super::session::{MesosExecutor, status};
use super::kubelet::StandaloneKubelet;
use super::pods::{Ends, PodSource, StandalonePods};
use super::voice::{MessageVoice, OutputChannel};
use kmctl_core::model::ids::TaskKind;
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::spec::{DepsSpec, Place};
use kmctl_core::protocol::launch::RunLaunch;
use kmctl_core::protocol::runonce::{FromNode, PodEnd, ToNode};
use mesos::types::Bytes;

/// Interval at which a node requests descriptions of unknown pods.
const ASK: Duration = Duration::from_millis(700);

/// A node of a run, ready to be started.
pub(super) struct Prepared {
    pub(super) config: KubeletConfiguration,
    pub(super) spec: DepsSpec,
    pub(super) pods: Arc<StandalonePods>,
    kubelet: Arc<StandaloneKubelet>,
    subnet: real::Claimed,
}

/// Creates what every run needs, however it was started.
pub(super) fn prepare(
    launch: &RunLaunch,
    place: &Place,
    voice: Arc<dyn OutputChannel>,
    ends: Ends,
) -> Result<Prepared, DepError> {
    let subnet = real::claim_subnet(&launch.pod_cidr)?;
    let node = launch.node(launch.node_ip.unwrap_or_else(own_address), subnet.subnet.clone());
    let mut config = KubeletConfiguration::for_run(&node, place);
    // Any free port: only km queries the kubelet, and several runs may start at the same time.
    config.port = 0;
    let spec = DepsSpec::for_run(&node, place, launch.keep);
    let kubelet = Arc::new(StandaloneKubelet::new(spec.clone()));
    let pods = Arc::new(StandalonePods::new(spec.clone(), kubelet.clone(), voice, ends));
    Ok(Prepared { config, spec, pods, kubelet, subnet })
}

impl Prepared {
    /// Runs the node until its executor has no more orders. Nothing of the node is left afterwards.
    pub(super) async fn run(self, executor: Arc<dyn Executor>) -> Result<(), DepError> {
        let Prepared { config, spec, pods, kubelet, subnet } = self;
        let deps = real::build_once(spec, executor, Arc::new(PodSource(pods)), kubelet)?;
        NodeAgent::new(config, deps).run().await;
        drop(subnet);
        Ok(())
    }
}

/// The address that this machine uses to reach others.
fn own_address() -> IpAddr {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // No packet is sent: connecting only selects the route. The address is reserved for documentation.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    found.map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// Serves a run until its node task is killed.
pub(in super::super) async fn serve(
    launch: &RunLaunch,
    place: Place,
    mesos: Arc<MesosExecutor>,
) -> Result<(), DepError> {
    info!(run = launch.run, "starting the node of a run");
    let (ends, sender) = (Ends::default(), mesos.clone());
    let voice = Arc::new(MessageVoice::new(move |data| sender.message(data)));
    let prepared = prepare(launch, &place, voice.clone(), ends.clone())?;
    let pods = prepared.pods.clone();
    let arriving = mesos.messages();
    // Both end with the run, however it ends.
    let _repeating = AbortOnDropHandle::new(tokio::spawn({
        let voice = voice.clone();
        async move { voice.repeat().await }
    }));
    let _listening = AbortOnDropHandle::new(tokio::spawn(async move {
        let Some(mut arriving) = arriving else { return };
        let mut ask = tokio::time::interval(ASK);
        loop {
            tokio::select! {
                message = arriving.recv() => match message {
                    Some(message) => hear(&message, &pods, &voice),
                    None => return,
                },
                _ = ask.tick() => {
                    let uids = pods.wanted();
                    if !uids.is_empty() {
                        voice.say(FromNode::Wants { uids }).await;
                    }
                }
            }
        }
    }));
    prepared.run(Arc::new(RunExecutor { mesos, ends })).await
}

fn hear(message: &Bytes, pods: &StandalonePods, voice: &MessageVoice) {
    match serde_json::from_slice(&message.0) {
        Ok(ToNode::Given { pods: given }) => pods.give(given),
        Ok(ToNode::Heard { sequence }) => voice.heard(sequence),
        // The parse error is omitted: it may contain a part of the message.
        Err(_) => warn!("failed to parse a message of {} bytes from the framework", message.0.len()),
    }
}

/// A Mesos executor whose pods' last states contain their exit codes.
struct RunExecutor {
    mesos: Arc<MesosExecutor>,
    ends: Ends,
}

#[async_trait]
impl Executor for RunExecutor {
    async fn next(&self) -> Option<Order> {
        self.mesos.next().await
    }

    fn report(&self, report: Report) {
        let ended = matches!(report.state, TaskState::Finished | TaskState::Failed);
        let code = match TaskKind::of(&report.task_id) {
            TaskKind::Pod(uid) if ended => self.ends.of(&uid),
            _ => None,
        };
        let mut status = status(report);
        status.data = code.and_then(|exit_code| serde_json::to_vec(&PodEnd { exit_code }).ok()).map(Bytes);
        self.mesos.update(status);
    }

    async fn flush(&self) {
        self.mesos.flush().await;
    }
}
