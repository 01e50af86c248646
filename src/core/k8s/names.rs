//! Names of annotations, labels, groups and objects that this project creates in the Kubernetes API.

/// Namespace of everything that the project keeps in the API.
pub const NAMESPACE: &str = "kube-system";

/// Namespace of events about Nodes, which have no namespace themselves.
pub const NAMESPACE_OF_NODE_EVENTS: &str = "default";

/// ConfigMap with the live settings. Keys: `min` and `max` (node bounds, decimal; `none` for no bound; absent for the
/// value in cluster.yaml), `purge` (`"true"` while purging, then `"done"`) and `uncleaned` (of a purge that is over).
pub const SETTINGS_CONFIG_MAP: &str = "kmctl-settings";

/// Key of `kmctl-settings`: the agents that the last purge could not clean, with the reason; a JSON map.
pub const UNCLEANED_KEY: &str = "uncleaned";

/// ConfigMap with the framework id (key `id`) and the agents that ever had a node (key `agents`, JSON list).
pub const FRAMEWORK_CONFIG_MAP: &str = "kmctl-framework";

/// ConfigMap with the cluster's name and its random id (keys `name` and `id`), as the control-plane hosts have them.
pub const CLUSTER_CONFIG_MAP: &str = "kmctl-cluster";

/// Group of the bootstrap tokens that node tasks carry.
pub const BOOTSTRAP_GROUP: &str = "system:bootstrappers:kmctl";

/// Prefix of node labels that mirror a Mesos agent's attributes; the name dates from the historical project.
pub const ATTRIBUTE_LABEL_PREFIX: &str = "k8s.mesosphere.io/attribute-";

/// Pod annotation naming the Mesos roles a pod may use; the name dates from the historical project.
pub const ROLES_ANNOTATION: &str = "k8s.mesosphere.io/roles";

/// Pod annotation that is patched to make kube-scheduler reconsider the pod.
pub const NUDGE_ANNOTATION: &str = "kmctl.io/nudge";

/// Pod annotation, set with the Binding: the id of the pod's Mesos task.
pub const TASK_ANNOTATION: &str = "kmctl.io/task";

/// Pod annotation, set with the Binding: granted host ports, a JSON list of `PortMapping`.
pub const PORTS_ANNOTATION: &str = "kmctl.io/ports";

/// Pod annotation, set with the Binding: what the pod's Mesos task was granted, e.g. `cpus:0.25;mem:96`.
pub const GRANTED_ANNOTATION: &str = "kmctl.io/granted";

/// Node annotation: the agent's id in Mesos.
pub const AGENT_ID_ANNOTATION: &str = "kmctl.io/agent-id";

/// Node annotation: candidate, starting, ready or leaving.
pub const STATE_ANNOTATION: &str = "kmctl.io/state";

/// Node annotation: why the node is in its state, for humans; only set while it is leaving.
pub const REASON_ANNOTATION: &str = "kmctl.io/reason";

/// Node annotation: the exact ExecutorInfo (JSON) of the node's executor, sent verbatim as long as the executor lives.
pub const EXECUTOR_ANNOTATION: &str = "kmctl.io/executor";

/// Node annotation: the id of the node task.
pub const NODE_TASK_ANNOTATION: &str = "kmctl.io/node-task";

/// Node annotation: what Mesos has granted to the node, e.g. `cpus:0.75;mem:644`.
pub const GRANT_ANNOTATION: &str = "kmctl.io/grant";

/// Node annotation: how the node's kube-proxy writes its rules, e.g. `iptables (nft)` or `nftables`. Set by the node.
pub const PROXY_MODE_ANNOTATION: &str = "kmctl.io/proxy-mode";

/// Node annotation: why its kube-proxy is not in the requested mode; absent if it is. Set by the node.
pub const PROXY_REASON_ANNOTATION: &str = "kmctl.io/proxy-mode-reason";

/// Node annotation: id (not secret) of the bootstrap token handed to the node.
pub const TOKEN_ID_ANNOTATION: &str = "kmctl.io/bootstrap-token-id";

/// Label on every object that the project owns; the value is the component that wrote it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`] on objects that km scheduler writes.
pub const MANAGER: &str = "km-scheduler";
