//! Nodes, and what is due for each.
use std::time::Duration;

use kmctl_core::model::agents::scalars;
use kmctl_core::model::nodes::{LEAVING_TAINT, NodeFacts, NodePhase};
use kmctl_core::model::requests::NODE_TASK;
use kmctl_core::model::resources::Amount;
use kmctl_core::model::selectors::Labels;
use kmctl_core::model::time::Time;
use mesos::types::ExecutorInfo;

use super::super::event::Token;
use super::illegal::Illegal;
use super::node_state::{NodeState, RemovalCause};
use super::table::Table;
use super::written::Written;

/// The Lease lasts 40 s. A kubelet renews it every 10 s, and so does the scheduler in its place.
const RENEW_LEASE: Duration = Duration::from_secs(10);

/// A node that passed a filter this recently may be about to get a pod.
const MAY_BE_CHOSEN: Duration = Duration::from_secs(5);

/// Deletions, evictions and marks are repeated at this interval until the API shows them. kubectl waits equally long
/// between evictions.
const REPEAT: Duration = Duration::from_secs(5);

/// Nodes by name.
pub type Nodes = Table<NodeEntry>;

/// A node and its state in the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEntry {
    agent: String,
    state: NodeState,
    /// The API's view. None until the object exists, and after it is deleted.
    facts: Option<NodeFacts>,
    /// The labels that the object was created with.
    labels: Labels,
    capacity: Amount,
    executor: Option<ExecutorInfo>,
    task: Option<String>,
    created: Time,
    /// The last time that it passed a filter.
    filtered: Option<Time>,
    /// When the collected binds are launched together.
    flush_at: Option<Time>,
    idle_since: Option<Time>,
    leased: Option<Time>,
    grant: Written<Amount>,
    /// The last state written to the object.
    marked: Option<(NodePhase, Time)>,
    /// When its deletion, or the evictions of its pods, were last requested.
    requested: Option<Time>,
    /// Why it leaves, in words for the operator.
    why: String,
}

/// What follows from the loss of a node's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectLoss {
    /// Nothing of the node is left.
    Forget,
    /// The object was deleted by another client: that ends the node.
    Leaves,
    /// It leaves already.
    Nothing,
}

/// A deletion of a node's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Id of the bootstrap token, if the object records one.
    pub token_id: Option<String>,
    /// Whether an object is known. Without one, the deletion is not repeated.
    pub has_object: bool,
}

impl Table<NodeEntry> {
    /// A candidate whose object is being created.
    pub fn create(&mut self, name: String, agent: String, labels: Labels, capacity: Amount, now: Time) {
        self.insert(name, NodeEntry::new(agent, labels, capacity, now));
    }

    /// Takes in a node as the API has it.
    pub fn see(&mut self, facts: NodeFacts, now: Time) {
        if !self.contains(&facts.name) {
            self.insert(facts.name.clone(), NodeEntry::found(&facts, now));
        }
        let name = facts.name.clone();
        self.update(&name, |node| node.facts = Some(facts));
    }

    /// The node that represents an agent, in any state.
    pub fn on_agent(&self, agent: &str) -> Option<&str> {
        self.iter().find(|(_, node)| node.agent == agent).map(|(name, _)| name.as_str())
    }

    /// The node whose node task this is.
    pub fn of_task(&self, task: &str) -> Option<(&String, &NodeEntry)> {
        self.iter().find(|(_, node)| node.task.as_deref() == Some(task))
    }

    /// Number of nodes in such states.
    pub fn count(&self, of: impl Fn(&NodeState) -> bool) -> usize {
        self.values().filter(|node| of(&node.state)).count()
    }
}

impl NodeEntry {
    /// A node that has no object yet.
    fn new(agent: String, labels: Labels, capacity: Amount, now: Time) -> NodeEntry {
        NodeEntry {
            agent,
            state: NodeState::Candidate,
            facts: None,
            labels,
            capacity,
            executor: None,
            task: None,
            created: now,
            filtered: None,
            flush_at: None,
            idle_since: None,
            leased: None,
            grant: Written::default(),
            marked: None,
            requested: None,
            why: String::new(),
        }
    }

    /// A node of an earlier process.
    fn found(facts: &NodeFacts, now: Time) -> NodeEntry {
        let mut entry = NodeEntry::new(facts.agent.clone(), facts.labels.clone(), facts.allocatable, now);
        entry.state = match facts.phase {
            // A recorded executor without the matching state: the process was killed in between. The executor was not
            // launched.
            NodePhase::Candidate => NodeState::Candidate,
            NodePhase::Starting => NodeState::Starting,
            NodePhase::Ready => NodeState::Ready,
            NodePhase::Leaving => NodeState::Leaving { since: now, killed: None, cause: RemovalCause::Given },
        };
        entry.why.clone_from(&facts.why);
        if facts.phase != NodePhase::Candidate {
            entry.executor.clone_from(&facts.executor);
            entry.task.clone_from(&facts.task);
        }
        entry
    }

    pub fn agent(&self) -> &str {
        &self.agent
    }

    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// The API's view. None until the object exists, and after it is deleted.
    pub fn facts(&self) -> Option<&NodeFacts> {
        self.facts.as_ref()
    }

    /// Labels as the API has them, or will have them.
    pub fn labels(&self) -> &Labels {
        self.facts.as_ref().map_or(&self.labels, |facts| &facts.labels)
    }

    /// What Kubernetes may place there.
    pub fn capacity(&self) -> Amount {
        self.facts.as_ref().map_or(self.capacity, |facts| facts.allocatable)
    }

    pub fn executor(&self) -> Option<&ExecutorInfo> {
        self.executor.as_ref()
    }

    pub fn executor_id(&self) -> Option<&str> {
        self.executor.as_ref().map(|executor| executor.executor_id.as_str())
    }

    /// The node task, once it is determined.
    pub fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// When the collected binds are launched together.
    pub fn flush_at(&self) -> Option<Time> {
        self.flush_at
    }

    /// Whether no binds are being collected any more.
    pub fn may_launch(&self, now: Time) -> bool {
        self.flush_at.is_none_or(|at| at <= now)
    }

    /// Whether it passed a filter so recently that it may be about to get a pod.
    pub fn may_be_chosen(&self, now: Time) -> bool {
        self.filtered.is_some_and(|filtered| now.since(filtered) < MAY_BE_CHOSEN)
    }

    /// Whether it was created so recently that kube-scheduler may not have considered it, or may be about to get a pod.
    pub fn is_fresh(&self, now: Time) -> bool {
        now.since(self.created) < MAY_BE_CHOSEN || self.may_be_chosen(now)
    }

    /// Whether its task was killed by us.
    pub fn is_killed(&self) -> bool {
        matches!(self.state, NodeState::Leaving { killed: Some(_), .. })
    }

    fn is_tainted(facts: &NodeFacts) -> bool {
        facts.taints.iter().any(|taint| taint.key == LEAVING_TAINT)
    }

    /// Whether kube-scheduler has been told that it leaves. True without an object.
    pub fn is_cordoned(&self) -> bool {
        self.facts.as_ref().is_none_or(NodeEntry::is_tainted)
    }

    /// What the node itself uses of its grant, where it is determined. It remains, even if `nodes.overhead` has changed
    /// since.
    pub fn own_share(&self) -> Option<Amount> {
        self.executor.as_ref().map(|executor| scalars(&executor.resources) + NODE_TASK)
    }

    // Steps. Each is legal in some states only: see `NodeState`.

    /// The executor and the node task are determined, and are being written to the object.
    pub fn prepare(&mut self, executor: ExecutorInfo, task: String) -> Result<(), Illegal> {
        self.state.enter(NodeState::Preparing)?;
        (self.executor, self.task) = (Some(executor), Some(task));
        Ok(())
    }

    /// Token and annotations are written.
    pub fn prepared(&mut self, token: Token, now: Time) -> Result<(), Illegal> {
        self.state.enter(NodeState::Prepared { token, since: now })
    }

    /// The preparation failed or is too old: a later one determines another executor.
    pub fn undo_preparation(&mut self) -> Result<(), Illegal> {
        self.state.enter(NodeState::Candidate)?;
        (self.executor, self.task) = (None, None);
        Ok(())
    }

    /// The node task is in an ACCEPT.
    pub fn launched(&mut self) -> Result<(), Illegal> {
        self.state.enter(NodeState::Starting)
    }

    /// The kubelet reports Ready.
    pub fn ready(&mut self) -> Result<(), Illegal> {
        self.state.enter(NodeState::Ready)
    }

    /// From now on the node accepts no pods.
    pub fn start_removal(&mut self, cause: RemovalCause, why: String, now: Time) -> Result<(), Illegal> {
        self.state.enter(NodeState::Leaving { since: now, killed: None, cause })?;
        self.why = why;
        Ok(())
    }

    /// Keeps a node that was leaving as one too many, unless its object was deleted meanwhile.
    pub fn stay(&mut self) -> Result<(), Illegal> {
        let Some(facts) = &self.facts else { return Err(self.state.refuse("kept without an object")) };
        self.state.stay(facts.ready)?;
        (self.why, self.requested, self.idle_since) = (String::new(), None, None);
        Ok(())
    }

    /// The node is drained, and its task is killed.
    pub fn kill(&mut self, now: Time) -> Result<(), Illegal> {
        let NodeState::Leaving { since, killed: None, cause } = self.state else {
            return Err(self.state.refuse("killed"));
        };
        self.state.enter(NodeState::Leaving { since, killed: Some(now), cause })
    }

    /// Gives up a node that was not launched.
    pub fn withdraw(&mut self) -> Result<(), Illegal> {
        self.state.withdraw()
    }

    /// Nothing of the node runs any more.
    pub fn end(&mut self) -> Result<(), Illegal> {
        self.state.end()?;
        self.requested = None;
        Ok(())
    }

    /// The object is deleted, whether by us or by another client.
    pub fn lose_object(&mut self, now: Time) -> ObjectLoss {
        self.facts = None;
        if self.state.unlaunched() || self.state == NodeState::Gone {
            return ObjectLoss::Forget;
        }
        let leaving = NodeState::Leaving { since: now, killed: None, cause: RemovalCause::Given };
        match self.state.enter(leaving) {
            Ok(()) => ObjectLoss::Leaves,
            Err(_) => ObjectLoss::Nothing,
        }
    }

    // What is due. Each records the time, so that it is due again only after a while.

    /// It passed a filter.
    pub fn pass_filter(&mut self, now: Time) {
        self.filtered = Some(now);
    }

    /// Collects binds until then, unless it collects already.
    pub fn collect_until(&mut self, at: Time) {
        self.flush_at.get_or_insert(at);
    }

    /// The collected binds are launched, as far as offers reach.
    pub fn flushed(&mut self) {
        self.flush_at = None;
    }

    /// How long no pod has needed the node.
    pub fn idle(&mut self, busy: bool, now: Time) -> Option<Duration> {
        if busy {
            self.idle_since = None;
            return None;
        }
        Some(now.since(*self.idle_since.get_or_insert(now)))
    }

    /// True if its Lease has to be renewed now, in place of a kubelet.
    pub fn renew_lease(&mut self, now: Time) -> bool {
        let alone = self.facts.as_ref().is_some_and(|facts| !facts.kubelet);
        let due = alone && self.state.open() && self.leased.is_none_or(|leased| now.since(leased) >= RENEW_LEASE);
        if due {
            self.leased = Some(now);
        }
        due
    }

    /// True if this grant has to be written now.
    pub fn publish(&mut self, grant: Amount, now: Time) -> bool {
        self.state.launched() && self.facts.is_some() && self.grant.write(grant, now)
    }

    /// The last grant could not be written.
    pub fn publish_failed(&mut self, now: Time) {
        self.grant.failed(now);
    }

    /// The state to write to the object now, with its reason.
    pub fn mark(&mut self, now: Time) -> Option<(NodePhase, String)> {
        let facts = self.facts.as_ref()?;
        let phase = match self.state {
            NodeState::Candidate => NodePhase::Candidate,
            // Written during the preparation, before the launch.
            NodeState::Preparing | NodeState::Prepared { .. } | NodeState::Gone => return None,
            NodeState::Starting => NodePhase::Starting,
            NodeState::Ready => NodePhase::Ready,
            NodeState::Leaving { .. } => NodePhase::Leaving,
        };
        let leaving = phase == NodePhase::Leaving;
        if facts.phase == phase && NodeEntry::is_tainted(facts) == leaving {
            return None;
        }
        if self.marked.is_some_and(|(marked, at)| marked == phase && now.since(at) < REPEAT) {
            return None;
        }
        self.marked = Some((phase, now));
        Some((phase, if leaving { self.why.clone() } else { String::new() }))
    }

    /// True if the evictions of its pods have to be requested now.
    pub fn evict(&mut self, now: Time) -> bool {
        let due = self.requested.is_none_or(|at| now.since(at) >= REPEAT);
        if due {
            self.requested = Some(now);
        }
        due
    }

    /// The deletion of its object to request now. Repeated until the API shows it.
    pub fn delete(&mut self, now: Time) -> Option<Deletion> {
        if self.facts.is_none() && self.requested.is_some() {
            return None;
        }
        self.evict(now).then(|| Deletion {
            token_id: self.facts.as_ref().and_then(|facts| facts.token_id.clone()),
            has_object: self.facts.is_some(),
        })
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
