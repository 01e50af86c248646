//! What a control-plane host should have.
use sha2::{Digest, Sha256};

use crate::render::{self, RenderError, Settings};
use kmctl_core::bundle::{Manifest, Purpose};
use kmctl_core::cluster::{Cluster, HostSpec, KubernetesSpec, NetworkMode};
use kmctl_core::k8s::{self, Version};
use kmctl_core::pki::LeafSpec;
use kmctl_core::protocol::host::{
    ADMIN, AuthoritySpec, CertificateSpec, DirectorySpec, ETCD, ETCD_DATA, ETCD_ENVIRONMENT, EncryptionKeySpec, FORMAT,
    FileSpec, HealthSpec, HostManifest, Item, KM, KeyPairSpec, KubeconfigSpec, LIBRARY, MemberSpec, ObjectSpec,
    ObjectsSpec, ProgramSpec, STATE, SYSTEMD, SecretSpec, SnapshotSpec, UnitSpec, VoteSpec,
};
use kmctl_core::protocol::scheduler::{
    ArtifactServer, EXTENDER_CLIENT, ExtenderServer, MesosConnection, PeerServer, SchedulerConfiguration,
};

/// Inputs from the operator's machine in addition to cluster.yaml.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The bundle's table of contents.
    pub bundle: Manifest,
    /// The table of contents, verbatim.
    pub bundle_text: String,
    /// sha256 of the principal's secret. `None` if the file is not here and the hosts keep theirs.
    pub mesos_secret: Option<String>,
    /// Authority of an https master, PEM.
    pub mesos_authority: Option<String>,
}

/// Path of the principal's secret on the host.
pub const MESOS_SECRET: &str = "/etc/kmctl/mesos-secret";

pub(super) const SETTINGS: &str = "/etc/kmctl/scheduler.yaml";
const MESOS_AUTHORITY: &str = "/etc/kmctl/mesos-ca.crt";
/// Created by kube-controller-manager.
const DEFAULT_SERVICE_ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/default";
const ENCRYPTION: &str = "/etc/kubernetes/encryption.yaml";
/// How long a component may take to answer after its start, in seconds.
const START_SECONDS: u64 = 120;

/// The manifest of one host, in the order in which it is applied.
pub fn desired(cluster: &Cluster, host: &HostSpec, inputs: &Inputs) -> Result<HostManifest, RenderError> {
    let unusable = |error: &dyn std::error::Error| RenderError::Cluster(format!("invalid bundle: {error}"));
    let version: Version = inputs.bundle.kubernetes.parse().map_err(|error| unusable(&error))?;
    version.row().map_err(|error| unusable(&error))?;
    let (library, etcd) = libraries(&inputs.bundle);
    let settings = settings(cluster, host, &inputs.bundle)?;
    let builder = Builder { cluster, host, inputs, settings, library, etcd };
    let mut items = builder.directories();
    items.push(Item::Founder);
    items.extend(builder.programs());
    items.extend(builder.credentials()?);
    items.extend(builder.files()?);
    items.extend(builder.running()?);
    Ok(HostManifest {
        format: FORMAT,
        cluster: cluster.metadata.name.clone(),
        host: host.name.clone(),
        version: version.to_string(),
        items,
    })
}

struct Builder<'a> {
    cluster: &'a Cluster,
    host: &'a HostSpec,
    inputs: &'a Inputs,
    settings: Settings,
    library: String,
    etcd: String,
}

/// The settings that a host's templates are rendered with.
pub fn settings(cluster: &Cluster, host: &HostSpec, bundle: &Manifest) -> Result<Settings, RenderError> {
    let (library, etcd) = libraries(bundle);
    render::settings(cluster, host, &library, &etcd)
}

/// The names of the directories of a bundle's files and of etcd's own.
fn libraries(bundle: &Manifest) -> (String, String) {
    (format!("{LIBRARY}/{}", bundle.kubernetes), format!("{LIBRARY}/{}", etcd_folder(bundle)))
}

/// The directory of etcd's binaries, named after their content. A bundle with the same etcd, such as that of the next
/// Kubernetes patch release, has them in the same place, so that etcd is not restarted.
fn etcd_folder(bundle: &Manifest) -> String {
    let programs = bundle.files.iter().filter(|file| is_etcd(&file.path));
    let digest = Sha256::digest(programs.map(|file| file.sha256.as_str()).collect::<Vec<_>>().join("\n"));
    format!("etcd-{}", hex::encode(&digest[..6]))
}

/// Whether a path in the bundle is a binary of etcd.
fn is_etcd(path: &str) -> bool {
    path.starts_with("bin/etcd")
}

impl Builder<'_> {
    fn directories(&self) -> Vec<Item> {
        let folder = |path: &str, mode, data| Item::Directory(DirectorySpec { path: path.to_owned(), mode, data });
        let mut all = vec![
            folder("/etc/kubernetes", 0o755, false),
            folder(render::PKI, 0o755, false),
            folder(&format!("{}/etcd", render::PKI), 0o755, false),
            folder("/etc/kmctl", 0o755, false),
            folder(ETCD_DATA, 0o700, true),
            folder(STATE, 0o755, false),
            folder(&format!("{STATE}/units"), 0o700, true),
            folder(&format!("{STATE}/scheduler"), 0o700, true),
            folder(&format!("{STATE}/snapshots"), 0o700, true),
            // kube-controller-manager creates it, and by default in a place where it would never be removed.
            folder(render::VOLUME_PLUGINS, 0o755, true),
            folder(LIBRARY, 0o755, false),
            folder(&self.library, 0o755, false),
            folder(&self.etcd, 0o755, false),
            folder(&format!("{}/bin", self.etcd), 0o755, false),
        ];
        let mut parts: Vec<&str> = self
            .inputs
            .bundle
            .files
            .iter()
            .filter_map(|file| file.path.rsplit_once('/'))
            .map(|(part, _)| part)
            .collect();
        parts.sort_unstable();
        parts.dedup();
        all.extend(parts.into_iter().map(|part| folder(&format!("{}/{part}", self.library), 0o755, false)));
        all
    }

    /// All of the bundle, because the km scheduler serves nodes their part of it. The control plane's binaries are
    /// first.
    fn programs(&self) -> Vec<Item> {
        let mut files: Vec<_> = self.inputs.bundle.files.iter().collect();
        files.sort_by_key(|file| (!file.purposes.contains(&Purpose::ControlPlane), &file.path));
        let mut items: Vec<Item> = files
            .into_iter()
            .map(|file| {
                Item::Program(ProgramSpec {
                    path: self.on_host(&file.path),
                    mode: if is_program(&file.path) { 0o755 } else { 0o644 },
                    sha256: file.sha256.clone(),
                    size: file.size,
                })
            })
            .collect();
        items.push(Item::File(FileSpec {
            path: self.bundle_manifest(),
            mode: 0o644,
            text: self.inputs.bundle_text.clone(),
            data: false,
        }));
        items
    }

    /// The path of a bundle's file on the host.
    fn on_host(&self, path: &str) -> String {
        format!("{}/{path}", if is_etcd(path) { &self.etcd } else { &self.library })
    }

    fn bundle_manifest(&self) -> String {
        format!("{}/manifest.json", self.library)
    }

    fn credentials(&self) -> Result<Vec<Item>, RenderError> {
        let pki = |name: &str| format!("{}/{name}", render::PKI);
        let authority = |path: &str, common_name: &str| {
            Item::Authority(AuthoritySpec { path: pki(path), common_name: common_name.to_owned() })
        };
        let certificate = |path: &str, authority: &str, leaf| {
            Item::Certificate(CertificateSpec { path: pki(path), authority: pki(authority), leaf })
        };
        let local = || ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let mut etcd_names = local();
        etcd_names.extend([self.host.name.clone(), self.settings.address.clone()]);
        etcd_names.dedup();
        // The leading km scheduler is queried by the others.
        let mut extender_names = local();
        extender_names.push(self.settings.address.clone());
        let here = format!("https://{}:6443", self.settings.url_address);
        let kubeconfig = |file: &str, server: &str, user: &str, group: Option<&str>| {
            Item::Kubeconfig(KubeconfigSpec {
                path: format!("/etc/kubernetes/{file}.conf"),
                cluster: self.cluster.metadata.name.clone(),
                server: server.to_owned(),
                authority: pki("ca"),
                leaf: client(user, group),
            })
        };
        Ok(vec![
            authority("ca", "kubernetes"),
            authority("etcd/ca", "etcd"),
            authority("front-proxy-ca", "front-proxy"),
            Item::KeyPair(KeyPairSpec { path: pki("sa") }),
            Item::EncryptionKey(EncryptionKeySpec { path: ENCRYPTION.to_owned() }),
            // etcd presents the same certificate to clients and, as a client itself, to its peers.
            certificate("etcd/server", "etcd/ca", LeafSpec { client: true, ..server(&self.host.name, etcd_names) }),
            certificate("apiserver-etcd-client", "etcd/ca", client("kube-apiserver-etcd-client", None)),
            certificate("apiserver", "ca", server("kube-apiserver", self.api_server_names()?)),
            certificate("apiserver-kubelet-client", "ca", client("kube-apiserver-kubelet-client", None)),
            certificate("front-proxy-client", "front-proxy-ca", client("front-proxy-client", None)),
            certificate("controller-manager", "ca", server("kube-controller-manager", local())),
            certificate("scheduler", "ca", server("kube-scheduler", local())),
            certificate("extender-server", "ca", server("km-scheduler", extender_names)),
            certificate("extender-client", "ca", client(EXTENDER_CLIENT, None)),
            // Used on the host itself. `kmctl kubeconfig` writes the endpoint into its output.
            kubeconfig("admin", &here, "kubernetes-admin", Some("system:masters")),
            kubeconfig("controller-manager", &here, "system:kube-controller-manager", None),
            kubeconfig("scheduler", &here, "system:kube-scheduler", None),
            kubeconfig("km-scheduler", &here, "system:km-scheduler", None),
            kubeconfig("km-endpoints", &here, "system:km-endpoints", None),
        ])
    }

    /// Every name under which an API server is reached.
    fn api_server_names(&self) -> Result<Vec<String>, RenderError> {
        let domain = &self.settings.cluster_domain;
        let mut names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
        names.push(format!("kubernetes.default.svc.{domain}"));
        names.push("localhost".to_owned());
        names.push("127.0.0.1".to_owned());
        names.push(first_service_address(&self.cluster.spec.kubernetes)?);
        let (endpoint, _) = self.settings.endpoint.rsplit_once(':').ok_or_else(|| {
            RenderError::Cluster(format!("controlPlane.endpoint `{}` has no port", self.settings.endpoint))
        })?;
        // Not the other hosts' names: adding or removing a host would change the certificates of all.
        let own = [self.host.name.as_str(), self.host.address.as_str()];
        for name in own.into_iter().chain([endpoint.trim_start_matches('[').trim_end_matches(']')]) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn files(&self) -> Result<Vec<Item>, RenderError> {
        let file = |path: String, mode, text, data| Item::File(FileSpec { path, mode, text, data });
        let mut items = Vec::new();
        if !self.cluster.spec.mesos.principal.is_empty() {
            let sha256 = self.inputs.mesos_secret.clone();
            items.push(Item::Secret(SecretSpec { path: MESOS_SECRET.to_owned(), sha256 }));
        }
        if let Some(text) = &self.inputs.mesos_authority {
            items.push(file(MESOS_AUTHORITY.to_owned(), 0o644, text.clone(), true));
        }
        items.push(file(SETTINGS.to_owned(), 0o644, self.scheduler_settings()?, true));
        for template in &render::HOST {
            let path = format!("/{}", template.path);
            if path.starts_with(SYSTEMD) && !self.units().iter().any(|unit| path.ends_with(&format!("/{unit}"))) {
                continue;
            }
            items.push(file(path, 0o644, render::render(template, &self.settings)?, false));
        }
        Ok(items)
    }

    fn scheduler_settings(&self) -> Result<String, RenderError> {
        let spec = &self.cluster.spec;
        let pki = |name: &str| format!("{}/{name}", render::PKI).into();
        let artifacts = std::net::SocketAddr::new(render::host_address(self.host)?, 10271);
        let configuration = SchedulerConfiguration {
            cluster: self.cluster.metadata.name.clone(),
            mesos: MesosConnection {
                masters: spec.mesos.master.0.iter().map(|master| master_url(master)).collect::<Result<_, _>>()?,
                user: spec.mesos.user.clone(),
                roles: spec.mesos.roles.clone(),
                principal: spec.mesos.principal.clone(),
                secret_file: (!spec.mesos.principal.is_empty()).then(|| MESOS_SECRET.into()),
                ca_file: self.inputs.mesos_authority.as_ref().map(|_| MESOS_AUTHORITY.into()),
                framework_name: spec.mesos.framework_name.clone(),
            },
            kubeconfig: "/etc/kubernetes/km-scheduler.conf".into(),
            api_servers: self.api_servers()?,
            ca_file: pki("ca.crt"),
            state_dir: format!("{STATE}/scheduler").into(),
            extender: ExtenderServer {
                listen: std::net::SocketAddr::from(([127, 0, 0, 1], 10270)),
                cert_file: pki("extender-server.crt"),
                key_file: pki("extender-server.key"),
                peers: self.peers()?,
                client_ca_file: pki("ca.crt"),
            },
            artifacts: ArtifactServer {
                listen: artifacts,
                advertise: format!("http://{artifacts}"),
                manifest: self.bundle_manifest().into(),
            },
            kubernetes: KubernetesSpec { version: self.inputs.bundle.kubernetes.clone(), ..spec.kubernetes.clone() },
            nodes: spec.nodes.clone(),
            network: spec.network.clone(),
        };
        let text = serde_yaml::to_string(&configuration)
            .map_err(|error| RenderError::Cluster(format!("failed to render {SETTINGS}: {error}")))?;
        Ok(format!("# Written by kmctl; a change here is undone by the next `kmctl up`.\n{text}"))
    }

    /// The endpoint, and every host's own API server in case the endpoint does not answer.
    fn api_servers(&self) -> Result<Vec<String>, RenderError> {
        let mut servers = vec![format!("https://{}", self.settings.endpoint)];
        for host in &self.cluster.spec.control_plane.hosts {
            let server = format!("https://{}:6443", render::in_url(render::host_address(host)?));
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    /// With one host there is no peer to forward requests to, and the extender listens only on loopback.
    fn peers(&self) -> Result<Option<PeerServer>, RenderError> {
        if self.cluster.spec.control_plane.hosts.len() < 2 {
            return Ok(None);
        }
        let pki = |name: &str| format!("{}/{name}", render::PKI).into();
        Ok(Some(PeerServer {
            listen: std::net::SocketAddr::new(render::host_address(self.host)?, 10270),
            cert_file: pki("extender-client.crt"),
            key_file: pki("extender-client.key"),
        }))
    }

    /// In the order of their start.
    fn units(&self) -> Vec<&'static str> {
        let mut units = vec![
            ETCD,
            "kube-apiserver.service",
            "kube-controller-manager.service",
            "kube-scheduler.service",
            "km-scheduler.service",
        ];
        if self.cluster.spec.network.mode == NetworkMode::HostPorts {
            units.push("km-endpoints.service");
        }
        units
    }

    /// A unit, with everything that its process reads only at its start.
    fn unit(&self, name: &str) -> Item {
        let bin = |program: &str| self.on_host(&format!("bin/{program}"));
        let pki =
            |names: &[&str]| -> Vec<String> { names.iter().map(|name| format!("{}/{name}", render::PKI)).collect() };
        let conf = |name: &str| format!("/etc/kubernetes/{name}.conf");
        let mut reads = vec![format!("{SYSTEMD}/{name}")];
        match name {
            ETCD => {
                reads.push(bin("etcd"));
                reads.extend(pki(&["etcd/ca.crt", "etcd/server.crt", "etcd/server.key"]));
            }
            "kube-apiserver.service" => {
                reads.extend([bin("kube-apiserver"), ENCRYPTION.to_owned()]);
                reads.extend(pki(&[
                    "ca.crt",
                    "front-proxy-ca.crt",
                    "etcd/ca.crt",
                    "apiserver.crt",
                    "apiserver.key",
                    "apiserver-etcd-client.crt",
                    "apiserver-etcd-client.key",
                    "apiserver-kubelet-client.crt",
                    "apiserver-kubelet-client.key",
                    "front-proxy-client.crt",
                    "front-proxy-client.key",
                    "sa.key",
                    "sa.pub",
                ]));
            }
            "kube-controller-manager.service" => {
                reads.extend([bin("kube-controller-manager"), conf("controller-manager")]);
                reads.extend(pki(&[
                    "ca.crt",
                    "ca.key",
                    "front-proxy-ca.crt",
                    "controller-manager.crt",
                    "controller-manager.key",
                    "sa.key",
                ]));
            }
            "kube-scheduler.service" => {
                reads.extend([bin("kube-scheduler"), conf("scheduler"), "/etc/kubernetes/scheduler.yaml".to_owned()]);
                reads.extend(pki(&[
                    "ca.crt",
                    "scheduler.crt",
                    "scheduler.key",
                    "extender-client.crt",
                    "extender-client.key",
                ]));
            }
            "km-scheduler.service" => {
                reads.extend([KM.to_owned(), SETTINGS.to_owned(), conf("km-scheduler"), self.bundle_manifest()]);
                reads.extend(pki(&["ca.crt", "extender-server.crt", "extender-server.key"]));
                if self.cluster.spec.control_plane.hosts.len() > 1 {
                    reads.extend(pki(&["extender-client.crt", "extender-client.key"]));
                }
                if !self.cluster.spec.mesos.principal.is_empty() {
                    reads.push(MESOS_SECRET.to_owned());
                }
                if self.inputs.mesos_authority.is_some() {
                    reads.push(MESOS_AUTHORITY.to_owned());
                }
            }
            _ => reads.extend([KM.to_owned(), SETTINGS.to_owned(), conf("km-endpoints")]),
        }
        Item::Unit(UnitSpec { name: name.to_owned(), reads })
    }

    /// What runs, and what is written to the API: etcd first, then the API server, then everything that uses it.
    fn running(&self) -> Result<Vec<Item>, RenderError> {
        let pki = |name: &str| format!("{}/{name}", render::PKI);
        let health = |name: &str, url: String, authority: &str, client: &str, unit: &str| {
            Item::Health(HealthSpec {
                name: format!("{name} is healthy"),
                url,
                authority: Some(pki(authority)),
                client: Some(pki(client)),
                kubeconfig: None,
                unit: format!("{unit}.service"),
                seconds: START_SECONDS,
            })
        };
        let mut items = vec![
            Item::Snapshot(SnapshotSpec {
                program: self.on_host("bin/etcdctl"),
                credentials: [pki("etcd/ca.crt"), pki("apiserver-etcd-client.crt"), pki("apiserver-etcd-client.key")],
                endpoint: "https://127.0.0.1:2379".to_owned(),
                folder: format!("{STATE}/snapshots"),
            }),
            Item::Member(self.member()?),
            self.unit(ETCD),
            Item::Vote(VoteSpec(self.member()?)),
            health("etcd", "https://127.0.0.1:2379/health".to_owned(), "etcd/ca", "apiserver-etcd-client", "etcd"),
            self.unit("kube-apiserver.service"),
            health(
                "kube-apiserver",
                format!("https://{}:6443/readyz", self.settings.url_address),
                "ca",
                "apiserver-kubelet-client",
                "kube-apiserver",
            ),
        ];
        // Every host's manifest contains them. The first usable host writes them.
        items.push(Item::Objects(ObjectsSpec { kubeconfig: ADMIN.to_owned(), objects: self.objects()? }));
        items.extend(self.units().iter().skip(2).map(|unit| self.unit(unit)));
        for (name, port) in [("kube-controller-manager", 10257), ("kube-scheduler", 10259)] {
            let url = format!("https://127.0.0.1:{port}/healthz");
            items.push(health(name, url, "ca", "apiserver-kubelet-client", name));
        }
        items.push(Item::Health(HealthSpec {
            name: "km-scheduler is healthy".to_owned(),
            url: format!("http://{}:10271/healthz", self.settings.url_address),
            authority: None,
            client: None,
            kubeconfig: None,
            unit: "km-scheduler.service".to_owned(),
            seconds: START_SECONDS,
        }));
        // Until it exists the API server refuses every pod: a `kubectl run` right after `up` would fail.
        items.push(Item::Health(HealthSpec {
            name: "the default service account exists".to_owned(),
            url: format!("https://{}:6443{DEFAULT_SERVICE_ACCOUNT}", self.settings.url_address),
            authority: None,
            client: None,
            kubeconfig: Some(ADMIN.to_owned()),
            unit: "kube-controller-manager.service".to_owned(),
            seconds: START_SECONDS,
        }));
        Ok(items)
    }

    fn member(&self) -> Result<MemberSpec, RenderError> {
        let hosts = &self.cluster.spec.control_plane.hosts;
        let others = hosts.iter().filter(|other| other.name != self.host.name);
        let client = |other: &HostSpec| Ok(format!("https://{}:2379", render::in_url(render::host_address(other)?)));
        Ok(MemberSpec {
            name: self.host.name.clone(),
            peer: format!("https://{}:2380", self.settings.url_address),
            local: "https://127.0.0.1:2379".to_owned(),
            others: others.map(client).collect::<Result<_, RenderError>>()?,
            environment: ETCD_ENVIRONMENT.to_owned(),
            authority: format!("{}/etcd/ca", render::PKI),
            client: format!("{}/apiserver-etcd-client", render::PKI),
        })
    }

    fn objects(&self) -> Result<Vec<ObjectSpec>, RenderError> {
        let mut objects = Vec::new();
        for template in &render::API {
            let text = render::render(template, &self.settings)?;
            // `kmctl scale` owns the live settings.
            let keep = template.path == "api/settings.yaml";
            let read = k8s::manifests(template.path, &text)?;
            objects.extend(read.into_iter().map(|object| ObjectSpec { object, keep }));
        }
        Ok(objects)
    }
}

fn server(common_name: &str, names: Vec<String>) -> LeafSpec {
    LeafSpec { common_name: common_name.to_owned(), organization: None, names, server: true, client: false }
}

fn client(common_name: &str, organization: Option<&str>) -> LeafSpec {
    LeafSpec {
        common_name: common_name.to_owned(),
        organization: organization.map(str::to_owned),
        names: Vec::new(),
        server: false,
        client: true,
    }
}

/// The address of the Service `kubernetes`: the first one of the range.
fn first_service_address(spec: &KubernetesSpec) -> Result<String, RenderError> {
    let wrong = || RenderError::Cluster(format!("kubernetes.serviceCIDR `{}` is not a subnet", spec.service_cidr));
    let (base, _) = spec.service_cidr.split_once('/').ok_or_else(wrong)?;
    Ok(match base.parse().map_err(|_| wrong())? {
        std::net::IpAddr::V4(base) => std::net::Ipv4Addr::from_bits(base.to_bits() + 1).to_string(),
        std::net::IpAddr::V6(base) => std::net::Ipv6Addr::from_bits(base.to_bits() + 1).to_string(),
    })
}

/// Whether a file of the bundle is executed, not read.
fn is_program(path: &str) -> bool {
    !["images/", "cni.d/", "licenses/"].iter().any(|part| path.starts_with(part))
}

fn master_url(master: &str) -> Result<String, RenderError> {
    if master.starts_with("zk://") {
        return Err(RenderError::Cluster(format!("mesos.master `{master}`: ZooKeeper is not supported yet")));
    }
    let has_scheme = master.starts_with("http://") || master.starts_with("https://");
    Ok(if has_scheme { master.trim_end_matches('/').to_owned() } else { format!("http://{master}") })
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
