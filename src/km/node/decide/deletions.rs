//! The deletion of a pod whose task Mesos wants to end: one at a time for each pod, repeated until the pod is gone.
//!
//! The pod is never read. If the API server answers that it has no such pod, or not for this node, the answer is
//! checked against the node's own watch: a pod that the watch has is not gone, whatever the answer.
use std::time::Duration;

use super::{Agent, Deletion, Effect, Phase, PodView};
use kmctl_core::backoff::Backoff;

/// Backoff before a deletion that was not accepted, or had no effect, is requested again. It ends with the pod or the
/// node: while the object may exist the kubelet keeps its containers, so the task must not be reported as ended.
const DELETE_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60));
/// How long after its grace period a deleted pod may take before its deletion is requested again.
const DELETION_MARGIN: Duration = Duration::from_secs(10);
/// Zero would remove the object while its containers run.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// The pending deletion of a pod whose task Mesos wants to end.
#[derive(Clone, Debug)]
pub(super) struct Deleting {
    /// How long Mesos lets the pod take.
    allowed: Duration,
    /// The grace period in the last request; none left it to the pod's own specification.
    named: Option<Duration>,
    request: Request,
    /// Waits so far.
    waits: u32,
    /// The API server has already answered once that the pod is not this node's.
    foreign: bool,
    /// The last logged reason, so that only changes are logged.
    said: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Not answered yet; `again`: the allowed time has been shortened meanwhile.
    Asked { again: bool },
    /// Accepted. If the pod still exists at this time, the request is repeated.
    Accepted { again: Duration },
    /// Not accepted; repeated at this time.
    Waiting { again: Duration },
}

impl Agent {
    /// Starts the deletion of a pod, or updates the pending one.
    pub(super) fn delete(&mut self, uid: &str, allowed: Duration, now: Duration) -> Vec<Effect> {
        let Some(deleting) = self.deletions.get_mut(uid) else {
            let request = Request::Waiting { again: now };
            let deleting = Deleting { allowed, named: None, request, waits: 0, foreign: false, said: None };
            self.deletions.insert(uid.to_owned(), deleting);
            return self.ask_to_delete(uid);
        };
        if allowed >= deleting.allowed {
            return Vec::new();
        }
        deleting.allowed = allowed;
        match &mut deleting.request {
            Request::Asked { again } => {
                *again = true;
                Vec::new()
            }
            Request::Accepted { .. } => self.ask_to_delete(uid),
            // The next request names it.
            Request::Waiting { .. } => Vec::new(),
        }
    }

    fn ask_to_delete(&mut self, uid: &str) -> Vec<Effect> {
        let Some(pod) = self.tasks.values().find(|task| task.pod.uid == uid).map(|task| task.pod.clone()) else {
            self.deletions.remove(uid);
            return Vec::new();
        };
        let own = self.views.get(uid).and_then(|view| view.grace);
        let Some(deleting) = self.deletions.get_mut(uid) else { return Vec::new() };
        // A longer grace period than the pod's own would prolong it; if the pod's own is not known yet, none is named.
        let grace = own.map(|own| own.min(deleting.allowed).max(SHORTEST_GRACE));
        (deleting.named, deleting.request) = (grace, Request::Asked { again: false });
        vec![Effect::DeletePod { pod, grace }]
    }

    /// The effects of the answer to a deletion request.
    pub(super) fn deletion_answered(
        &mut self,
        uid: &str,
        result: Result<Deletion, String>,
        now: Duration,
    ) -> Vec<Effect> {
        let (seen, listed) = (self.views.contains_key(uid), self.listed);
        let Some(deleting) = self.deletions.get_mut(uid) else { return Vec::new() };
        let Request::Asked { again } = deleting.request else { return Vec::new() };
        let wait = DELETE_AGAIN.wait(deleting.waits);
        deleting.waits = deleting.waits.saturating_add(1);
        let why = match result {
            Ok(Deletion::Accepted) if again => return self.ask_to_delete(uid),
            Ok(Deletion::Accepted) => {
                let rest = if seen { deleting.named.unwrap_or(deleting.allowed) + DELETION_MARGIN } else { wait };
                deleting.request = Request::Accepted { again: now + rest.max(wait) };
                deleting.said = None;
                return Vec::new();
            }
            Ok(Deletion::Absent) if !seen => return self.pod_gone(uid),
            // The answer and the watch may both lag slightly behind a Binding, so one answer is not enough.
            Ok(Deletion::Foreign) if !seen && listed && deleting.foreign => return self.pod_gone(uid),
            Ok(Deletion::Foreign) if !seen => {
                deleting.foreign = listed;
                deleting.request = Request::Waiting { again: now + wait };
                return Vec::new();
            }
            // The watch may lag slightly.
            Ok(Deletion::Absent | Deletion::Foreign) if deleting.waits == 1 => {
                deleting.request = Request::Waiting { again: now + wait };
                return Vec::new();
            }
            Ok(Deletion::Absent) => {
                "the API server does not have this pod, but the watch of this node's pods has it".to_owned()
            }
            Ok(Deletion::Foreign) => {
                "the API server reports it on another node, but the watch of this node's pods has it".to_owned()
            }
            Err(why) => why,
        };
        deleting.foreign = false;
        deleting.request = Request::Waiting { again: now + wait };
        if deleting.said.as_ref() == Some(&why) {
            return Vec::new();
        }
        deleting.said = Some(why.clone());
        let name = self.tasks.values().find(|task| task.pod.uid == uid);
        let name = name.map_or_else(|| uid.to_owned(), |task| format!("{}/{}", task.pod.namespace, task.pod.name));
        vec![Effect::Warn(format!("failed to delete pod {name}, retrying: {why}"))]
    }

    /// Repeats the deletions that are due.
    pub(super) fn ask_again(&mut self, now: Duration) -> Vec<Effect> {
        if matches!(self.phase, Phase::TearingDown { .. } | Phase::Done) {
            return Vec::new();
        }
        let due = |deleting: &Deleting| match deleting.request {
            Request::Accepted { again } | Request::Waiting { again } => again <= now,
            Request::Asked { .. } => false,
        };
        let due: Vec<String> =
            self.deletions.iter().filter(|(_, deleting)| due(deleting)).map(|(uid, _)| uid.clone()).collect();
        due.iter().flat_map(|uid| self.ask_to_delete(uid)).collect()
    }

    /// Deletes a pod again if its own grace period was unknown at the first request and exceeds what Mesos allows.
    pub(super) fn shorten(&mut self, view: &PodView) -> Vec<Effect> {
        let Some(deleting) = self.deletions.get_mut(&view.uid) else { return Vec::new() };
        if deleting.named.is_some() || view.grace.is_none_or(|own| own <= deleting.allowed) {
            return Vec::new();
        }
        match &mut deleting.request {
            Request::Asked { again } => {
                *again = true;
                Vec::new()
            }
            Request::Accepted { .. } => self.ask_to_delete(&view.uid),
            Request::Waiting { .. } => Vec::new(),
        }
    }

    /// From now on a pod that was not seen does not exist, so pending deletions can be decided.
    pub(super) fn pods_listed(&mut self, now: Duration) -> Vec<Effect> {
        if std::mem::replace(&mut self.listed, true) {
            return Vec::new();
        }
        for deleting in self.deletions.values_mut() {
            if let Request::Waiting { again } = &mut deleting.request {
                *again = now;
                deleting.waits = 0;
            }
        }
        self.ask_again(now)
    }
}
