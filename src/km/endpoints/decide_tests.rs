use serde_json::json;

use super::*;
use crate::endpoints::model::{Labels, ServicePort, TargetPort};
use crate::endpoints::read;
use kmctl_core::protocol::launch::PortMapping;

/// A fake API server: stores what is written and returns outcomes.
struct World {
    endpoints: Endpoints,
    stored: BTreeMap<Object, (Seen, Value)>,
    version: u64,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn service(name: &str) -> Service {
    Service {
        key: Key::new("ns", name),
        uid: format!("uid-{name}"),
        labels: Labels::new(),
        selector: labels(&[("app", name)]),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: "TCP".to_owned(),
            target: TargetPort::Number(80),
            app_protocol: None,
        }],
        headless: false,
        external_name: false,
        publish_not_ready: false,
    }
}

fn pod(name: &str, app: &str, host_port: u16) -> Pod {
    Pod {
        key: Key::new("ns", name),
        uid: format!("uid-{name}"),
        labels: labels(&[("app", app)]),
        node: "n1".to_owned(),
        node_address: Some("10.0.0.1".parse().unwrap()),
        host_network: false,
        ready: true,
        terminating: false,
        finished: false,
        hostname: String::new(),
        subdomain: String::new(),
        named_ports: Vec::new(),
        granted: vec![PortMapping { container_port: 80, host_port, protocol: "TCP".to_owned() }],
    }
}

fn pod_event(pod: Pod) -> Event {
    Event::Pod(Box::new(pod))
}

/// One phrase per effect.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Write(object, action) => {
            let verb = match action {
                Action::Create(_) => "create",
                Action::Replace(..) => "replace",
                Action::Delete(_) => "delete",
            };
            match object {
                Object::Endpoints(key) => format!("{verb} endpoints {}", key.name),
                Object::Slice(key) => format!("{verb} slice of {}", service_of_slice(&key.name)),
            }
        }
        Effect::RetryLater(service, attempt) => format!("retry {} {attempt}", service.name),
    };
    effects.iter().map(word).collect()
}

impl World {
    fn new() -> World {
        let mut world = World { endpoints: Endpoints::default(), stored: BTreeMap::new(), version: 100 };
        for kind in KINDS {
            assert_eq!(world.endpoints.on(Event::Listing(kind)), []);
            assert_eq!(world.endpoints.on(Event::Listed(kind)), []);
        }
        assert_eq!(world.endpoints.on(Event::Leading(true)), []);
        world
    }

    fn seen(&mut self, object: &Object, uid: &str, body: &Value) -> Seen {
        self.version += 1;
        let mut metadata = body["metadata"].clone();
        metadata["uid"] = json!(uid);
        metadata["resourceVersion"] = json!(self.version.to_string());
        let metadata = serde_json::from_value(metadata).unwrap();
        match object {
            Object::Endpoints(_) => read::endpoints(&metadata, body),
            Object::Slice(_) => read::slice(&metadata, body),
        }
    }

    /// Executes one effect as the server would and returns the outcome.
    fn answer(&mut self, effect: &Effect) -> Event {
        let (object, action) = match effect {
            Effect::Write(object, action) => (object, action),
            Effect::RetryLater(service, _) => return Event::Retry(service.clone()),
        };
        let there = self.stored.get(object).map(|(seen, _)| seen.clone());
        let outcome = match (action, there) {
            (Action::Create(body), None) => {
                let seen = self.seen(object, &format!("uid-{}", self.version), body);
                self.stored.insert(object.clone(), (seen.clone(), body.clone()));
                Outcome::Stored(seen)
            }
            (Action::Replace(body, known), Some(there)) if *known == there => {
                let seen = self.seen(object, &there.uid, body);
                self.stored.insert(object.clone(), (seen.clone(), body.clone()));
                Outcome::Stored(seen)
            }
            (Action::Delete(known), Some(there)) if *known == there => {
                self.stored.remove(object);
                Outcome::Deleted
            }
            (_, there) => Outcome::Outdated(there),
        };
        Event::Written(object.clone(), outcome)
    }

    /// Sends an event and executes the effects until none are left. Returns all effects as phrases.
    fn play(&mut self, event: Event) -> Vec<String> {
        let mut effects = self.endpoints.on(event);
        let mut all = words(&effects);
        while !effects.is_empty() {
            let answers: Vec<Event> = effects.iter().map(|effect| self.answer(effect)).collect();
            effects = answers.into_iter().flat_map(|answer| self.endpoints.on(answer)).collect();
            all.extend(words(&effects));
            assert!(all.len() < 100, "it does not come to rest: {all:?}");
        }
        all
    }

    /// Another writer changes the object. Returns the watch event.
    fn foreign(&mut self, object: &Object, change: impl FnOnce(&mut Value)) -> Event {
        let (seen, mut body) = self.stored[object].clone();
        change(&mut body);
        let seen = self.seen(object, &seen.uid, &body);
        self.stored.insert(object.clone(), (seen.clone(), body));
        Event::Object(object.clone(), seen)
    }

    fn slices(&self) -> Vec<Object> {
        self.stored.keys().filter(|object| kind_of(object) == Kind::Slice).cloned().collect()
    }
}

fn endpoints_of(name: &str) -> Object {
    Object::Endpoints(Key::new("ns", name))
}

#[test]
fn nothing_is_written_before_all_lists_are_complete_and_it_leads() {
    let mut endpoints = Endpoints::default();
    assert_eq!(endpoints.on(Event::Leading(true)), []);
    assert_eq!(endpoints.on(Event::Service(service("web"))), []);
    for kind in KINDS.into_iter().take(4) {
        assert_eq!(endpoints.on(Event::Listed(kind)), []);
    }
    assert_eq!(words(&endpoints.on(Event::Listed(Kind::Slice))), ["create endpoints web"]);

    let mut follower = Endpoints::default();
    follower.on(Event::Service(service("web")));
    for kind in KINDS {
        assert_eq!(follower.on(Event::Listed(kind)), []);
    }
    assert_eq!(words(&follower.on(Event::Leading(true))), ["create endpoints web"]);
}

#[test]
fn a_new_leader_catches_up_and_a_former_one_is_silent() {
    let mut world = World::new();
    world.play(Event::Leading(false));
    assert_eq!(world.play(Event::Service(service("web"))), Vec::<String>::new());
    assert_eq!(world.play(pod_event(pod("a", "web", 31001))), Vec::<String>::new());
    assert_eq!(world.play(Event::Leading(true)), ["create endpoints web", "create slice of web"]);
}

#[test]
fn each_change_of_a_pod_leads_to_exactly_the_writes_it_needs() {
    let mut world = World::new();
    let a = pod("a", "web", 31001);
    let changed = |change: fn(&mut Pod)| {
        let mut pod = pod("a", "web", 31001);
        change(&mut pod);
        pod_event(pod)
    };
    assert_eq!(world.play(Event::Service(service("web"))), ["create endpoints web"]);
    assert_eq!(world.play(Event::Service(service("other"))), ["create endpoints other"]);
    let replace_both = ["replace endpoints web", "replace slice of web"];
    let cases: [(Event, &[&str]); 8] = [
        (pod_event(a.clone()), &["replace endpoints web", "create slice of web"]),
        (pod_event(a.clone()), &[]),
        (pod_event(pod("stranger", "nobody", 1)), &[]),
        (changed(|pod| pod.ready = false), &replace_both),
        (changed(|_| ()), &replace_both),
        (
            changed(|pod| pod.granted[0].host_port = 31002),
            &["replace endpoints web", "create slice of web", "delete slice of web"],
        ),
        (
            changed(|pod| pod.labels = labels(&[("app", "other")])),
            &["replace endpoints other", "create slice of other", "replace endpoints web", "delete slice of web"],
        ),
        (Event::Gone(Kind::Pod, a.key.clone()), &["replace endpoints other", "delete slice of other"]),
    ];
    for (event, expected) in cases {
        let event_text = format!("{event:?}");
        assert_eq!(world.play(event), expected, "{event_text}");
        assert_eq!(world.play(Event::Resync), Vec::<String>::new());
    }
}

#[test]
fn a_selector_that_changes_moves_pods_and_one_that_goes_leaves_endpoints_to_their_owner() {
    let mut world = World::new();
    world.play(pod_event(pod("a", "web", 31001)));
    world.play(Event::Service(service("web")));
    let mut other = service("web");
    other.selector = labels(&[("app", "nobody")]);
    assert_eq!(world.play(Event::Service(other.clone())), ["replace endpoints web", "delete slice of web"]);
    assert_eq!(world.play(Event::Service(service("web"))), ["replace endpoints web", "create slice of web"]);
    other.selector.clear();
    assert_eq!(world.play(Event::Service(other.clone())), ["delete slice of web"]);
    let edit = world.foreign(&endpoints_of("web"), |body| body["subsets"] = json!([]));
    assert_eq!(world.play(edit), Vec::<String>::new());
    other.external_name = true;
    assert_eq!(world.play(Event::Service(other)), ["delete endpoints web"]);
}

#[test]
fn a_service_takes_its_objects_with_it() {
    let mut world = World::new();
    world.play(pod_event(pod("a", "web", 31001)));
    world.play(Event::Service(service("web")));
    let gone = Event::Gone(Kind::Service, Key::new("ns", "web"));
    assert_eq!(world.play(gone), ["delete endpoints web", "delete slice of web"]);
    assert!(world.stored.is_empty());
}

#[test]
fn objects_of_others_are_left_alone() {
    let mut world = World::new();
    let foreign = Seen { uid: "u".into(), resource_version: "1".into(), digest: 1, ours: false };
    for object in [endpoints_of("manual"), Object::Slice(Key::new("ns", "manual-abcde"))] {
        assert_eq!(world.play(Event::Object(object, foreign.clone())), Vec::<String>::new());
    }
    let mut manual = service("manual");
    manual.selector.clear();
    assert_eq!(world.play(Event::Service(manual)), Vec::<String>::new());
    assert_eq!(world.play(Event::Gone(Kind::Service, Key::new("ns", "manual"))), Vec::<String>::new());
}

#[test]
fn what_an_earlier_run_left_is_taken_over_or_cleaned() {
    let mut before = World::new();
    before.play(pod_event(pod("a", "web", 31001)));
    before.play(Event::Service(service("web")));
    before.play(pod_event(pod("b", "old", 31002)));
    before.play(Event::Service(service("old")));

    let mut endpoints = Endpoints::default();
    for (object, (seen, _)) in &before.stored {
        endpoints.on(Event::Object(object.clone(), seen.clone()));
    }
    endpoints.on(pod_event(pod("a", "web", 31001)));
    endpoints.on(Event::Service(service("web")));
    for kind in KINDS {
        endpoints.on(Event::Listed(kind));
    }
    assert_eq!(words(&endpoints.on(Event::Leading(true))), ["delete endpoints old", "delete slice of old"]);
}

#[test]
fn foreign_edits_and_deletions_are_repaired() {
    let mut world = World::new();
    world.play(pod_event(pod("a", "web", 31001)));
    world.play(Event::Service(service("web")));
    let slice = world.slices()[0].clone();
    type Edit = fn(&mut Value);
    let cases: [(Object, Edit, &str); 5] = [
        (endpoints_of("web"), |body| body["subsets"] = json!([]), "replace endpoints web"),
        (endpoints_of("web"), |body| body["metadata"]["labels"] = json!({}), "replace endpoints web"),
        (slice.clone(), |body| body["metadata"]["labels"] = json!({}), "replace slice of web"),
        (slice.clone(), |body| body["endpoints"][0]["hints"] = json!({}), "replace slice of web"),
        (slice.clone(), |body| body["metadata"]["annotations"] = json!({ "k": "v" }), ""),
    ];
    for (object, change, expected) in cases {
        let edit = world.foreign(&object, change);
        assert_eq!(world.play(edit).join(" "), expected);
    }
    for (object, expected) in [(endpoints_of("web"), "create endpoints web"), (slice, "create slice of web")] {
        let (seen, _) = world.stored.remove(&object).unwrap();
        assert_eq!(world.play(Event::ObjectGone(object, seen.uid)), [expected]);
    }
}

#[test]
fn somebody_who_keeps_changing_it_back_is_met_with_growing_patience() {
    let mut world = World::new();
    world.play(Event::Service(service("web")));
    let mut said = Vec::new();
    for round in 0..6 {
        let edit =
            world.foreign(&endpoints_of("web"), |body| body["metadata"]["labels"] = json!({ "r": round.to_string() }));
        said.push(world.play(edit).join(", "));
    }
    let prompt = "replace endpoints web";
    let later = |attempt: u32| format!("retry web {attempt}, replace endpoints web");
    assert_eq!(said, [prompt.to_owned(), prompt.to_owned(), prompt.to_owned(), later(1), later(2), later(3)]);
    world.play(Event::Resync);
    let edit = world.foreign(&endpoints_of("web"), |body| body["metadata"]["labels"] = json!({}));
    assert_eq!(world.play(edit), [prompt]);
}

#[test]
fn fields_that_the_server_drops_do_not_lead_to_another_write() {
    let mut world = World::new();
    let effects = world.endpoints.on(Event::Service(service("web")));
    let Effect::Write(object, Action::Create(body)) = &effects[0] else { panic!("{effects:?}") };
    let mut less = body.clone();
    less["metadata"]["labels"] = json!({});
    let stored = world.seen(object, "u", &less);
    assert_eq!(world.endpoints.on(Event::Written(object.clone(), Outcome::Stored(stored.clone()))), []);
    assert_eq!(world.endpoints.on(Event::Object(object.clone(), stored)), []);
    assert_eq!(world.endpoints.on(Event::Resync), []);
}

#[test]
fn what_changes_during_a_write_is_decided_after_it() {
    let mut world = World::new();
    let first = world.endpoints.on(Event::Service(service("web")));
    assert_eq!(words(&first), ["create endpoints web"]);
    assert_eq!(world.endpoints.on(pod_event(pod("a", "web", 31001))), []);
    assert_eq!(world.endpoints.on(pod_event(pod("b", "web", 31002))), []);
    let answer = world.answer(&first[0]);
    assert_eq!(
        words(&world.endpoints.on(answer)),
        ["replace endpoints web", "create slice of web", "create slice of web"]
    );
}

#[test]
fn a_failed_write_is_tried_again_later_and_later() {
    let mut world = World::new();
    let mut effects = world.endpoints.on(Event::Service(service("web")));
    for attempt in 0..3 {
        assert_eq!(words(&effects), ["create endpoints web"]);
        let failed = world.endpoints.on(Event::Written(endpoints_of("web"), Outcome::Failed));
        assert_eq!(words(&failed), [format!("retry web {attempt}")]);
        assert_eq!(world.endpoints.on(Event::Resync), [], "it waits");
        effects = world.endpoints.on(Event::Retry(Key::new("ns", "web")));
    }
    let answer = world.answer(&effects[0]);
    assert_eq!(world.endpoints.on(answer), []);
    let edit = world.foreign(&endpoints_of("web"), |body| body["subsets"] = json!([]));
    world.endpoints.on(Event::Resync);
    assert_eq!(world.play(edit), Vec::<String>::new(), "an empty list is what it should have");
}

#[test]
fn an_outdated_write_is_decided_again_on_what_is_there() {
    let mut world = World::new();
    world.play(Event::Service(service("web")));
    // An edit that the watch has not reported yet.
    let _late = world.foreign(&endpoints_of("web"), |body| body["metadata"]["labels"] = json!({ "x": "y" }));
    assert_eq!(
        world.play(pod_event(pod("a", "web", 31001))),
        ["replace endpoints web", "create slice of web", "retry web 0", "replace endpoints web"]
    );
    assert_eq!(world.play(Event::Resync), Vec::<String>::new());
}

#[test]
fn late_news_of_the_watch_is_no_news() {
    let mut world = World::new();
    world.play(Event::Service(service("web")));
    let (first, _) = world.stored[&endpoints_of("web")].clone();
    world.play(pod_event(pod("a", "web", 31001)));
    assert_eq!(world.play(Event::Object(endpoints_of("web"), first)), Vec::<String>::new());
    let end_of_another = Event::ObjectGone(endpoints_of("web"), "another uid".to_owned());
    assert_eq!(world.play(end_of_another), Vec::<String>::new());
}

#[test]
fn what_a_new_list_does_not_name_is_gone() {
    let mut world = World::new();
    for name in ["a", "b"] {
        world.play(pod_event(pod(name, "web", if name == "a" { 31001 } else { 31002 })));
    }
    world.play(Event::Service(service("web")));
    world.play(Event::Listing(Kind::Pod));
    world.play(pod_event(pod("b", "web", 31002)));
    assert_eq!(world.play(Event::Listed(Kind::Pod)), ["replace endpoints web", "delete slice of web"]);
    world.play(Event::Listing(Kind::Slice));
    world.stored.retain(|object, _| kind_of(object) != Kind::Slice);
    assert_eq!(world.play(Event::Listed(Kind::Slice)), ["create slice of web"]);
    world.play(Event::Listing(Kind::Service));
    assert_eq!(world.play(Event::Listed(Kind::Service)), ["delete endpoints web", "delete slice of web"]);
}

#[test]
fn a_node_that_learns_its_zone_changes_the_slices_on_it_only() {
    let mut world = World::new();
    world.play(pod_event(pod("a", "web", 31001)));
    world.play(Event::Service(service("web")));
    let zone = |zone: &str| Node { zone: Some(zone.to_owned()) };
    let node = |name: &str| Key::new("", name);
    assert_eq!(world.play(Event::Node(node("n2"), zone("z"))), Vec::<String>::new());
    assert_eq!(world.play(Event::Node(node("n1"), Node::default())), Vec::<String>::new());
    assert_eq!(world.play(Event::Node(node("n1"), zone("z"))), ["replace slice of web"]);
    assert_eq!(world.play(Event::Gone(Kind::Node, node("n1"))), ["replace slice of web"]);
}

#[test]
fn pods_of_another_namespace_are_not_selected() {
    let mut world = World::new();
    world.play(Event::Service(service("web")));
    let mut elsewhere = pod("a", "web", 31001);
    elsewhere.key.namespace = "other".to_owned();
    assert_eq!(world.play(pod_event(elsewhere)), Vec::<String>::new());
}
