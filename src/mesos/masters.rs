//! Finds the leading master: every other master answers with a redirect to the leader.
use std::path::Path;
use std::sync::Arc;

use super::error::MesosError;
use super::transport::{
    Authentication, HttpSettings, HttpTransport, Reply, Request, Secret, Transport, TransportError,
};

/// A redirect names the leader; a second one covers an election in between.
const REDIRECTS: usize = 2;

/// The masters of one Mesos cluster, and the connections to them.
#[derive(Clone, Debug)]
pub struct Masters {
    masters: Vec<Arc<dyn Transport>>,
    principal: Option<String>,
}

impl Masters {
    /// Masters given as `host:port` or as URLs without a path.
    pub fn new(masters: &[String], settings: &HttpSettings) -> Result<Self, MesosError> {
        let bases = masters.iter().map(|given| base_url(given)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = bases.first() else {
            return Err(MesosError::Address { given: String::new(), problem: "no master is configured" });
        };
        let transport = HttpTransport::new(first, settings)?;
        let masters = bases.iter().map(|base| transport.other(base)).collect();
        Ok(Self { masters, principal: settings.authentication.principal().map(str::to_owned) })
    }

    /// The same, with a transport that `connect` creates from each master's URL. `principal`: the principal of the
    /// requests.
    pub fn through(
        masters: &[String],
        principal: Option<String>,
        connect: impl Fn(&str) -> Result<Arc<dyn Transport>, TransportError>,
    ) -> Result<Self, MesosError> {
        let bases = masters.iter().map(|given| base_url(given)).collect::<Result<Vec<_>, _>>()?;
        if bases.is_empty() {
            return Err(MesosError::Address { given: String::new(), problem: "no master is configured" });
        }
        let masters = bases.iter().map(|base| connect(base)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { masters, principal })
    }

    /// The same, with the secret and the CA read from files. An empty principal means no authentication.
    pub fn open(
        masters: &[String],
        principal: &str,
        secret_file: Option<&Path>,
        ca_file: Option<&Path>,
    ) -> Result<Self, MesosError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| MesosError::File { path: path.to_owned(), source });
        let authentication = match secret_file {
            Some(path) if !principal.is_empty() => {
                let secret = String::from_utf8_lossy(&read(path)?).trim_end_matches(['\r', '\n']).to_owned();
                Authentication::Basic { principal: principal.to_owned(), secret: Secret::new(secret) }
            }
            _ => Authentication::None,
        };
        let ca_pem = ca_file.map(read).transpose()?;
        Self::new(masters, &HttpSettings { authentication, ca_pem, unix_socket: None })
    }

    /// Principal of the requests, for messages and for finding frameworks.
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// A transport to `address` (`host:port`), another server of the same Mesos cluster (an agent). Uses the masters'
    /// credentials and scheme: if the masters use TLS, no secret is sent to the server in plain text.
    pub fn reach(&self, address: &str) -> Arc<dyn Transport> {
        // There is always a first master: `Masters` cannot be created without one.
        let first = &self.masters[0];
        let scheme = first.target().split("://").next().unwrap_or("https");
        first.other(&format!("{scheme}://{address}"))
    }

    /// The leading master.
    pub async fn leader(&self) -> Result<Arc<dyn Transport>, MesosError> {
        // GET_HEALTH is the cheapest call that only the leader answers itself.
        let request = Request::post("/api/v1", br#"{"type":"GET_HEALTH"}"#.to_vec());
        Ok(self.ask_leader(&request).await?.0)
    }

    /// Sends a request to the leading master.
    pub async fn ask_leader(&self, request: &Request) -> Result<(Arc<dyn Transport>, Reply), MesosError> {
        let mut attempts = Vec::new();
        for master in &self.masters {
            let mut transport = Arc::clone(master);
            for _ in 0..=REDIRECTS {
                match transport.send(request.clone()).await {
                    Ok(reply) if reply.status == 307 => {
                        match leader_of(transport.target(), reply.location.as_deref()) {
                            Some(base) => transport = transport.other(&base),
                            None => {
                                attempts.push(format!("{} redirects to an invalid address", transport.target()));
                                break;
                            }
                        }
                    }
                    Ok(reply) if reply.status == 503 => {
                        let target = transport.target().to_owned();
                        attempts.push(format!("{target} is not ready: {}", reply.message().await));
                        break;
                    }
                    Ok(reply) => return Ok((transport, reply)),
                    Err(error) => {
                        attempts.push(chain(&error));
                        break;
                    }
                }
            }
        }
        if attempts.is_empty() {
            attempts.push("the masters redirect to each other".to_owned());
        }
        Err(MesosError::NoLeader { attempts })
    }
}

/// An error and its causes on one line, without the meaningless text that HTTP clients add.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let telling = causes.filter(|text| text != "client error (Connect)");
    telling.collect::<Vec<_>>().join(": ")
}

/// `scheme://host:port` of the user's input.
fn base_url(given: &str) -> Result<String, MesosError> {
    let refuse = |problem| Err(MesosError::Address { given: given.to_owned(), problem });
    let url = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
    let Ok(uri) = url.parse::<http::Uri>() else { return refuse("must be host:port or a URL") };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refuse("must be host:port or a URL");
    };
    if scheme != "http" && scheme != "https" {
        return refuse("must be http or https");
    }
    if authority.as_str().contains('@') {
        return refuse("must not contain a secret");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return refuse("must have no path");
    }
    let port = authority.port_u16().unwrap_or(5050);
    Ok(format!("{scheme}://{}:{port}", authority.host()))
}

/// The leader that a redirect names, as `scheme://host:port`. The scheme must not change, so that no redirect moves a
/// secret from TLS to plain text.
pub(super) fn leader_of(asked: &str, location: Option<&str>) -> Option<String> {
    let (scheme, _) = asked.split_once("://")?;
    let location = location?;
    let rest = match location.split_once("://") {
        Some((other, rest)) if other == scheme => rest,
        Some(_) => return None,
        None => location.strip_prefix("//")?,
    };
    let authority = rest.split('/').next()?;
    base_url(&format!("{scheme}://{authority}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_write_them() {
        let cases = [
            ("10.0.0.5:5050", Ok("http://10.0.0.5:5050")),
            ("10.0.0.5", Ok("http://10.0.0.5:5050")),
            ("https://mesos.example/", Ok("https://mesos.example:5050")),
            ("http://[::1]:5050", Ok("http://[::1]:5050")),
            ("zk://10.0.0.5:2181/mesos", Err("must be http or https")),
            ("http://user:secret@10.0.0.5:5050", Err("must not contain a secret")),
            ("http://10.0.0.5:5050/master", Err("must have no path")),
        ];
        for (given, expected) in cases {
            let got = base_url(given).map_err(|error| match error {
                MesosError::Address { problem, .. } => problem,
                other => panic!("{other}"),
            });
            assert_eq!(got.as_deref().map_err(|problem| *problem), expected, "{given}");
        }
    }

    #[test]
    fn a_redirect_keeps_the_scheme() {
        let cases = [
            ("http://a:5050", Some("//b:5050/api/v1/scheduler"), Some("http://b:5050")),
            ("https://a:5050", Some("//b:5051"), Some("https://b:5051")),
            ("https://a:5050", Some("http://b:5050/api/v1"), None),
            ("http://a:5050", Some("/api/v1"), None),
            ("http://a:5050", None, None),
        ];
        for (asked, location, expected) in cases {
            assert_eq!(leader_of(asked, location).as_deref(), expected, "{asked} {location:?}");
        }
    }

    #[tokio::test]
    async fn every_master_that_was_tried_is_named() {
        let masters = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let masters = Masters::new(&masters, &HttpSettings::default()).unwrap();
        let error = masters.leader().await.unwrap_err().to_string();
        assert!(
            error.contains("connect to http://127.0.0.1:1: ") && error.contains("connect to http://127.0.0.1:2: "),
            "{error}"
        );
    }
}
