//! What a node's executor wrote into its sandbox, read through its agent's files API.
use ::mesos::MesosError;
use ::mesos::operator::Endpoints;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::Api;

use super::source::{Source, Wanted, choose, tail};
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::host::Host;
use crate::inventory::mesos::sandbox::{self, Sandbox};
use crate::inventory::mesos::{self, Agent, Master};
use crate::provision::clients;
use kmctl_core::cluster::Loaded;
use kmctl_core::model::agents;
use kmctl_core::model::nodes::NodeFacts;

/// How many bytes before the end of a file reading starts, per requested line.
const LINE: u64 = 512;

/// How often a file is checked for more.
const LOOK: Duration = Duration::from_secs(1);

/// Shows a file of the sandbox.
pub(super) async fn show(context: &Context, loaded: &Loaded, source: &Source, wanted: &Wanted) -> Result<(), Failure> {
    let (Source::Node(name) | Source::Sweep(name)) = source else { return Ok(()) };
    let host = clients::connect_ready_host(&context.session, loaded).await?;
    let step = context.progress.step("", "Finding the sandbox of the executor");
    let client = clients::mesos(host.clone(), loaded).await?;
    let master = mesos::read(&client, &loaded.cluster.spec.mesos.framework_name).await?;
    // A removed node has no object, and an API server that is down returns none. Mesos still knows the node.
    let object = object(host, name).await;
    let found = find(&client, &master, source, name, object.as_ref()).await?;
    step.done(&format!("Found {}", found.directory));
    let (client, sandbox) = (&client, &found);
    let size = match sandbox::size(client, sandbox, &wanted.file).await {
        Ok(size) => size,
        Err(error) => return Err(missing(client, sandbox, &wanted.file, error).await),
    };
    let begin = size.saturating_sub(LINE * wanted.lines as u64);
    let text = piece(client, sandbox, &wanted.file, begin, size).await?;
    context.stdout(tail(&text, wanted.lines))?;
    if !wanted.follow {
        return Ok(());
    }
    let mut at = size;
    loop {
        tokio::time::sleep(LOOK).await;
        let size = sandbox::size(client, sandbox, &wanted.file).await?;
        // A rotated log starts over.
        let begin = if size < at { 0 } else { at };
        if begin < size {
            context.stdout(&piece(client, sandbox, &wanted.file, begin, size).await?)?;
        }
        at = size;
    }
}

/// Reads a file from one position to another.
async fn piece(client: &Endpoints, sandbox: &Sandbox, file: &str, begin: u64, end: u64) -> Result<String, MesosError> {
    let (mut at, mut text) = (begin, String::new());
    while at < end {
        let length = sandbox::CHUNK.min(end - at);
        text.push_str(&sandbox::read(client, sandbox, file, at, length).await?.data);
        at += length;
    }
    Ok(text)
}

async fn object(host: Arc<dyn Host>, name: &str) -> Option<NodeFacts> {
    let api: Api<Node> = Api::all(clients::kube(host).await.ok()?);
    NodeFacts::new(&clients::with_timeout("read the node", api.get_opt(name)).await.ok()??)
}

/// Searches the agent that the Node names, else the agents whose node would have that name.
async fn find(
    client: &Endpoints,
    master: &Master,
    source: &Source,
    name: &str,
    object: Option<&NodeFacts>,
) -> Result<Sandbox, Failure> {
    let likely = |agent: &&Agent| match object {
        Some(node) => node.agent == agent.id,
        None => name == node_name(agent) || name.starts_with(&format!("{}-", node_name(agent))),
    };
    let recorded = object.and_then(|node| node.executor.as_ref()).map(|executor| executor.executor_id.value.clone());
    let recorded = recorded.filter(|_| matches!(source, Source::Node(_)));
    for agent in master.agents.iter().filter(likely) {
        let mut all = Vec::new();
        for framework in &master.frameworks {
            all.extend(sandbox::sandboxes(client, agent, &framework.id).await?);
        }
        if let Some(found) = choose(&all, source, recorded.as_deref()) {
            return Ok(found.clone());
        }
    }
    let text = format!("no executor sandbox found for {name}");
    let names: Vec<&str> = master.agents.iter().map(|agent| agent.hostname.as_str()).collect();
    let hint = format!(
        "sandboxes exist from the start of a node until --gc_delay after its end; agents: {}",
        names.join(", ")
    );
    Err(Failure::message(Code::Failed, text).hint(hint))
}

fn node_name(agent: &Agent) -> String {
    agents::Agent { hostname: agent.hostname.clone(), ..agents::Agent::default() }.node_name()
}

async fn missing(client: &Endpoints, sandbox: &Sandbox, file: &str, error: MesosError) -> Failure {
    let files = sandbox::browse(client, sandbox).await.unwrap_or_default();
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let names: Vec<String> =
        files.iter().filter(|file| !file.mode.starts_with('d')).map(|file| name(&file.path)).collect();
    let failure =
        Failure::from(anyhow::Error::new(error).context(format!("failed to read {file} of {}", sandbox.executor)));
    failure.hint(format!("--of must be one of: {}", names.join(", ")))
}
