use super::*;

const NOW: Time = Time(1000);

fn token() -> Token {
    Token("abcdef.0123456789abcdef".to_owned())
}

fn facts(ready: bool) -> NodeFacts {
    NodeFacts {
        name: "n".to_owned(),
        agent: "a".to_owned(),
        labels: Labels::new(),
        taints: Vec::new(),
        phase: NodePhase::Candidate,
        why: String::new(),
        executor: None,
        task: None,
        token_id: None,
        kubelet: ready,
        ready,
        allocatable: Amount::default(),
        most_pods: 110,
        address: None,
    }
}

type Step = fn(&mut NodeEntry) -> Result<(), Illegal>;

/// A node with an object, after steps that are all legal.
fn after(steps: &[Step]) -> NodeEntry {
    let mut node = NodeEntry::new("a".to_owned(), Labels::new(), Amount::default(), Time(0));
    node.facts = Some(facts(false));
    for step in steps {
        step(&mut node).unwrap();
    }
    node
}

const PREPARE: Step = |node| node.prepare(ExecutorInfo::default(), "node.n.0".to_owned());
const PREPARED: Step = |node| node.prepared(token(), NOW);
const UNDO: Step = NodeEntry::undo_preparation;
const LAUNCHED: Step = NodeEntry::launched;
const READY: Step = NodeEntry::ready;
const SURPLUS: Step = |node| node.start_removal(RemovalCause::Surplus, "too many".to_owned(), NOW);
const IDLE: Step = |node| node.start_removal(RemovalCause::Unneeded, "idle".to_owned(), NOW);
const STAY: Step = NodeEntry::stay;
const KILL: Step = |node| node.kill(NOW);
const WITHDRAW: Step = NodeEntry::withdraw;
const END: Step = NodeEntry::end;

#[test]
fn every_step_but_the_legal_ones_is_refused_and_changes_nothing() {
    let started = [PREPARE, PREPARED, LAUNCHED];
    let with = |more: &[Step]| after(&[started.as_slice(), more].concat());
    let steps: [(&str, Step); 10] = [
        ("prepare", PREPARE),
        ("prepared", PREPARED),
        ("undo", UNDO),
        ("launched", LAUNCHED),
        ("ready", READY),
        ("removal", SURPLUS),
        ("stay", STAY),
        ("kill", KILL),
        ("withdraw", WITHDRAW),
        ("end", END),
    ];
    let cases: [(&str, NodeEntry, &[&str]); 9] = [
        ("candidate", after(&[]), &["prepare", "withdraw"]),
        ("preparing", after(&[PREPARE]), &["prepared", "undo", "end"]),
        ("prepared", after(&[PREPARE, PREPARED]), &["undo", "launched", "withdraw", "end"]),
        ("starting", with(&[]), &["ready", "removal", "end"]),
        ("ready", with(&[READY]), &["removal", "end"]),
        ("one too many", with(&[READY, SURPLUS]), &["stay", "kill", "end"]),
        ("idle", with(&[READY, IDLE]), &["kill", "end"]),
        ("killed", with(&[READY, SURPLUS, KILL]), &["end"]),
        ("gone", with(&[END]), &[]),
    ];
    for (state, node, legal) in cases {
        for (name, step) in steps {
            let mut stepped = node.clone();
            match step(&mut stepped) {
                Ok(()) => assert!(legal.contains(&name), "{name} from {state}"),
                Err(_) => {
                    assert!(!legal.contains(&name), "{name} from {state}");
                    assert_eq!(stepped, node, "{name} from {state}");
                }
            }
        }
    }
}

#[test]
fn a_refusal_names_both_states() {
    let refused = after(&[PREPARE]).ready().unwrap_err();
    assert_eq!(refused.to_string(), "ready cannot follow preparing");
}

#[test]
fn a_preparation_that_is_undone_leaves_neither_executor_nor_task() {
    let mut node = after(&[PREPARE]);
    assert!(node.executor().is_some() && node.task() == Some("node.n.0"));
    node.undo_preparation().unwrap();
    assert_eq!(node, after(&[]));
}

#[test]
fn a_kept_node_is_as_far_along_as_its_kubelet() {
    for (is_ready, state) in [(false, NodeState::Starting), (true, NodeState::Ready)] {
        let mut node = after(&[PREPARE, PREPARED, LAUNCHED, SURPLUS]);
        node.facts = Some(facts(is_ready));
        node.stay().unwrap();
        assert_eq!((node.state(), node.why.as_str()), (&state, ""));
    }
    let mut deleted = after(&[PREPARE, PREPARED, LAUNCHED, SURPLUS]);
    assert_eq!(deleted.lose_object(NOW), ObjectLoss::Nothing);
    assert!(deleted.stay().is_err(), "its object was deleted meanwhile");
}

#[test]
fn what_the_loss_of_the_object_means_depends_on_the_state() {
    let started = [PREPARE, PREPARED, LAUNCHED];
    let cases: [(&[Step], ObjectLoss); 5] = [
        (&[], ObjectLoss::Forget),
        (&[PREPARE], ObjectLoss::Forget),
        (&started, ObjectLoss::Leaves),
        (&[PREPARE, PREPARED, LAUNCHED, IDLE], ObjectLoss::Nothing),
        (&[PREPARE, PREPARED, LAUNCHED, END], ObjectLoss::Forget),
    ];
    for (steps, expected) in cases {
        assert_eq!(after(steps).lose_object(NOW), expected);
    }
    let mut node = after(&started);
    node.lose_object(NOW);
    assert_eq!(*node.state(), NodeState::Leaving { since: NOW, killed: None, cause: RemovalCause::Given });
}

#[test]
fn a_node_of_an_earlier_process_has_the_state_that_its_object_names() {
    let given = NodeState::Leaving { since: NOW, killed: None, cause: RemovalCause::Given };
    for (phase, state, task) in [
        (NodePhase::Candidate, NodeState::Candidate, None),
        (NodePhase::Starting, NodeState::Starting, Some("t")),
        (NodePhase::Ready, NodeState::Ready, Some("t")),
        (NodePhase::Leaving, given, Some("t")),
    ] {
        let mut nodes = Nodes::default();
        nodes.see(NodeFacts { phase, task: Some("t".to_owned()), ..facts(false) }, NOW);
        let node = nodes.get("n").unwrap();
        assert_eq!((node.state(), node.task()), (&state, task));
    }
}
