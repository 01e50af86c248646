//! Pods, and what is due for each.
use std::time::Duration;

use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::Amount;
use kmctl_core::model::time::Time;
use kmctl_core::protocol::launch::PortMapping;

use super::super::event::RequestId;
use super::bind_state::BindState;
use super::explained::Explained;
use super::illegal::Illegal;
use super::table::Table;

/// Interval at which the annotations of a pod's Binding are written again while its object differs.
const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// A pod's end reaches Mesos and the API independently. The two count as disagreeing only after this time.
const DISAGREEMENT: Duration = Duration::from_secs(15);

/// The first nudge of a pod that has just passed the filter: it will be bound.
const NUDGE_PASSED: Duration = Duration::from_secs(3);

/// The first nudge of another pod: one that was refused or never seen is not tried again without a nudge.
const NUDGE_REFUSED: Duration = Duration::from_millis(100);

/// Longest time between two nudges, and the shortest.
const NUDGE_AT_LEAST: Duration = Duration::from_secs(30);
const NUDGE_AT_MOST: Duration = Duration::from_secs(1);

/// Offers arrive about a second after they are requested. There is nothing to explain before that.
const EXPLAIN_FIRST: Duration = Duration::from_millis(1500);

/// An agent that has just been used offers the rest a second later. A refusal in between is explained only if it lasts.
const EXPLAIN_LASTING: Duration = Duration::from_secs(5);

/// A pod for which kube-scheduler has found a node this recently is about to be bound.
const ABOUT_TO_BE_BOUND: Duration = Duration::from_secs(20);

/// How long a pod with a topology spread waits for domains without a node to wake up.
const WAKING: Duration = Duration::from_secs(10);

/// Time in which kube-scheduler binds a pod that the filter let through. After that it has found another obstacle.
const BINDING: Duration = Duration::from_secs(5);

/// Pods by UID.
pub type Pods = Table<PodEntry>;

/// A pod and its state in the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct PodEntry {
    facts: PodFacts,
    bind_state: BindState,
    /// Bind requests that wait for the outcome.
    answers: Vec<RequestId>,
    /// When it was first seen.
    since: Time,
    /// The last filter request for it, and whether any node was left.
    asked: Option<(Time, bool)>,
    /// Since when a node has a place for it.
    placeable_since: Option<Time>,
    /// The last nudge, and the number of nudges since there is a place.
    nudged: Option<Time>,
    nudges: u32,
    explained: Explained,
    /// Since when its topology spread waits for domains to wake up.
    spread_wait: Option<Time>,
    /// The only node left by the last filter request, and when: kube-scheduler will bind the pod there.
    nominated_node: Option<(String, Time)>,
    /// Set while its object differs from what its Binding recorded, with the time of the last repair.
    overwritten: Option<Option<Time>>,
    /// Since when its task is over although the pod is not.
    orphaned: Option<Time>,
}

impl Table<PodEntry> {
    /// Takes in a pod as the API or kube-scheduler has it. True if it is seen for the first time.
    pub fn see(&mut self, facts: PodFacts, now: Time) -> bool {
        let uid = facts.uid.clone();
        let new = !self.contains(&uid);
        if new {
            self.insert(uid, PodEntry::new(facts, now));
        } else {
            self.update(&uid, |pod| pod.see(facts));
        }
        new
    }

    /// Pods that wait for resources of a node's agent.
    pub fn waiting_for<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a String, &'a PodEntry)> {
        self.iter().filter(move |(_, pod)| pod.bind_state.waits_for(node))
    }
}

impl PodEntry {
    /// A pod seen for the first time.
    fn new(facts: PodFacts, since: Time) -> PodEntry {
        PodEntry {
            facts,
            bind_state: BindState::None,
            answers: Vec::new(),
            since,
            asked: None,
            placeable_since: None,
            nudged: None,
            nudges: 0,
            explained: Explained::default(),
            spread_wait: None,
            nominated_node: None,
            overwritten: None,
            orphaned: None,
        }
    }

    fn see(&mut self, mut facts: PodFacts) {
        if facts.node.is_some() || facts.deleting {
            self.placeable_since = None;
        }
        self.overwritten = facts.keep_record(&self.facts).then(|| self.overwritten.flatten());
        self.facts = facts;
    }

    pub fn facts(&self) -> &PodFacts {
        &self.facts
    }

    pub fn bind_state(&self) -> &BindState {
        &self.bind_state
    }

    /// When it was first seen.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Whether a bind is under way.
    pub fn is_binding(&self) -> bool {
        self.bind_state != BindState::None
    }

    /// Whether it waits for kube-scheduler to find a node.
    pub fn is_unplaced(&self) -> bool {
        self.facts.pending() && !self.is_binding()
    }

    /// The node that it is bound to, or will be.
    pub fn node(&self) -> Option<&str> {
        self.facts.node.as_deref().or(self.bind_state.node())
    }

    /// Whether it is bound to this node.
    pub fn is_on(&self, node: &str) -> bool {
        self.facts.node.as_deref() == Some(node)
    }

    /// Whether the last filter request left no node.
    pub fn was_refused(&self) -> bool {
        matches!(self.asked, Some((_, false)))
    }

    /// Whether it should still wait for domains without a node to wake up. The wait is limited, because other
    /// frameworks may use these agents for long.
    pub fn waits_for_domains(&self, now: Time) -> bool {
        self.spread_wait.is_none_or(|since| now.since(since) < WAKING)
    }

    /// The node that kube-scheduler is about to bind it to.
    pub fn nominated_node(&self, now: Time) -> Option<&str> {
        let (node, at) = self.nominated_node.as_ref()?;
        (self.is_unplaced() && now.since(*at) < BINDING).then_some(node.as_str())
    }

    /// Whether it is bound to the node for which its task was launched, or for which it waits. None while it is not
    /// bound, or without a bind.
    pub fn arrived_as_planned(&self) -> Option<bool> {
        let bound = self.facts.node.as_ref()?;
        match &self.bind_state {
            BindState::None => None,
            BindState::Waiting { node, .. } => Some(node == bound),
            // The task is recorded by our own Binding only.
            BindState::Launched { task, .. } | BindState::Binding { task, .. } => {
                Some(self.facts.task.as_ref() == Some(task))
            }
        }
    }

    // Steps of the bind. Each is legal in some states only: see `BindState::may_become`.

    /// From now on it waits for resources of the node's agent.
    pub fn wait_for(&mut self, node: &str, now: Time) -> Result<(), Illegal> {
        self.bind_state.enter(BindState::Waiting { node: node.to_owned(), since: now })
    }

    /// Its task is in an ACCEPT of this node.
    pub fn launched(&mut self, node: &str, task: &str, ports: Vec<PortMapping>) -> Result<(), Illegal> {
        if !self.bind_state.waits_for(node) {
            return Err(self.bind_state.refuse("launched"));
        }
        self.bind_state.enter(BindState::Launched { node: node.to_owned(), task: task.to_owned(), ports })
    }

    /// An earlier process has launched its task. The ports that it was granted are not known.
    pub fn adopt(&mut self, node: &str, task: &str) -> Result<(), Illegal> {
        if self.is_binding() {
            return Err(self.bind_state.refuse("adopted"));
        }
        let (node, task) = (node.to_owned(), task.to_owned());
        self.bind_state.enter(BindState::Launched { node, task, ports: Vec::new() })
    }

    /// Its task has started, and the Binding is being posted. Returns the ports that it was granted.
    pub fn start_binding(&mut self) -> Result<Vec<PortMapping>, Illegal> {
        let BindState::Launched { node, task, ports } = self.bind_state.clone() else {
            return Err(self.bind_state.refuse("binding"));
        };
        self.bind_state.enter(BindState::Binding { node, task })?;
        Ok(ports)
    }

    /// It is bound.
    pub fn arrive(&mut self) -> Result<(), Illegal> {
        self.bind_state.enter(BindState::None)
    }

    /// The bind failed, in whatever state, or there was none.
    pub fn fail_bind(&mut self) {
        self.bind_state = BindState::None;
        // kube-scheduler leaves a pod whose bind failed unscheduled for a minute: it is nudged like a refused one.
        (self.asked, self.placeable_since) = (None, None);
    }

    /// A bind request waits for the outcome.
    pub fn await_outcome(&mut self, request: RequestId) {
        self.answers.push(request);
    }

    /// The bind requests to answer.
    pub fn take_answers(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.answers)
    }

    /// Takes back a live task that the object does not name any more.
    pub fn readopt(&mut self, task: &str, granted: Option<Amount>) {
        self.facts.task = Some(task.to_owned());
        self.facts.granted = granted.or(Some(self.facts.amount));
        self.overwritten = Some(None);
    }

    // What is due. Each records the time, so that it is due again only after a while.

    /// A filter request left these nodes. `spreading`: some were refused because other domains are being woken.
    pub fn filtered(&mut self, kept: &[String], spreading: bool, now: Time) {
        self.asked = Some((now, !kept.is_empty()));
        self.nominated_node = kept.first().filter(|_| kept.len() == 1).map(|name| (name.clone(), now));
        if kept.is_empty() {
            self.placeable_since = None;
        }
        if spreading {
            self.spread_wait.get_or_insert(now);
        }
    }

    /// A bind request was refused for a reason that gives kube-scheduler no cause to try again: the pod is nudged.
    pub fn bind_refused(&mut self) {
        self.asked = None;
    }

    /// No node with an object has a place for it.
    pub fn unplaceable(&mut self) {
        (self.placeable_since, self.nudges) = (None, 0);
    }

    /// A node has a place for it. True if kube-scheduler has to be made to try it again now.
    pub fn nudge(&mut self, now: Time) -> bool {
        let since = *self.placeable_since.get_or_insert(now);
        let first = match self.asked {
            Some((at, true)) if at >= since => NUDGE_PASSED,
            _ => NUDGE_REFUSED,
        };
        let wait = (first * 2_u32.saturating_pow(self.nudges.min(8))).min(NUDGE_AT_LEAST);
        let rested = self.nudged.is_none_or(|nudged| now.since(nudged) >= NUDGE_AT_MOST);
        let last = self.nudged.unwrap_or(since).max(since).max(self.asked.map_or(since, |(at, _)| at));
        let due = rested && now.since(last) >= wait;
        if due {
            self.nudged = Some(now);
            self.nudges += 1;
        }
        due
    }

    /// Whether it is time to explain why it waits.
    pub fn explanation_due(&self, now: Time) -> bool {
        let first = if self.asked.is_some() { EXPLAIN_LASTING } else { EXPLAIN_FIRST };
        now.since(self.since) >= first
            && self.asked.is_none_or(|(asked, found)| !found || now.since(asked) >= ABOUT_TO_BE_BOUND)
            && self.explained.is_due(now)
    }

    /// True if this explanation has to be reported now.
    pub fn explain(&mut self, text: &str, now: Time) -> bool {
        self.explained.report(text, now)
    }

    /// True if the annotations of its Binding have to be written again now.
    pub fn repair_record(&mut self, now: Time) -> bool {
        let Some(last) = self.overwritten.filter(|_| !self.facts.deleting) else { return false };
        let due = last.is_none_or(|last| now.since(last) >= RECORD_AGAIN);
        if due {
            self.overwritten = Some(Some(now));
        }
        due
    }

    /// True if its object has to be deleted now because its task is over (`over`) although the pod is not.
    pub fn delete_orphan(&mut self, over: bool, now: Time) -> bool {
        if !over {
            self.orphaned = None;
            return false;
        }
        let due = now.since(*self.orphaned.get_or_insert(now)) >= DISAGREEMENT;
        if due {
            self.orphaned = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    type Step = fn(&mut PodEntry) -> Result<(), Illegal>;

    const WAIT: Step = |pod| pod.wait_for("n", Time(0));
    const LAUNCHED: Step = |pod| pod.launched("n", "t", Vec::new());
    const ELSEWHERE: Step = |pod| pod.launched("other", "t", Vec::new());
    const ADOPT: Step = |pod| pod.adopt("n", "t");
    const BIND: Step = |pod| pod.start_binding().map(drop);
    const ARRIVE: Step = PodEntry::arrive;

    fn after(steps: &[Step]) -> PodEntry {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u", "name": "p", "namespace": "d"}})).unwrap();
        let mut pod = PodEntry::new(PodFacts::new(&pod, Amount::default()).unwrap(), Time(0));
        for step in steps {
            step(&mut pod).unwrap();
        }
        pod
    }

    #[test]
    fn every_step_of_a_bind_but_the_legal_ones_is_refused_and_changes_nothing() {
        let steps: [(&str, Step); 6] = [
            ("wait", WAIT),
            ("launched", LAUNCHED),
            ("launched elsewhere", ELSEWHERE),
            ("adopt", ADOPT),
            ("bind", BIND),
            ("arrive", ARRIVE),
        ];
        let cases: [(&str, PodEntry, &[&str]); 5] = [
            ("none", after(&[]), &["wait", "adopt"]),
            ("waiting", after(&[WAIT]), &["launched", "arrive"]),
            ("launched", after(&[WAIT, LAUNCHED]), &["bind", "arrive"]),
            ("adopted", after(&[ADOPT]), &["bind", "arrive"]),
            ("binding", after(&[WAIT, LAUNCHED, BIND]), &["arrive"]),
        ];
        for (state, pod, legal) in cases {
            for (name, step) in steps {
                let mut stepped = pod.clone();
                match step(&mut stepped) {
                    Ok(()) => assert!(legal.contains(&name), "{name} from {state}"),
                    Err(_) => {
                        assert!(!legal.contains(&name), "{name} from {state}");
                        assert_eq!(stepped, pod, "{name} from {state}");
                    }
                }
            }
            let mut failed = pod.clone();
            failed.fail_bind();
            assert!(!failed.is_binding(), "a bind fails in any state");
        }
    }

    #[test]
    fn a_bound_pod_has_arrived_as_planned_if_its_binding_is_ours() {
        let mut pod = after(&[WAIT, LAUNCHED, BIND]);
        assert_eq!(pod.arrived_as_planned(), None, "not bound yet");
        pod.facts.node = Some("n".to_owned());
        assert_eq!(pod.arrived_as_planned(), Some(false), "the Binding of another client records no task");
        pod.facts.task = Some("t".to_owned());
        assert_eq!(pod.arrived_as_planned(), Some(true));
    }
}
