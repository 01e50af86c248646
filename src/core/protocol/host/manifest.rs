//! The host manifest: everything that a control-plane host should have, in the order in which it is put there.
use serde::{Deserialize, Serialize};

use crate::pki::LeafSpec;
use crate::protocol::host::FOUNDER;
use crate::protocol::host::MemberSpec;

/// Version of this format; `km host` refuses what it does not know.
pub const FORMAT: u32 = 1;

/// Everything that a host should have. Items are applied from first to last, so an item stands after what it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The host's name.
    pub host: String,
    /// Kubernetes version of the bundle.
    pub version: String,
    /// What should be there.
    pub items: Vec<Item>,
}

impl HostManifest {
    /// Its units.
    pub fn units(&self) -> Vec<UnitSpec> {
        let unit = |item: &Item| match item {
            Item::Unit(spec) => Some(spec.clone()),
            _ => None,
        };
        self.items.iter().filter_map(unit).collect()
    }
}

/// One thing that should be there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Item {
    /// A folder. Its content is not looked at.
    Directory {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Holds data that only a purge removes.
        #[serde(default)]
        data: bool,
    },
    /// A file whose text is known.
    File {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The whole text.
        text: String,
        /// Stays when the cluster goes down: only a purge removes it.
        #[serde(default)]
        data: bool,
    },
    /// A file out of the bundle.
    Program {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Of the unpacked bytes.
        sha256: String,
        /// Bytes, unpacked.
        size: u64,
    },
    /// A file whose bytes come beside the manifest, readable by root only; without a digest the host's own is kept.
    Secret {
        /// Where.
        path: String,
        /// Of the wanted bytes; none keeps what is there, and fails when nothing is.
        sha256: Option<String>,
    },
    /// A certificate authority, made once and never again.
    Authority(AuthoritySpec),
    /// A pair `<path>.key` and `<path>.pub`, made once and never again.
    KeyPair {
        /// Path without the ending.
        path: String,
    },
    /// The API server's encryption configuration with a key made once and never again.
    EncryptionKey {
        /// Where.
        path: String,
    },
    /// A leaf certificate `<path>.crt` and its key `<path>.key`, renewed while it still has 90 days.
    Certificate(CertificateSpec),
    /// A kubeconfig that embeds a client certificate made here.
    Kubeconfig(KubeconfigSpec),
    /// Takes a snapshot of etcd, if it runs. Sent only before a living control plane is changed.
    Snapshot {
        /// The etcdctl program.
        program: String,
        /// Authority certificate, client certificate and key, in this order.
        credentials: [String; 3],
        /// Where etcd listens.
        endpoint: String,
        /// Folder of the snapshots.
        folder: String,
    },
    /// Who begins etcd's cluster is written down. The name is known only once all hosts were looked at, so it comes beside
    /// the manifest.
    Founder,
    /// The host is a member of etcd: before its first start it is told how to begin.
    Member(MemberSpec),
    /// The host's member has caught up and votes.
    Vote(MemberSpec),
    /// A systemd unit that should run with its present files.
    Unit(UnitSpec),
    /// Waits until an address answers.
    Health(HealthSpec),
    /// Objects in the API.
    Objects {
        /// Credentials.
        kubeconfig: String,
        /// What should be there.
        objects: Vec<ObjectSpec>,
    },
}

/// A certificate authority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthoritySpec {
    /// Path without `.crt` and `.key`.
    pub path: String,
    /// Subject.
    pub common_name: String,
}

/// A leaf certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// Path without `.crt` and `.key`.
    pub path: String,
    /// The authority's path without endings.
    pub authority: String,
    /// What it says.
    pub leaf: LeafSpec,
}

/// A kubeconfig.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeconfigSpec {
    /// Where.
    pub path: String,
    /// Name of the cluster in the file.
    pub cluster: String,
    /// `https://address:port`.
    pub server: String,
    /// The authority's path without endings; it signs the client and is trusted for the server.
    pub authority: String,
    /// The client certificate.
    pub leaf: LeafSpec,
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitSpec {
    /// E.g. `etcd.service`.
    pub name: String,
    /// Files that the running process has read: when one changes, the unit is restarted.
    pub reads: Vec<String>,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthSpec {
    /// For messages.
    pub name: String,
    /// Must answer 200.
    pub url: String,
    /// Authority of the server's certificate; none for plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Client certificate's path without endings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Kubeconfig whose authority and client are shown instead, for what not everybody may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
    /// The unit whose journal explains a failure.
    pub unit: String,
    /// How long to wait.
    pub seconds: u64,
}

/// An object in the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectSpec {
    /// The object, as in YAML.
    pub object: serde_json::Value,
    /// Leaves the live object alone when there is one: others change it.
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

    /// The files that the item puts on the disk.
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

    /// The same on every control-plane host, so the first one makes it and the others get it from there.
    pub fn is_shared(&self) -> bool {
        matches!(self, Item::Authority(_) | Item::KeyPair { .. } | Item::EncryptionKey { .. })
    }
}
