//! What a kubelet declares of itself in `status.declaredFeatures`, by minor.
//!
//! kube-scheduler compares the list with what a pod needs, and a candidate's Node must not be found wanting before its
//! kubelet has reported. The lists are what `discoverNodeDeclaredFeatures` (pkg/kubelet/kubelet_node_declared_features.go)
//! finds with the feature gates' defaults, which our configuration leaves alone: the registry in k8s.io/component-helpers
//! (nodedeclaredfeatures/features/registry.go) without features whose gate is alpha, in the order of their names.
//! UserNamespacesHostNetworkSupport is alpha in both minors.

/// Features of a kubelet of Kubernetes 1.`minor`; none where the minor is not known.
pub fn declared_features(minor: u32) -> Option<&'static [&'static str]> {
    DECLARED.iter().find(|(known, _)| *known == minor).map(|(_, features)| *features)
}

const DECLARED: [(u32, &[&str]); 2] = [
    (
        36,
        &[
            "ExtendWebSocketsToKubelet",
            "InPlacePodLevelResourcesVerticalScaling",
            "InPlacePodVerticalScalingInitContainers",
            "RestartAllContainersOnContainerExits",
        ],
    ),
    (
        37,
        &[
            "ExtendWebSocketsToKubelet",
            "InPlacePodLevelResourcesVerticalScaling",
            "InPlacePodVerticalScalingInitContainers",
            "RestartAllContainersOnContainerExits",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_the_order_that_the_api_server_wants_and_unknown_minors_have_none() {
        for (minor, features) in DECLARED {
            assert!(features.is_sorted(), "{minor}");
            assert_eq!(declared_features(minor), Some(features));
        }
        assert_eq!(declared_features(20), None);
    }
}
