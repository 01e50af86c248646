//! `kmctl status`: the state of the hosts, the API server, the nodes and the Mesos tasks.
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;

use crate::cli::context::{Context, OutputFormat};
use crate::diagnose::status::{BoundsReport, HostReport, Report};
use crate::failure::{Code, Failure};
use crate::host::Host;
use crate::inventory::Found;
use crate::inventory::bounds::Bounds;
use crate::inventory::certificates::{self, CertificateFacts};
use crate::inventory::look as compare;
use crate::inventory::objects::{self, Objects};
use crate::inventory::units::{self, Unit};
use crate::plan::{self, PlanContext};
use crate::provision::{self, clients};
use kmctl_core::cluster::{HostSpec, Loaded, quantity};
use kmctl_core::k8s::names::{FRAMEWORK_CONFIG_MAP, NAMESPACE, SETTINGS_CONFIG_MAP};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Refresh until interrupted (with -o json: one document per line)
    #[arg(short, long)]
    watch: bool,
    /// Refresh interval for --watch
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = pause)]
    interval: Duration,
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = quantity::duration(text).map_err(|error| error.to_string())?;
    if pause < Duration::from_millis(200) { Err("must be at least 200ms".to_owned()) } else { Ok(pause) }
}

/// Shows the state of everything.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { watch, interval } = args;
    let loaded = context.cluster()?;
    let mut eyes = HostPool::new(&loaded);
    if !watch {
        let step = context.progress.step("", "Querying hosts, API server and Mesos");
        let report = eyes.look(context, &loaded).await;
        step.done("Queried hosts, API server and Mesos");
        match context.settings.output {
            OutputFormat::Text => context.stdout(&report.text(jiff::Timestamp::now(), context.settings.verbose))?,
            OutputFormat::Json => context.json(&report)?,
        }
        return Ok(report.code());
    }
    let mut last = String::new();
    loop {
        let report = eyes.look(context, &loaded).await;
        match context.settings.output {
            OutputFormat::Json => {
                let line = serde_json::to_string(&report).context("failed to print JSON")?;
                context.stdout(&(line + "\n"))?;
            }
            OutputFormat::Text => {
                let text = report.text(jiff::Timestamp::now(), context.settings.verbose);
                if std::io::stdout().is_terminal() {
                    // Move to the top left, print the text, and clear the rest of the previous one.
                    context.stdout(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
                } else if text != last {
                    context.stdout(&format!("{}{text}", if last.is_empty() { "" } else { "---\n" }))?;
                    last = text;
                }
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// What was found on a host.
struct Sight {
    units: Vec<Unit>,
    certificates: Vec<CertificateFacts>,
}

/// Connections that are kept between queries.
struct HostPool {
    hosts: Vec<Option<Arc<dyn Host>>>,
}

impl HostPool {
    fn new(loaded: &Loaded) -> HostPool {
        HostPool { hosts: loaded.cluster.spec.control_plane.hosts.iter().map(|_| None).collect() }
    }

    async fn look(&mut self, context: &Context, loaded: &Loaded) -> Report {
        let specs = &loaded.cluster.spec.control_plane.hosts;
        let looks = specs.iter().zip(&self.hosts).map(|(spec, host)| look_at(context, loaded, spec, host.clone()));
        let looks = futures::future::join_all(looks).await;
        let mut problems = Vec::new();
        let mut hosts = Vec::new();
        let mut through: Option<Arc<dyn Host>> = None;
        for ((spec, look), kept) in specs.iter().zip(looks).zip(&mut self.hosts) {
            let mut report = HostReport {
                name: spec.name.clone(),
                address: spec.address.clone(),
                units: None,
                certificates: Vec::new(),
                outdated: None,
            };
            match look {
                Ok((host, sight)) => {
                    // A host whose API server runs is preferred. Any host is better than none.
                    let serves = sight.units.iter().any(|unit| unit.name == "kube-apiserver" && unit.runs());
                    if serves || through.is_none() {
                        through = Some(host.clone());
                    }
                    *kept = Some(host);
                    (report.units, report.certificates) = (Some(sight.units), sight.certificates);
                }
                Err(failure) => {
                    *kept = None;
                    problems.push(format!("{}: {}", spec.name, told(failure)));
                }
            }
            hosts.push(report);
        }
        let endpoint = &loaded.cluster.spec.control_plane.endpoint;
        let mut report = Report::new(&loaded.cluster.metadata.name, endpoint, hosts);
        if let Some(host) = through {
            let (objects, master, km) = tokio::join!(
                ask_api(host.clone(), loaded),
                clients::master(host, loaded),
                self.outdated(loaded, &mut report)
            );
            let mut keep = |failure: Failure| problems.push(told(failure));
            let objects = objects.map_err(&mut keep).ok();
            let master = master.map_err(&mut keep).ok();
            let recorded = objects.as_ref().is_none_or(|(.., recorded)| *recorded);
            let (objects, bounds) = objects.map(|(objects, bounds, _)| (objects, bounds)).unzip();
            report.bounds = bounds;
            // The km scheduler then holds, and its event and its log say so, too.
            if let Some(framework) = master.as_ref().and_then(|master| master.frameworks.first()).filter(|_| !recorded)
            {
                problems.push(format!(
                    "the API has no record of framework {}: its store is empty or older, and km-scheduler touches no task; \
                     restore the store, or give it up with `kmctl up --begin-anew {}`",
                    framework.id, loaded.cluster.metadata.name
                ));
            }
            report.add(objects.as_ref(), master.as_ref(), km.as_deref());
            if let Some(objects) = &objects {
                report.warn(loaded.cluster.spec.network.mode, objects);
            }
        }
        report.problems = problems;
        report
    }

    /// Compares every host with cluster.yaml if the table of contents of a bundle is available for that. Returns the
    /// digest of the `km` that new nodes get.
    async fn outdated(&self, loaded: &Loaded, report: &mut Report) -> Option<String> {
        let hosts: Vec<Arc<dyn Host>> = self.hosts.iter().flatten().cloned().collect();
        let mut loaded = loaded.clone();
        let bundle = provision::open_bundle(&mut loaded).ok()?;
        let desired = provision::desired_state(&loaded, bundle, &hosts).await.ok()?;
        let specs = &loaded.cluster.spec.control_plane.hosts;
        let mut km = None;
        for (index, manifest) in desired.manifests.iter().enumerate() {
            let Some(host) = self.hosts.get(index).and_then(Option::as_ref) else { continue };
            let Ok(found) = compare(host.as_ref(), manifest).await else { continue };
            let Found::Observed(seen) = &found else { continue };
            km = km.or(seen.km.clone());
            // The host's own km: a different one beside this kmctl says nothing about the settings.
            let own = seen.km.clone().unwrap_or_default();
            let Ok(plan) = plan::decide(&[(manifest.clone(), found)], &own, &PlanContext::default()) else {
                continue;
            };
            let steps = plan.hosts.into_iter().flat_map(|host| host.steps).map(|step| step.subject);
            let name = specs.get(index).map(|spec| spec.name.as_str());
            if let Some(host) = report.hosts.iter_mut().find(|host| Some(host.name.as_str()) == name) {
                host.outdated = Some(steps.collect());
            }
        }
        km
    }
}

async fn look_at(
    context: &Context,
    loaded: &Loaded,
    spec: &HostSpec,
    host: Option<Arc<dyn Host>>,
) -> Result<(Arc<dyn Host>, Sight), Failure> {
    let host = match host {
        Some(host) => host,
        None => Arc::new(context.session.connect(loaded, spec).await?) as Arc<dyn Host>,
    };
    let (units, certificates) = tokio::join!(units::look(host.as_ref()), certificates::look(host.as_ref()));
    let sight = Sight { units: units?, certificates: certificates? };
    Ok((host, sight))
}

/// A failure and what to do about it. A hint to run this very command is dropped.
fn told(failure: Failure) -> String {
    let (text, hint) = failure.without_hint_status().summary();
    hint.map_or_else(|| text.clone(), |hint| format!("{text}; {hint}"))
}

/// Objects, node limits, and whether the API knows the framework.
async fn ask_api(host: Arc<dyn Host>, loaded: &Loaded) -> Result<(Objects, BoundsReport, bool), Failure> {
    let client = clients::kube(host).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let (objects, settings, framework) = tokio::join!(
        objects::look(&client),
        clients::with_timeout("read the node limits", maps.get_opt(SETTINGS_CONFIG_MAP)),
        clients::with_timeout("read the framework's id", maps.get_opt(FRAMEWORK_CONFIG_MAP))
    );
    let nodes = &loaded.cluster.spec.nodes;
    let bounds = BoundsReport { live: Bounds::read(settings?.as_ref(), nodes)?, file: Bounds::of(nodes) };
    let recorded = framework?.and_then(|map| map.data).is_some_and(|data| data.contains_key("id"));
    Ok((objects?, bounds, recorded))
}
