//! `kmctl up`: makes the control plane what cluster.yaml says.
use super::context::Context;
use super::failure::{Code, Failure};
use super::{provision, question};
use crate::apply::apply_hosts;
use crate::cluster::Loaded;
use crate::plan::{describe, summary};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Runs `kmctl up`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    let loaded = context.cluster()?;
    let bundle = provision::open_bundle(&loaded)?;
    let hosts = provision::connect_all(context, &loaded).await?;
    let wanted = provision::wanted(&loaded, bundle, &hosts).await?;
    let work = provision::work(context, &wanted, "kmctl up")?;
    let seen = provision::look_all(context, hosts, &wanted.manifests).await?;
    let plan = provision::decide(&seen, &work.km.1)?;
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
    context.talk(&closing(&loaded, context));
    Ok(Code::Ok)
}

/// What is up, what is normal, and what to type next.
fn closing(loaded: &Loaded, context: &Context) -> String {
    let spec = &loaded.cluster.spec;
    let file = context.settings.file.display();
    format!(
        "\nKubernetes {} is up: https://{}, framework {} on Mesos {}.\n\
         Zero nodes is normal: one comes when a pod needs it, and goes when it is idle for {}.\n\
         \n\
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
