//! Runs the graph with made-up durations.
use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn host(name: &str, etcd: EtcdWork) -> HostFacts {
    let new = etcd.is_new();
    HostFacts {
        host: name.to_owned(),
        has_work: true,
        keys: if new { 0 } else { 5 },
        lacks_keys: new,
        lacks_programs: new,
        etcd,
        founds: false,
        agreement: 0,
        healthy: matches!(etcd, EtcdWork::None | EtcdWork::Restart),
        restarts: etcd == EtcdWork::Restart,
    }
}

fn fresh(count: usize) -> Vec<HostFacts> {
    let work = |at| if at == 0 { EtcdWork::Bootstrap } else { EtcdWork::Join };
    (0..count).map(|at| host(&format!("cp{}", at + 1), work(at))).collect()
}

/// One stage of one host, with its start and end.
type Played = (String, Stage, u64, u64);

/// The stage in which binaries are sent: the first host creates the keys before that, the others need not wait for
/// them.
fn uploads(host: &str, stage: Stage) -> bool {
    stage == if host == "cp1" { Stage::Prepare } else { Stage::Programs }
}

/// Runs a graph to its end. `takes` says how long a stage of a host takes, in seconds, and whether it succeeds.
fn play(graph: &mut Graph, takes: impl Fn(&str, Stage) -> (u64, bool)) -> Vec<Played> {
    let mut now = Duration::ZERO;
    let mut running: Vec<(Duration, Task, bool)> = Vec::new();
    let mut played = Vec::new();
    loop {
        for task in graph.next(now) {
            let (seconds, works) = takes(&graph.hosts[task.host].host, task.stage);
            running.push((now + secs(seconds), task, works));
        }
        running.sort_by_key(|(end, task, _)| (*end, task.id));
        if running.is_empty() {
            break;
        }
        let (end, task, works) = running.remove(0);
        now = end;
        let ended = if works {
            Ended::Done { uploaded: uploads(&graph.hosts[task.host].host, task.stage) }
        } else {
            Ended::Failed
        };
        graph.finished(task.id, ended, now);
        let node = &graph.nodes[task.id];
        played.push((graph.hosts[task.host].host.clone(), task.stage, node.from.as_secs(), node.to.as_secs()));
    }
    let over = graph.nodes.iter().all(|node| node.state.is_over());
    assert!(over, "nothing runs and something waits: {:?}", graph.nodes);
    played
}

fn find(played: &[Played], host: &str, stage: Stage) -> (u64, u64) {
    let one = played.iter().find(|one| one.0 == host && one.1 == stage);
    let one = one.unwrap_or_else(|| panic!("{host} {stage:?} did not run: {played:?}"));
    (one.2, one.3)
}

fn states(graph: &Graph) -> Vec<HostState> {
    (0..graph.hosts.len()).map(|number| graph.state(number)).collect()
}

#[test]
fn one_host_makes_the_keys_begins_etcd_and_the_others_join_one_at_a_time() {
    let mut graph = Graph::new(&fresh(3), 0);
    let played = play(&mut graph, |host, stage| (if uploads(host, stage) { 5 } else { 2 }, true));
    assert_eq!(find(&played, "cp1", Stage::Keys), (0, 2));
    assert_eq!(find(&played, "cp1", Stage::Prepare), (2, 7));
    for name in ["cp2", "cp3"] {
        // Their binaries do not wait for the keys.
        assert_eq!(find(&played, name, Stage::Programs), (0, 5), "{name}");
        assert_eq!(find(&played, name, Stage::Prepare), (5, 7), "{name}");
    }
    assert_eq!(find(&played, "cp1", Stage::Etcd), (7, 9));
    assert_eq!(find(&played, "cp2", Stage::Etcd), (9, 11));
    assert_eq!(find(&played, "cp3", Stage::Etcd), (11, 13));
    // The first host serves while the others are still joining.
    assert_eq!(find(&played, "cp1", Stage::Serve), (9, 11));
    assert!(played.iter().all(|one| one.1 != Stage::Snapshot));
    assert_eq!(states(&graph), [HostState::Done, HostState::Done, HostState::Done]);
}

#[test]
fn etcd_begins_when_enough_others_have_written_down_who_begins_it() {
    let agreeing = |count: usize, agreement: usize| {
        let mut hosts = fresh(count);
        hosts.iter_mut().for_each(|host| host.founds = true);
        hosts[0].agreement = agreement;
        Graph::new(&hosts, 0)
    };
    let mut graph = agreeing(5, 2);
    let played = play(&mut graph, |host, stage| (if (host, stage) == ("cp5", Stage::Agree) { 90 } else { 1 }, true));
    let agreed: Vec<u64> = ["cp2", "cp3", "cp4", "cp5"].map(|name| find(&played, name, Stage::Agree).1).to_vec();
    assert_eq!(agreed, [1, 1, 1, 90]);
    assert_eq!(find(&played, "cp1", Stage::Etcd), (2, 3), "two others are enough");
    assert!(find(&played, "cp2", Stage::Programs).0 >= 1);
    // Both of the other two hosts are needed, and one of them fails.
    let mut graph = agreeing(4, 2);
    play(&mut graph, |host, stage| (1, stage != Stage::Agree || host == "cp4"));
    assert_eq!(graph.state(0), HostState::Skipped("depends on cp2, which failed".to_owned()));
    // The host that creates the keys records it in the same stage.
    let mut hosts = fresh(3);
    hosts[1].keys = 2;
    hosts.iter_mut().for_each(|host| host.founds = true);
    hosts[0].agreement = 2;
    let played = play(&mut Graph::new(&hosts, 0), |_, _| (1, true));
    assert!(!played.iter().any(|one| (one.0.as_str(), one.1) == ("cp2", Stage::Agree)));
    assert!(find(&played, "cp1", Stage::Etcd).0 >= find(&played, "cp2", Stage::Keys).1);
}

#[test]
fn a_slow_host_delays_itself_alone() {
    let mut hosts = fresh(5);
    hosts[3].host = "slow".to_owned();
    let mut graph = Graph::new(&hosts, 0);
    let played = play(&mut graph, |host, stage| {
        let seconds = if uploads(host, stage) { 10 } else { 1 };
        (if host == "slow" { seconds * 5 } else { seconds }, true)
    });
    assert_eq!(find(&played, "cp5", Stage::Serve).1, 16);
    assert_eq!(find(&played, "slow", Stage::Serve).1, 65);
    let path = graph.critical_path().unwrap();
    assert_eq!(path.to_string(), "1m05s, of which 50s on slow uploading");
}

#[test]
fn a_host_that_fails_stops_only_those_that_need_it() {
    let mut graph = Graph::new(&fresh(3), 0);
    play(&mut graph, |host, stage| (1, (host, stage) != ("cp2", Stage::Prepare)));
    assert_eq!(states(&graph), [HostState::Done, HostState::Failed, HostState::Done]);
    let mut graph = Graph::new(&fresh(3), 0);
    play(&mut graph, |host, stage| (1, (host, stage) != ("cp1", Stage::Keys)));
    let why = HostState::Skipped("the shared keys were not created on cp1".to_owned());
    assert_eq!(states(&graph), [HostState::Failed, why.clone(), why]);
    let mut graph = Graph::new(&fresh(2), 0);
    play(&mut graph, |host, stage| (1, (host, stage) != ("cp1", Stage::Etcd)));
    let why = HostState::Skipped("depends on cp1, which failed".to_owned());
    assert_eq!(states(&graph), [HostState::Failed, why]);
}

#[test]
fn the_keys_come_from_the_host_that_has_most_of_them() {
    let mut hosts = vec![host("cp1", EtcdWork::Join), host("cp2", EtcdWork::None), host("cp3", EtcdWork::None)];
    hosts[1].has_work = false;
    hosts[2].has_work = false;
    let mut graph = Graph::new(&hosts, 0);
    let played = play(&mut graph, |_, _| (1, true));
    assert_eq!(find(&played, "cp2", Stage::Keys), (0, 1));
    assert_eq!(find(&played, "cp1", Stage::Prepare), (1, 2));
    assert_eq!(states(&graph), [HostState::Done, HostState::Unchanged, HostState::Unchanged]);
}

#[test]
fn a_living_etcd_is_saved_before_anything_that_runs_is_changed() {
    let hosts = [host("cp1", EtcdWork::Restart), host("cp2", EtcdWork::None)];
    let mut graph = Graph::new(&hosts, 0);
    let played = play(&mut graph, |_, _| (1, true));
    let saved = find(&played, "cp1", Stage::Snapshot).1;
    for (host, stage, from, _) in &played {
        assert!(matches!(stage, Stage::Prepare | Stage::Snapshot) || *from >= saved, "{host} {stage:?}");
    }
    let mut graph = Graph::new(&hosts, 0);
    let played = play(&mut graph, |_, stage| (1, stage != Stage::Snapshot));
    assert!(played.iter().all(|one| !matches!(one.1, Stage::Etcd | Stage::Serve)), "{played:?}");
    let why = HostState::Skipped("the etcd snapshot on cp1 failed".to_owned());
    assert_eq!(states(&graph), [HostState::Failed, why]);
}

#[test]
fn one_host_at_a_time_is_disturbed_until_it_is_back_whole() {
    let hosts = ["cp1", "cp2", "cp3"].map(|name| host(name, EtcdWork::Restart));
    let mut graph = Graph::new(&hosts, 0);
    let played = play(&mut graph, |_, _| (1, true));
    let mut disturbed: Vec<(u64, u64, String)> = ["cp1", "cp2", "cp3"]
        .map(|name| (find(&played, name, Stage::Etcd).0, find(&played, name, Stage::Serve).1, name.to_owned()))
        .to_vec();
    disturbed.sort();
    assert!(disturbed.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{disturbed:?}");
}

#[test]
fn after_a_host_that_does_not_come_back_no_other_is_disturbed() {
    let hosts = ["cp1", "cp2", "cp3"].map(|name| host(name, EtcdWork::Restart));
    let mut graph = Graph::new(&hosts, 0);
    play(&mut graph, |host, stage| (1, (host, stage) != ("cp1", Stage::Serve)));
    let why = HostState::Skipped("cp1 is not healthy again, and only one host may restart at a time".to_owned());
    assert_eq!(states(&graph), [HostState::Failed, why.clone(), why]);
}

#[test]
fn members_leave_before_others_join_and_restarts_come_last() {
    let hosts = [host("cp1", EtcdWork::Restart), host("cp2", EtcdWork::None), host("cp4", EtcdWork::Join)];
    let mut graph = Graph::new(&hosts, 2);
    let played = play(&mut graph, |_, _| (1, true));
    let left = [Stage::Leave(0), Stage::Leave(1)].map(|stage| find(&played, "cp1", stage));
    assert!(left[0].1 <= left[1].0, "{left:?}");
    assert_eq!(graph.departed(), 2);
    assert!(left[1].1 <= find(&played, "cp4", Stage::Etcd).0);
    assert!(find(&played, "cp4", Stage::Etcd).1 <= find(&played, "cp1", Stage::Etcd).0);
    assert_eq!(states(&graph), [HostState::Done, HostState::Done, HostState::Done]);
}

#[test]
fn a_host_that_comes_late_joins_what_the_others_have_begun() {
    let mut graph = Graph::new(&fresh(2), 0);
    for task in graph.next(Duration::ZERO) {
        graph.finished(task.id, Ended::Done { uploaded: false }, secs(1));
    }
    let number = graph.admit(host("cp3", EtcdWork::Join));
    let played = play(&mut graph, |_, _| (1, true));
    assert!(find(&played, "cp3", Stage::Etcd).0 >= find(&played, "cp2", Stage::Etcd).1);
    assert_eq!(graph.state(number), HostState::Done);
}

#[test]
fn a_late_host_gets_keys_although_nobody_needed_any_before() {
    let mut hosts = vec![host("cp1", EtcdWork::None)];
    hosts[0].has_work = false;
    let mut graph = Graph::new(&hosts, 0);
    assert_eq!(graph.next(Duration::ZERO), []);
    graph.admit(host("cp2", EtcdWork::Join));
    let played = play(&mut graph, |_, _| (1, true));
    assert!(find(&played, "cp1", Stage::Keys).1 <= find(&played, "cp2", Stage::Prepare).0);
    assert!(find(&played, "cp1", Stage::Snapshot).1 <= find(&played, "cp2", Stage::Etcd).0);
}

#[test]
fn others_wait_for_a_silent_host_as_long_again_as_it_took_most_of_them() {
    let millis = |all: &[u64]| all.iter().map(|one| Duration::from_millis(*one)).collect::<Vec<_>>();
    assert_eq!(patience(&millis(&[]), 3), None);
    assert_eq!(patience(&millis(&[100]), 3), None);
    assert_eq!(patience(&millis(&[100, 200]), 3), Some(secs(1)));
    assert_eq!(patience(&millis(&[800, 700]), 3), Some(Duration::from_millis(1600)));
    assert_eq!(patience(&millis(&[100, 9000]), 3), Some(secs(3)));
}

#[test]
fn durations_are_as_exact_as_they_are_short() {
    let shown = [0.84, 9.99, 12.0, 130.0].map(|seconds| shown(Duration::from_secs_f64(seconds)));
    assert_eq!(shown, ["0.8s", "10.0s", "12s", "2m10s"]);
}
