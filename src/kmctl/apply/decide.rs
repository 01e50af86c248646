//! Decides what a run does next. Hosts change in the order of their dependencies, each as fast as it can, never in
//! lock-step:
//!
//! - A majority of the hosts records which host bootstraps etcd's cluster before that host bootstraps it.
//! - One host creates the shared keys before hosts that lack them are prepared. Meanwhile those hosts get binaries.
//! - Preparing (files, binaries) interrupts nothing and waits for no other host.
//! - A running etcd is saved before anything that runs is changed.
//! - The first etcd member is healthy before others join. Obsolete members are removed before that, one at a time.
//! - Restarting something that others rely on needs the only token: one host at a time, etcd's restarts last, and no
//!   further host once one has failed to recover.
//!
//! A host that fails is given up. Whatever does not depend on it continues.
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::plan::EtcdWork;

/// What a host does in one step of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Create the keys that all hosts share.
    Keys,
    /// Record which host bootstraps etcd's cluster.
    Agree,
    /// Upload binaries while another host creates the keys.
    Programs,
    /// Write files, binaries and certificates.
    Prepare,
    /// Save etcd's content.
    Snapshot,
    /// Remove the departing member with this index from etcd.
    Leave(usize),
    /// Start etcd as a member.
    Etcd,
    /// Start everything else.
    Serve,
}

/// What the graph needs to know about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    pub host: String,
    /// Whether its plan has steps.
    pub has_work: bool,
    /// How many of the shared keys it has.
    pub keys: usize,
    /// Whether it lacks a shared key.
    pub lacks_keys: bool,
    /// Whether it lacks a binary.
    pub lacks_programs: bool,
    /// What happens to its etcd member.
    pub etcd: EtcdWork,
    /// Whether it must record which host bootstraps etcd's cluster.
    pub founds: bool,
    /// How many other hosts must have recorded that before this host bootstraps the cluster.
    pub agreement: usize,
    /// Whether its etcd answers.
    pub healthy: bool,
    /// Whether something other than etcd restarts that others rely on.
    pub restarts: bool,
}

/// A stage of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its index in the graph.
    pub id: usize,
    /// The host's index, in the order of admission.
    pub host: usize,
    pub stage: Stage,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It succeeded.
    Done {
        /// Whether files of the bundle were sent.
        uploaded: bool,
    },
    Failed,
}

/// How a host ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostState {
    /// There was nothing to do.
    Unchanged,
    /// Everything was done.
    Done,
    Failed,
    /// It could not be started or finished because of another host. Holds the reason.
    Skipped(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    Failed,
    Skipped(String),
}

impl State {
    fn is_over(&self) -> bool {
        matches!(self, State::Done | State::Failed | State::Skipped(_))
    }
}

#[derive(Clone, Debug)]
struct Node {
    task: Task,
    /// All of these must be done.
    needs: Vec<usize>,
    /// At least `enough` of these must be done.
    any: Vec<usize>,
    enough: usize,
    /// All of these must be over, whether they succeeded or not.
    after: Vec<usize>,
    /// Whether it needs the token.
    disrupts: bool,
    state: State,
    from: Duration,
    to: Duration,
    /// The task that ended last before this one started.
    released_by: Option<usize>,
    uploaded: bool,
}

/// The longest path through the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalPath {
    /// The duration of the whole path.
    pub total: Duration,
    /// The part that took longest, e.g. `on cp2 uploading`.
    pub longest: (Duration, String),
}

/// The graph and its progress.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    hosts: Vec<HostFacts>,
    nodes: Vec<Node>,
    keys: Option<usize>,
    snapshot: Option<usize>,
    /// The host that holds the token.
    holder: Option<usize>,
    /// A host that did not recover.
    broken: Option<usize>,
    last_over: Option<usize>,
}

impl Graph {
    /// Creates the graph for these hosts, in the plan's order, and for the removal of `departures` etcd members.
    pub fn new(hosts: &[HostFacts], departures: usize) -> Self {
        let mut graph = Graph { hosts: hosts.to_vec(), ..Graph::default() };
        let all: Vec<usize> = (0..hosts.len()).collect();
        graph.build(&all, departures);
        graph
    }

    /// Adds a host that answered late and returns its index.
    pub fn admit(&mut self, host: HostFacts) -> usize {
        self.hosts.push(host);
        let number = self.hosts.len() - 1;
        self.build(&[number], 0);
        number
    }

    fn add(&mut self, host: usize, stage: Stage) -> usize {
        let id = self.nodes.len();
        self.nodes.push(Node {
            task: Task { id, host, stage },
            needs: Vec::new(),
            any: Vec::new(),
            enough: 0,
            after: Vec::new(),
            disrupts: false,
            state: State::Waiting,
            from: Duration::ZERO,
            to: Duration::ZERO,
            released_by: None,
            uploaded: false,
        });
        id
    }

    fn build(&mut self, numbers: &[usize], departures: usize) {
        let facts: Vec<(usize, HostFacts)> =
            numbers.iter().map(|number| (*number, self.hosts[*number].clone())).collect();
        let working: Vec<&(usize, HostFacts)> = facts.iter().filter(|(_, facts)| facts.has_work).collect();
        if self.keys.is_none() && self.hosts.len() > 1 && working.iter().any(|(_, facts)| facts.lacks_keys) {
            // The first of the hosts that have most of the keys: a run that was killed started there.
            let most = self.hosts.iter().map(|facts| facts.keys).max().unwrap_or_default();
            let source = self.hosts.iter().position(|facts| facts.keys == most).unwrap_or_default();
            self.keys = Some(self.add(source, Stage::Keys));
        }
        let agreeing = self.agreeing(&working);
        let healthy = self.hosts.iter().position(|facts| facts.healthy);
        let prepared: BTreeMap<usize, usize> = working
            .iter()
            .map(|(number, facts)| {
                let prepare = self.add(*number, Stage::Prepare);
                let source = self.keys.map(|keys| self.nodes[keys].task.host);
                let waits = facts.lacks_keys && source.is_some_and(|source| source != *number);
                if waits || source == Some(*number) {
                    self.nodes[prepare].needs.extend(self.keys);
                }
                let agree = agreeing.iter().copied().find(|id| self.nodes[*id].task.host == *number);
                self.nodes[prepare].needs.extend(agree);
                if waits && facts.lacks_programs {
                    let programs = self.add(*number, Stage::Programs);
                    self.nodes[programs].needs.extend(agree);
                    self.nodes[prepare].needs.push(programs);
                }
                (*number, prepare)
            })
            .collect();
        if let Some(healthy) = healthy.filter(|_| self.snapshot.is_none() && (!working.is_empty() || departures > 0)) {
            let snapshot = self.add(healthy, Stage::Snapshot);
            self.nodes[snapshot].needs.extend(prepared.get(&healthy));
            self.snapshot = Some(snapshot);
        }
        let snapshot = self.snapshot;
        let mut leaves = Vec::new();
        for number in 0..departures {
            let Some(asker) = healthy else { break };
            let leave = self.add(asker, Stage::Leave(number));
            self.nodes[leave].needs.extend(snapshot);
            self.nodes[leave].after.extend(leaves.last());
            self.nodes[leave].disrupts = true;
            leaves.push(leave);
        }
        // Those that raise the number of answering members are first.
        let order = |work: EtcdWork| match work {
            EtcdWork::None => 0,
            EtcdWork::Bootstrap | EtcdWork::Start => 1,
            EtcdWork::Join => 2,
            EtcdWork::Restart => 3,
        };
        let mut by_order = working.clone();
        by_order.sort_by_key(|(_, facts)| order(facts.etcd));
        for (number, facts) in by_order {
            let prepare = prepared[number];
            let mut before_serving = prepare;
            if facts.etcd != EtcdWork::None {
                let begun = self.etcd_nodes(|work| matches!(work, EtcdWork::Bootstrap | EtcdWork::Start));
                let joined = self.etcd_nodes(|work| work == EtcdWork::Join);
                let etcd = self.add(*number, Stage::Etcd);
                let node = &mut self.nodes[etcd];
                node.needs.push(prepare);
                node.needs.extend(snapshot);
                match facts.etcd {
                    EtcdWork::Join => {
                        if healthy.is_none() && !begun.is_empty() {
                            (node.any, node.enough) = (begun, 1);
                        }
                        node.after.clone_from(&leaves);
                        node.disrupts = true;
                    }
                    EtcdWork::Restart => {
                        node.after = begun.into_iter().chain(joined).chain(leaves.iter().copied()).collect();
                        node.disrupts = true;
                    }
                    EtcdWork::Bootstrap => (node.any, node.enough) = (agreeing.clone(), facts.agreement),
                    EtcdWork::None | EtcdWork::Start => {}
                }
                before_serving = etcd;
            }
            let serve = self.add(*number, Stage::Serve);
            self.nodes[serve].needs.push(before_serving);
            self.nodes[serve].needs.extend(snapshot);
            self.nodes[serve].disrupts = facts.restarts || facts.etcd == EtcdWork::Restart;
        }
    }

    /// The stages that record which host bootstraps etcd's cluster and that the founder waits for. The host that
    /// creates the keys records it in that stage.
    fn agreeing(&mut self, working: &[&(usize, HostFacts)]) -> Vec<usize> {
        let Some((founder, _)) = working.iter().find(|(_, facts)| facts.agreement > 0) else { return Vec::new() };
        let others = working.iter().filter(|(number, facts)| number != founder && facts.founds);
        let source = self.keys.map(|keys| (self.nodes[keys].task.host, keys));
        others
            .map(|(number, _)| match source {
                Some((source, keys)) if source == *number => keys,
                _ => self.add(*number, Stage::Agree),
            })
            .collect()
    }

    fn etcd_nodes(&self, which: impl Fn(EtcdWork) -> bool) -> Vec<usize> {
        let of_etcd = self.nodes.iter().filter(|node| node.task.stage == Stage::Etcd);
        of_etcd.filter(|node| which(self.hosts[node.task.host].etcd)).map(|node| node.task.id).collect()
    }

    /// Returns everything that can start now.
    pub fn next(&mut self, now: Duration) -> Vec<Task> {
        let mut begun = Vec::new();
        // A skipped task can cause others to be skipped.
        while self.skip_one(now) {}
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            let (done, over) =
                (|id: &usize| self.nodes[*id].state == State::Done, |id: &usize| self.nodes[*id].state.is_over());
            let released = node.needs.iter().all(done)
                && node.any.iter().filter(|id| done(id)).count() >= node.enough
                && node.after.iter().all(over);
            let free = !node.disrupts || self.holder.is_none_or(|holder| holder == node.task.host);
            if node.state != State::Waiting || !released || !free {
                continue;
            }
            let task = node.task;
            if node.disrupts {
                self.holder = Some(task.host);
            }
            let node = &mut self.nodes[id];
            (node.state, node.from, node.released_by) = (State::Running, now, self.last_over);
            begun.push(task);
        }
        begun
    }

    fn skip_one(&mut self, now: Duration) -> bool {
        let skipped = self.nodes.iter().filter(|node| node.state == State::Waiting).find_map(|node| {
            let lost = |id: &&usize| matches!(self.nodes[**id].state, State::Failed | State::Skipped(_));
            let cause = node.needs.iter().find(lost);
            let left = || node.any.iter().filter(|id| !lost(id)).count();
            let cause = cause.or_else(|| node.any.iter().find(lost).filter(|_| left() < node.enough));
            if let Some(cause) = cause {
                return Some((node.task.id, self.reason(*cause, node.task.host)));
            }
            let broken = self.broken.filter(|broken| node.disrupts && *broken != node.task.host)?;
            let name = &self.hosts[broken].host;
            Some((node.task.id, format!("{name} is not healthy again, and only one host may restart at a time")))
        });
        let Some((id, why)) = skipped else { return false };
        let node = &mut self.nodes[id];
        (node.state, node.from, node.to) = (State::Skipped(why), now, now);
        self.release(id);
        true
    }

    /// Why something on `host` cannot be done after `cause` was not.
    fn reason(&self, cause: usize, host: usize) -> String {
        let node = &self.nodes[cause];
        if let (State::Skipped(why), true) = (&node.state, node.task.host == host) {
            return why.clone();
        }
        let name = &self.hosts[node.task.host].host;
        match node.task.stage {
            Stage::Keys => format!("the shared keys were not created on {name}"),
            Stage::Snapshot => format!("the etcd snapshot on {name} failed"),
            Stage::Agree | Stage::Programs | Stage::Prepare | Stage::Leave(_) | Stage::Etcd | Stage::Serve => {
                format!("depends on {name}, which failed")
            }
        }
    }

    /// Records how a started task ended.
    pub fn finished(&mut self, id: usize, ended: Ended, now: Duration) {
        let node = &mut self.nodes[id];
        node.to = now;
        let disturbs = node.disrupts && !matches!(node.task.stage, Stage::Leave(_));
        match ended {
            Ended::Done { uploaded } => (node.state, node.uploaded) = (State::Done, uploaded),
            Ended::Failed => {
                node.state = State::Failed;
                let host = node.task.host;
                // A member that does not get its vote interrupts nothing.
                if disturbs && self.hosts[host].etcd != EtcdWork::Join {
                    self.broken = Some(host);
                }
            }
        }
        self.last_over = Some(id);
        self.release(id);
    }

    /// Frees the token unless its holder runs something disruptive or is about to continue with it: a host whose etcd
    /// has restarted keeps the token until the rest of the host has restarted too.
    fn release(&mut self, id: usize) {
        let host = self.nodes[id].task.host;
        let disturbed = |id: &usize| {
            let before = &self.nodes[*id];
            before.disrupts && before.task.host == host && before.state == State::Done
        };
        let holds = |node: &Node| {
            let goes_on = node.state == State::Waiting && node.needs.iter().any(disturbed);
            node.disrupts && node.task.host == host && (node.state == State::Running || goes_on)
        };
        if self.holder == Some(host) && !self.nodes.iter().any(holds) {
            self.holder = None;
        }
    }

    pub fn state(&self, host: usize) -> HostState {
        let nodes = || self.nodes.iter().filter(move |node| node.task.host == host);
        if nodes().any(|node| node.state == State::Failed) {
            return HostState::Failed;
        }
        let skipped = nodes().find_map(|node| match &node.state {
            State::Skipped(why) => Some(why.clone()),
            _ => None,
        });
        match skipped {
            Some(why) => HostState::Skipped(why),
            None if self.hosts[host].has_work => HostState::Done,
            None => HostState::Unchanged,
        }
    }

    /// How many etcd members were removed.
    pub fn departed(&self) -> usize {
        let left = |node: &&Node| matches!(node.task.stage, Stage::Leave(_)) && node.state == State::Done;
        self.nodes.iter().filter(left).count()
    }

    /// The time from a host's first stage to its last.
    pub fn took(&self, host: usize) -> Duration {
        let nodes = || self.nodes.iter().filter(move |node| node.task.host == host && node.state != State::Waiting);
        let from = nodes().map(|node| node.from).min().unwrap_or_default();
        nodes().map(|node| node.to).max().unwrap_or_default().saturating_sub(from)
    }

    /// The longest path through the run, or `None` if nothing was done.
    pub fn critical_path(&self) -> Option<CriticalPath> {
        let ran = self.nodes.iter().filter(|node| matches!(node.state, State::Done | State::Failed));
        let last = ran.max_by_key(|node| node.to)?;
        let mut parts: BTreeMap<String, Duration> = BTreeMap::new();
        let mut at = Some(last);
        while let Some(node) = at {
            *parts.entry(self.label(node)).or_default() += node.to.saturating_sub(node.from);
            let before = node.released_by.map(|id| &self.nodes[id]);
            let idle = node.from.saturating_sub(before.map_or(Duration::ZERO, |before| before.to));
            *parts.entry(format!("waiting for {} to respond", self.hosts[node.task.host].host)).or_default() += idle;
            at = before;
        }
        let (label, longest) = parts.into_iter().max_by_key(|(_, part)| *part)?;
        Some(CriticalPath { total: last.to, longest: (longest, label) })
    }

    fn label(&self, node: &Node) -> String {
        let doing = match node.task.stage {
            Stage::Keys => "creating keys",
            Stage::Agree => "recording the etcd bootstrap host",
            Stage::Programs | Stage::Prepare if node.uploaded => "uploading",
            Stage::Programs | Stage::Prepare => "writing files",
            Stage::Snapshot => "taking an etcd snapshot",
            Stage::Leave(_) => "removing an etcd member",
            Stage::Etcd => "starting etcd",
            Stage::Serve => "starting the control plane",
        };
        format!("on {} {doing}", self.hosts[node.task.host].host)
    }
}

impl fmt::Display for CriticalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (longest, label) = &self.longest;
        write!(f, "{}, of which {} {label}", shown(self.total), shown(*longest))
    }
}

/// Formats a duration: `2m10s`, `12s`, `0.8s`.
pub fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 60 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds if seconds >= 10 => format!("{seconds}s"),
        _ => format!("{:.1}s", duration.as_secs_f64()),
    }
}

/// How long a run waits for hosts that have not answered yet: twice the time that most of the hosts took, but at least
/// `Duration::from_secs(1)` and at most [`NAMED`]. `None` while too few hosts have answered to continue. `arrived` says
/// when each answered.
pub fn patience(arrived: &[Duration], all: usize) -> Option<Duration> {
    if arrived.len() * 2 <= all {
        return None;
    }
    let mut arrived = arrived.to_vec();
    arrived.sort_unstable();
    let most = arrived[all / 2];
    Some((most * 2).clamp(Duration::from_secs(1), NAMED))
}

/// After this time, a host that has not answered is reported by name.
pub const NAMED: Duration = Duration::from_secs(3);

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
