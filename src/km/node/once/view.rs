//! The kubelet's status of a static pod. Pure.
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::super::decide::{PodPhase, PodView};
use super::super::real;
use runonce::decide::exit;

/// The agent's view of a pod, and its exit code once it has ended.
pub fn seen(pod: &Pod) -> (PodView, Option<u8>) {
    let view = real::view(pod);
    let ended = matches!(view.phase, PodPhase::Succeeded | PodPhase::Failed);
    let code = match (&pod.spec, &pod.status) {
        (Some(spec), Some(status)) if ended => exit::of_pod(spec, status),
        _ => None,
    };
    (view, code)
}

/// Why a container cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// A message with the container's name.
    pub why: String,
    /// Whether a retry would change nothing.
    pub hopeless: bool,
}

/// A container that may wait indefinitely: the kubelet retries forever, a run must not.
pub fn stuck(pod: &Pod) -> Option<StartFailure> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.filter_map(stuck_container).next()
}

fn stuck_container(status: &ContainerStatus) -> Option<StartFailure> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let hopeless = match reason {
        "ErrImageNeverPull" | "InvalidImageName" => true,
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError" => false,
        _ => return None,
    };
    let message = waiting.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    Some(StartFailure { why: format!("container {} cannot be started: {reason}{message}", status.name), hopeless })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, state: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-n1", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [{"name": "a"}]},
            "status": {"phase": phase, "containerStatuses": [
                {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_has_an_exit_code_only_when_it_has_ended() {
        let three = json!({"terminated": {"exitCode": 3}});
        assert_eq!(seen(&pod("Failed", three.clone())).1, Some(3));
        assert_eq!(seen(&pod("Running", three)).1, None);
        assert_eq!(seen(&pod("Succeeded", json!({"terminated": {"exitCode": 0}}))).1, Some(0));
        assert_eq!(seen(&pod("Failed", json!({"waiting": {}}))).1, None, "refused by the kubelet");
    }

    #[test]
    fn waiting_for_an_image_is_told_and_what_can_never_work_is_known() {
        let waiting = |reason: &str| stuck(&pod("Pending", json!({"waiting": {"reason": reason, "message": "m"}})));
        assert_eq!(waiting("ContainerCreating"), None);
        let pulling = waiting("ImagePullBackOff").unwrap();
        assert_eq!(pulling.why, "container a cannot be started: ImagePullBackOff: m");
        assert!(!pulling.hopeless);
        assert!(waiting("ErrImageNeverPull").unwrap().hopeless);
    }
}
