//! Forwards kube-scheduler's requests to the km scheduler that leads.
//!
//! kube-scheduler queries the km scheduler of its own host, which need not be the leader. A km scheduler that does not
//! lead forwards a request together with the time left to answer it. It returns a retriable error if there is no
//! leader, or if the leader does not answer in time. It never queues a request, and a request that was forwarded once
//! is not forwarded again.
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::extender::Question;
use kmctl_core::protocol::scheduler::{ExtenderServer, PeerServer};

/// Marks a forwarded request, with the milliseconds left for the answer.
const LEFT: &str = "x-kmctl-milliseconds-left";

/// Time reserved for returning the answer.
const MARGIN: Duration = Duration::from_millis(100);

/// A leader that is down is given up before the request times out.
const CONNECT: Duration = Duration::from_millis(500);

/// Whether this process leads.
#[derive(Clone, Debug)]
pub enum Leadership {
    /// This process leads, and its core answers requests.
    Leads(mpsc::Sender<Question>),
    /// Another process leads, at this address, if any.
    Follows(Option<SocketAddr>),
}

/// Why requests cannot be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// A certificate or key file cannot be read.
    #[error("failed to read {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// Certificate and key do not match, or a certificate is invalid.
    #[error("failed to set up the client of the leading km-scheduler")]
    Client(#[source] reqwest::Error),
}

/// Forwards requests.
#[derive(Clone, Debug)]
pub struct Forwarder {
    client: reqwest::Client,
}

impl Forwarder {
    /// A client with the certificate that the leader expects.
    pub fn new(settings: &ExtenderServer, peers: &PeerServer) -> Result<Self, StandbyError> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| StandbyError::Read { path: path.display().to_string(), source })
        };
        let mut identity = read(&peers.key_file)?;
        identity.push(b'\n');
        identity.extend(read(&peers.cert_file)?);
        let authority = reqwest::Certificate::from_pem(&read(&settings.client_ca_file)?);
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT)
            .tls_certs_only([authority.map_err(StandbyError::Client)?])
            .identity(reqwest::Identity::from_pem(&identity).map_err(StandbyError::Client)?)
            .build()
            .map_err(StandbyError::Client)?;
        Ok(Forwarder { client })
    }

    /// The leader's answer, or a retriable error.
    pub(super) async fn forward(&self, leader: SocketAddr, path: &str, body: Bytes, left: Duration) -> Response {
        let sent = self
            .client
            .post(format!("https://{leader}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(LEFT, left.saturating_sub(MARGIN).as_millis().to_string())
            .timeout(left)
            .body(body)
            .send();
        let answered = async {
            let answer = sent.await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        match answered.await {
            Ok((status, body)) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                tracing::warn!(%leader, %error, "no response from the leading km-scheduler");
                retry_later(&format!("no response from the leading km-scheduler ({leader})"))
            }
        }
    }
}

/// An error after which kube-scheduler tries again.
pub(super) fn retry_later(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why.to_owned()).into_response()
}

/// Time left to answer a forwarded request. None if the request is kube-scheduler's own.
pub(super) fn left(headers: &HeaderMap) -> Option<Duration> {
    headers.get(LEFT)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// The identity of a host's process in the Lease, which contains the address for forwarded requests.
pub(super) fn identity(host: &str, peers: Option<&PeerServer>) -> String {
    match peers {
        Some(peers) => format!("{host}_{}", peers.listen),
        None => host.to_owned(),
    }
}

/// The address at which the holder of the Lease serves forwarded requests.
pub(super) fn address(identity: &str) -> Option<SocketAddr> {
    identity.rsplit_once('_')?.1.parse().ok()
}

/// Whether a client's certificate has this common name.
pub(super) fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    certificate.subject().iter_common_name().any(|found| found.as_str() == Ok(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_tells_where_its_holder_is_asked() {
        let peers = |address: &str| PeerServer {
            listen: address.parse().unwrap(),
            cert_file: "c".into(),
            key_file: "k".into(),
        };
        for listen in ["192.0.2.11:10270", "[2001:db8::1]:10270"] {
            let identity = identity("cp_1_5f3c", Some(&peers(listen)));
            assert_eq!(address(&identity), Some(listen.parse().unwrap()), "{identity}");
        }
        assert_eq!(address(&identity("cp1_5f3c", None)), None);
    }

    #[test]
    fn only_the_wanted_name_passes() {
        let key = kmctl_core::pki::new_key().unwrap();
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let pem = kmctl_core::pki::authority("kube-scheduler-extender-client", &key, now).unwrap();
        let der = rustls_pemfile::certs(&mut pem.as_bytes()).next().unwrap().unwrap();
        assert!(is_named(&der, "kube-scheduler-extender-client"));
        assert!(!is_named(&der, "system:node:agent1"));
        assert!(!is_named(&CertificateDer::from(vec![1, 2, 3]), "kube-scheduler-extender-client"));
    }
}
