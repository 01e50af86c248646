//! A run on Mesos, as a framework of its own.
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::artifacts::Chosen;
use super::output::Printer;
use super::{POD_NETWORK, Reach};
use crate::cli::context::Context;
use crate::failure::Failure;
use crate::provision::clients;
use kmctl_core::model::requests;
use mesos::scheduler::Scheduler;
use runonce::decide::framework::{Outcome, Run, Settings, Wanted};
use runonce::run::{self, Watch, framework_info};

/// What may end a run, and what is kept of it.
pub struct Terms {
    /// The time limit from the start of the run to its end.
    pub timeout: Option<Duration>,
    /// Whether to keep logs on the agents.
    pub keep: bool,
    /// Cancelled when the operator interrupts the run.
    pub interrupted: CancellationToken,
}

pub async fn run(
    reach: Reach,
    pods: Vec<Wanted>,
    artifacts: Chosen,
    terms: Terms,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Reach { loaded, host } = reach;
    let (cluster, spec) = (&loaded.cluster, &loaded.cluster.spec);
    let Terms { timeout, keep, interrupted } = terms;
    let Chosen { offered, server } = artifacts;
    let masters = clients::masters(host, &loaded).await?;
    let role = spec.mesos.roles.first().cloned().unwrap_or_default();
    let name = format!("runonce-{}", pods.first().map(|pod| pod.name.as_str()).unwrap_or_default());
    let info = framework_info(name, spec.mesos.user.clone(), role.clone(), masters.principal().map(str::to_owned));
    let settings = Settings {
        role,
        user: spec.mesos.user.clone(),
        cluster: cluster.metadata.name.clone(),
        constraints: spec.nodes.constraints.clone(),
        overhead: requests::amount(&spec.nodes.overhead.cpu, &spec.nodes.overhead.memory)?,
        km: offered.km,
        kubernetes_version: offered.kubernetes,
        root_dir: spec.nodes.root_dir.clone().into(),
        pod_cidr: POD_NETWORK.to_owned(),
        cluster_domain: spec.kubernetes.cluster_domain.clone(),
        artifacts: offered.files,
        keep,
    };
    let mut printer = Printer::new(&pods, context.progress.clone());
    let reached = server.as_ref().map(|server| (server.reached(), server.base.clone()));
    let watch = Watch { timeout, interrupted, reached };
    let run = Run::new(settings, pods, rand::random());
    let scheduler = Scheduler::new(masters);
    let outcome =
        run::run(&scheduler, info, run, watch, &mut printer).await.context("failed to run the pods on Mesos")?;
    if keep {
        let kept = format!("{}/kept", spec.nodes.root_dir);
        context.progress.note("", &format!("pod and node logs are in {kept} on the agents (readable by root)"));
    }
    Ok(outcome)
}
