//! What a pod's containers wrote, through the API server and the kubelet.

use anyhow::Context as _;
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};

use super::source::Wanted;
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::provision::clients;
use kmctl_core::cluster::Loaded;

/// Shows the containers' logs. With several containers, each line starts with the container's name.
pub(super) async fn show(
    context: &Context,
    loaded: &Loaded,
    namespace: &str,
    name: &str,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let host = clients::connect_ready_host(&context.session, loaded).await?;
    let api: Api<Pod> = Api::namespaced(clients::kube(host).await?, namespace);
    let pod = clients::with_timeout("read the pod", api.get_opt(name)).await?.ok_or_else(|| {
        let text = format!("pod {namespace}/{name} not found; its logs were deleted with it");
        Failure::message(Code::Failed, text)
            .hint("for past tasks see the completed tasks in Mesos, or kmctl why node NAME")
    })?;
    let spec = pod.spec.unwrap_or_default();
    let all = spec.init_containers.into_iter().flatten().chain(spec.containers);
    let all: Vec<String> = all.map(|container| container.name).collect();
    let names: Vec<&String> =
        all.iter().filter(|name| wanted.container.as_ref().is_none_or(|only| only == *name)).collect();
    if names.is_empty() {
        let text = format!("container not found in pod {namespace}/{name}");
        return Err(Failure::message(Code::Usage, text).hint(format!("-c must be one of: {}", all.join(", "))));
    }
    let several = names.len() > 1;
    let mut streams = Vec::new();
    let mut refused = Vec::new();
    for container in names {
        let parameters = LogParams {
            container: Some(container.clone()),
            follow: wanted.follow,
            tail_lines: i64::try_from(wanted.lines).ok(),
            ..LogParams::default()
        };
        let prefix = if several { format!("{container} | ") } else { String::new() };
        match clients::with_timeout("read the log", api.log_stream(name, &parameters)).await {
            Ok(stream) => streams.push(stream.lines().map_ok(move |line| format!("{prefix}{line}\n")).boxed()),
            // A container that has not started has no log. The others do.
            Err(failure) => refused.push((container.clone(), failure)),
        }
    }
    if streams.is_empty()
        && let Some((_, failure)) = refused.pop()
    {
        return Err(failure.hint(format!("kmctl why pod {namespace}/{name}")));
    }
    for (container, failure) in refused {
        context.progress.note(&container, &failure.summary().0);
    }
    if wanted.follow {
        let mut lines = futures::stream::select_all(streams);
        while let Some(line) = lines.next().await {
            context.stdout(&line.context("failed to read the log")?)?;
        }
    } else {
        for mut lines in streams {
            while let Some(line) = lines.next().await {
                context.stdout(&line.context("failed to read the log")?)?;
            }
        }
    }
    Ok(())
}
