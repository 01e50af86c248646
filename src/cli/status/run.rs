//! Asks the hosts, the API server and Mesos, all at the same time, and shows what they said.
use std::sync::Arc;

use super::report::{HostReport, Report};
use crate::cli::context::{Context, OutputFormat};
use crate::cli::failure::{Code, Failure};
use crate::cli::reach;
use crate::cluster::{HostSpec, Loaded};
use crate::host::{Host, SshHost};
use crate::inventory::mesos::{self, Master};
use crate::inventory::objects::{self, Objects};
use crate::inventory::units::{self, Unit};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Shows how everything is doing.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    let loaded = context.cluster()?;
    let step = context.progress.step("", "ask the hosts, the API server and Mesos");
    let report = look(context, &loaded).await;
    step.done("");
    match context.settings.output {
        OutputFormat::Text => context.data(&report.text())?,
        OutputFormat::Json => context.json(&report)?,
    }
    Ok(report.code())
}

async fn look(context: &Context, loaded: &Loaded) -> Report {
    let specs = &loaded.cluster.spec.control_plane.hosts;
    let looks = futures::future::join_all(specs.iter().map(|spec| look_at(context, loaded, spec))).await;
    let mut problems = Vec::new();
    let mut hosts = Vec::new();
    let mut through: Option<Arc<dyn Host>> = None;
    for (spec, look) in specs.iter().zip(looks) {
        let units = match look {
            Ok((host, units)) => {
                // A host whose API server runs is the best way in; any is better than none.
                let serves = units.iter().any(|unit| unit.name == "kube-apiserver" && unit.runs());
                if serves || through.is_none() {
                    through = Some(Arc::new(host));
                }
                Some(units)
            }
            Err(failure) => {
                problems.push(format!("{}: {}", spec.name, failure.summary().0));
                None
            }
        };
        hosts.push(HostReport { name: spec.name.clone(), address: spec.address.clone(), units });
    }
    let endpoint = &loaded.cluster.spec.control_plane.endpoint;
    let mut report = Report::new(&loaded.cluster.metadata.name, endpoint, hosts);
    if let Some(host) = through {
        let (objects, master) = tokio::join!(ask_api(host.clone()), ask_mesos(host, loaded));
        let mut keep = |failure: Failure| problems.push(failure.summary().0);
        let objects = objects.map_err(&mut keep).ok();
        let master = master.map_err(&mut keep).ok();
        report.add(objects.as_ref(), master.as_ref());
        if let Some(objects) = &objects {
            report.warn(loaded.cluster.spec.network.mode, objects);
        }
    }
    report.problems = problems;
    report
}

async fn look_at(context: &Context, loaded: &Loaded, spec: &HostSpec) -> Result<(SshHost, Vec<Unit>), Failure> {
    let host = context.connect(loaded, spec).await?;
    let units = units::look(&host).await?;
    Ok((host, units))
}

async fn ask_api(host: Arc<dyn Host>) -> Result<Objects, Failure> {
    let client = reach::kube(host).await?;
    Ok(objects::look(&client).await?)
}

async fn ask_mesos(host: Arc<dyn Host>, loaded: &Loaded) -> Result<Master, Failure> {
    let spec = &loaded.cluster.spec.mesos;
    let client = reach::mesos(host, loaded).await?;
    Ok(mesos::read(&client, &spec.master.0, &spec.framework_name).await?)
}
