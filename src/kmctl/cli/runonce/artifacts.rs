//! Where machines download from: the URL given by the operator, else the cluster's km scheduler, else kmctl itself.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;

use super::Reach;
use crate::apply::km_beside_kmctl;
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::host::{Host, LocalHost};
use crate::over_host::{HttpError, get_json};
use crate::provision::bundles;
use kmctl_core::bundle::Bundle;
use kmctl_core::protocol::artifacts::ArtifactIndex;
use runonce::artifacts::{Offered, SCHEDULER_PORT, Server, address_towards};

/// What machines download, and the server if it is kmctl itself.
pub struct Chosen {
    /// What is offered to machines.
    pub offered: Offered,
    /// kmctl's own server.
    pub server: Option<Server>,
}

/// Parses `ADDRESS[:PORT]`.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0));
    address
        .or_else(|_| text.parse::<SocketAddr>())
        .map_err(|_| "must be an IP address, optionally with a port".to_owned())
}

/// Chooses where machines download from. `towards` is the `host:port` that must reach kmctl's own server, in place of
/// the Mesos master.
pub async fn choose(
    reach: &Reach,
    named: Option<&str>,
    listen: Option<SocketAddr>,
    towards: Option<&str>,
    context: &Context,
) -> Result<Chosen, Failure> {
    let spec = &reach.loaded.cluster.spec;
    if let Some(base) = named {
        let index = match (index(Arc::new(LocalHost), base).await, &reach.host) {
            // It may be reachable from the hosts even though it is not from here.
            (Err(_), Some(host)) => index(host.clone(), base).await,
            (answer, _) => answer,
        };
        let index = index.with_context(|| format!("failed to query {base}")).map_err(|error| {
            Failure::from(error)
                .hint("set --artifacts to the URL of an artifact server, for example http://HOST:10271 (km-scheduler)")
        })?;
        return Ok(Chosen { offered: Offered::at(base, index), server: None });
    }
    if listen.is_none()
        && let Some(host) = &reach.host
    {
        let hosts = &spec.control_plane.hosts;
        let own = hosts.iter().find(|one| one.name == host.name()).or(hosts.first());
        let base = format!("http://{}:{SCHEDULER_PORT}", own.map_or("127.0.0.1", |own| own.address.as_str()));
        match index(host.clone(), &base).await {
            Ok(index) => return Ok(Chosen { offered: Offered::at(&base, index), server: None }),
            Err(error) => {
                let text = format!("km-scheduler does not serve artifacts ({error}); serving them from this machine");
                context.progress.note(host.name(), &text);
            }
        }
    }
    serve(reach, listen, towards, context).await
}

async fn index(host: Arc<dyn Host>, base: &str) -> Result<ArtifactIndex, HttpError> {
    get_json(host, &format!("{}/artifacts", base.trim_end_matches('/'))).await
}

async fn serve(
    reach: &Reach,
    listen: Option<SocketAddr>,
    towards: Option<&str>,
    context: &Context,
) -> Result<Chosen, Failure> {
    let spec = &reach.loaded.cluster.spec;
    let bundle = match &spec.bundle {
        Some(path) => Bundle::open(path).context("failed to open the bundle")?,
        None => bundles::make(&context.session, &spec.kubernetes.version)
            .await
            .map_err(|failure| failure.coded(Code::Runonce))?,
    };
    let bundle = Arc::new(bundle);
    let (km, _) = km_beside_kmctl()?;
    let master = spec.mesos.master.0.first().map(String::as_str).unwrap_or_default();
    let master = master.trim_start_matches("http://").trim_start_matches("https://");
    let listen = match listen {
        Some(listen) => listen,
        None => SocketAddr::new(address_towards(towards.unwrap_or(master))?, 0),
    };
    let server = Server::start(bundle, &km, listen).await?;
    context.progress.note("", &format!("serving artifacts on {}", server.base));
    Ok(Chosen { offered: server.offered.clone(), server: Some(server) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_takes_any_port() {
        assert_eq!(listen("10.0.0.1"), Ok(([10, 0, 0, 1], 0).into()));
        assert_eq!(listen("10.0.0.1:8080"), Ok(([10, 0, 0, 1], 8080).into()));
        assert!(listen("host").is_err());
    }
}
