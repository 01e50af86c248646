//! The host manifest: everything that a control-plane host should have, in the order in which it is applied.
use serde::{Deserialize, Serialize};

use crate::pki::LeafSpec;
use crate::protocol::host::FOUNDER;
use crate::protocol::host::MemberSpec;

/// Version of this format; `km host` refuses other versions.
pub const FORMAT: u32 = 1;

/// Everything that a host should have. Items are applied from first to last, so an item must follow everything it
/// needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the host.
    pub host: String,
    /// Kubernetes version of the bundle.
    pub version: String,
    /// The desired items, in order.
    pub items: Vec<Item>,
}

impl HostManifest {
    /// The systemd units among the items.
    pub fn units(&self) -> Vec<UnitSpec> {
        let unit = |item: &Item| match item {
            Item::Unit(spec) => Some(spec.clone()),
            _ => None,
        };
        self.items.iter().filter_map(unit).collect()
    }
}

/// One desired item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Item {
    /// A directory. Its content is not checked.
    Directory {
        path: String,
        /// Permission bits.
        mode: u32,
        /// Whether it holds data that only a purge removes.
        #[serde(default)]
        data: bool,
    },
    /// A file with known text.
    File {
        path: String,
        /// Permission bits.
        mode: u32,
        /// The whole text.
        text: String,
        /// Whether it is kept when the cluster is taken down, so that only a purge removes it.
        #[serde(default)]
        data: bool,
    },
    /// A file from the bundle.
    Program {
        path: String,
        /// Permission bits.
        mode: u32,
        /// sha256 of the unpacked bytes.
        sha256: String,
        /// Unpacked size in bytes.
        size: u64,
    },
    /// A file whose bytes are sent separately from the manifest, readable by root only. Without a digest the host's own
    /// file is kept.
    Secret {
        path: String,
        /// sha256 of the desired bytes. `None` keeps the existing file, and fails if there is none.
        sha256: Option<String>,
    },
    /// A certificate authority, created once and never replaced.
    Authority(AuthoritySpec),
    /// A pair `<path>.key` and `<path>.pub`, created once and never replaced.
    KeyPair {
        /// Path without `.key` and `.pub`.
        path: String,
    },
    /// The API server's encryption configuration with a key that is created once and never replaced.
    EncryptionKey {
        /// Path of the configuration.
        path: String,
    },
    /// A leaf certificate `<path>.crt` and its key `<path>.key`, renewed once it has less than 90 days left.
    Certificate(CertificateSpec),
    /// A kubeconfig that embeds a client certificate created on the host.
    Kubeconfig(KubeconfigSpec),
    /// Takes a snapshot of etcd, if it runs. Only sent before a running control plane is changed.
    Snapshot {
        /// Path of the etcdctl binary.
        program: String,
        /// Authority certificate, client certificate and key, in this order.
        credentials: [String; 3],
        /// Client URL of etcd.
        endpoint: String,
        /// Directory of the snapshots.
        folder: String,
    },
    /// Records the host that bootstraps the etcd cluster. Its name is only known after all hosts have been inspected,
    /// so it is sent separately from the manifest.
    Founder,
    /// Registers the host as a member of etcd, and configures how etcd starts for the first time.
    Member(MemberSpec),
    /// Waits until the host's member has caught up, and gives it its vote.
    Vote(MemberSpec),
    /// A systemd unit that should run with its current files.
    Unit(UnitSpec),
    /// Waits until a URL answers.
    Health(HealthSpec),
    /// Objects in the API.
    Objects {
        /// Path of the kubeconfig to use.
        kubeconfig: String,
        objects: Vec<ObjectSpec>,
    },
}

/// A certificate authority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthoritySpec {
    /// Path without `.crt` and `.key`.
    pub path: String,
    /// Subject CN.
    pub common_name: String,
}

/// A leaf certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// Path without `.crt` and `.key`.
    pub path: String,
    /// Path of the authority, without `.crt` and `.key`.
    pub authority: String,
    /// Content of the certificate.
    pub leaf: LeafSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeconfigSpec {
    pub path: String,
    /// Name of the cluster in the file.
    pub cluster: String,
    /// `https://address:port`.
    pub server: String,
    /// Path of the authority, without `.crt` and `.key`. It signs the client certificate and is trusted for the server.
    pub authority: String,
    /// Content of the client certificate.
    pub leaf: LeafSpec,
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitSpec {
    /// E.g. `etcd.service`.
    pub name: String,
    /// Files that the running process has read. If one of them changes, the unit is restarted.
    pub reads: Vec<String>,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthSpec {
    /// Name for messages.
    pub name: String,
    /// URL that must answer with status 200.
    pub url: String,
    /// Authority of the server's certificate, as a path without `.crt` and `.key`; `None` for plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Path of the client certificate, without `.crt` and `.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Kubeconfig whose authority and client certificate are used instead, for URLs that require authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
    /// The unit whose journal explains a failure.
    pub unit: String,
    /// Timeout in seconds.
    pub seconds: u64,
}

/// An object in the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectSpec {
    /// The object, with the same fields as in YAML.
    pub object: serde_json::Value,
    /// Whether an existing object is left unchanged, because others change it.
    #[serde(default)]
    pub keep: bool,
}

impl Item {
    /// Short name for messages: a path, a unit's name, or what is checked.
    pub fn name(&self) -> String {
        match self {
            Item::Directory { path, .. }
            | Item::File { path, .. }
            | Item::Program { path, .. }
            | Item::Secret { path, .. }
            | Item::EncryptionKey { path } => path.clone(),
            Item::Founder => FOUNDER.to_owned(),
            Item::KeyPair { path } => format!("{path}.key"),
            Item::Authority(spec) => format!("{}.crt", spec.path),
            Item::Certificate(spec) => format!("{}.crt", spec.path),
            Item::Kubeconfig(spec) => spec.path.clone(),
            Item::Snapshot { folder, .. } => folder.clone(),
            Item::Member(spec) => format!("etcd member {}", spec.name),
            Item::Vote(spec) => format!("etcd member {} votes", spec.name),
            Item::Unit(spec) => spec.name.clone(),
            Item::Health(spec) => spec.name.clone(),
            Item::Objects { objects, .. } => format!("{} API objects", objects.len()),
        }
    }

    /// The files that the item writes.
    pub fn paths(&self) -> Vec<String> {
        match self {
            Item::File { path, .. }
            | Item::Program { path, .. }
            | Item::Secret { path, .. }
            | Item::EncryptionKey { path } => vec![path.clone()],
            Item::Founder => vec![FOUNDER.to_owned()],
            Item::KeyPair { path } => vec![format!("{path}.key"), format!("{path}.pub")],
            Item::Authority(AuthoritySpec { path, .. }) | Item::Certificate(CertificateSpec { path, .. }) => {
                vec![format!("{path}.key"), format!("{path}.crt")]
            }
            Item::Kubeconfig(spec) => vec![spec.path.clone()],
            Item::Member(spec) => vec![spec.environment.clone()],
            Item::Directory { .. }
            | Item::Snapshot { .. }
            | Item::Vote(_)
            | Item::Unit(_)
            | Item::Health(_)
            | Item::Objects { .. } => Vec::new(),
        }
    }

    /// Whether the item is the same on every control-plane host. The first host creates it, and the others receive a
    /// copy.
    pub fn is_shared(&self) -> bool {
        match self {
            Item::Authority(_) | Item::KeyPair { .. } | Item::EncryptionKey { .. } => true,
            Item::Directory { .. }
            | Item::File { .. }
            | Item::Program { .. }
            | Item::Secret { .. }
            | Item::Certificate(_)
            | Item::Kubeconfig(_)
            | Item::Snapshot { .. }
            | Item::Founder
            | Item::Member(_)
            | Item::Vote(_)
            | Item::Unit(_)
            | Item::Health(_)
            | Item::Objects { .. } => false,
        }
    }
}
