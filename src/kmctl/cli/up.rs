//! `kmctl up`: brings the control plane to the state in cluster.yaml.
use std::path::PathBuf;

use super::context::Context;
use super::operator::Terminal;
use crate::failure::{Code, Failure};
use crate::provision::phases::{self, PlanOptions, Up};
use crate::provision::{MesosStatus, read_saved_plan};
use kmctl_core::cluster::Loaded;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Reset node limits to cluster.yaml (limits set with `kmctl scale` are kept otherwise)
    #[arg(long)]
    reset_scale: bool,
    /// Apply a saved plan; exit with code 5 if the cluster has changed since
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Remove etcd members that are no longer in cluster.yaml, one at a time
    #[arg(long)]
    allow_remove: bool,
    /// Bootstrap a new, empty cluster although an older one has lost its data, or may exist on a host that is away;
    /// the value is the cluster's name
    #[arg(long, value_name = "NAME")]
    begin_anew: Option<String>,
}

/// Runs `kmctl up`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { reset_scale, plan, allow_remove, begin_anew } = args;
    let saved = plan.map(|file| Ok::<_, Failure>((read_saved_plan(&file)?, file))).transpose()?;
    let mut loaded = context.cluster()?;
    let begin_anew = begins_anew(&loaded, begin_anew.as_deref())?;
    let options = PlanOptions { reset_scale, allow_remove, begin_anew };
    match phases::up(&context.session, &Terminal::new(context, None), &mut loaded, options, saved).await? {
        Up::Declined => Ok(Code::Usage),
        Up::Done(mesos) => {
            context.stderr(&closing(&loaded, context, &mesos));
            Ok(Code::Ok)
        }
    }
}

/// Whether `--begin-anew` was given, which must name the cluster: a pasted command may be meant for another one.
pub(super) fn begins_anew(loaded: &Loaded, given: Option<&str>) -> Result<bool, Failure> {
    let name = &loaded.cluster.metadata.name;
    match given {
        None => Ok(false),
        Some(given) if given == name => Ok(true),
        Some(given) => {
            let text = format!("--begin-anew {given} does not name the cluster in {}, {name}", loaded.path.display());
            Err(Failure::message(Code::Usage, text).hint(format!("pass --begin-anew {name}")))
        }
    }
}

/// What is up, what is normal, and which commands to run next.
fn closing(loaded: &Loaded, context: &Context, mesos: &MesosStatus) -> String {
    let spec = &loaded.cluster.spec;
    let file = context.settings.file.display();
    let (version, endpoint) = (&spec.kubernetes.version, &spec.control_plane.endpoint);
    let (framework, masters) = (&spec.mesos.framework_name, spec.mesos.master.0.join(", "));
    let fit = match (mesos, spec.nodes.max) {
        (MesosStatus::Unasked, _) => String::new(),
        (MesosStatus::Answers(fit, all), None) => format!("{fit} of {all} Mesos agents are eligible to run nodes\n"),
        (MesosStatus::Answers(fit, all), Some(max)) => {
            format!("{fit} of {all} Mesos agents are eligible to run nodes (nodes.max is {max})\n")
        }
        (MesosStatus::Away(why), _) => {
            return format!(
                "\nKubernetes {version} is up but degraded: https://{endpoint}\n\
                 Control plane updated, but Mesos {masters} is unreachable ({why}):\n\
                 running pods continue, new pods stay pending\n\n\
                 Next:\n  \
                 kmctl -f {file} check\n"
            );
        }
    };
    format!(
        "\nKubernetes {version} is up: https://{endpoint}, framework {framework} on Mesos {masters}\n\
         No nodes yet: a node starts when a pod needs one and is removed after {} idle\n\
         {fit}\n\
         Next:\n  \
         kmctl -f {file} kubeconfig --out kubeconfig\n  \
         export KUBECONFIG=$PWD/kubeconfig\n  \
         kubectl run hello --image=busybox --restart=Never -- echo hello from Mesos\n  \
         kubectl get nodes,pods --watch\n",
        spec.nodes.idle_timeout,
    )
}
