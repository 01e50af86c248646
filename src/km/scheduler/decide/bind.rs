//! kube-scheduler's bind request: queues a pod on its node. Idempotent by the pod's UID.
use std::time::Duration;

use super::effect::{Answer, Effect};
use super::event::RequestId;
use super::parts::{BindState, NodeState};
use super::scheduler::Scheduler;

/// Binds of one node within this time are launched in one ACCEPT, because an ACCEPT uses up the whole offer.
pub(super) const COLLECT: Duration = Duration::from_millis(20);

/// kube-scheduler waits 120 s for an answer. A bind that has no task by then has to fail earlier.
const PATIENCE: Duration = Duration::from_secs(105);

impl Scheduler {
    pub(super) fn bind(&mut self, request: RequestId, uid: &str, name: &str) {
        let now = self.now;
        let refuse = |error: String| Effect::Answer(request, Answer::Bind(Some(error)));
        let Some(pod) = self.pods.get(uid) else { return self.push(refuse("the pod is not known".to_owned())) };
        if let Some(bound) = &pod.facts().node {
            let error = (bound != name).then(|| format!("the pod is bound to {bound} already"));
            return self.push(Effect::Answer(request, Answer::Bind(error)));
        }
        if let Some(wanted) = pod.bind_state().node() {
            if wanted != name {
                let error = format!("the pod's Mesos task is on its way to {wanted}");
                return self.push(refuse(error));
            }
            self.pods.update(uid, |pod| pod.await_outcome(request));
            return;
        }
        let Some(node) = self.nodes.get(name).filter(|node| node.state().open()) else {
            self.pods.update(uid, |pod| pod.bind_refused());
            return self.push(refuse("node is leaving".to_owned()));
        };
        if pod.facts().daemon && *node.state() == NodeState::Candidate {
            return self.push(refuse("node not started".to_owned()));
        }
        let waits = self.pods.update(uid, |pod| {
            pod.await_outcome(request);
            pod.wait_for(name, now)
        });
        self.legal(uid, waits);
        self.nodes.update(name, |node| node.collect_until(now + COLLECT));
        self.demand.grow();
    }

    /// Fails binds that got no sufficient offer in time.
    pub(super) fn expire_binds(&mut self) {
        let late = |bind_state: &BindState| matches!(bind_state, BindState::Waiting { since, .. } if self.now.since(*since) > PATIENCE);
        let late: Vec<String> =
            self.pods.iter().filter(|(_, pod)| late(pod.bind_state())).map(|(uid, _)| uid.clone()).collect();
        for uid in late {
            self.fail_bind(&uid, "Mesos made no offer that covers the pod in time");
        }
    }
}
