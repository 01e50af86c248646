//! A test bench: builders of events, a clock that only tests advance, and a fake API.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint};
use serde_json::{Value, json};

use crate::scheduler::decide::{
    Answer, ApiRequest, Binding, Bounds, Effect, Event, MesosCall, NodeStep, NodeTemplate, Refused, Scheduler,
    Settings, Token,
};
use kmctl_core::cluster::{NetworkMode, ProxyMode};
use kmctl_core::model::nodes::{LEAVING_TAINT, NodeFacts, NodePhase};
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::{Amount, read_amount};
use kmctl_core::model::time::Time;
use kmctl_core::protocol::artifacts::KmProgram;
use kmctl_core::protocol::launch::TaskData;
use mesos::types::{
    Attribute, Bytes, DomainInfo, FaultDomain, Named, Offer, Resource, TaskInfo, TaskState, TaskStatus, Url,
};

pub fn settings() -> Settings {
    Settings {
        cluster: "demo".into(),
        role: "kubernetes".into(),
        user: "root".into(),
        overhead: Amount::new(250, 512),
        idle_timeout: Duration::from_secs(600),
        constraints: Vec::new(),
        network_mode: NetworkMode::HostPorts,
        km: KmProgram { sha256: "ab".repeat(32), url: format!("http://10.0.0.11:10271/artifacts/{}", "ab".repeat(32)) },
        node: NodeTemplate {
            api_servers: vec!["https://10.0.0.11:6443".into()],
            ca_certificate: "PEM".into(),
            kubernetes_version: "v1.37.2".into(),
            root_dir: PathBuf::from("/var/lib/kmctl/demo"),
            pod_cidr: "172.30.0.0/16".into(),
            proxy_mode: ProxyMode::Iptables,
            service_cidr: "10.96.0.0/16".into(),
            cluster_domain: "cluster.local".into(),
            artifacts: Vec::new(),
        },
    }
}

/// The scheduler, and an API server that reflects its writes.
pub struct Bench {
    pub core: Scheduler,
    pub now: Time,
    /// Nodes as the API has them.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// Pods as the API has them.
    pub pods: BTreeMap<String, PodFacts>,
    /// Every effect so far.
    pub log: Vec<Effect>,
    /// Whether posted Bindings are applied. False leaves them unanswered.
    pub binds: bool,
    /// The step on nodes that the API refuses.
    pub refuses: Option<NodeStep>,
    offers: u32,
    requests: u64,
}

impl Bench {
    /// Knows nothing: no lists and no subscription.
    pub fn cold(settings: Settings) -> Bench {
        Bench {
            core: Scheduler::new(settings, 1),
            now: Time(1000),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            log: Vec::new(),
            binds: true,
            refuses: None,
            offers: 0,
            requests: 0,
        }
    }

    /// All lists are complete and empty.
    pub fn new() -> Bench {
        Bench::with(settings())
    }

    pub fn with(settings: Settings) -> Bench {
        let mut bench = Bench::cold(settings);
        bench.sync(Bounds::default());
        bench.answer_sentinel();
        bench
    }

    pub fn sync(&mut self, bounds: Bounds) {
        for event in [Event::PodsSynced, Event::NodesSynced, Event::Bounds(bounds), Event::Subscribed] {
            self.on(event);
        }
    }

    /// The master has answered for every task.
    pub fn answer_sentinel(&mut self) {
        let sentinel = self.log.iter().rev().find_map(|effect| match effect {
            Effect::Mesos(MesosCall::Reconcile(tasks)) => {
                tasks.iter().find(|(task, _)| task.starts_with("sentinel.")).map(|(task, _)| task.clone())
            }
            _ => None,
        });
        self.on(Event::Update(Box::new(TaskStatus::new(sentinel.unwrap(), TaskState::TaskUnknown))));
    }

    /// Sends an event, and the fake API's responses to the resulting effects. Returns all effects.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            for effect in self.core.on(event, self.now) {
                events.extend(self.api(&effect));
                all.push(effect);
            }
        }
        self.log.extend(all.clone());
        all
    }

    /// Advances the time, in ticks of 100 ms.
    pub fn wait(&mut self, span: Duration) -> Vec<Effect> {
        let mut all = Vec::new();
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_millis(100);
            all.extend(self.on(Event::Tick));
        }
        all
    }

    pub fn seconds(&mut self, seconds: u64) -> Vec<Effect> {
        self.wait(Duration::from_secs(seconds))
    }

    /// The API server's response to an effect.
    fn api(&mut self, effect: &Effect) -> Vec<Event> {
        let mut changed = None;
        let refused = |node: &String, step| vec![Event::NodeFailed { node: node.clone(), step, why: "no".into() }];
        match effect {
            Effect::Api(ApiRequest::CreateNode(spec)) if self.refuses == Some(NodeStep::Create) => {
                return refused(&spec.name, NodeStep::Create);
            }
            Effect::Api(ApiRequest::PrepareNode { node, .. }) if self.refuses == Some(NodeStep::Prepare) => {
                return refused(node, NodeStep::Prepare);
            }
            Effect::Api(ApiRequest::PublishGrant { node, .. }) if self.refuses == Some(NodeStep::Publish) => {
                return refused(node, NodeStep::Publish);
            }
            Effect::Api(ApiRequest::CreateNode(spec)) => {
                let facts = NodeFacts {
                    name: spec.name.clone(),
                    agent: spec.agent.clone(),
                    labels: spec.labels.clone(),
                    taints: Vec::new(),
                    phase: NodePhase::Candidate,
                    why: String::new(),
                    executor: None,
                    task: None,
                    token_id: None,
                    kubelet: false,
                    ready: false,
                    allocatable: spec.capacity,
                    most_pods: 110,
                    address: spec.address.map(|address| address.to_string()),
                };
                self.nodes.insert(spec.name.clone(), facts);
                changed = Some(spec.name.clone());
            }
            Effect::Api(ApiRequest::PrepareNode { node, executor, task, .. }) => {
                let facts = self.nodes.get_mut(node).unwrap();
                facts.executor = Some((**executor).clone());
                facts.task = Some(task.clone());
                facts.token_id = Some("abcdef".into());
                facts.phase = NodePhase::Starting;
                let seen = Event::Node(Box::new(facts.clone()));
                return vec![
                    seen,
                    Event::NodePrepared { node: node.clone(), token: Token("abcdef.0123456789abcdef".into()) },
                ];
            }
            Effect::Api(ApiRequest::MarkNode { node, phase, why }) => {
                if let Some(facts) = self.nodes.get_mut(node) {
                    facts.phase = *phase;
                    facts.why.clone_from(why);
                    facts.taints.retain(|taint| taint.key != LEAVING_TAINT);
                    if *phase == NodePhase::Leaving {
                        facts.taints.push(Taint {
                            key: LEAVING_TAINT.into(),
                            effect: "NoSchedule".into(),
                            ..Taint::default()
                        });
                    }
                    changed = Some(node.clone());
                }
            }
            Effect::Api(ApiRequest::DeleteNode { node, .. }) if self.nodes.remove(node).is_some() => {
                return vec![Event::NodeGone(node.clone())];
            }
            Effect::Api(ApiRequest::Bind(Binding { uid, node, annotations, .. })) if self.binds => {
                let posted = Event::BindingPosted { uid: uid.clone(), error: None };
                let Some(pod) = self.pods.get_mut(uid) else { return vec![posted] };
                pod.node = Some(node.clone());
                pod.task = annotations.get("kmctl.io/task").cloned();
                pod.granted_ports = annotations.get("kmctl.io/ports").cloned();
                pod.granted = annotations.get("kmctl.io/granted").and_then(|text| read_amount(text));
                return vec![posted, Event::Pod(Box::new(pod.clone()))];
            }
            Effect::Api(ApiRequest::DeletePod { uid, .. }) if self.pods.remove(uid).is_some() => {
                return vec![Event::PodGone(uid.clone())];
            }
            _ => {}
        }
        changed.map(|name| Event::Node(Box::new(self.nodes[&name].clone()))).into_iter().collect()
    }

    /// Creates or updates a pod in the API.
    pub fn pod(&mut self, pod: &PodFacts) -> Vec<Effect> {
        self.pods.insert(pod.uid.clone(), pod.clone());
        self.on(Event::Pod(Box::new(pod.clone())))
    }

    /// An agent makes an offer.
    pub fn offer(&mut self, agent: &str, cpus: f64, mem: f64) -> Vec<Effect> {
        let offer = self.offer_of(agent, cpus, mem);
        self.on(Event::Offers(vec![offer]))
    }

    /// Several agents make the same offer, in one event as after REVIVE.
    pub fn offer_all(&mut self, agents: &[&str], cpus: f64, mem: f64) -> Vec<Effect> {
        let offers = agents.iter().map(|agent| self.offer_of(agent, cpus, mem)).collect();
        self.on(Event::Offers(offers))
    }

    /// An offer. Agents have an attribute `rack` and a zone named after themselves.
    pub fn offer_of(&mut self, agent: &str, cpus: f64, mem: f64) -> Offer {
        self.offers += 1;
        let role = "kubernetes";
        let number = agent.bytes().last().unwrap_or_default();
        Offer {
            id: format!("o{}", self.offers).into(),
            agent_id: format!("id-{agent}").into(),
            hostname: agent.to_owned(),
            url: Some(Url {
                scheme: "http".into(),
                address: mesos::types::Address { hostname: None, ip: Some(format!("10.0.1.{number}")), port: 5051 },
                path: None,
            }),
            domain: Some(DomainInfo {
                fault_domain: Some(FaultDomain {
                    region: Named { name: "eu".into() },
                    zone: Named { name: format!("zone-{agent}") },
                }),
            }),
            resources: vec![
                Resource::scalar("cpus", cpus).allocated_to(role),
                Resource::scalar("mem", mem).allocated_to(role),
                Resource::ranges("ports", [(31000, 31009)]).allocated_to(role),
            ],
            attributes: vec![Attribute::text("rack", format!("rack-{agent}"))],
            allocation_info: Resource::scalar("", 0.0).allocated_to(role).allocation_info,
            ..Offer::default()
        }
    }

    pub fn filter(&mut self, pod: &PodFacts, nodes: &[&str]) -> (Vec<String>, BTreeMap<String, Refused>) {
        self.requests += 1;
        let request = self.requests;
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        let effects = self.on(Event::Filter { request, pod: Box::new(pod.clone()), nodes });
        match effects.as_slice() {
            [Effect::Answer(answered, Answer::Filter { kept, failed })] if *answered == request => {
                (kept.clone(), failed.clone())
            }
            other => panic!("no answer: {other:?}"),
        }
    }

    /// kube-scheduler binds. Returns the request and the immediate effects.
    pub fn bind(&mut self, pod: &PodFacts, node: &str) -> (u64, Vec<Effect>) {
        self.requests += 1;
        let request = self.requests;
        let effects = self.on(Event::Bind { request, uid: pod.uid.clone(), node: node.to_owned() });
        (request, effects)
    }

    /// The answer to a bind, if there is one.
    pub fn bound(&self, request: u64) -> Option<Option<String>> {
        self.log.iter().find_map(|effect| match effect {
            Effect::Answer(answered, Answer::Bind(error)) if *answered == request => Some(error.clone()),
            _ => None,
        })
    }

    /// Mesos reports a task's state, as if from its executor.
    pub fn update(&mut self, task: &TaskInfo, state: TaskState) -> Vec<Effect> {
        let mut status = TaskStatus::new(task.task_id.clone(), state);
        status.agent_id = Some(task.agent_id.clone());
        status.executor_id = task.executor.as_ref().map(|executor| executor.executor_id.clone());
        status.uuid = Some(Bytes(vec![1]));
        self.on(Event::Update(Box::new(status)))
    }

    /// The kubelet of a node reports Ready.
    pub fn kubelet_ready(&mut self, node: &str) -> Vec<Effect> {
        let facts = self.nodes.get_mut(node).unwrap();
        (facts.kubelet, facts.ready) = (true, true);
        let facts = facts.clone();
        self.on(Event::Node(Box::new(facts)))
    }

    /// Sets up one running pod on one ready node of an agent. Returns the node task and the pod's.
    pub fn running(&mut self, pod: &PodFacts, agent: &str) -> (TaskInfo, TaskInfo) {
        self.pod(pod);
        self.offer(agent, 4.0, 4096.0);
        let (request, _) = self.bind(pod, agent);
        let tasks = accepted(&self.seconds(1));
        let [node, task] = tasks.as_slice() else { panic!("launched {tasks:?}") };
        let (node, task) = (node.clone(), task.clone());
        self.update(&node, TaskState::Starting);
        self.update(&task, TaskState::Starting);
        assert_eq!(self.bound(request), Some(None));
        self.update(&node, TaskState::Running);
        self.update(&task, TaskState::Running);
        self.kubelet_ready(agent);
        (node, task)
    }
}

/// A pod of 0.5 cpus and 128 MB, modified by `spec`.
pub fn pod_with(name: &str, spec: Value) -> PodFacts {
    let mut full = json!({
        "metadata": {"uid": format!("uid-{name}"), "name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "128Mi"}}}]},
    });
    merge(&mut full, spec);
    let pod: Pod = serde_json::from_value(full).unwrap();
    PodFacts::new(&pod, Amount::new(250, 64)).unwrap()
}

pub fn pod(name: &str) -> PodFacts {
    pod_with(name, json!({}))
}

/// A pod that its controller would create again.
pub fn controlled(name: &str) -> PodFacts {
    pod_with(
        name,
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]}}),
    )
}

/// The pod that a DaemonSet has created for a node.
pub fn daemon(name: &str, node: &str) -> PodFacts {
    pod_with(
        name,
        json!({
            "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true}]},
            "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}}},
        }),
    )
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Tasks of all ACCEPTs among effects.
pub fn accepted(effects: &[Effect]) -> Vec<TaskInfo> {
    let tasks = effects.iter().filter_map(|effect| match effect {
        Effect::Mesos(MesosCall::Accept { tasks, .. }) => Some(tasks.clone()),
        _ => None,
    });
    tasks.flatten().collect()
}

/// A task's data.
pub fn data(task: &TaskInfo) -> TaskData {
    serde_json::from_slice(&task.data.as_ref().unwrap().0).unwrap()
}

/// Kinds of the effects, without those that any event may have.
pub fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    let kinds = effects.iter().map(Effect::kind);
    kinds
        .filter(|kind| !matches!(*kind, "acknowledge" | "list_agents" | "renew_lease" | "publish_grant" | "report"))
        .collect()
}

/// Nodes created among effects.
pub fn created(effects: &[Effect]) -> Vec<String> {
    let created = effects.iter().filter_map(|effect| match effect {
        Effect::Api(ApiRequest::CreateNode(spec)) => Some(spec.name.clone()),
        _ => None,
    });
    created.collect()
}

/// The last explanation.
pub fn explained(effects: &[Effect]) -> Option<String> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Api(ApiRequest::Explain { message, .. }) => Some(message.clone()),
        _ => None,
    })
}
