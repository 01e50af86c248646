//! A cluster's life: checked, planned, brought up, changed, looked at, scaled, taken down, purged.
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mesos::Masters;
use mesos::scheduler::{Call, Caller, Event, Scheduler, Subscription};
use mesos::transport::{Authentication, HttpSettings, Secret};
use mesos::types::{
    CommandInfo, ExecutorInfo, ExecutorType, Filters, FrameworkCapabilityType, FrameworkInfo, Operation, Resource,
    TaskInfo, TaskState,
};
use serde_json::json;

use crate::world::{self, MASTER, World};

#[test]
fn mesos_is_asked_while_the_hosts_are_looked_at() {
    let world = World::new();
    assert_eq!(world.kmctl(&["up"]).code, 0);
    drop(world.mesos);
    let deadline = Instant::now() + Duration::from_secs(10);
    let listener = loop {
        match TcpListener::bind((MASTER, 5050)) {
            Ok(listener) => break listener,
            // The one before is about to end.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let hidden = world.cp1.unit("etcd", "hidden");
    std::fs::write(&hidden, "").unwrap();
    let before = world.cp1.commands();
    let run = world.desk.start(&["up"]);
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while listener.accept().is_err() {
        assert!(Instant::now() < deadline, "Mesos is not asked before the look has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Whoever takes a connection and gives it up again is no Mesos.
    drop(listener);
    std::fs::remove_file(hidden).unwrap();
    let run = run.end();
    assert_eq!(run.code, 0, "{run}");
    for text in ["is up to date", "is up but degraded", "Mesos 10.0.0.5:5050 is unreachable"] {
        assert!(run.to_string().contains(text), "{run}");
    }
    assert_eq!(world.cp1.commands() - before, 1, "a host where nothing is to be done runs one command");
}

/// A framework as km scheduler would have it, with one node and one pod on it; two pods that Kubernetes knows.
async fn busy(world: &World) -> (Subscription, Caller) {
    let authentication = Authentication::Basic { principal: "demo".to_owned(), secret: Secret::new(world::SECRET) };
    let settings = HttpSettings { authentication, ..HttpSettings::default() };
    let scheduler = Scheduler::new(Masters::new(&[world.mesos.address()], &settings).unwrap());
    let info = FrameworkInfo {
        user: "root".to_owned(),
        name: "kubernetes-demo".to_owned(),
        principal: Some("demo".to_owned()),
        roles: vec!["kubernetes".to_owned()],
        capabilities: vec![FrameworkCapabilityType::MultiRole.into()],
        ..FrameworkInfo::default()
    };
    let (mut subscription, caller) = scheduler.subscribe(&info, &[]).await.unwrap();
    let offer = loop {
        if let Event::Offers { offers } = subscription.next().await.unwrap() {
            break offers.offers.into_iter().next().unwrap();
        }
    };
    let amounts = |cpus, mem| {
        vec![
            Resource::scalar("cpus", cpus).allocated_to("kubernetes"),
            Resource::scalar("mem", mem).allocated_to("kubernetes"),
        ]
    };
    let executor = ExecutorInfo {
        kind: Some(ExecutorType::Custom),
        executor_id: "node".into(),
        command: Some(CommandInfo { value: Some("true".to_owned()), ..CommandInfo::default() }),
        resources: amounts(0.1, 64.0),
        ..ExecutorInfo::default()
    };
    let task = |id: &str, name: &str, resources| TaskInfo {
        name: name.to_owned(),
        task_id: id.into(),
        agent_id: offer.agent_id.clone(),
        resources,
        executor: Some(executor.clone()),
        ..TaskInfo::default()
    };
    let node = task("node.agent1.0a1b2c3d", "node.agent1", amounts(0.25, 512.0));
    let pod = task("pod.u1.0a1b2c3d", "web.default", amounts(0.5, 128.0));
    let accept = Call::accept(vec![offer.id.clone()], vec![Operation::launch(vec![node, pod])], Filters::refuse(600.0));
    caller.call(accept).await.unwrap();
    let mut running = 0;
    while running < 2 {
        if let Event::Update { update } = subscription.next().await.unwrap() {
            if let Some(call) = Call::acknowledge(&update.status) {
                caller.call(call).await.unwrap();
            }
            running += u32::from(update.status.state == TaskState::Running);
        }
    }
    world.objects.put(
        "/api/v1/nodes/agent1",
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "agent1", "annotations": {
                "kmctl.io/agent-id": offer.agent_id.as_str(), "kmctl.io/state": "ready",
                "kmctl.io/grant": "cpus:0.75;mem:640"
            }},
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] }
        }),
    );
    world.objects.put(
        "/api/v1/namespaces/default/pods/web",
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
            "spec": { "nodeName": "agent1", "containers": [] },
            "status": { "phase": "Running" }
        }),
    );
    world.objects.put(
        "/api/v1/namespaces/default/pods/wait",
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "wait", "namespace": "default", "uid": "u2" },
            "spec": { "containers": [] },
            "status": { "phase": "Pending" }
        }),
    );
    (subscription, caller)
}

#[test]
fn up_changes_what_differs_and_nothing_else() {
    let world = World::new();
    world.kmctl(&["status"]).golden("status-nothing-installed");
    world.kmctl(&["scale"]).golden("scale-nothing-installed");
    world.kmctl(&["kubeconfig"]).golden("kubeconfig-nothing-installed");
    world.kmctl(&["down", "--yes"]).golden("down-nothing-installed");

    world.kmctl(&["check"]).golden("check");
    world.kmctl(&["plan"]).golden("plan-new-host");
    assert!(!world.cp1.path("etc/kubernetes").exists(), "plan has changed the host");
    world.kmctl(&["up"]).golden("up");
    world.kmctl(&["plan"]).golden("plan-unchanged");
    world.kmctl(&["up"]).golden("up-unchanged");
    world.kmctl(&["status"]).golden("status-idle");

    // A unit that interrupts the API when it restarts, edited by hand.
    world.cp1.run("sed -i s/anonymous-auth=false/anonymous-auth=true/ /etc/systemd/system/kube-apiserver.service");
    world.kmctl(&["plan"]).golden("plan-edited-unit");
    world.kmctl(&["up"]).golden("up-no-terminal");
    world.kmctl(&["plan"]).golden("plan-edited-unit");
    world.kmctl(&["up", "--yes"]).golden("up-edited-unit");
    world.kmctl(&["plan"]).golden("plan-unchanged");

    world.kmctl(&["up", "-q"]).golden("up-quiet");
    world.kmctl(&["down"]).golden("down-no-terminal");
    world.kmctl(&["down", "--purge=other"]).golden("down-other-name");
    world.kmctl(&["down", "--yes"]).golden("down");
    world.kmctl(&["down", "--yes"]).golden("down-nothing-installed");
    assert!(world.cp1.path("etc/kubernetes/pki/ca.key").exists(), "down has removed the authority's key");
    world.kmctl(&["status"]).golden("status-after-down");
}

#[test]
fn a_saved_plan_is_carried_out_as_it_is_or_not_at_all() {
    let world = World::new();
    assert_eq!(world.kmctl(&["up"]).code, 0);
    let api = "/etc/systemd/system/kube-apiserver.service";
    let scheduler = "/etc/systemd/system/kube-scheduler.service";
    world.cp1.run(&format!("sed -i s/anonymous-auth=false/anonymous-auth=true/ {api}"));
    world.kmctl(&["plan", "-o", "json"]).golden("plan-json");
    world.kmctl(&["plan", "--out", "monday.plan"]).golden("plan-out");

    // Somebody edits another file before the plan is carried out.
    world.cp1.run(&format!("sed -i s/secure-port=10259/secure-port=10299/ {scheduler}"));
    world.kmctl(&["up", "--yes", "--plan", "monday.plan"]).golden("up-drifted");
    world.cp1.run(&format!("grep -q anonymous-auth=true {api} && grep -q secure-port=10299 {scheduler}"));
    world.cp1.run(&format!("sed -i s/secure-port=10299/secure-port=10259/ {scheduler}"));

    world.kmctl(&["up", "--yes", "--plan", "monday.plan"]).golden("up-plan");
    world.kmctl(&["plan"]).golden("plan-unchanged");
    world.kmctl(&["up", "--yes", "--plan", "monday.plan"]).golden("up-plan-again");

    // What cluster.yaml wants has changed since, and what is no plan is none.
    world.kmctl(&["plan", "--out", "tuesday.plan"]);
    world.desk.edit("cluster.yaml", "version: v1.37.2", "version: v1.37.2, nodePortRange: 28000-28999");
    world.kmctl(&["up", "--yes", "--plan", "tuesday.plan"]).golden("up-other-cluster-file");
    world.kmctl(&["up", "--plan", "cluster.yaml"]).golden("up-no-plan");
    world.kmctl(&["up", "--plan", "wednesday.plan"]).golden("up-no-such-plan");
}

#[test]
fn a_living_cluster_is_looked_at_and_scaled() {
    let world = World::new();
    assert_eq!(world.kmctl(&["up"]).code, 0);
    world.kmctl(&["kubeconfig"]).golden("kubeconfig");
    let file = world.kmctl(&["kubeconfig", "--out", "kubeconfig"]);
    file.golden("kubeconfig-file");
    world.kmctl(&["kubeconfig", "--out", "no-such-folder/kubeconfig"]).golden("kubeconfig-cannot-write");

    world.kmctl(&["scale"]).golden("scale-shown");
    world.kmctl(&["scale", "--min", "1", "--max", "3", "--no-wait"]).golden("scale");
    world.kmctl(&["scale", "--min", "1", "--no-wait"]).golden("scale-unchanged");
    world.kmctl(&["scale", "--min", "4", "--no-wait"]).golden("scale-impossible");
    world.kmctl(&["scale", "--min", "many"]).golden("scale-no-number");
    world.kmctl(&["scale", "-o", "json"]).golden("scale-json");
    // What was scaled is no difference.
    world.kmctl(&["up"]).golden("up-keeps-scale");

    let _framework = world.runtime.block_on(busy(&world));
    world.kmctl(&["status"]).golden("status-busy");
    world.kmctl(&["status", "-o", "json"]).golden("status-busy-json");
    world.objects.forget("/api/v1/namespaces/default/pods/web");
    world.kmctl(&["status"]).golden("status-disagrees");
    std::fs::remove_file(world.cp1.unit("kube-apiserver", "active")).unwrap();
    world.kmctl(&["status"]).golden("status-api-down");
    world.kmctl(&["scale"]).golden("scale-api-down");
}

#[test]
fn a_purge_leaves_nothing() {
    let world = World::new();
    assert_eq!(world.kmctl(&["up"]).code, 0);
    let _framework = world.runtime.block_on(busy(&world));
    world.kmctl(&["down", "--purge"]).golden("down-purge-no-terminal");
    world.kmctl(&["down", "--purge=demo"]).golden("down-purge");
    for folder in ["etc/kubernetes", "etc/kmctl", "var/lib/etcd", "var/lib/kmctl", "usr/local/lib/kmctl"] {
        // What the overlay keeps of a folder that was made and removed is nothing, or a mark that it is gone.
        let left = world.cp1.path(folder);
        let inside =
            || std::fs::read_dir(&left).map(|all| all.flatten().map(|one| one.file_name()).collect::<Vec<_>>());
        assert!(!left.is_dir(), "{folder} is left: {:?}", inside());
    }
}
