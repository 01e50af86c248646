//! From the file to pods that can be run, or to all reasons against running them.
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret};

use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use kmctl_core::cluster::Loaded;
use kmctl_core::k8s::manifests;
use kmctl_core::model::pods::PodPort;
use kmctl_core::model::requests;
use kmctl_core::protocol::runonce::GivenPod;
use kmctl_core::text::count;
use runonce::decide::check::{check, never_instead_of_always};
use runonce::decide::documents::{self, Given, Key, Problem, key_of};
use runonce::decide::framework::Wanted;
use runonce::decide::rewrite::{References, references, rewrite};

/// Reads and validates the file.
pub fn read(path: &Path, context: &Context) -> Result<Given, Failure> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
        (name, text)
    };
    let documents = manifests(&name, &text).map_err(|error| Failure::new(Code::Invalid, error))?;
    let given = documents::read(documents).map_err(|problems| refusal(&name, &problems))?;
    let problems = check(&given);
    if !problems.is_empty() {
        return Err(refusal(&name, &problems));
    }
    for pod in never_instead_of_always(&given) {
        context.stderr(&format!("pod {pod}: restartPolicy Always is treated as Never\n"));
    }
    Ok(given)
}

fn refusal(name: &str, problems: &[Problem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    let count = count(problems.len(), "problem");
    Failure::message(Code::Invalid, format!("{name} has {count}; nothing was started:\n{}", lines.join("\n")))
        .hint("run it in a cluster: kmctl up, then kubectl apply")
}

/// The pods, each with everything that it refers to and its resource requests.
pub fn wanted(given: &Given, loaded: &Loaded) -> Result<Vec<Wanted>, Failure> {
    let defaults = &loaded.cluster.spec.nodes.pod_defaults;
    let defaults = requests::amount(&defaults.cpu, &defaults.memory)?;
    let mut pods = Vec::new();
    for pod in &given.pods {
        let (namespace, name) = key_of(&pod.metadata);
        let spec = pod.spec.clone().unwrap_or_default();
        let amount =
            requests::effective(&spec, defaults).with_context(|| format!("invalid resource requests of pod {name}"))?;
        let (config_maps, secrets) = referred(given, &namespace, &spec);
        let uid = uuid::Uuid::new_v4().to_string();
        let one = GivenPod { uid, pod: pod.clone(), config_maps, secrets };
        // The node will do this, too. Doing it here first finds errors early, at no cost.
        rewrite(&one, Path::new("/given")).with_context(|| format!("invalid pod {name}"))?;
        pods.push(Wanted { ports: ports(&spec), given: one, namespace, name, amount });
    }
    Ok(pods)
}

/// The configMaps and secrets that a pod names. A node is given no others.
fn referred(given: &Given, namespace: &str, spec: &PodSpec) -> (Vec<ConfigMap>, Vec<Secret>) {
    let mut keys: Vec<(bool, Key)> = references(spec)
        .into_iter()
        .map(|References { secret, name, .. }| (secret, (namespace.to_owned(), name)))
        .collect();
    keys.sort();
    keys.dedup();
    let maps = keys.iter().filter(|(secret, _)| !secret).filter_map(|(_, key)| given.config_maps.get(key));
    let secrets = keys.iter().filter(|(secret, _)| *secret).filter_map(|(_, key)| given.secrets.get(key));
    (maps.cloned().collect(), secrets.cloned().collect())
}

fn ports(spec: &PodSpec) -> Vec<PodPort> {
    let port = |number: i32| u16::try_from(number).ok().filter(|port| *port != 0);
    let on_host = spec.host_network == Some(true);
    let declared = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    declared
        .filter_map(|declared| {
            let container_port = port(declared.container_port)?;
            // In the machine's own network, a port of the pod is one of the machine.
            let host_port = declared.host_port.and_then(port).or(on_host.then_some(container_port));
            let protocol = declared.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(PodPort { container_port, host_port, protocol })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_given_what_it_names_and_nothing_else() {
        let named = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{
            "name": "a", "image": "i", "envFrom": [{"secretRef": {"name": "mine"}}, {"configMapRef": {"name": "map"}}]}]}});
        let given = documents::read(vec![
            named("Secret", "mine"),
            named("Secret", "other"),
            named("ConfigMap", "map"),
            named("ConfigMap", "mine"),
            pod,
        ]);
        let given = given.unwrap();
        let spec = given.pods[0].spec.clone().unwrap();
        let (maps, secrets) = referred(&given, "default", &spec);
        assert_eq!(maps.iter().map(|map| map.metadata.name.as_deref()).collect::<Vec<_>>(), [Some("map")]);
        assert_eq!(secrets.iter().map(|map| map.metadata.name.as_deref()).collect::<Vec<_>>(), [Some("mine")]);
    }

    #[test]
    fn in_the_machines_network_every_port_is_the_machines() {
        let spec = |more: serde_json::Value| {
            let mut spec = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 31000, "protocol": "UDP"}]}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<PodSpec>(spec).unwrap()
        };
        let found = |more| ports(&spec(more)).iter().map(|port| port.host_port).collect::<Vec<_>>();
        assert_eq!(found(json!({})), [None, Some(31000)]);
        assert_eq!(found(json!({"hostNetwork": true})), [Some(80), Some(31000)]);
    }
}
