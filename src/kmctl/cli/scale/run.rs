//! Reads and writes the live bounds, and waits until they hold.
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};

use super::arguments::Args;
use crate::cli::context::{Context, OutputFormat};
use crate::diagnose::Reason;
use crate::diagnose::scaling::{Situation, needs_somebody, obstacles, preview, progress};
use crate::diagnose::scaling_report::Shown;
use crate::failure::{Code, Failure};
use crate::host::Host;
use crate::inventory::bounds::Bounds;
use crate::inventory::mesos::Master;
use crate::inventory::workloads::{self, Workloads};
use crate::provision::clients;
use kmctl_core::cluster::{self, Loaded};
use kmctl_core::k8s::names::{NAMESPACE, SETTINGS_CONFIG_MAP};
use kmctl_core::model::requests;
use kmctl_core::protocol::Summary;
use kmctl_core::text::count;

/// How often to check while waiting.
const LOOK: Duration = Duration::from_secs(1);

/// How often Mesos and the km scheduler are queried while waiting.
const ASK: Duration = Duration::from_secs(5);

/// After this time without a change, something that needs intervention is not resolved by waiting.
const STUCK: Duration = Duration::from_secs(60);

/// Shows the bounds, or sets the given ones and waits until they hold.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let loaded = context.cluster()?;
    let ways = Clients::open(context, &loaded).await?;
    let maps: Api<ConfigMap> = Api::namespaced(ways.client.clone(), NAMESPACE);
    let found = clients::with_timeout("read the node limits", maps.get_opt(SETTINGS_CONFIG_MAP)).await?;
    let before = Bounds::read(found.as_ref(), &loaded.cluster.spec.nodes)?;
    let after = before.asked(args.nodes, args.min, args.max)?;
    if args.dry_run {
        let facts = ways.look(&loaded, true).await?;
        let mut lines = vec![format!("Node limits: {} → {}", before.shown(), after.shown())];
        lines.extend(preview(after, &facts.situation(&loaded)));
        context.stdout(&(lines.join("\n") + "\n"))?;
        return Ok(Code::Ok);
    }
    let asked = args.nodes.is_some() || args.min.is_some() || args.max.is_some();
    if asked {
        if after == before && found.is_some() {
            context.progress.note("", "unchanged");
        } else {
            if after != before {
                let facts = ways.look(&loaded, true).await?;
                context.stderr(&(preview(after, &facts.situation(&loaded)).join("\n") + "\n"));
            }
            write(&maps, found.is_some(), after).await?;
        }
        if args.nodes.is_some() {
            let text = format!(
                "autoscaling is disabled: {} regardless of pods; enable it with `kmctl scale --min 0 --max none`",
                count(after.min, "node")
            );
            context.progress.note("", &text);
        }
    }
    if args.save {
        save(context, &loaded, after)?;
    } else if asked && Bounds::of(&loaded.cluster.spec.nodes) != after {
        let text = "cluster.yaml has other node limits; `kmctl up` keeps these (write them with --save)";
        context.progress.note("", text);
    }
    let facts = if asked && !args.no_wait {
        hold(context, &loaded, &ways, after, args.timeout.0).await?
    } else {
        ways.look(&loaded, false).await?
    };
    let shown = Shown::new(after, &facts.situation(&loaded));
    match context.settings.output {
        OutputFormat::Text => context.stdout(&shown.text())?,
        OutputFormat::Json => context.json(&shown)?,
    }
    Ok(Code::Ok)
}

async fn write(maps: &Api<ConfigMap>, exists: bool, bounds: Bounds) -> Result<(), Failure> {
    let what = "set the node limits";
    if exists {
        let (patch, parameters) = (Patch::Merge(bounds.change()), PatchParams::default());
        clients::with_timeout(what, maps.patch(SETTINGS_CONFIG_MAP, &parameters, &patch)).await?;
    } else {
        let created = bounds.created();
        clients::with_timeout(what, maps.create(&PostParams::default(), &created)).await?;
    }
    Ok(())
}

/// Writes the bounds into cluster.yaml.
fn save(context: &Context, loaded: &Loaded, bounds: Bounds) -> Result<(), Failure> {
    // Symbolic links are resolved, so that a link remains a link.
    let path =
        std::fs::canonicalize(&loaded.path).with_context(|| format!("failed to find {}", loaded.path.display()))?;
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {shown}"))?;
    let edited = cluster::set_bounds(&text, bounds.min, bounds.max).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("failed to edit {shown}"));
        Failure::new(Code::Failed, error)
            .hint(format!("the node limits are set; add `{}` under spec.nodes manually", bounds.shown()))
    })?;
    if edited == text {
        context.progress.note(&shown, "unchanged");
        return Ok(());
    }
    let mode = std::fs::metadata(&path).with_context(|| format!("failed to read {shown}"))?.permissions();
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    let replaced = (|| {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, edited.as_bytes())?;
        std::fs::set_permissions(file.path(), mode)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)
    })();
    replaced.with_context(|| format!("failed to write {shown}"))?;
    context.progress.note(&shown, &format!("updated: {}", bounds.shown()));
    Ok(())
}

/// Waits until the bounds hold, or reports what blocks them.
async fn hold(
    context: &Context,
    loaded: &Loaded,
    ways: &Clients<'_>,
    bounds: Bounds,
    timeout: Duration,
) -> Result<Facts, Failure> {
    let step = context.progress.step("", &format!("Waiting for {}", wanted(bounds)));
    let begun = Instant::now();
    let (mut last, mut changed, mut asked) = (String::new(), Instant::now(), None::<Instant>);
    let mut facts = ways.look(loaded, true).await?;
    loop {
        let reached = progress(bounds, &facts.seen);
        let situation = facts.situation(loaded);
        if reached.done {
            step.done(&format!("Reached {}", count(facts.seen.nodes.len(), "node")));
            return Ok(facts);
        }
        let reasons = obstacles(bounds, &situation);
        if reached.text != last {
            last.clone_from(&reached.text);
            changed = Instant::now();
        }
        let first = reasons.first().map(|reason| format!("; {}", reason.what)).unwrap_or_default();
        step.at(&format!("{last}{first}"));
        let stuck = needs_somebody(&reasons) && changed.elapsed() >= STUCK;
        if stuck || begun.elapsed() >= timeout {
            step.failed(&last);
            return Err(in_the_way(&last, &reasons, !stuck));
        }
        tokio::time::sleep(LOOK).await;
        let thorough = asked.is_none_or(|asked| asked.elapsed() >= ASK);
        if thorough {
            asked = Some(Instant::now());
        }
        // A control plane that is briefly unavailable is no reason to give up.
        match ways.look(loaded, thorough).await {
            Ok(new) if thorough => facts = new,
            Ok(new) => facts.seen = new.seen,
            Err(failure) => step.at(&failure.summary().0),
        }
    }
}

fn wanted(bounds: Bounds) -> String {
    match bounds.max {
        Some(max) if max == bounds.min => count(max, "node"),
        Some(max) => format!("{} to {}", bounds.min, count(max, "node")),
        None => format!("at least {}", count(bounds.min, "node")),
    }
}

fn in_the_way(progress: &str, reasons: &[Reason], timeout: bool) -> Failure {
    let mut text = format!("node limits are set but not reached: {progress}");
    for reason in reasons {
        text.push_str(&format!("\n  - {}", reason.what));
    }
    let cure = reasons.iter().find(|reason| !reason.cure.is_empty()).map(|reason| reason.cure.clone());
    let code = if timeout { Code::Timeout } else { Code::Failed };
    Failure::message(code, text).hint(cure.unwrap_or_else(|| "check again with kmctl scale".to_owned()))
}

/// Connections to everything that is queried.
struct Clients<'a> {
    context: &'a Context,
    host: Arc<dyn Host>,
    client: Client,
}

/// The collected facts.
struct Facts {
    seen: Workloads,
    master: Option<Master>,
    scheduler: Option<Summary>,
}

impl Facts {
    fn situation<'a>(&'a self, loaded: &'a Loaded) -> Situation<'a> {
        Situation {
            cluster: &loaded.cluster,
            seen: &self.seen,
            master: self.master.as_ref(),
            scheduler: self.scheduler.as_ref(),
            now: Timestamp::now(),
        }
    }
}

impl<'a> Clients<'a> {
    async fn open(context: &'a Context, loaded: &Loaded) -> Result<Clients<'a>, Failure> {
        let host = clients::connect_ready_host(&context.session, loaded).await?;
        Ok(Clients { context, client: clients::kube(host.clone()).await?, host })
    }

    /// Queries the API server and, if `thorough`, also Mesos and the km scheduler.
    async fn look(&self, loaded: &Loaded, thorough: bool) -> Result<Facts, Failure> {
        let defaults = &loaded.cluster.spec.nodes.pod_defaults;
        let defaults = requests::amount(&defaults.cpu, &defaults.memory).unwrap_or_default();
        if !thorough {
            let seen = workloads::look(&self.client, defaults).await?;
            return Ok(Facts { seen, master: None, scheduler: None });
        }
        let (seen, master, scheduler) = tokio::join!(
            workloads::look(&self.client, defaults),
            clients::master(self.host.clone(), loaded),
            clients::scheduler(&self.context.session, loaded, self.host.clone())
        );
        Ok(Facts { seen: seen?, master: master.ok(), scheduler: scheduler.ok() })
    }
}
