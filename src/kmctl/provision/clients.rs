//! Clients for the API server, the km scheduler and Mesos. All of them connect through a control-plane host.
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::session::Session;
use crate::failure::{Code, Failure};
use crate::host::{Command, Host, HostError};
use crate::inventory;
use crate::inventory::mesos::Master;
use crate::over_host::client_over;
use crate::over_host::mesos::HostTransport;
use crate::plan::MESOS_SECRET;
use crate::render::PKI;
use kmctl_core::cluster::{HostSpec, Loaded};
use kmctl_core::protocol::Summary;
use kmctl_core::protocol::host::ADMIN;
use kmctl_core::text::duration;
use mesos::Masters;
use mesos::operator::Endpoints;
use mesos::transport::{Authentication, HttpSettings, Secret};

/// Where the km scheduler serves its state, to holders of the extender's client certificate.
const SCHEDULER: &str = "https://127.0.0.1:10270";

/// Time limit for one request to the API server.
const ANSWER: Duration = Duration::from_secs(15);

/// How long one of several API servers may take to report that it is ready.
const READY: Duration = Duration::from_secs(3);

/// Connects to the first of several hosts whose API server is ready, else to the first that was reached.
pub async fn connect_ready_host(session: &Session, loaded: &Loaded) -> Result<Arc<dyn Host>, Failure> {
    let hosts = &loaded.cluster.spec.control_plane.hosts;
    if let [only] = hosts.as_slice() {
        // There is no choice, so nothing has to be known of its API server.
        let host = session
            .connect(loaded, only)
            .await
            .with_context(|| format!("failed to connect to {} over SSH", only.name))?;
        return Ok(Arc::new(host));
    }
    let asked =
        hosts.iter().enumerate().map(|(number, spec)| async move { (number, ask(session, loaded, spec).await) });
    let mut answers = FuturesUnordered::from_iter(asked);
    let (mut reached, mut failed) = (Vec::new(), Vec::new());
    while let Some((number, answer)) = answers.next().await {
        match answer {
            Ok((host, true)) => return Ok(host),
            Ok((host, false)) => reached.push((number, host)),
            Err(error) => failed.push((number, error)),
        }
    }
    failed.sort_by_key(|(number, _)| *number);
    if let Some((_, host)) = reached.into_iter().min_by_key(|(number, _)| *number) {
        return Ok(host);
    }
    let mut failed = failed.into_iter().filter_map(|(number, error)| Some((&hosts.get(number)?.name, error)));
    let Some((name, first)) = failed.next() else {
        return Err(Failure::message(Code::Failed, "no control-plane host in cluster.yaml"));
    };
    for (name, error) in failed {
        session.progress.note(name, &format!("not usable: {error}"));
    }
    Err(anyhow::Error::new(first).context(format!("failed to connect to {name} over SSH")).into())
}

/// Returns the host, and whether its API server is ready.
async fn ask(session: &Session, loaded: &Loaded, spec: &HostSpec) -> Result<(Arc<dyn Host>, bool), HostError> {
    let host: Arc<dyn Host> = Arc::new(session.connect(loaded, spec).await?);
    let ready = async {
        let client = kube(host.clone()).await.ok()?;
        client.request_text(http::Request::get("/readyz").body(Vec::new()).ok()?).await.ok()
    };
    let ready = tokio::time::timeout(READY, ready).await.ok().flatten().is_some();
    Ok((host, ready))
}

/// The administrator's kubeconfig of `host`. `None` if there is no cluster yet.
pub async fn admin_conf(host: &dyn Host) -> Result<Option<String>, Failure> {
    read_file(host, ADMIN).await
}

/// The failure of a command that needs a cluster if there is none.
pub fn no_cluster(host: &dyn Host) -> Failure {
    Failure::from(anyhow::anyhow!("no cluster found on {} ({ADMIN} does not exist)", host.name()))
        .hint("create the cluster: kmctl up")
}

/// Waits for the API server's answer, for a limited time.
pub async fn with_timeout<T>(what: &str, answer: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(result) => {
            result.with_context(|| format!("failed to {what}")).map_err(|error| Failure::from(error).hint_status())
        }
        Err(_) => {
            let text = format!("failed to {what}: no response from the API server within {}", duration(ANSWER));
            Err(Failure::message(Code::Failed, text).hint_status())
        }
    }
}

/// A client for the API server, with an administrator's permissions.
pub async fn kube(host: Arc<dyn Host>) -> Result<kube::Client, Failure> {
    let Some(kubeconfig) = admin_conf(host.as_ref()).await? else {
        return Err(no_cluster(host.as_ref()));
    };
    Ok(client_over(host, &kubeconfig).await?)
}

/// Returns the km scheduler's state. Only the leading instance answers: `host` is queried first, then the others.
pub async fn scheduler(session: &Session, loaded: &Loaded, host: Arc<dyn Host>) -> Result<Summary, Failure> {
    let first = host.name().to_owned();
    let mut answer = scheduler_on(host).await;
    for spec in loaded.cluster.spec.control_plane.hosts.iter().filter(|spec| spec.name != first) {
        if answer.is_ok() {
            break;
        }
        // The first error is kept if no other host answers.
        if let Ok(host) = session.connect(loaded, spec).await
            && let Ok(summary) = scheduler_on(Arc::new(host)).await
        {
            answer = Ok(summary);
        }
    }
    answer
}

async fn scheduler_on(host: Arc<dyn Host>) -> Result<Summary, Failure> {
    let script = r#"cd "$1" && for name in ca.crt extender-client.crt extender-client.key; do base64 -w 0 "$name" && echo; done"#;
    let command = Command::new(["sh", "-c", script, "sh", PKI]).privileged();
    let output = host.run(command).await.with_context(|| format!("failed to read {PKI} on {}", host.name()))?;
    let text = output.text();
    let [authority, certificate, key] = text.lines().collect::<Vec<_>>()[..] else {
        return Err(no_cluster(host.as_ref()));
    };
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": SCHEDULER, "certificate-authority-data": authority}}],
        "users": [{"name": "it", "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    let client = client_over(host, &kubeconfig.to_string()).await?;
    let request = http::Request::get("/state").body(Vec::new()).context("failed to query km-scheduler")?;
    match tokio::time::timeout(ANSWER, client.request::<Summary>(request)).await {
        Ok(answer) => Ok(answer.context("failed to query km-scheduler")?),
        Err(_) => {
            Err(Failure::message(Code::Failed, format!("no response from km-scheduler within {}", duration(ANSWER))))
        }
    }
}

/// Mesos' endpoints, through `host`. The secret is read from this machine, or from the host where another operator
/// stored it.
pub async fn mesos(host: Arc<dyn Host>, loaded: &Loaded) -> Result<Endpoints, Failure> {
    Ok(Endpoints::new(masters(Some(host), loaded).await?))
}

/// Returns what the leading master and its agents report about themselves, through `host`.
///
/// # Errors
/// Unusable credentials, or Mesos does not answer or refuses them.
pub async fn master(host: Arc<dyn Host>, loaded: &Loaded) -> Result<Master, Failure> {
    let mesos = mesos(host, loaded).await?;
    Ok(inventory::mesos::read(&mesos, &loaded.cluster.spec.mesos.framework_name).await?)
}

/// Why Mesos cannot be queried, and what to do about it.
pub fn text_and_hint(failure: &Failure) -> (String, String) {
    let (text, hint) = failure.summary();
    (text, hint.unwrap_or_else(|| "check spec.mesos in cluster.yaml".to_owned()))
}

/// The masters, for a framework: through `host`, or directly from this machine if there is none.
pub async fn masters(host: Option<Arc<dyn Host>>, loaded: &Loaded) -> Result<Masters, Failure> {
    let spec = &loaded.cluster.spec.mesos;
    let authentication = authentication(host.as_deref(), loaded).await?;
    let ca = authority(loaded)?;
    let Some(host) = host else {
        let settings = HttpSettings { authentication, ca_pem: ca.map(String::into_bytes), unix_socket: None };
        return Ok(Masters::new(&spec.master.0, &settings)?);
    };
    let principal = authentication.principal().map(str::to_owned);
    Ok(Masters::through(&spec.master.0, principal, |base| {
        Ok(Arc::new(HostTransport::new(host.clone(), base, &authentication, ca.as_deref())?))
    })?)
}

/// Principal and secret. `None` if Mesos requires no authentication.
async fn authentication(host: Option<&dyn Host>, loaded: &Loaded) -> Result<Authentication, Failure> {
    let spec = &loaded.cluster.spec.mesos;
    if spec.principal.is_empty() {
        return Ok(Authentication::None);
    }
    let secret = match (std::fs::read_to_string(&spec.secret_file), host) {
        (Ok(secret), _) => Some(secret),
        (Err(error), Some(host)) if error.kind() == std::io::ErrorKind::NotFound => {
            read_file(host, MESOS_SECRET).await?
        }
        (Err(error), _) => {
            return Err(anyhow::Error::new(error).context(format!("failed to read {}", spec.secret_file)).into());
        }
    };
    Ok(secret.map_or(Authentication::None, |secret| Authentication::Basic {
        principal: spec.principal.clone(),
        secret: Secret::new(secret.trim_end_matches(['\r', '\n'])),
    }))
}

/// CA of https masters, PEM.
fn authority(loaded: &Loaded) -> Result<Option<String>, Failure> {
    match loaded.cluster.spec.mesos.ca_file.as_str() {
        "" => Ok(None),
        file => Ok(Some(std::fs::read_to_string(file).with_context(|| format!("failed to read {file}"))?)),
    }
}

/// The content of a file that only root may read. `None` if it does not exist.
async fn read_file(host: &dyn Host, path: &str) -> Result<Option<String>, Failure> {
    let script = r#"[ -e "$1" ] || exit 44; exec cat "$1""#;
    let command = Command::new(["sh", "-c", script, "sh", path]).privileged();
    let output = host.run(command).await.with_context(|| format!("failed to read {path} on {}", host.name()))?;
    match output.status {
        0 => Ok(Some(output.text())),
        44 => Ok(None),
        _ => Err(anyhow::anyhow!("failed to read {path} on {}: {}", host.name(), output.last_words()).into()),
    }
}
