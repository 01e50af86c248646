//! `kmctl up`: makes the control plane what cluster.yaml says.
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::failure::{Code, Failure};
use super::{provision, question, reach};
use crate::apply::apply_hosts;
use crate::cluster::Loaded;
use crate::host::Host;
use crate::inventory::mesos;
use crate::plan::preflight::reason_against;
use crate::plan::{describe, summary};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Set the bounds of nodes back to cluster.yaml's; else what `kmctl scale` has set is kept
    #[arg(long)]
    reset_scale: bool,
}

/// The last lines are worth a short wait, not a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `kmctl up`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { reset_scale } = args;
    let loaded = context.cluster()?;
    let bundle = provision::open_bundle(&loaded)?;
    let hosts = provision::connect_all(context, &loaded).await?;
    let mut wanted = provision::wanted(&loaded, bundle, &hosts).await?;
    if reset_scale {
        provision::reset_scale(&mut wanted);
    }
    let work = provision::work(context, &wanted, "kmctl up")?;
    let seen = provision::look_all(context, hosts, &wanted.manifests).await?;
    let first = seen.first().map(|(host, _, _)| host.clone());
    let plan = provision::decide(&seen, &work.km.1)?;
    for (host, note) in plan.hosts.iter().flat_map(|host| host.notes.iter().map(|note| (&host.host, note))) {
        context.progress.note(host, note);
    }
    if plan.is_empty() {
        context.progress.note("", "nothing to do");
    } else {
        let interruptions = plan.interruptions();
        if interruptions.is_empty() {
            context.progress.note("", &summary(&plan));
        } else {
            context.talk(&describe(&plan));
            let what = format!("This restarts {}. Pods keep running. Go on?", interruptions.join(", "));
            if !question::confirm(context, &what).await? {
                return Ok(Code::Usage);
            }
        }
        let count = seen.len();
        apply_hosts(seen, &work).await.map_err(|errors| provision::failed(context, errors, count))?;
    }
    let fit = agents(&loaded, first).await;
    context.talk(&closing(&loaded, context, fit));
    Ok(Code::Ok)
}

/// How many agents can become nodes, and how many there are. Only told where Mesos tells it without another command on
/// the host: a run that changes nothing looks at each host once.
async fn agents(loaded: &Loaded, host: Option<Arc<dyn Host>>) -> Option<(usize, usize)> {
    let spec = &loaded.cluster.spec.mesos;
    if !spec.principal.is_empty() && !std::path::Path::new(&spec.secret_file).exists() {
        return None;
    }
    let read = async {
        let client = reach::mesos(host?, loaded).await.ok()?;
        mesos::read(&client, &spec.master.0, &spec.framework_name).await.ok()
    };
    let master = tokio::time::timeout(PATIENCE, read).await.ok()??;
    let fit = master.agents.iter().filter(|agent| reason_against(&loaded.cluster, agent).is_none()).count();
    Some((fit, master.agents.len()))
}

/// What is up, what is normal, and what to type next.
fn closing(loaded: &Loaded, context: &Context, fit: Option<(usize, usize)>) -> String {
    let spec = &loaded.cluster.spec;
    let file = context.settings.file.display();
    let fit = match (fit, spec.nodes.max) {
        (None, _) => String::new(),
        (Some((fit, all)), None) => format!("{fit} of {all} agents can become nodes.\n"),
        (Some((fit, all)), Some(max)) => format!("{fit} of {all} agents can become nodes, at most {max} at a time.\n"),
    };
    format!(
        "\nKubernetes {} is up: https://{}, framework {} on Mesos {}.\n\
         Zero nodes is normal: one comes when a pod needs it, and goes when it is idle for {}.\n\
         {fit}\n\
         Next:\n  \
         kmctl -f {file} kubeconfig --out kubeconfig\n  \
         export KUBECONFIG=$PWD/kubeconfig\n  \
         kubectl run hello --image=busybox --restart=Never -- echo hello from Mesos\n  \
         kubectl get nodes,pods --watch\n",
        spec.kubernetes.version,
        spec.control_plane.endpoint,
        spec.mesos.framework_name,
        spec.mesos.master.0.join(", "),
        spec.nodes.idle_timeout,
    )
}
