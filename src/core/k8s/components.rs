//! Versions of the bundle's components other than Kubernetes itself.
use serde::{Deserialize, Serialize};

use super::version::{UnsupportedVersion, Version};

/// Versions of a bundle's components, as recorded in its manifest and its lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Components {
    /// etcd, etcdctl and etcdutl, e.g. `3.6.16`.
    pub etcd: String,
    /// containerd, its shim and ctr, e.g. `2.3.7`.
    pub containerd: String,
    /// runc, e.g. `1.5.3`.
    pub runc: String,
    /// The stock CNI plugins, e.g. `1.10.0`.
    pub cni_plugins: String,
    /// Tag of the sandbox image, e.g. `3.10.2`.
    pub pause: String,
    /// Tag of CoreDNS' image, e.g. `v1.14.6`.
    pub coredns: String,
}

impl Components {
    /// The component versions paired with `version`.
    ///
    /// # Errors
    /// Its minor version is not supported.
    pub fn of(version: Version) -> Result<Components, UnsupportedVersion> {
        let pairs = version.row()?.pairs;
        let [etcd, containerd, runc, cni_plugins, pause, coredns] =
            [pairs.etcd, pairs.containerd, pairs.runc, pairs.cni_plugins, pairs.pause, pairs.coredns]
                .map(str::to_owned);
        Ok(Components { etcd, containerd, runc, cni_plugins, pause, coredns })
    }
}
