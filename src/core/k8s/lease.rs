//! Leader election with a Lease: [`claim`] decides, [`campaign`] reads, writes and waits.
//!
//! A holder is given up only after its Lease has not changed for its whole duration *on the local clock*: the clocks of
//! hosts need not agree. Every write carries the resource version that was read, so that two claims never both succeed.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Lease duration: how long a holder that does not renew is respected.
const DURATION: Duration = Duration::from_secs(15);

/// If the holder cannot renew for this long, counted from before the request of its last renewal, it stops leading: others may
/// take over [`DURATION`] after that request arrived.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Interval between two attempts.
const PERIOD: Duration = Duration::from_secs(2);

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A candidate for a Lease.
#[derive(Clone, Debug)]
pub struct Candidacy {
    pub namespace: String,
    pub name: String,
    /// Unique per process.
    pub identity: String,
    /// Receives the identity of another holder for as long as its Lease lasts.
    pub other: Option<watch::Sender<Option<String>>>,
}

/// What to do with a Lease.
#[derive(Clone, Debug, PartialEq)]
enum Claim {
    /// It does not exist.
    Create(LeaseSpec),
    /// It is ours, free or given up.
    Replace(LeaseSpec),
    /// Another candidate holds it.
    Respect,
}

/// Decides on the Lease as read. `stood_still`: how long it has not changed.
fn claim(lease: Option<&LeaseSpec>, identity: &str, stood_still: Duration, now: Timestamp) -> Claim {
    let mine = |acquired, transitions| LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        acquire_time: Some(acquired),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(spec) = lease else { return Claim::Create(mine(MicroTime(now), 0)) };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let transitions = spec.lease_transitions.unwrap_or_default();
    if holder == identity {
        return Claim::Replace(mine(spec.acquire_time.clone().unwrap_or(MicroTime(now)), transitions));
    }
    let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().max(0) as u64);
    if holder.is_empty() || stood_still > duration {
        return Claim::Replace(mine(MicroTime(now), transitions.saturating_add(1)));
    }
    Claim::Respect
}

/// Campaigns until `stop`. Keeps `leading` true while the Lease is held, and releases the Lease at the end.
pub async fn campaign(api: Api<Lease>, candidacy: Candidacy, leading: watch::Sender<bool>, stop: CancellationToken) {
    let mut seen: Option<Lease> = None;
    let mut seen_since = Instant::now();
    let mut renewed = Instant::now();
    // No wait of a holder lasts longer than it may lead.
    let at_most = |wait: Duration, renewed: Instant| match *leading.borrow() {
        true => wait.min(RENEW_DEADLINE.saturating_sub(renewed.elapsed())),
        false => wait,
    };
    loop {
        let started = Instant::now();
        let limit = at_most(REQUEST_TIMEOUT, renewed);
        match timeout(limit, attempt(&api, &candidacy, &mut seen, &mut seen_since)).await {
            Ok(Ok(held)) => {
                if held {
                    renewed = started;
                }
                tell_other(&candidacy, if held { None } else { seen.as_ref() });
                set(&leading, held, &candidacy);
            }
            Ok(Err(error)) => tracing::warn!(lease = candidacy.name, %error, "failed to renew or read the lease"),
            Err(_) => tracing::warn!(lease = candidacy.name, "no response from the API server in time"),
        }
        if renewed.elapsed() >= RENEW_DEADLINE {
            set(&leading, false, &candidacy);
        }
        if seen_since.elapsed() > DURATION {
            tell_other(&candidacy, None);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = sleep(at_most(PERIOD, renewed)) => {}
        }
    }
    if *leading.borrow() {
        set(&leading, false, &candidacy);
        let _ = timeout(REQUEST_TIMEOUT, release(&api, &candidacy)).await;
    }
}

fn tell_other(candidacy: &Candidacy, lease: Option<&Lease>) {
    let Some(other) = &candidacy.other else { return };
    let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
    let holder = holder.filter(|holder| !holder.is_empty() && *holder != candidacy.identity);
    other.send_if_modified(|known| {
        let changed = *known != holder;
        *known = holder;
        changed
    });
}

fn set(leading: &watch::Sender<bool>, now: bool, candidacy: &Candidacy) {
    let changed = leading.send_if_modified(|leading| std::mem::replace(leading, now) != now);
    if changed {
        tracing::info!(lease = candidacy.name, identity = candidacy.identity, leading = now, "leadership");
    }
}

async fn attempt(
    api: &Api<Lease>,
    candidacy: &Candidacy,
    seen: &mut Option<Lease>,
    seen_since: &mut Instant,
) -> Result<bool, kube::Error> {
    let current = api.get_opt(&candidacy.name).await?;
    if *seen != current {
        *seen_since = Instant::now();
        seen.clone_from(&current);
    }
    let spec = current.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
    let metadata = current.map(|lease| lease.metadata);
    let written = match claim(spec.as_ref(), &candidacy.identity, seen_since.elapsed(), Timestamp::now()) {
        Claim::Respect => return Ok(false),
        Claim::Create(spec) => {
            let metadata = ObjectMeta {
                name: Some(candidacy.name.clone()),
                namespace: Some(candidacy.namespace.clone()),
                ..ObjectMeta::default()
            };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
        }
        Claim::Replace(spec) => {
            let lease = Lease { metadata: metadata.unwrap_or_default(), spec: Some(spec) };
            api.replace(&candidacy.name, &PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(lease) => {
            *seen = Some(lease);
            *seen_since = Instant::now();
            Ok(true)
        }
        // Another candidate wrote it first.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn release(api: &Api<Lease>, candidacy: &Candidacy) -> Result<(), kube::Error> {
    let Some(mut lease) = api.get_opt(&candidacy.name).await? else { return Ok(()) };
    let Some(spec) = lease.spec.as_mut() else { return Ok(()) };
    if spec.holder_identity.as_ref() == Some(&candidacy.identity) {
        spec.holder_identity = Some(String::new());
        api.replace(&candidacy.name, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_free_ours_or_given_up() {
        let now = Timestamp::from_second(1000).unwrap();
        let second = Duration::from_secs(1);
        let outcome = |lease: Option<LeaseSpec>, still: u32| match claim(lease.as_ref(), "me", second * still, now) {
            Claim::Create(spec) => ("create", spec.lease_transitions, spec.acquire_time.map(|time| time.0)),
            Claim::Replace(spec) => ("replace", spec.lease_transitions, spec.acquire_time.map(|time| time.0)),
            Claim::Respect => ("respect", None, None),
        };
        let epoch = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(outcome(None, 0), ("create", Some(0), Some(now)));
        assert_eq!(outcome(Some(held_by("me")), 99), ("replace", Some(3), epoch));
        assert_eq!(outcome(Some(held_by("")), 0), ("replace", Some(4), Some(now)));
        assert_eq!(outcome(Some(held_by("other")), 15), ("respect", None, None));
        assert_eq!(outcome(Some(held_by("other")), 16), ("replace", Some(4), Some(now)));
        assert_eq!(outcome(Some(LeaseSpec::default()), 0), ("replace", Some(1), Some(now)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_cannot_renew_stops_leading_before_another_may_take_over() {
        // The first attempt finds no Lease and creates it; after that, no request is answered.
        let answered = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let number = answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                let answer = |status: u16, body: serde_json::Value| {
                    let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
                    http::Response::builder().status(status).body(body).unwrap()
                };
                match number {
                    0 => {
                        assert_eq!(request.method(), http::Method::GET);
                        let body =
                            serde_json::json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": ""});
                        Ok::<_, std::convert::Infallible>(answer(404, body))
                    }
                    1 => Ok(answer(201, serde_json::json!({"metadata": {"name": "l", "namespace": "n"}, "spec": {}}))),
                    _ => std::future::pending().await,
                }
            }
        });
        let api = Api::namespaced(kube::Client::new(service, "n"), "n");
        let name = |text: &str| text.to_owned();
        let candidacy = Candidacy { namespace: name("n"), name: name("l"), identity: name("me"), other: None };
        let (leading, mut leads) = watch::channel(false);
        let stop = CancellationToken::new();
        let started = Instant::now();
        let campaigning = tokio::spawn(campaign(api, candidacy, leading, stop.clone()));
        leads.wait_for(|leads| *leads).await.unwrap();
        leads.wait_for(|leads| !*leads).await.unwrap();
        assert!(started.elapsed() <= RENEW_DEADLINE, "it led for {:?} after its last renewal", started.elapsed());
        stop.cancel();
        campaigning.await.unwrap();
    }
}
