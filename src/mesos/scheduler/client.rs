//! Subscribes a framework and sends its calls.
use std::sync::Arc;
use std::time::Duration;

use super::{Call, Event, FrameworkCall, Subscribe, Subscribed};
use crate::error::MesosError;
use crate::masters::Masters;
use crate::stream::Events;
use crate::transport::{Request, Transport};
use crate::types::{FrameworkId, FrameworkInfo};

const PATH: &str = "/api/v1/scheduler";

/// Heartbeat intervals without any event after which the connection counts as dead. One late heartbeat is normal on a
/// busy master. Waiting for a second one already takes half a minute with Mesos' interval of 15 s.
const MISSED_HEARTBEATS: u32 = 2;

/// Mesos' own heartbeat interval, for a master that does not send one.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Limit for SUBSCRIBED to arrive; the master authorizes the framework before it sends it.
const SUBSCRIBED_TIMEOUT: Duration = Duration::from_secs(30);

/// A framework's connection to its Mesos cluster.
#[derive(Clone, Debug)]
pub struct Scheduler {
    masters: Masters,
}

impl Scheduler {
    /// For this cluster.
    pub fn new(masters: Masters) -> Self {
        Self { masters }
    }

    /// Subscribes with the leading master. `framework.id` is absent the first time. Afterwards it must be the id from
    /// SUBSCRIBED, because Mesos treats any other text as a new framework with that id.
    ///
    /// A second subscription of the same framework ends the first one.
    pub async fn subscribe(
        &self,
        framework: &FrameworkInfo,
        suppressed_roles: &[String],
    ) -> Result<(Subscription, Caller), MesosError> {
        let subscribe = Subscribe { framework_info: framework.clone(), suppressed_roles: suppressed_roles.to_vec() };
        let call = FrameworkCall { framework_id: framework.id.clone(), call: Call::Subscribe { subscribe } };
        let request = Request::post(PATH, encode(&call)?);
        let (transport, reply) = self.masters.ask_leader(&request).await?;
        let principal = self.masters.principal().map(str::to_owned);
        if reply.status != 200 {
            return Err(MesosError::refusal(transport.as_ref(), principal, "SUBSCRIBE", reply).await);
        }
        let stream_id = reply.stream_id.clone();
        let mut events = Events::new(reply.body, transport.target());
        events.expect_sign_of_life_within(SUBSCRIBED_TIMEOUT);
        let subscribed = loop {
            match events.next::<Event>().await? {
                Event::Subscribed { subscribed } => break subscribed,
                Event::Error { error } => return Err(subscription_error(error.message)),
                _ => {}
            }
        };
        let interval = subscribed
            .heartbeat_interval_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(HEARTBEAT_INTERVAL);
        events.expect_sign_of_life_within(interval * MISSED_HEARTBEATS);
        let caller = Caller { transport, principal, stream_id, framework_id: subscribed.framework_id.clone() };
        Ok((Subscription { events, subscribed }, caller))
    }
}

/// Converts the message of an ERROR event into an error.
fn subscription_error(message: String) -> MesosError {
    // Mesos has no code for it. This is the text of 1.x for an id that cannot be used again.
    if message.contains("Framework has been removed") {
        MesosError::FrameworkRemoved
    } else {
        MesosError::Subscription { message }
    }
}

/// The events of one subscription. Dropping it closes the connection; Mesos then waits for the framework's failover
/// timeout.
pub struct Subscription {
    events: Events,
    subscribed: Subscribed,
}

impl Subscription {
    /// Terms of the subscription: the framework's id and the master.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// The next event. Every error ends the subscription: late heartbeats, a closed or broken stream, and an ERROR
    /// event, after which the master closes the stream too. Safe to use in `select!`.
    pub async fn next(&mut self) -> Result<Event, MesosError> {
        match self.events.next::<Event>().await? {
            Event::Error { error } => Err(subscription_error(error.message)),
            event => Ok(event),
        }
    }
}

/// Sends calls on behalf of a subscription. Calls of one caller reach the master in order only if each is awaited
/// before the next is sent.
#[derive(Clone, Debug)]
pub struct Caller {
    transport: Arc<dyn Transport>,
    principal: Option<String>,
    stream_id: Option<String>,
    framework_id: FrameworkId,
}

impl Caller {
    /// Identifier of the framework.
    pub fn framework_id(&self) -> &FrameworkId {
        &self.framework_id
    }

    /// Sends a call. Success means that the master has accepted the call, not that it has worked: tasks that the master
    /// then refuses are reported as TASK_ERROR or TASK_LOST.
    pub async fn call(&self, call: Call) -> Result<(), MesosError> {
        let name = call.name();
        let call = FrameworkCall { framework_id: Some(self.framework_id.clone()), call };
        let mut request = Request::post(PATH, encode(&call)?);
        request.stream_id.clone_from(&self.stream_id);
        let reply = self.transport.send(request).await?;
        match reply.status {
            200 | 202 => Ok(()),
            _ => Err(MesosError::refusal(self.transport.as_ref(), self.principal.clone(), name, reply).await),
        }
    }
}

fn encode(call: &FrameworkCall) -> Result<Vec<u8>, MesosError> {
    serde_json::to_vec(call).map_err(|source| MesosError::Encode { what: "a call", source })
}
