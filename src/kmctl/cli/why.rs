//! `kmctl why`: what prevents a pod from running, a node from being removed or an offer from being used, and what to do
//! about it.
use std::sync::Arc;

use clap::Subcommand;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::Api;

use crate::cli::context::{Context, OutputFormat};
use crate::diagnose::Answer;
use crate::diagnose::why::{self, Facts};
use crate::failure::{Code, Failure};
use crate::host::Host;
use crate::inventory::bounds::Bounds;
use crate::inventory::mesos::{self, EndedTask, Master};
use crate::inventory::workloads::{self, ObjectEvent, Workloads};
use crate::provision::clients;
use kmctl_core::cluster::Loaded;
use kmctl_core::k8s::names::{NAMESPACE, SETTINGS_CONFIG_MAP};
use kmctl_core::model::requests;
use kmctl_core::protocol::Summary;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    about: About,
}

/// What is asked about.
#[derive(Subcommand)]
enum About {
    /// Explain why a pod is not running
    Pod {
        /// Pod name, or NAMESPACE/NAME
        name: String,
        /// Namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Explain why a node is not starting or not being removed
    Node {
        /// Node name
        name: String,
    },
    /// Explain why a Mesos agent's offers are not used
    Offer {
        /// Hostname or ID of the agent
        name: String,
    },
}

/// Reports what blocks the object.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { about } = args;
    let loaded = context.cluster()?;
    let host = clients::connect_ready_host(&context.session, &loaded).await?;
    let client = clients::kube(host.clone()).await?;
    let step = context.progress.step("", "Querying API server, Mesos and km-scheduler");
    let found = Found::gather(context, &loaded, host, &client, &about).await?;
    step.done("Queried API server, Mesos and km-scheduler");
    let answer = found.answer(&about, &loaded)?;
    match context.settings.output {
        OutputFormat::Text => context.stdout(&answer.text())?,
        OutputFormat::Json => context.json(&answer)?,
    }
    Ok(Code::Ok)
}

/// Accepts `namespace/name` as one word.
fn full<'a>(name: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((namespace, name))
}

struct Found {
    bounds: Bounds,
    seen: Workloads,
    master: Result<Master, String>,
    scheduler: Result<Summary, String>,
    events: Vec<ObjectEvent>,
    ended: Vec<EndedTask>,
}

impl Found {
    async fn gather(
        context: &Context,
        loaded: &Loaded,
        host: Arc<dyn Host>,
        client: &Client,
        about: &About,
    ) -> Result<Found, Failure> {
        let nodes = &loaded.cluster.spec.nodes;
        let defaults = requests::amount(&nodes.pod_defaults.cpu, &nodes.pod_defaults.memory).unwrap_or_default();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let (seen, settings, events, mesos, scheduler) = tokio::join!(
            workloads::look(client, defaults),
            clients::with_timeout("read the node limits", maps.get_opt(SETTINGS_CONFIG_MAP)),
            events(client, about),
            ask_mesos(host.clone(), loaded),
            clients::scheduler(&context.session, loaded, host),
        );
        let told = |failure: Failure| failure.summary().0;
        let (master, ended) = match mesos {
            Ok((master, ended)) => (Ok(master), ended),
            Err(failure) => (Err(told(failure)), Vec::new()),
        };
        Ok(Found {
            bounds: Bounds::read(settings?.as_ref(), nodes)?,
            seen: seen?,
            master,
            scheduler: scheduler.map_err(told),
            events: events?,
            ended,
        })
    }

    fn answer(&self, about: &About, loaded: &Loaded) -> Result<Answer, Failure> {
        let facts = Facts {
            cluster: &loaded.cluster,
            bounds: self.bounds,
            seen: &self.seen,
            master: self.master.as_ref().map_err(String::as_str),
            scheduler: self.scheduler.as_ref().map_err(String::as_str),
            events: &self.events,
            ended: &self.ended,
            now: Timestamp::now(),
        };
        match about {
            About::Pod { name, namespace } => {
                let (namespace, name) = full(name, namespace);
                let is_it = |pod: &&workloads::PodView| pod.facts.namespace == namespace && pod.facts.name == name;
                let Some(view) = self.seen.pods.iter().find(is_it) else {
                    let text = format!("pod {namespace}/{name} not found");
                    return Err(Failure::message(Code::Failed, text).hint("kubectl get pods --all-namespaces"));
                };
                Ok(why::pod(view, &facts))
            }
            About::Node { name } => why::node(name, &facts).ok_or_else(|| {
                let names: Vec<&str> = self.seen.nodes.iter().map(|node| node.facts.name.as_str()).collect();
                unknown(&format!("node {name} not found, and no Mesos agent has this name"), &names, "nodes")
            }),
            About::Offer { name } => {
                let master =
                    facts.master.map_err(|why| Failure::message(Code::Failed, format!("Mesos query failed: {why}")))?;
                let agent = master.agents.iter().find(|agent| agent.hostname == *name || agent.id == *name);
                let names: Vec<&str> = master.agents.iter().map(|agent| agent.hostname.as_str()).collect();
                let agent = agent.ok_or_else(|| unknown(&format!("Mesos agent {name} not found"), &names, "agents"))?;
                Ok(why::offer(agent, &facts))
            }
        }
    }
}

fn unknown(text: &str, names: &[&str], what: &str) -> Failure {
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Failure::message(Code::Failed, text).hint(format!("{what}: {names}"))
}

async fn events(client: &Client, about: &About) -> Result<Vec<ObjectEvent>, Failure> {
    Ok(match about {
        About::Pod { name, namespace } => {
            let (namespace, name) = full(name, namespace);
            workloads::events(client, Some(namespace), "Pod", name).await?
        }
        About::Node { .. } | About::Offer { .. } => Vec::new(),
    })
}

async fn ask_mesos(host: Arc<dyn Host>, loaded: &Loaded) -> Result<(Master, Vec<EndedTask>), Failure> {
    let client = clients::mesos(host, loaded).await?;
    let master = mesos::read(&client, &loaded.cluster.spec.mesos.framework_name).await?;
    let framework = master.frameworks.first().map(|framework| framework.id.clone());
    // Without it, only how earlier starts ended is missing.
    let ended = match framework {
        Some(framework) => mesos::ended(&client, &framework).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok((master, ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_be_named_in_one_word() {
        assert_eq!(full("web", "default"), ("default", "web"));
        assert_eq!(full("kube-system/dns", "default"), ("kube-system", "dns"));
    }
}
