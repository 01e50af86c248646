//! The text of a cluster.yaml. Pure.
use kmctl_core::cluster::{NetworkSpec, NodesSpec, SshSpec, Sudo};

/// The answers that the file is written from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) name: String,
    pub(super) masters: Vec<String>,
    pub(super) principal: String,
    pub(super) secret_file: String,
    /// Address and name.
    pub(super) hosts: Vec<(String, String)>,
    pub(super) user: String,
    pub(super) sudo: Sudo,
    pub(super) identity_file: String,
    pub(super) endpoint: String,
    pub(super) bundle: String,
}

/// Puts a text in double quotes if YAML would read it as something else.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let is_word =
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.') && text.chars().all(plain);
    let reserved =
        ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if is_word && !reserved { text.to_owned() } else { format!("{text:?}") }
}

fn sudo(sudo: Sudo) -> &'static str {
    match sudo {
        Sudo::None => "none",
        Sudo::Nopasswd => "nopasswd",
        Sudo::Password => "password",
    }
}

/// Returns the file. Keys with their default are comments: removing the `# ` makes them keys.
pub(super) fn write(answers: &Answers) -> String {
    let Answers { name, masters, principal, secret_file, hosts, user, sudo: how, identity_file, endpoint, bundle } =
        answers;
    let (ssh, nodes, network) = (SshSpec::default(), NodesSpec::default(), NetworkSpec::default());
    let kubernetes = kmctl_core::cluster::KubernetesSpec::default();
    let master = match masters.as_slice() {
        [one] => quoted(one),
        many => format!("[{}]", many.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", ")),
    };
    // A key with its default is a comment.
    let key = |name: &str, value: String, default: String| {
        let mark = if value == default { "# " } else { "" };
        format!("{mark}{name}: {value}")
    };
    let text = |name: &str, value: &str, default: &str| key(name, quoted(value), quoted(default));
    let hosts: String = hosts
        .iter()
        .map(|(address, name)| {
            let name =
                if name.is_empty() || name == address { String::new() } else { format!(", name: {}", quoted(name)) };
            format!("      - {{ address: {}{name} }}\n", quoted(address))
        })
        .collect();
    format!(
        "\
apiVersion: kmctl.io/v1alpha1
kind: Cluster
metadata:
  name: {name}
spec:
  mesos:
    # One address, or a list of all masters; https:// with TLS.
    master: {master}
    # Executors run as this user.
    # user: root
    # The first role is used. A reservation or quota for it is respected.
    # roles: [kubernetes]
    # If the master requires authentication; the file contains only the secret.
    {principal}
    {secret_file}
    # CA certificates for https:// masters.
    # caFile: \"\"
    # Unique in Mesos.
    # frameworkName: kubernetes-{name}
  # SSH access to control-plane hosts. Agents need no SSH.
  ssh:
    user: {user}
    # port: {port}
    {identity}
    # knownHosts: {known_hosts}
    # none: the user is root; nopasswd: `sudo -n`; password: prompted once.
    {sudo}
    # connectTimeout: {connect_timeout}
  controlPlane:
    # API server address for clients and nodes: a host, or a load balancer in front of all hosts.
    endpoint: {endpoint}
    # One or three hosts.
    hosts:
{hosts}  kubernetes:
    version: {version}
    # Addresses of Services; must not overlap your networks.
    # serviceCIDR: {service_cidr}
    # clusterDomain: {cluster_domain}
    # Must not overlap the ports that agents offer, 31000-32000 by default.
    # nodePortRange: {node_port_range}
  nodes:
    # Minimum number of nodes, kept even when idle; `kmctl scale` changes both limits live.
    min: {min}
    # Maximum number of nodes; default: every eligible agent.
    # max: 20
    # How long a node without pods is kept.
    # idleTimeout: {idle_timeout}
    # Resources of a node itself, in addition to its pods.
    # overhead: {{ cpu: {overhead_cpu}, memory: {overhead_memory} }}
    # For containers without requests.
    # podDefaults: {{ cpu: {pod_cpu}, memory: {pod_memory} }}
    # Eligible agents, e.g. [{{ attribute: rack, in: [r1, r2] }}]
    # constraints: []
    # Directory on agents.
    # rootDir: /var/lib/kmctl/{name}
  network:
    # hostPorts needs no overlay network: pods are reachable through host ports that Mesos allocates.
    mode: hostPorts
    # Addresses of pods on every node; must not overlap your networks.
    # podCIDR: {pod_cidr}
    # Mode of kube-proxy: iptables, or nftables where agents support it.
    # proxyMode: iptables
  # Created with `kmctl bundle create`.
  bundle: {bundle}
",
        name = name,
        principal = text("principal", principal, ""),
        secret_file = text("secretFile", secret_file, ""),
        // A mapping whose keys are all comments would be null.
        user = quoted(user),
        port = ssh.port,
        identity = text("identityFile", identity_file, ""),
        known_hosts = ssh.known_hosts,
        sudo = key("sudo", sudo(*how).to_owned(), sudo(ssh.sudo).to_owned()),
        connect_timeout = ssh.connect_timeout,
        endpoint = quoted(endpoint),
        version = kubernetes.version,
        service_cidr = kubernetes.service_cidr,
        cluster_domain = kubernetes.cluster_domain,
        node_port_range = kubernetes.node_port_range,
        min = nodes.min,
        idle_timeout = nodes.idle_timeout,
        overhead_cpu = nodes.overhead.cpu,
        overhead_memory = nodes.overhead.memory,
        pod_cpu = nodes.pod_defaults.cpu,
        pod_memory = nodes.pod_defaults.memory,
        pod_cidr = network.pod_cidr,
        bundle = quoted(bundle),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::cluster::{Cluster, ClusterSpec, HostSpec};

    /// The parsed content of the file.
    fn spec(answers: &Answers) -> ClusterSpec {
        let Answers { name: _, masters, principal, secret_file, hosts, user, sudo, identity_file, endpoint, bundle } =
            answers;
        let host = |(address, name): &(String, String)| HostSpec {
            address: address.clone(),
            name: if name == address { String::new() } else { name.clone() },
            host_key: String::new(),
            ssh: None,
        };
        ClusterSpec {
            mesos: kmctl_core::cluster::MesosSpec {
                master: kmctl_core::cluster::Masters(masters.clone()),
                user: "root".to_owned(),
                roles: vec!["kubernetes".to_owned()],
                principal: principal.clone(),
                secret_file: secret_file.clone(),
                ca_file: String::new(),
                framework_name: String::new(),
            },
            ssh: SshSpec {
                user: user.clone(),
                sudo: *sudo,
                identity_file: identity_file.clone(),
                ..SshSpec::default()
            },
            control_plane: kmctl_core::cluster::ControlPlaneSpec {
                endpoint: endpoint.clone(),
                hosts: hosts.iter().map(host).collect(),
            },
            kubernetes: kmctl_core::cluster::KubernetesSpec::default(),
            nodes: NodesSpec::default(),
            network: NetworkSpec::default(),
            bundle: Some(bundle.into()),
        }
    }

    fn answers() -> Answers {
        Answers {
            name: "demo".to_owned(),
            masters: vec!["10.0.0.5:5050".to_owned()],
            principal: String::new(),
            secret_file: String::new(),
            hosts: vec![("10.0.0.11".to_owned(), "cp1".to_owned())],
            user: "root".to_owned(),
            sudo: Sudo::None,
            identity_file: String::new(),
            endpoint: "10.0.0.11:6443".to_owned(),
            bundle: "./kubernetes-v1.37.2.bundle".to_owned(),
        }
    }

    fn everything() -> Answers {
        Answers {
            name: "big-one".to_owned(),
            masters: vec!["https://m1:5050".to_owned(), "m2:5050".to_owned()],
            principal: "no".to_owned(),
            secret_file: "my secret".to_owned(),
            hosts: vec![
                ("10.0.0.11".to_owned(), "cp1".to_owned()),
                ("10.0.0.12".to_owned(), "10.0.0.12".to_owned()),
                ("fd00::13".to_owned(), "cp3".to_owned()),
            ],
            user: "ops".to_owned(),
            sudo: Sudo::Password,
            identity_file: "~/.ssh/id: odd".to_owned(),
            endpoint: "api.example.com:6443".to_owned(),
            bundle: "b \"quoted\"".to_owned(),
        }
    }

    #[test]
    fn the_file_means_what_was_answered() {
        for answers in [answers(), everything()] {
            let text = write(&answers);
            let cluster: Cluster = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(cluster.metadata.name, answers.name);
            assert_eq!(cluster.spec, spec(&answers), "{text}");
        }
    }

    #[test]
    fn what_stands_in_comments_is_the_default() {
        let answers = answers();
        // Keys in comments become keys, sentences remain comments. `max` has no default, so its value is only an
        // example.
        let is_key = |line: &str| {
            let key = line.trim_start().strip_prefix("# ").and_then(|rest| rest.split_once(": ")).map(|(key, _)| key);
            key.is_some_and(|key| {
                key.chars().all(|c| c.is_ascii_alphabetic()) && key.starts_with(|c: char| c.is_ascii_lowercase())
            }) && !line.contains("max: 20")
                && !line.contains("none: the user")
        };
        let lines = write(&answers)
            .lines()
            .map(|line| if is_key(line) { line.replacen("# ", "", 1) } else { line.to_owned() })
            .collect::<Vec<_>>();
        let cluster: Cluster = serde_yaml::from_str(&lines.join("\n")).unwrap();
        let mut expected = spec(&answers);
        expected.mesos.framework_name = "kubernetes-demo".to_owned();
        expected.nodes.root_dir = "/var/lib/kmctl/demo".to_owned();
        assert_eq!(cluster.spec, expected, "{}", lines.join("\n"));
    }

    #[test]
    fn the_file_is_commented() {
        insta::assert_snapshot!(write(&answers()));
    }
}
