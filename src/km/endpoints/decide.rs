//! Decides what to write: takes events, returns writes. Pure; [`super::run`] watches, writes and waits.
//!
//! Each Service has at most one round of writes at a time. Changes that arrive during a round are decided after it,
//! which also batches bursts. Stored objects are compared by fingerprint, and a write carries the version that it was
//! decided on, so a stale decision cannot overwrite anything.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::{Key, Node, Pod, Seen, Service};
use super::selectors::Selectors;
use super::wanted::{digest, service_of_slice, wanted};
use kmctl_core::k8s::relist::Relist;

/// Repairs of one object that are made without delay. Further ones wait longer and longer, because another writer keeps
/// reverting the object.
const PROMPT_REPAIRS: u32 = 3;

/// Kinds of objects that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Service,
    Pod,
    Node,
    Endpoints,
    Slice,
}

const KINDS: [Kind; 5] = [Kind::Service, Kind::Pod, Kind::Node, Kind::Endpoints, Kind::Slice];

/// An object that km endpoints writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Endpoints(Key),
    Slice(Key),
}

impl Object {
    pub fn key(&self) -> &Key {
        match self {
            Object::Endpoints(key) | Object::Slice(key) => key,
        }
    }

    /// The Service that the object belongs to, derived from the object's name.
    fn service(&self) -> Key {
        match self {
            Object::Endpoints(key) => key.clone(),
            Object::Slice(key) => Key::new(key.namespace.as_str(), service_of_slice(&key.name)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A list of this kind starts. Objects that it has not named by its end are gone.
    Listing(Kind),
    /// The list is complete.
    Listed(Kind),
    /// A Service was added or changed.
    Service(Service),
    /// A pod was added or changed.
    Pod(Box<Pod>),
    /// A node was added or changed.
    Node(Key, Node),
    /// An object that we may write was added or changed.
    Object(Object, Seen),
    /// A Service, pod or node was deleted.
    Gone(Kind, Key),
    /// An object that we may write was deleted. Carries its UID.
    ObjectGone(Object, String),
    /// This process became the leader (the one that writes), or lost the lead.
    Leading(bool),
    /// A write has ended.
    Written(Object, Outcome),
    /// The pause of [`Effect::RetryLater`] is over.
    Retry(Key),
    /// It is time to compare everything again.
    Resync,
}

/// Outcome of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The server now stores this.
    Stored(Seen),
    Deleted,
    /// The write was decided on an outdated version. Carries what the server has now.
    Outdated(Option<Seen>),
    /// The write failed for another reason.
    Failed,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write an object and report the outcome with [`Event::Written`].
    Write(Object, Action),
    /// Send [`Event::Retry`] after a pause that grows with the number.
    RetryLater(Key, u32),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Value),
    /// Replace the version that was seen.
    Replace(Value, Seen),
    /// Delete the version that was seen.
    Delete(Seen),
}

/// Everything known. Starts empty. Nothing is written until all lists are complete and this process is the leader.
#[derive(Debug, Default)]
pub struct Endpoints {
    services: BTreeMap<Key, Service>,
    pods: BTreeMap<Key, Pod>,
    nodes: BTreeMap<Key, Node>,
    selectors: Selectors,
    /// The pods that each Service selects.
    members: BTreeMap<Key, BTreeSet<Key>>,
    objects: BTreeMap<Object, Seen>,
    /// Objects by the Service that they belong to.
    by_service: BTreeMap<Key, BTreeSet<Object>>,
    written: BTreeMap<Object, Written>,
    rounds: BTreeMap<Key, Round>,
    listings: BTreeMap<Kind, Listing>,
    leading: bool,
}

/// Progress of one kind's list.
#[derive(Debug, Default)]
struct Listing {
    /// A list of this kind has been completed at least once.
    complete: bool,
    keys: Relist<Key>,
    objects: Relist<Object>,
}

/// The last write of an object.
#[derive(Debug)]
struct Written {
    wanted: u64,
    /// Fingerprint as stored. Differs from `wanted` where the server drops or adds fields.
    stored: Option<u64>,
    repairs: u32,
}

/// A Service's current round of writes.
#[derive(Debug, Default)]
struct Round {
    open: usize,
    /// Something changed during the round.
    again: bool,
    failed: bool,
    /// Waiting for [`Event::Retry`].
    paused: bool,
    attempts: u32,
}

impl Endpoints {
    /// Whether it may write.
    pub fn is_active(&self) -> bool {
        self.leading && KINDS.iter().all(|kind| self.listings.get(kind).is_some_and(|listing| listing.complete))
    }

    /// Handles an event and returns the resulting effects.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        let was_active = self.is_active();
        let mut effects = Vec::new();
        let mut changed = self.note(event, &mut effects);
        if !self.is_active() {
            return effects;
        }
        if !was_active {
            changed = self.everything();
        }
        for service in changed {
            self.settle(&service, &mut effects);
        }
        effects
    }

    /// Records an event and returns the Services that it may affect.
    fn note(&mut self, event: Event, effects: &mut Vec<Effect>) -> BTreeSet<Key> {
        match event {
            Event::Listing(kind) => {
                self.begin_list(kind);
                BTreeSet::new()
            }
            Event::Listed(kind) => self.end_list(kind),
            Event::Service(service) => self.note_service(service),
            Event::Pod(pod) => self.note_pod(*pod),
            Event::Node(key, node) => {
                self.named(Kind::Node, &key);
                let before = self.nodes.insert(key.clone(), node.clone());
                if before.unwrap_or_default() == node { BTreeSet::new() } else { self.services_on(&key.name) }
            }
            Event::Object(object, seen) => self.note_object(object, seen),
            Event::Gone(Kind::Service, key) => {
                if let Some(service) = self.services.remove(&key) {
                    self.selectors.remove(&service);
                }
                self.members.remove(&key);
                BTreeSet::from([key])
            }
            Event::Gone(Kind::Pod, key) => self.leave_all(&key),
            Event::Gone(Kind::Node, key) => {
                self.nodes.remove(&key);
                self.services_on(&key.name)
            }
            Event::Gone(Kind::Endpoints | Kind::Slice, _) => BTreeSet::new(),
            Event::ObjectGone(object, uid) => {
                // The deletion of an earlier object of this name says nothing about the current one.
                if self.objects.get(&object).is_some_and(|seen| seen.uid == uid) {
                    self.forget_object(&object);
                }
                BTreeSet::from([object.service()])
            }
            Event::Leading(leading) => {
                self.leading = leading;
                BTreeSet::new()
            }
            Event::Written(object, outcome) => self.note_written(object, outcome, effects),
            Event::Retry(service) => {
                if let Some(round) = self.rounds.get_mut(&service) {
                    round.paused = false;
                }
                BTreeSet::from([service])
            }
            Event::Resync => {
                for written in self.written.values_mut() {
                    written.repairs = 0;
                }
                self.everything()
            }
        }
    }

    fn everything(&self) -> BTreeSet<Key> {
        self.services.keys().chain(self.by_service.keys()).cloned().collect()
    }

    // === state ===

    fn begin_list(&mut self, kind: Kind) {
        let keys: Vec<Key> = match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().cloned().collect(),
            Kind::Endpoints | Kind::Slice => Vec::new(),
        };
        let objects = self.objects.keys().filter(|object| kind_of(object) == kind).cloned();
        let listing = self.listings.entry(kind).or_default();
        listing.keys.begin(keys);
        listing.objects.begin(objects);
    }

    fn named(&mut self, kind: Kind, key: &Key) {
        if let Some(listing) = self.listings.get_mut(&kind) {
            listing.keys.name(key);
        }
    }

    fn end_list(&mut self, kind: Kind) -> BTreeSet<Key> {
        let listing = self.listings.entry(kind).or_default();
        listing.complete = true;
        let (keys, objects) = (listing.keys.end(), listing.objects.end());
        let mut changed = BTreeSet::new();
        for key in keys {
            changed.extend(self.note(Event::Gone(kind, key), &mut Vec::new()));
        }
        for object in objects {
            changed.insert(object.service());
            self.forget_object(&object);
        }
        changed
    }

    fn note_service(&mut self, service: Service) -> BTreeSet<Key> {
        let key = service.key.clone();
        self.named(Kind::Service, &key);
        if self.services.get(&key) == Some(&service) {
            return BTreeSet::new();
        }
        let pods = self.pods.range(Key::new(key.namespace.as_str(), "")..);
        let members = pods
            .take_while(|(pod, _)| pod.namespace == key.namespace)
            .filter(|(_, pod)| service.selects(&pod.labels))
            .map(|(pod, _)| pod.clone())
            .collect();
        self.members.insert(key.clone(), members);
        if let Some(before) = self.services.get(&key) {
            self.selectors.remove(before);
        }
        self.selectors.insert(&service);
        self.services.insert(key.clone(), service);
        BTreeSet::from([key])
    }

    fn note_pod(&mut self, pod: Pod) -> BTreeSet<Key> {
        let key = pod.key.clone();
        self.named(Kind::Pod, &key);
        if self.pods.get(&key) == Some(&pod) {
            return BTreeSet::new();
        }
        let mut changed = self.leave_all(&key);
        for name in self.selecting(&pod) {
            self.members.entry(name.clone()).or_default().insert(key.clone());
            changed.insert(name);
        }
        self.pods.insert(key, pod);
        changed
    }

    /// Forgets a pod, also as a member of Services. Returns those Services.
    fn leave_all(&mut self, pod: &Key) -> BTreeSet<Key> {
        let Some(before) = self.pods.remove(pod) else { return BTreeSet::new() };
        let mut left = self.selecting(&before);
        left.retain(|service| self.members.get_mut(service).is_some_and(|members| members.remove(pod)));
        left
    }

    /// The Services that select a pod.
    fn selecting(&self, pod: &Pod) -> BTreeSet<Key> {
        let selects = |name: &&Key| self.services.get(*name).is_some_and(|service| service.selects(&pod.labels));
        self.selectors.candidates(&pod.key.namespace, &pod.labels).filter(selects).cloned().collect()
    }

    fn services_on(&self, node: &str) -> BTreeSet<Key> {
        let here = |pod: &Key| self.pods.get(pod).is_some_and(|pod| pod.node == node);
        self.members.iter().filter(|(_, pods)| pods.iter().any(here)).map(|(service, _)| service.clone()).collect()
    }

    fn note_object(&mut self, object: Object, seen: Seen) -> BTreeSet<Key> {
        if let Some(listing) = self.listings.get_mut(&kind_of(&object)) {
            listing.objects.name(&object);
        }
        // The watch repeats our own writes, possibly after later ones.
        if self.objects.get(&object).is_some_and(|known| !is_newer(&seen, known)) {
            return BTreeSet::new();
        }
        let service = object.service();
        self.by_service.entry(service.clone()).or_default().insert(object.clone());
        // The watch often reports our write before the write's response arrives. The object is as wanted, so nothing
        // follows.
        let as_wanted = self.written.get(&object).is_some_and(|written| written.wanted == seen.digest);
        self.objects.insert(object, seen);
        if as_wanted { BTreeSet::new() } else { BTreeSet::from([service]) }
    }

    fn forget_object(&mut self, object: &Object) {
        self.objects.remove(object);
        let service = object.service();
        if let Some(objects) = self.by_service.get_mut(&service) {
            objects.remove(object);
            if objects.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }

    fn note_written(&mut self, object: Object, outcome: Outcome, effects: &mut Vec<Effect>) -> BTreeSet<Key> {
        let service = object.service();
        let mut failed = false;
        match outcome {
            Outcome::Stored(seen) => {
                if let Some(written) = self.written.get_mut(&object) {
                    written.stored = Some(seen.digest);
                }
                self.note_object(object, seen);
            }
            Outcome::Deleted => {
                self.written.remove(&object);
                self.forget_object(&object);
            }
            Outcome::Outdated(now) => {
                failed = true;
                self.forget_object(&object);
                if let Some(seen) = now {
                    self.note_object(object, seen);
                }
            }
            Outcome::Failed => failed = true,
        }
        let round = self.rounds.entry(service.clone()).or_default();
        round.open = round.open.saturating_sub(1);
        round.failed |= failed;
        if round.open > 0 {
            return BTreeSet::new();
        }
        if round.failed {
            round.paused = true;
            effects.push(Effect::RetryLater(service, round.attempts));
            round.attempts = round.attempts.saturating_add(1);
            round.failed = false;
            return BTreeSet::new();
        }
        let again = round.again;
        self.rounds.remove(&service);
        if again { BTreeSet::from([service]) } else { BTreeSet::new() }
    }

    // === decisions ===

    /// Writes what differs from what the Service should have, unless a round of writes or a pause is in progress.
    fn settle(&mut self, key: &Key, effects: &mut Vec<Effect>) {
        if let Some(round) = self.rounds.get_mut(key)
            && (round.open > 0 || round.paused)
        {
            round.again = true;
            return;
        }
        let desired = self.desired(key);
        let mut actions = Vec::new();
        let mut patience = 0;
        for (object, body) in &desired.bodies {
            let wanted = digest(body);
            let written = self.written.get(object);
            let same_as_written = written.is_some_and(|written| written.wanted == wanted);
            let seen = self.objects.get(object);
            if let Some(seen) = seen {
                let stored = written.and_then(|written| written.stored).filter(|_| same_as_written);
                if seen.digest == wanted || stored == Some(seen.digest) {
                    continue;
                }
            }
            // The object was written as wanted but differs now: another writer changed it.
            let repairs = written.filter(|_| same_as_written).map_or(0, |written| written.repairs + 1);
            if repairs > PROMPT_REPAIRS {
                patience = patience.max(repairs - PROMPT_REPAIRS);
            }
            let action = match seen {
                None => Action::Create(body.clone()),
                Some(seen) => Action::Replace(body.clone(), seen.clone()),
            };
            actions.push((object.clone(), action, Some(Written { wanted, stored: None, repairs })));
        }
        for object in self.by_service.get(key).into_iter().flatten() {
            if let Some(seen) = self.objects.get(object)
                && seen.ours
                && !desired.bodies.contains_key(object)
                && !(desired.keep_endpoints && kind_of(object) == Kind::Endpoints)
            {
                actions.push((object.clone(), Action::Delete(seen.clone()), None));
            }
        }
        if actions.is_empty() {
            self.rounds.remove(key);
            return;
        }
        let round = self.rounds.entry(key.clone()).or_default();
        round.again = false;
        // The round after a pause is let through: `attempts` then equals the patience that was waited for.
        if patience > round.attempts {
            round.paused = true;
            round.attempts = patience;
            effects.push(Effect::RetryLater(key.clone(), patience));
            return;
        }
        round.open = actions.len();
        for (object, action, written) in actions {
            if let Some(written) = written {
                self.written.insert(object.clone(), written);
            }
            effects.push(Effect::Write(object, action));
        }
    }

    fn desired(&self, key: &Key) -> Desired {
        let mut desired = Desired::default();
        let Some(service) = self.services.get(key) else { return desired };
        if !service.is_ours() {
            // A Service that lost its selector keeps its Endpoints: its owner edits them from then on.
            desired.keep_endpoints = !service.external_name;
            return desired;
        }
        let members = self.members.get(key).into_iter().flatten();
        let pods = members.filter_map(|pod| self.pods.get(pod));
        let wanted = wanted(service, pods, &self.nodes);
        desired.bodies.insert(Object::Endpoints(key.clone()), wanted.endpoints);
        for (name, body) in wanted.slices {
            desired.bodies.insert(Object::Slice(Key::new(key.namespace.as_str(), name)), body);
        }
        desired
    }
}

/// What a Service should have.
#[derive(Default)]
struct Desired {
    bodies: BTreeMap<Object, Value>,
    keep_endpoints: bool,
}

fn kind_of(object: &Object) -> Kind {
    match object {
        Object::Endpoints(_) => Kind::Endpoints,
        Object::Slice(_) => Kind::Slice,
    }
}

/// Versions of one object increase. Where a server's versions are not numbers, every different version counts as newer.
fn is_newer(seen: &Seen, known: &Seen) -> bool {
    match (seen.resource_version.parse::<u64>(), known.resource_version.parse::<u64>()) {
        (Ok(seen), Ok(known)) => seen > known,
        _ => seen != known,
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
