//! The table of keys. A key that is missing here is refused by the loader, unknown to editors and not documented.

/// What a key may contain.
pub(super) enum Kind {
    /// Any scalar.
    Text,
    /// A whole number up to a limit.
    Number(u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text, or a list of texts.
    TextOrList,
    /// A list of texts.
    Texts,
    /// A list of mappings.
    Maps(&'static [Field]),
    /// A mapping.
    Map(&'static [Field]),
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// One or two sentences: what it does, in which unit, and what an absent key means where no constant default says it.
    pub(super) about: &'static str,
}

const fn need(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: true, about }
}

const fn may(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: false, about }
}

const PORT: Kind = Kind::Number(u16::MAX as u64);
const COUNT: Kind = Kind::Number(u32::MAX as u64);

const SSH: &[Field] = &[
    may("user", Kind::Text, "Login name."),
    may("port", PORT, "TCP port of sshd."),
    may(
        "identityFile",
        Kind::Text,
        "Private key, relative to cluster.yaml or below `~/`. Empty: the keys of ssh-agent, then the usual files in `~/.ssh`.",
    ),
    may("knownHosts", Kind::Text, "File of known host keys, in OpenSSH's format."),
    may("jump", Kind::Texts, "Jump hosts, in order, each as `[user@]host[:port]`."),
    may(
        "sudo",
        Kind::Word(&["none", "nopasswd", "password"]),
        "How the login becomes root. `none`: the login is root. `nopasswd`: sudo without a password. `password`: sudo with a \
         password, which kmctl asks for once per command.",
    ),
    may("connectTimeout", Kind::Text, "Limit for one connection attempt, a duration such as `10s`."),
];

const QUANTITIES: &[Field] = &[
    need("cpu", Kind::Text, "CPU, a Kubernetes quantity such as `250m`; at least `10m`."),
    need("memory", Kind::Text, "Memory, a Kubernetes quantity such as `512Mi`."),
];

const MESOS: &[Field] = &[
    need(
        "master",
        Kind::TextOrList,
        "Address of the Mesos master, or a list with all of them: `host:port`, `http://host:port` or `https://host:port`. kmctl \
         and km-scheduler find the leading one.",
    ),
    may("user", Kind::Text, "User that executors run as."),
    may(
        "roles",
        Kind::Texts,
        "Roles the framework subscribes with. Pods use the first one unless an annotation names another.",
    ),
    may("principal", Kind::Text, "Principal, where Mesos authenticates frameworks. Empty: no authentication."),
    may(
        "secretFile",
        Kind::Text,
        "File with the principal's secret, relative to cluster.yaml. `principal` and `secretFile` need each other.",
    ),
    may(
        "caFile",
        Kind::Text,
        "CA certificates in PEM, relative to cluster.yaml, for masters that are written as `https://`.",
    ),
    may(
        "frameworkName",
        Kind::Text,
        "Name of the framework, unique in Mesos. Empty: `kubernetes-` and the cluster's name.",
    ),
];

const HOST: &[Field] = &[
    need("address", Kind::Text, "Address that SSH and the other hosts connect to."),
    may("name", Kind::Text, "Name of the host in messages and of its etcd member. Empty: the address."),
    may(
        "hostKey",
        Kind::Text,
        "Fingerprint of the host's SSH key, as `ssh-keygen -lf` prints it. Empty: known_hosts decides.",
    ),
    may("ssh", Kind::Map(SSH), "What differs from `spec.ssh` for this host."),
];

const SPEC: &[Field] = &[
    need("mesos", Kind::Map(MESOS), "The Mesos cluster, and how the framework registers with it."),
    may("ssh", Kind::Map(SSH), "How kmctl reaches the control-plane hosts."),
    need(
        "controlPlane",
        Kind::Map(&[
            need("endpoint", Kind::Text, "Address of the API server for clients and nodes, `host:port`."),
            need(
                "hosts",
                Kind::Maps(HOST),
                "Control-plane hosts. An even number of them tolerates no more failures than one less.",
            ),
        ]),
        "The hosts that run etcd, the API server, and the controllers. `kmctl runonce` works without it.",
    ),
    may(
        "kubernetes",
        Kind::Map(&[
            may("version", Kind::Text, "Version of Kubernetes. Absent: the version of the bundle, where there is one."),
            may("serviceCIDR", Kind::Text, "Addresses of Services, IPv4 in CIDR notation, /12 to /28."),
            may("clusterDomain", Kind::Text, "DNS domain of the cluster."),
            may(
                "nodePortRange",
                Kind::Text,
                "Ports of NodePort Services, `first-last`. They must not be ports that Mesos offers.",
            ),
        ]),
        "Version and addresses of Kubernetes.",
    ),
    may(
        "nodes",
        Kind::Map(&[
            may("min", COUNT, "Number of nodes that are kept when idle. `kmctl scale` changes it live."),
            may("max", COUNT, "Maximum number of nodes. Absent: every eligible agent. `kmctl scale` changes it live."),
            may("idleTimeout", Kind::Text, "How long a node without pods is kept, a duration such as `10m`."),
            may(
                "overhead",
                Kind::Map(QUANTITIES),
                "What the node's own processes get in Mesos, beside the pods' tasks.",
            ),
            may("podDefaults", Kind::Map(QUANTITIES), "What a container gets that requests nothing."),
            may(
                "constraints",
                Kind::Maps(&[
                    need("attribute", Kind::Text, "Name of the Mesos agent's attribute."),
                    need("in", Kind::Texts, "Accepted values."),
                ]),
                "Which agents may become nodes: those whose attributes have one of the accepted values, for every constraint.",
            ),
            may(
                "rootDir",
                Kind::Text,
                "Directory for the nodes' files on agents. Empty: `/var/lib/kmctl/` and the cluster's name.",
            ),
        ]),
        "Number and size of nodes.",
    ),
    may(
        "network",
        Kind::Map(&[
            may(
                "mode",
                Kind::Word(&["hostPorts", "cni"]),
                "How pods are reached. `hostPorts`: through host ports that Mesos granted. `cni`: at their own addresses, by a CNI \
                 plugin from the bundle.",
            ),
            may(
                "podCIDR",
                Kind::Text,
                "With `hostPorts`: addresses of pods, the same on every node. With `cni`: the network of all pods. IPv4 in CIDR notation, /8 to /28.",
            ),
            may(
                "proxyMode",
                Kind::Word(&["iptables", "nftables"]),
                "How kube-proxy writes its rules. A node whose agent cannot use nftables uses iptables and says why.",
            ),
        ]),
        "Network of pods and Services.",
    ),
    may(
        "bundle",
        Kind::Text,
        "Path of the bundle, relative to cluster.yaml. Absent: kmctl creates one from upstream's releases and keeps it in \
         `~/.cache/kmctl`.",
    ),
];

pub(super) const ROOT: &[Field] = &[
    need("apiVersion", Kind::Text, "`kmctl.io/v1alpha1`."),
    need("kind", Kind::Text, "`Cluster`."),
    need(
        "metadata",
        Kind::Map(&[need("name", Kind::Text, "Name of the cluster, a DNS label.")]),
        "What identifies the cluster.",
    ),
    need("spec", Kind::Map(SPEC), "The desired state."),
];
