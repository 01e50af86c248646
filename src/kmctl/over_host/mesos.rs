//! The scheduler API through a host reached over SSH: connections start at the host, TLS and credentials end here.
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use ::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tower::{Service as _, ServiceExt as _};

use super::http::{self, Http};
use crate::host::Host;
use mesos::transport::{Authentication, Reply, Request, STREAM_ID, Transport, TransportError};

/// Time limit for the head of a reply, as without a host in between.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP over connections that a host opens.
#[derive(Clone)]
pub struct HostTransport {
    base: String,
    http: Http,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for HostTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP through a host to {}", self.base)
    }
}

impl HostTransport {
    /// Connects from `host` to `base` (`scheme://host:port`). `ca` is a PEM for an https master, in place of the
    /// system's.
    pub fn new(
        host: Arc<dyn Host>,
        base: &str,
        authentication: &Authentication,
        ca: Option<&str>,
    ) -> Result<Self, TransportError> {
        let http =
            http::client(host, ca).map_err(|error| TransportError::new(format!("set up HTTP to {base}"), error))?;
        Ok(HostTransport { base: base.trim_end_matches('/').to_owned(), http, authorization: authentication.header()? })
    }
}

#[async_trait]
impl Transport for HostTransport {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let Request { path, body, stream_id } = request;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            TransportError::new(format!("connect to {}", self.base), source)
        };
        let url = format!("{}{path}", self.base);
        let mut builder = match body {
            Some(_) => ::http::Request::post(url).header(CONTENT_TYPE, "application/json"),
            None => ::http::Request::get(url),
        };
        builder = builder.header(ACCEPT, "application/json");
        if let Some(value) = &self.authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        if let Some(id) = stream_id {
            builder = builder.header(STREAM_ID, id);
        }
        let body = body.map_or_else(Body::empty, Body::from);
        let request = builder.body(body).map_err(|error| failed(error.into()))?;
        let mut http = self.http.clone();
        let answer = async {
            let ready = http.ready().await.map_err(|error| failed(error.into()))?;
            ready.call(request).await.map_err(|error| failed(error.into()))
        };
        let answer = tokio::time::timeout(REPLY_TIMEOUT, answer).await.map_err(|elapsed| failed(elapsed.into()))??;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Reply {
            status: answer.status().as_u16(),
            location: header(LOCATION.as_str()),
            stream_id: header(STREAM_ID),
            body: answer.into_body().into_data_stream().map_err(io::Error::other).boxed(),
        })
    }

    fn target(&self) -> &str {
        &self.base
    }

    fn other(&self, base: &str) -> Arc<dyn Transport> {
        Arc::new(HostTransport { base: base.trim_end_matches('/').to_owned(), ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::LocalHost;
    use mesos::Masters;
    use mesos::fake::{AgentSpec, FakeMaster, Options};
    use mesos::scheduler::{Call, Event, Scheduler};
    use mesos::transport::Secret;
    use mesos::types::{FrameworkCapabilityType, FrameworkInfo};

    #[tokio::test]
    async fn a_framework_subscribes_and_calls_through_a_host_also_past_a_master_that_does_not_lead() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authentication = Authentication::Basic { principal: "p".into(), secret: Secret::new("s") };
        let options = Options { authentication: authentication.clone(), ..Options::default() };
        let leader = FakeMaster::start(options.clone()).await.unwrap();
        leader.add_agent(AgentSpec::new("a", 2.0, 2048.0));
        let standby = FakeMaster::start(Options { redirect_to: Some(leader.address()), ..options }).await.unwrap();
        let masters = Masters::through(&[standby.address()], Some("p".into()), |base| {
            Ok(Arc::new(HostTransport::new(Arc::new(LocalHost), base, &authentication, None)?))
        })
        .unwrap();
        let framework = FrameworkInfo {
            user: "root".into(),
            name: "test".into(),
            roles: vec!["test".into()],
            principal: Some("p".into()),
            capabilities: [FrameworkCapabilityType::MultiRole].map(Into::into).to_vec(),
            ..FrameworkInfo::default()
        };
        let (mut subscription, caller) = Scheduler::new(masters).subscribe(&framework, &[]).await.unwrap();
        loop {
            if let Event::Offers { offers } = subscription.next().await.unwrap() {
                assert_eq!(offers.offers[0].hostname, "a");
                break;
            }
        }
        caller.call(Call::Teardown).await.unwrap();
    }
}
