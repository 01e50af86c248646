//! How `km mesos hold` responds to offers and task states. Pure: `hold` carries out the calls.
use std::collections::BTreeMap;

use mesos::scheduler::Call;
use mesos::types::{
    AgentId, CommandInfo, ExecutorInfo, ExecutorType, Filters, Offer, OfferId, Operation, Resource, TaskId, TaskInfo,
    TaskState, TaskStatus,
};

/// The executor's own share, part of the amount to hold.
const EXECUTOR_CPUS: f64 = 0.01;
/// Mesos' smallest memory limit.
const EXECUTOR_MEM: f64 = 32.0;
/// Smallest amounts of a task.
const TASK_CPUS: f64 = 0.01;
const TASK_MEM: f64 = 1.0;

/// Seconds for which an unneeded offer is refused.
const NOT_NEEDED: f64 = 3600.0;
/// Seconds for which an offer that is too small is refused. Short, because it may grow.
const TOO_SMALL: f64 = 1.0;

/// How much to hold on each agent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Amount {
    /// Everything that is offered.
    All,
    /// This amount, including the executor's own share.
    Exactly(f64),
}

impl std::str::FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => text
                .parse()
                .ok()
                .filter(|amount: &f64| amount.is_finite() && *amount > 0.0)
                .map(Self::Exactly)
                .ok_or_else(|| format!("`{text}` must be an amount or `all`")),
        }
    }
}

/// What to hold.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// CPUs on each agent.
    pub(super) cpus: Amount,
    /// Megabytes on each agent.
    pub(super) mem: Amount,
    /// Number of agents; none means every agent.
    pub(super) agents: Option<usize>,
    /// A host port on each agent, on which the task answers.
    pub(super) port: Option<u16>,
    /// The command that starts the executor.
    pub(super) command: CommandInfo,
}

/// A task that holds an agent's resources.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    agent: AgentId,
    hostname: String,
    state: TaskState,
}

/// All tasks that hold resources.
#[derive(Debug)]
pub(super) struct Holder {
    wanted: Wanted,
    tasks: BTreeMap<TaskId, Held>,
}

impl Holder {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, tasks: BTreeMap::new() }
    }

    /// Accepts the wanted resources of these offers and declines the rest. `unique` returns a new unique name at each
    /// call.
    pub(super) fn offers(&mut self, offers: Vec<Offer>, unique: impl Fn() -> String) -> Vec<Call> {
        let mut calls = Vec::new();
        for offer in offers {
            let full = self.wanted.agents.is_some_and(|agents| self.tasks.len() >= agents);
            if full || self.tasks.values().any(|held| held.agent == offer.agent_id) {
                calls.push(Call::decline(vec![offer.id], Filters::refuse(NOT_NEEDED)));
                continue;
            }
            let shares = (share(&offer, "cpus", self.wanted.cpus), share(&offer, "mem", self.wanted.mem));
            let port = self.wanted.port.map(|port| port_of(&offer, port));
            let (Some(cpus), Some(mem), None | Some(Some(_))) = (shares.0, shares.1, &port) else {
                calls.push(Call::decline(vec![offer.id], Filters::refuse(TOO_SMALL)));
                continue;
            };
            calls.push(self.launch(offer, cpus, mem, port.flatten(), &unique()));
        }
        calls
    }

    fn launch(&mut self, offer: Offer, cpus: f64, mem: f64, port: Option<Resource>, unique: &str) -> Call {
        let Offer { id, agent_id, hostname, .. } = &offer;
        let resources = |cpus, mem| {
            let mut taken = take(&offer, "cpus", cpus);
            taken.extend(take(&offer, "mem", mem));
            taken
        };
        let executor_resources = resources(EXECUTOR_CPUS, EXECUTOR_MEM);
        // The task's share is what remains after the executor's, also if they come from different reservations.
        let all = resources(cpus, mem);
        let executor = ExecutorInfo {
            kind: Some(ExecutorType::Custom),
            executor_id: format!("hold.{unique}").into(),
            command: Some(self.wanted.command.clone()),
            resources: executor_resources.clone(),
            name: Some("holds resources".into()),
            ..ExecutorInfo::default()
        };
        let task = TaskInfo {
            name: format!("hold.{hostname}"),
            task_id: format!("hold.{unique}").into(),
            agent_id: agent_id.clone(),
            resources: subtract(all, &executor_resources).into_iter().chain(port).collect(),
            executor: Some(executor),
            ..TaskInfo::default()
        };
        let held = Held { agent: agent_id.clone(), hostname: hostname.clone(), state: TaskState::Staging };
        self.tasks.insert(task.task_id.clone(), held);
        let offers: Vec<OfferId> = vec![id.clone()];
        Call::accept(offers, vec![Operation::launch(vec![task])], Filters::refuse(NOT_NEEDED))
    }

    /// Records a state. A task that ended on its own is removed, and offers are revived.
    pub(super) fn update(&mut self, status: &TaskStatus) -> Vec<Call> {
        let mut calls: Vec<Call> = Call::acknowledge(status).into_iter().collect();
        let ended = status.state.is_terminal() || status.state == TaskState::TaskUnknown;
        if ended {
            if self.tasks.remove(&status.task_id).is_some() {
                calls.push(Call::revive(vec![]));
            }
        } else if let Some(held) = self.tasks.get_mut(&status.task_id) {
            held.state = status.state;
        }
        calls
    }

    /// The host that a task runs on, for messages.
    pub(super) fn hostname(&self, task: &TaskId) -> Option<&str> {
        self.tasks.get(task).map(|held| held.hostname.as_str())
    }

    /// Requests the state of every task, after a new subscription.
    pub(super) fn reconcile(&self) -> Option<Call> {
        let tasks: Vec<_> = self
            .tasks
            .iter()
            .map(|(task, held)| mesos::scheduler::ReconcileTask {
                task_id: task.clone(),
                agent_id: Some(held.agent.clone()),
            })
            .collect();
        // An empty list would mean all tasks.
        if tasks.is_empty() { None } else { Some(Call::reconcile(tasks)) }
    }

    /// Kills all tasks.
    pub(super) fn release(&self) -> Vec<Call> {
        self.tasks.iter().map(|(task, held)| Call::kill(task.clone(), Some(held.agent.clone()))).collect()
    }

    /// Whether nothing is held any more.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// The amount to hold of a resource; none if the offer is too small.
fn share(offer: &Offer, name: &str, wanted: Amount) -> Option<f64> {
    let (executor, task) = if name == "cpus" { (EXECUTOR_CPUS, TASK_CPUS) } else { (EXECUTOR_MEM, TASK_MEM) };
    let offered: f64 = usable(offer, name).map(Resource::amount).sum();
    let amount = match wanted {
        Amount::All => offered,
        Amount::Exactly(amount) => amount.max(executor + task),
    };
    (amount >= executor + task && thousandths(amount) <= thousandths(offered)).then_some(amount)
}

fn usable<'a>(offer: &'a Offer, name: &'a str) -> impl Iterator<Item = &'a Resource> {
    offer.resources.iter().filter(move |resource| resource.name == name && resource.is_plain())
}

/// This single host port, if it is offered.
fn port_of(offer: &Offer, port: u16) -> Option<Resource> {
    let port = u64::from(port);
    let offered = |resource: &&Resource| resource.intervals().any(|(begin, end)| begin <= port && port <= end);
    let ranges = Resource::ranges("ports", [(port, port)]).ranges;
    usable(offer, "ports").find(offered).map(|resource| Resource { ranges, ..resource.clone() })
}

/// This amount of a resource; reserved shares are used in the order in which they are offered.
fn take(offer: &Offer, name: &str, amount: f64) -> Vec<Resource> {
    let mut missing = thousandths(amount);
    let mut taken = Vec::new();
    for resource in usable(offer, name) {
        let part = missing.min(thousandths(resource.amount()));
        if part > 0 {
            taken.push(with_amount(resource, part));
            missing -= part;
        }
    }
    taken
}

/// The first list minus the second. Every entry of the second has a counterpart in the first.
fn subtract(from: Vec<Resource>, what: &[Resource]) -> Vec<Resource> {
    let rest = |resource: Resource| {
        let taken: i64 = what
            .iter()
            .filter(|other| other.name == resource.name && other.reservations == resource.reservations)
            .map(|other| thousandths(other.amount()))
            .sum();
        let left = thousandths(resource.amount()) - taken;
        (left > 0).then(|| with_amount(&resource, left))
    };
    from.into_iter().filter_map(rest).collect()
}

fn with_amount(resource: &Resource, thousandths: i64) -> Resource {
    let scalar = Some(mesos::types::Scalar { value: thousandths as f64 / 1000.0 });
    Resource { scalar, ..resource.clone() }
}

/// Mesos counts in thousandths. With another precision, sums of shares would differ from the offer in the last bit.
fn thousandths(amount: f64) -> i64 {
    (amount * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::types::Bytes;

    fn holder(cpus: Amount, mem: Amount, agents: Option<usize>) -> Holder {
        Holder::new(Wanted { cpus, mem, agents, port: None, command: CommandInfo::default() })
    }

    fn offer(agent: &str, cpus: f64, mem: f64) -> Offer {
        let resources = vec![
            Resource::scalar("cpus", cpus).allocated_to("test"),
            Resource::scalar("mem", mem).allocated_to("test"),
        ];
        Offer { id: format!("o-{agent}").as_str().into(), agent_id: agent.into(), resources, ..Offer::default() }
    }

    fn tasks(call: &Call) -> Vec<TaskInfo> {
        let Call::Accept { accept } = call else { panic!("{call:?}") };
        let [Operation::Launch { launch }] = accept.operations.as_slice() else { panic!("{accept:?}") };
        launch.task_infos.clone()
    }

    fn sum(resources: &[Resource], name: &str) -> i64 {
        resources.iter().filter(|resource| resource.name == name).map(|resource| thousandths(resource.amount())).sum()
    }

    #[test]
    fn task_and_executor_together_take_exactly_what_is_wanted() {
        let cases = [
            (Amount::Exactly(0.5), Amount::Exactly(256.0), 500, 256_000),
            (Amount::All, Amount::All, 2_000, 2_048_000),
            (Amount::Exactly(0.001), Amount::Exactly(1.0), 20, 33_000),
        ];
        for (cpus, mem, expected_cpus, expected_mem) in cases {
            let calls = holder(cpus, mem, None).offers(vec![offer("a", 2.0, 2048.0)], || "x".into());
            let [task] = tasks(&calls[0]).try_into().unwrap();
            let executor = task.executor.unwrap();
            assert_eq!(sum(&task.resources, "cpus") + sum(&executor.resources, "cpus"), expected_cpus);
            assert_eq!(sum(&task.resources, "mem") + sum(&executor.resources, "mem"), expected_mem);
            assert!(task.resources.iter().all(|resource| resource.allocation_role() == Some("test")));
        }
    }

    #[test]
    fn an_offer_that_is_too_small_is_declined_for_a_moment() {
        let calls = holder(Amount::Exactly(3.0), Amount::All, None).offers(vec![offer("a", 2.0, 512.0)], String::new);
        assert_eq!(calls, [Call::decline(vec!["o-a".into()], Filters::refuse(TOO_SMALL))]);
    }

    #[test]
    fn no_more_agents_are_held_than_wanted_and_each_only_once() {
        let mut holder = holder(Amount::Exactly(1.0), Amount::Exactly(64.0), Some(2));
        let offers = ["a", "a", "b", "c"].map(|agent| offer(agent, 2.0, 512.0)).to_vec();
        let names = std::cell::Cell::new(0);
        let calls = holder.offers(offers, || {
            names.set(names.get() + 1);
            names.get().to_string()
        });
        let kinds: Vec<_> = calls.iter().map(Call::name).collect();
        assert_eq!(kinds, ["ACCEPT", "DECLINE", "ACCEPT", "DECLINE"]);
    }

    #[test]
    fn a_port_is_taken_where_it_is_offered_and_waited_for_elsewhere() {
        let mut holder = holder(Amount::Exactly(0.1), Amount::Exactly(64.0), None);
        holder.wanted.port = Some(31000);
        let with = |agent: &str, ports: (u64, u64)| {
            let mut offer = offer(agent, 2.0, 512.0);
            offer.resources.push(Resource::ranges("ports", [ports]).allocated_to("test"));
            offer
        };
        let offers = vec![with("a", (31000, 32000)), with("b", (31001, 32000)), offer("c", 2.0, 512.0)];
        let calls = holder.offers(offers, || "x".into());
        let kinds: Vec<_> = calls.iter().map(Call::name).collect();
        assert_eq!(kinds, ["ACCEPT", "DECLINE", "DECLINE"]);
        let [task] = tasks(&calls[0]).try_into().unwrap();
        let port = task.resources.iter().find(|resource| resource.name == "ports").unwrap();
        assert_eq!(port.intervals().collect::<Vec<_>>(), [(31000, 31000)]);
        assert_eq!(port.allocation_role(), Some("test"));
    }

    #[test]
    fn a_task_that_ends_is_replaced_with_the_next_offer() {
        let mut holder = holder(Amount::All, Amount::All, None);
        holder.offers(vec![offer("a", 2.0, 512.0)], || "1".into());
        let mut status = TaskStatus::new("hold.1", TaskState::Failed);
        status.agent_id = Some("a".into());
        status.uuid = Some(Bytes(vec![1]));
        let kinds: Vec<_> = holder.update(&status).iter().map(Call::name).collect();
        assert_eq!(kinds, ["ACKNOWLEDGE", "REVIVE"]);
        assert!(holder.is_empty());
        let calls = holder.offers(vec![offer("a", 2.0, 512.0)], || "2".into());
        assert_eq!(tasks(&calls[0])[0].task_id.as_str(), "hold.2");
    }

    #[test]
    fn releasing_kills_every_task_and_nothing_is_reconciled_when_nothing_is_held() {
        let mut holder = holder(Amount::All, Amount::All, None);
        assert!(holder.reconcile().is_none());
        holder.offers(vec![offer("a", 2.0, 512.0)], || "1".into());
        assert_eq!(holder.release(), [Call::kill("hold.1".into(), Some("a".into()))]);
        assert!(holder.reconcile().is_some());
    }

    #[test]
    fn reserved_and_unreserved_shares_are_taken_apart() {
        let mut reserved = Resource::scalar("cpus", 0.5).allocated_to("test");
        reserved.reservations = vec![mesos::types::ReservationInfo { role: Some("test".into()), ..Default::default() }];
        let mut both = offer("a", 1.0, 512.0);
        both.resources.insert(0, reserved.clone());
        let calls = holder(Amount::Exactly(1.2), Amount::All, None).offers(vec![both], || "1".into());
        let [task] = tasks(&calls[0]).try_into().unwrap();
        let cpus: Vec<_> = task.resources.iter().filter(|resource| resource.name == "cpus").collect();
        assert_eq!(cpus.len(), 2);
        assert_eq!(cpus[0].reservations, reserved.reservations);
        assert_eq!((thousandths(cpus[0].amount()), thousandths(cpus[1].amount())), (490, 700));
    }
}
