//! Reads the plain endpoints of masters and agents (`/state`, `/weights`, `/files/read`) as JSON, for what only they
//! provide.
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::error::MesosError;
use crate::masters::Masters;
use crate::transport::{Reply, Request, Transport};

/// The endpoints of one Mesos cluster.
#[derive(Clone, Debug)]
pub struct Endpoints {
    masters: Masters,
}

impl Endpoints {
    /// For the cluster that these masters lead.
    pub fn new(masters: Masters) -> Self {
        Self { masters }
    }

    /// Reads `path` from the leading master.
    pub async fn leading<T: DeserializeOwned>(&self, path: &str) -> Result<T, MesosError> {
        self.ask_leader(&Request::get(path)).await
    }

    /// Sends a call of the v1 API without arguments to the leading master. Unlike
    /// [`Operator::ask`](super::Operator::ask) it returns the whole reply.
    pub async fn call<T: DeserializeOwned>(&self, call: &'static str) -> Result<T, MesosError> {
        self.ask_leader(&super::encode("", call)).await
    }

    async fn ask_leader<T: DeserializeOwned>(&self, request: &Request) -> Result<T, MesosError> {
        let (transport, reply) = self.masters.ask_leader(request).await?;
        self.understood(&transport, &request.path, reply).await
    }

    /// Reads `path` at `address` (`host:port`), a server of this Mesos cluster that was found through the leading
    /// master. Redirects are not followed, so that no redirect sends the credentials to an unknown server.
    pub async fn at<T: DeserializeOwned>(&self, address: &str, path: &str) -> Result<T, MesosError> {
        let transport = self.masters.reach(address);
        let reply = transport.send(Request::get(path)).await?;
        self.understood(&transport, path, reply).await
    }

    async fn understood<T: DeserializeOwned>(
        &self,
        transport: &Arc<dyn Transport>,
        path: &str,
        reply: Reply,
    ) -> Result<T, MesosError> {
        let target = transport.target().to_owned();
        match reply.status {
            200 => {
                let bytes = reply.read().await?;
                // A piece of a file may start or end within a character.
                let text = String::from_utf8_lossy(&bytes);
                serde_json::from_str(&text).map_err(|source| MesosError::Malformed {
                    what: "an answer",
                    target,
                    source,
                })
            }
            401 => Err(MesosError::Unauthenticated { target, principal: self.masters.principal().map(str::to_owned) }),
            status => {
                let message = reply.message().await;
                let message = message.lines().next().unwrap_or_default().chars().take(200).collect();
                let path = path.split('?').next().unwrap_or_default();
                Err(MesosError::Endpoint { url: format!("{target}{path}"), status, message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::transport::{Authentication, HttpSettings, Secret};

    /// Answers every request with the result of `reply`, one connection at a time.
    async fn server(reply: impl Fn(&str) -> String + Send + 'static) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        break;
                    }
                    seen.push(byte[0]);
                }
                let _ = stream.write_all(reply(&String::from_utf8_lossy(&seen)).as_bytes()).await;
            }
        });
        address
    }

    fn answer(status: &str, more: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
    }

    fn of(master: &str) -> Endpoints {
        let authentication = Authentication::Basic { principal: "p".into(), secret: Secret::new("s") };
        let settings = HttpSettings { authentication, ..HttpSettings::default() };
        Endpoints::new(Masters::new(&[master.to_owned()], &settings).unwrap())
    }

    /// Whether the credentials `p:s` were sent.
    fn has_credentials(request: &str) -> bool {
        request.to_lowercase().contains("authorization: basic cdpz")
    }

    #[tokio::test]
    async fn a_standby_master_is_left_for_the_leader_with_the_credentials() {
        let leader = server(|request| {
            if has_credentials(request) {
                answer("200 OK", "", r#"{"led":true}"#)
            } else {
                answer("401 Unauthorized", "", "")
            }
        })
        .await;
        let location = format!("location: //{leader}/state\r\n");
        let standby = server(move |_| answer("307 Temporary Redirect", &location, "")).await;
        assert_eq!(of(&standby).leading::<Value>("/state").await.unwrap(), json!({ "led": true }));
    }

    #[tokio::test]
    async fn a_refusal_tells_status_and_reason_and_a_circle_ends() {
        let refusing = server(|_| answer("403 Forbidden", "", "not you\nreally")).await;
        let error = of(&refusing).leading::<Value>("/state").await.unwrap_err();
        assert_eq!(error.to_string(), format!("http://{refusing}/state returned 403: not you"));
        assert_eq!(error.hint(), Some("check the master's --acls for this principal"));
        let circle = server(|request| {
            let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().to_owned();
            answer("307 Temporary Redirect", &format!("location: //{host}/state\r\n"), "")
        })
        .await;
        let error = of(&circle).leading::<Value>("/state").await.unwrap_err();
        assert!(error.to_string().contains("redirect to each other"), "{error}");
    }

    #[tokio::test]
    async fn no_redirect_of_an_agent_takes_the_credentials_elsewhere() {
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let stranger = server(move |request| {
            asked.send(has_credentials(request)).unwrap();
            answer("200 OK", "", "{}")
        })
        .await;
        for location in [format!("//{stranger}/flags"), format!("http://{stranger}/flags")] {
            let agent =
                server(move |_| answer("307 Temporary Redirect", &format!("location: {location}\r\n"), "")).await;
            let error = of("127.0.0.1:1").at::<Value>(&agent, "/flags").await.unwrap_err();
            assert!(error.to_string().contains("returned 307"), "{error}");
        }
        assert!(heard.try_recv().is_err(), "the stranger was asked");
    }

    #[test]
    fn where_masters_have_tls_agents_are_asked_with_tls() {
        let masters = Masters::new(&["https://10.0.0.5:5050".to_owned()], &HttpSettings::default()).unwrap();
        assert_eq!(masters.reach("10.0.0.21:5051").target(), "https://10.0.0.21:5051");
    }
}
