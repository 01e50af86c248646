//! Exit codes of one pod and of several pods.
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, PodStatus};

/// The exit code of a pod that has ended: the first non-zero code, init containers first, each in the order of the
/// specification. It is 0 if every container succeeded. A pod that failed without such a container (evicted, or refused
/// by the kubelet) has no exit code: it was not run.
pub fn of_pod(spec: &PodSpec, status: &PodStatus) -> Option<u8> {
    let init = spec.init_containers.iter().flatten();
    let ordered = init
        .map(|container| (&container.name, &status.init_container_statuses))
        .chain(spec.containers.iter().map(|container| (&container.name, &status.container_statuses)));
    let bad = ordered
        .filter_map(|(name, statuses)| statuses.iter().flatten().find(|status| status.name == *name))
        .filter_map(code)
        .find(|code| *code != 0);
    match (bad, status.phase.as_deref()) {
        (Some(code), _) => Some(code),
        (None, Some("Succeeded")) => Some(0),
        _ => None,
    }
}

/// The first pod's non-zero code, in the order of the file.
pub fn of_all(codes: impl IntoIterator<Item = u8>) -> u8 {
    codes.into_iter().find(|code| *code != 0).unwrap_or(0)
}

/// A container's exit code, as a process can return it.
fn code(status: &ContainerStatus) -> Option<u8> {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref().and_then(|state| state.terminated.as_ref()).map(|ended| ended.exit_code)
    };
    let code = ended(&status.state).or_else(|| ended(&status.last_state))?;
    Some(match u8::try_from(code) {
        Ok(code) => code,
        // Whatever the code is, it is not success.
        Err(_) => u8::try_from(code & 0xff).ok().filter(|low| *low != 0).unwrap_or(1),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(name: &str, code: Option<i32>) -> Value {
        let state = match code {
            Some(code) => json!({"terminated": {"exitCode": code}}),
            None => json!({"waiting": {"reason": "PodInitializing"}}),
        };
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    #[test]
    fn the_first_code_that_is_not_zero_counts_in_spec_order_with_init_containers_first() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}))
        .unwrap();
        type Codes = [Option<i32>; 3];
        let cases: [(&str, Codes, Option<u8>); 10] = [
            ("Succeeded", [Some(0), Some(0), Some(0)], Some(0)),
            ("Failed", [Some(7), None, None], Some(7)),
            ("Failed", [Some(0), Some(0), Some(3)], Some(3)),
            ("Failed", [Some(0), Some(4), Some(3)], Some(4)),
            ("Failed", [Some(0), Some(137), None], Some(137)),
            ("Failed", [Some(0), Some(256), None], Some(1)),
            ("Failed", [Some(0), Some(-1), None], Some(255)),
            ("Failed", [Some(0), Some(300), None], Some(44)),
            ("Failed", [None, None, None], None),
            ("Failed", [Some(0), Some(0), None], None),
        ];
        for (phase, [init, first, second], expected) in cases {
            // The kubelet lists statuses in its own order.
            let status: PodStatus = serde_json::from_value(json!({
                "phase": phase,
                "initContainerStatuses": [container("i", init)],
                "containerStatuses": [container("b", second), container("a", first)]}))
            .unwrap();
            assert_eq!(of_pod(&spec, &status), expected, "{phase} {init:?} {first:?} {second:?}");
        }
    }

    #[test]
    fn a_container_that_is_to_be_started_again_counts_with_its_last_end() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "a"}]})).unwrap();
        let mut waiting = container("a", None);
        waiting["lastState"] = json!({"terminated": {"exitCode": 5}});
        let status: PodStatus =
            serde_json::from_value(json!({"phase": "Failed", "containerStatuses": [waiting]})).unwrap();
        assert_eq!(of_pod(&spec, &status), Some(5));
    }

    #[test]
    fn of_several_pods_the_first_bad_one_counts() {
        assert_eq!([of_all([0, 0]), of_all([0, 9, 3]), of_all([])], [0, 9, 0]);
    }
}
