//! `kmctl up`: makes the control plane what cluster.yaml says.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::context::Context;
use super::failure::{Code, Failure};
use super::gather::{self, Looked, Manner, Sight, Wait};
use super::provision::{self, Wanted};
use super::{plan, preflight, question, reach, report};
use crate::apply::{self, ApplyError, Counts, HostOutcome, HostState, Late, Limits, Member, Removing, Report, Work};
use crate::host::Host;
use crate::inventory::mesos;
use crate::plan::preflight::reason_against;
use crate::plan::{Circumstances, Established, Plan, SavedPlan, describe, summary};
use kmctl_core::cluster::{HostSpec, Loaded};
use kmctl_core::protocol::host::{HostManifest, Removal};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Set the bounds of nodes back to cluster.yaml's; else what `kmctl scale` has set is kept
    #[arg(long)]
    reset_scale: bool,
    /// Do exactly what this plan says, saved by `kmctl plan --out FILE`; ends with code 5 if it does not fit any more
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Remove members of etcd that cluster.yaml does not name any more, one at a time
    #[arg(long)]
    allow_remove: bool,
}

/// The last lines are worth a short wait, not a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `kmctl up`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { reset_scale, plan: saved, allow_remove } = args;
    let saved = saved.map(|file| Ok::<_, Failure>((plan::read(&file)?, file))).transpose()?;
    let mut loaded = context.cluster()?;
    let bundle = provision::open_bundle(&mut loaded)?;
    // A saved plan holds for all hosts that were seen when it was made: none of them may come later.
    let wait = if saved.is_some() { Wait::All } else { Wait::Most };
    let limits = Limits::default();
    let km = provision::km_meanwhile();
    let (reached, first) = mpsc::channel(1);
    let asked = AbortOnDropHandle::new(tokio::spawn(ask_through(first, loaded.clone())));
    let manner = Manner { wait, reset_scale };
    let (wanted, mut sight) = gather::look_around(context, &loaded, bundle, &limits, manner, Some(reached)).await?;
    let work = provision::work(context, &wanted, provision::taken(km).await?, "kmctl up", limits);
    let allow_remove =
        allow_remove || saved.as_ref().is_some_and(|(saved, _)| saved.plan.departures.iter().any(|one| one.remove));
    let plan = provision::decide(context, &loaded, &mut sight, &work.km.1, allow_remove).await?;
    if let Some((saved, file)) = &saved {
        let now = SavedPlan::new(&loaded.cluster.metadata.name, &work.km.1, &wanted.manifests, &plan);
        plan::check(file, saved, &now, &plan)?;
    }
    let found = sight.seen.iter().map(|(_, manifest, found)| (manifest.clone(), found.clone())).collect();
    // Nobody waits for it here: hosts that miss something of the bundle do, and ask for it themselves.
    tokio::spawn(apply::verify_ahead(found, work.clone()));
    preflight::refuse(context, &loaded, &sight, plan.begins()).await?;
    for (host, note) in plan.hosts.iter().flat_map(|host| host.notes.iter().map(|note| (&host.host, note))) {
        context.progress.note(host, note);
    }
    let first = sight.seen.first().map(|(host, _, _)| host.clone());
    let mesos = if plan.is_empty() && sight.late.is_empty() && sight.failed.is_empty() {
        context.progress.note("", "nothing to do");
        tell_departures(context, &plan);
        asked.await.unwrap_or(Mesos::Unasked)
    } else {
        // Until the work is done the answer would be an old one: it is asked again then.
        drop(asked);
        if !agreed(context, &plan).await? {
            return Ok(Code::Usage);
        }
        let report = carry_out(context, &plan, sight, &work).await;
        let departed = report.departed;
        let concluded = report::conclude(context, report);
        retire(context, &loaded, &wanted, &plan, departed, &work).await;
        concluded?;
        if let Some(left) = plan.departures.iter().filter(|one| one.remove).nth(departed) {
            let text = format!("{} was not removed from etcd: no member of it is healthy", left.member);
            return Err(Failure::message(Code::Failed, text).hint("look what is wrong with etcd: `kmctl status`"));
        }
        agents(&loaded, first).await
    };
    context.talk(&closing(&loaded, context, &mesos));
    Ok(Code::Ok)
}

/// Says what is going to happen, and asks where something is interrupted or removed.
async fn agreed(context: &Context, plan: &Plan) -> Result<bool, Failure> {
    let mut what = Vec::new();
    let interruptions = plan.interruptions();
    if !interruptions.is_empty() {
        what.push(format!("restarts {}", interruptions.join(", ")));
    }
    what.extend(plan.departures.iter().filter(|one| one.remove).map(|one| format!("removes {} from etcd", one.member)));
    if what.is_empty() {
        context.progress.note("", &summary(plan));
        tell_departures(context, plan);
        return Ok(true);
    }
    context.talk(&describe(plan));
    question::confirm(context, &format!("This {}. Pods keep running. Go on?", what.join(" and "))).await
}

/// Members that stay although the file does not name them are worth a line in every run.
fn tell_departures(context: &Context, plan: &Plan) {
    for one in plan.departures.iter().filter(|one| !one.remove) {
        let text = "is a member of etcd and not in cluster.yaml; `kmctl up --allow-remove` removes it";
        context.progress.note(&one.member, text);
    }
}

async fn carry_out(context: &Context, plan: &Plan, sight: Sight, work: &Work) -> Report {
    let Sight { seen, late, failed } = sight;
    let others: Vec<String> = seen.iter().map(|(_, manifest, _)| manifest.host.clone()).collect();
    let members = seen.into_iter().zip(&plan.hosts).map(|((host, manifest, found), plan)| Member {
        host,
        manifest,
        found,
        plan: plan.clone(),
    });
    let yes = context.settings.yes;
    let late = late.into_iter().map(|(manifest, task)| {
        let (host, others, km) = (manifest.host.clone(), others.clone(), work.km.1.clone());
        let established = Established { founder: plan.founder.clone(), begins: plan.begins() };
        Late { host, arrival: Box::pin(async move { arrival(task, manifest, (others, established), &km, yes).await }) }
    });
    let departures = plan.departures.iter().filter(|one| one.remove).map(|one| one.member.clone()).collect();
    let mut report = apply::run(members.collect(), late.collect(), departures, work).await;
    report.hosts.extend(failed.into_iter().map(|(host, error)| HostOutcome {
        host,
        state: HostState::Failed,
        counts: Counts::default(),
        took: Duration::ZERO,
        error: Some(error),
    }));
    report
}

/// A host that was not there when the plan was made: it is planned for by itself, as one that joins the others.
async fn arrival(
    task: JoinHandle<Result<Looked, ApplyError>>,
    manifest: HostManifest,
    (others, established): (Vec<String>, Established),
    km: &str,
    yes: bool,
) -> Result<Member, ApplyError> {
    let name = manifest.host.clone();
    let (host, found) = gather::arrived(&name, task).await?;
    let circumstances = Circumstances { unseen: others, established: Some(established), ..Circumstances::default() };
    let mut plan = crate::plan::decide(&[(manifest.clone(), found.clone())], km, &circumstances)
        .map_err(|source| ApplyError::Plan { host: name.clone(), source })?;
    let interruptions = plan.interruptions();
    if !interruptions.is_empty() && !yes {
        return Err(ApplyError::Unasked { host: name, what: interruptions.join(", ") });
    }
    let plan = plan.hosts.pop().unwrap_or_default();
    Ok(Member { host, manifest, found, plan })
}

/// Takes what `up` installed off hosts that are no members any more. One that cannot be reached is the usual case: it
/// was taken out because it is lost.
async fn retire(context: &Context, loaded: &Loaded, wanted: &Wanted, plan: &Plan, departed: usize, work: &Work) {
    for one in plan.departures.iter().filter(|one| one.remove).take(departed) {
        let Some(address) = one.peers.first().and_then(|peer| address_of(peer)) else { continue };
        let spec = HostSpec { address, name: one.member.clone(), host_key: String::new(), ssh: None };
        let retired = async {
            let host: Arc<dyn Host> = Arc::new(context.connect(loaded, &spec).await?);
            let manifest = crate::plan::desired(&loaded.cluster, &spec, &wanted.inputs)?;
            let hosts = [(host, manifest)];
            let (removal, holder) = (Removal::Everything, work.holder.clone());
            let removing = Removing { removal, keep_framework: false, holder };
            let errors = apply::remove_hosts(&hosts, &removing, &context.progress).await;
            errors.into_iter().next().map_or(Ok(()), |(_, error)| Err(anyhow::Error::new(error)))
        };
        if let Err(error) = retired.await {
            let text = format!("is no member of etcd any more; what runs there could not be removed: {error:#}");
            context.progress.note(&one.member, &text);
        }
    }
}

/// `192.0.2.13` of `https://192.0.2.13:2380`.
fn address_of(peer: &str) -> Option<String> {
    let uri: http::Uri = peer.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// How Mesos is doing, as far as this run can tell.
enum Mesos {
    /// Nobody asked: that would take another command on the host, and a run that changes nothing looks at each host once.
    Unasked,
    /// So many of so many agents can become nodes.
    Answers(usize, usize),
    /// It does not answer.
    Away(String),
}

/// Asks through the first host that is reached, while the others are still being reached and looked at.
async fn ask_through(mut first: mpsc::Receiver<Arc<dyn Host>>, loaded: Loaded) -> Mesos {
    let host = first.recv().await;
    agents(&loaded, host).await
}

async fn agents(loaded: &Loaded, host: Option<Arc<dyn Host>>) -> Mesos {
    let spec = &loaded.cluster.spec.mesos;
    let Some(host) = host.filter(|_| spec.principal.is_empty() || std::path::Path::new(&spec.secret_file).exists())
    else {
        return Mesos::Unasked;
    };
    let read = async {
        let client = reach::mesos(host, loaded).await.map_err(|failure| failure.summary().0)?;
        let agents = mesos::agents(&client).await;
        agents.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(agents)) => {
            let fit = agents.iter().filter(|agent| reason_against(&loaded.cluster, agent).is_none()).count();
            Mesos::Answers(fit, agents.len())
        }
        Ok(Err(why)) => Mesos::Away(why),
        Err(_) => Mesos::Away(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// What is up, what is normal, and what to type next.
fn closing(loaded: &Loaded, context: &Context, mesos: &Mesos) -> String {
    let spec = &loaded.cluster.spec;
    let file = context.settings.file.display();
    let (version, endpoint) = (&spec.kubernetes.version, &spec.control_plane.endpoint);
    let (framework, masters) = (&spec.mesos.framework_name, spec.mesos.master.0.join(", "));
    let fit = match (mesos, spec.nodes.max) {
        (Mesos::Unasked, _) => String::new(),
        (Mesos::Answers(fit, all), None) => format!("{fit} of {all} agents can become nodes.\n"),
        (Mesos::Answers(fit, all), Some(max)) => {
            format!("{fit} of {all} agents can become nodes, at most {max} at a time.\n")
        }
        (Mesos::Away(why), _) => {
            return format!(
                "\nKubernetes {version} is up but degraded: https://{endpoint}. Mesos {masters} is away ({why}).\n\
                 The control plane is as cluster.yaml says, and running pods go on. New pods and nodes wait until Mesos\n\
                 answers; nothing has to be done here then.\n\n\
                 Next:\n  \
                 kmctl -f {file} check\n"
            );
        }
    };
    format!(
        "\nKubernetes {version} is up: https://{endpoint}, framework {framework} on Mesos {masters}.\n\
         Zero nodes is normal: one comes when a pod needs it, and goes when it is idle for {}.\n\
         {fit}\n\
         Next:\n  \
         kmctl -f {file} kubeconfig --out kubeconfig\n  \
         export KUBECONFIG=$PWD/kubeconfig\n  \
         kubectl run hello --image=busybox --restart=Never -- echo hello from Mesos\n  \
         kubectl get nodes,pods --watch\n",
        spec.nodes.idle_timeout,
    )
}
