//! What a bundle is made of, and where upstream publishes it. Each URL is documented with the source of its form.
use std::collections::BTreeMap;

use kmctl_core::bundle::Component;
use kmctl_core::k8s::Components;

/// A file to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The component that it belongs to, e.g. `etcd`.
    pub(super) component: &'static str,
    /// Where it is published.
    pub(super) url: String,
    /// Where its sha256 is published.
    pub(super) checksum: String,
    /// What of it is added to the bundle.
    pub(super) take: Take,
}

/// What of a downloaded file is added to the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// All of it, as this path.
    Whole(String),
    /// Entries of a gzipped tar, by their path in it, with their target path.
    Entries(BTreeMap<String, String>),
}

impl Part {
    /// The last part of the URL.
    pub(super) fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }
}

const KUBERNETES: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"];

/// All files, in a fixed order.
pub(super) fn parts(kubernetes: &str, components: &Components, architecture: &str) -> Vec<Part> {
    let Components { etcd, containerd, runc, cni_plugins, pause: _, coredns: _ } = components;
    let mut parts: Vec<Part> =
        KUBERNETES.iter().map(|program| kubernetes_program(kubernetes, architecture, program)).collect();
    parts.extend([
        etcd_archive(etcd, architecture),
        containerd_archive(containerd, architecture),
        runc_program(runc, architecture),
        plugins_archive(cni_plugins, architecture),
    ]);
    parts
}

/// kubernetes/release:pkg/release/release.go (`CopyBinaries`, `WriteChecksums`): each binary has `NAME.sha256` beside
/// it, the bare digest.
fn kubernetes_program(version: &str, architecture: &str, program: &str) -> Part {
    let url = format!("https://dl.k8s.io/release/{version}/bin/linux/{architecture}/{program}");
    Part {
        component: "kubernetes",
        checksum: format!("{url}.sha256"),
        url,
        take: Take::Whole(format!("bin/{program}")),
    }
}

/// etcd-io/etcd:scripts/release.sh and scripts/build-release.sh: one top directory in the archive, and one `SHA256SUMS`
/// for all files of a release.
fn etcd_archive(version: &str, architecture: &str) -> Part {
    let base = format!("https://github.com/etcd-io/etcd/releases/download/v{version}");
    let top = format!("etcd-v{version}-linux-{architecture}");
    Part {
        component: "etcd",
        url: format!("{base}/{top}.tar.gz"),
        checksum: format!("{base}/SHA256SUMS"),
        take: entries(&top, "bin", &["etcd", "etcdctl", "etcdutl"]),
    }
}

/// containerd/containerd:Makefile (`releases`): `containerd-static-…` is the archive whose binaries need no libc.
fn containerd_archive(version: &str, architecture: &str) -> Part {
    let url = format!(
        "https://github.com/containerd/containerd/releases/download/v{version}/\
         containerd-static-{version}-linux-{architecture}.tar.gz"
    );
    Part {
        component: "containerd",
        checksum: format!("{url}.sha256sum"),
        url,
        take: entries("bin", "bin", &["containerd", "containerd-shim-runc-v2", "ctr"]),
    }
}

/// opencontainers/runc:script/release_build.sh and script/release_sign.sh: one static binary for each architecture, and
/// `runc.sha256sum`, clear-signed.
fn runc_program(version: &str, architecture: &str) -> Part {
    let base = format!("https://github.com/opencontainers/runc/releases/download/v{version}");
    Part {
        component: "runc",
        url: format!("{base}/runc.{architecture}"),
        checksum: format!("{base}/runc.sha256sum"),
        take: Take::Whole("bin/runc".to_owned()),
    }
}

/// containernetworking/plugins:.github/workflows/release.yaml: entries without a directory, and LICENSE among them.
fn plugins_archive(version: &str, architecture: &str) -> Part {
    let url = format!(
        "https://github.com/containernetworking/plugins/releases/download/v{version}/\
         cni-plugins-linux-{architecture}-v{version}.tgz"
    );
    Part {
        component: "cni-plugins",
        checksum: format!("{url}.sha256"),
        url,
        take: entries("", "cni", &["bridge", "host-local", "loopback", "portmap", "ptp"]),
    }
}

fn entries(folder: &str, into: &str, names: &[&str]) -> Take {
    let from = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    Take::Entries(names.iter().map(|name| (from(name), format!("{into}/{name}"))).collect())
}

/// An image to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImagePart {
    /// The component, which is also the name of its archive.
    pub(super) component: &'static str,
    /// Host of the registry.
    pub(super) registry: &'static str,
    /// Path in the registry.
    pub(super) repository: &'static str,
    pub(super) tag: String,
}

impl ImagePart {
    /// Name with tag, e.g. `registry.k8s.io/pause:3.10.2`.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.repository_name(), self.tag)
    }

    /// Name without tag, e.g. `registry.k8s.io/pause`.
    pub(super) fn repository_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

/// kubernetes/kubernetes:cmd/kubeadm/app/images/images.go.
pub(super) fn images(components: &Components) -> Vec<ImagePart> {
    let image = |component, repository, tag: &str| ImagePart {
        component,
        registry: "registry.k8s.io",
        repository,
        tag: tag.to_owned(),
    };
    vec![image("coredns", "coredns/coredns", &components.coredns), image("pause", "pause", &components.pause)]
}

/// The bundle's description of where its files are from, sorted by name.
pub(super) fn described(kubernetes: &str, components: &Components, architecture: &str) -> Vec<Component> {
    let Components { etcd, containerd, runc, cni_plugins, pause, coredns } = components;
    let v = |version: &str| format!("v{version}");
    let mut versions = BTreeMap::from([
        ("cni-plugins", v(cni_plugins)),
        ("containerd", v(containerd)),
        ("coredns", coredns.clone()),
        ("etcd", v(etcd)),
        ("kubernetes", kubernetes.to_owned()),
        ("pause", pause.clone()),
        ("runc", v(runc)),
    ]);
    let mut origins: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for part in parts(kubernetes, components, architecture) {
        origins.entry(part.component).or_default().push(part.url);
    }
    for image in images(components) {
        origins.entry(image.component).or_default().push(image.name());
    }
    let describe = |(name, origins): (&str, Vec<String>)| Component {
        name: name.to_owned(),
        version: versions.remove(name).unwrap_or_default(),
        origins,
        licence: LICENCE.to_owned(),
    };
    origins.into_iter().map(describe).collect()
}

/// Each of them has its own copy of this licence (LICENSE in each repository).
const LICENCE: &str = "Apache-2.0";

/// Text of `licenses/INDEX`: where the licences of components that contain none are published.
pub(super) fn licence_index(components: &[Component]) -> String {
    let mut text = "Licences of what is in this bundle, and where it is from.\n".to_owned();
    for Component { name, version, origins, licence } in components {
        text.push_str(&format!("\n{name} {version}: {licence}\n"));
        let repository = match name.as_str() {
            "kubernetes" | "pause" => "kubernetes/kubernetes",
            "etcd" => "etcd-io/etcd",
            "containerd" => "containerd/containerd",
            "runc" => "opencontainers/runc",
            "cni-plugins" => "containernetworking/plugins",
            "coredns" => "coredns/coredns",
            _ => continue,
        };
        // pause has no tags of its own.
        let tag = if name == "pause" { "master" } else { version };
        let files: &[&str] = match name.as_str() {
            "containerd" | "runc" => &["LICENSE", "NOTICE"],
            _ => &["LICENSE"],
        };
        for file in files {
            text.push_str(&format!("  {file}: https://github.com/{repository}/blob/{tag}/{file}\n"));
        }
        if name == "runc" {
            // opencontainers/runc:script/release_build.sh attaches the sources of what is linked in.
            text.push_str(&format!(
                "  linked in: libseccomp (LGPL-2.1-only) and libpathrs (MPL-2.0 OR LGPL-3.0-or-later); their sources are\n  \
                 attached to https://github.com/opencontainers/runc/releases/tag/{version}\n"
            ));
        }
        origins.iter().for_each(|origin| text.push_str(&format!("  from: {origin}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_where_upstream_publishes_it_and_all_required_files_are_among_them() {
        let components = Components::of("v1.37.2".parse().unwrap()).unwrap();
        let parts = parts("v1.37.2", &components, "amd64");
        let all: Vec<String> = parts.iter().map(|part| format!("{}\n  {}", part.url, part.checksum)).collect();
        insta::assert_snapshot!(all.join("\n"));
        let mut taken: Vec<&str> = Vec::new();
        for part in &parts {
            match &part.take {
                Take::Whole(path) => taken.push(path),
                Take::Entries(entries) => taken.extend(entries.values().map(String::as_str)),
            }
        }
        for required in kmctl_core::bundle::required() {
            assert!(taken.contains(&required), "{required}");
        }
        assert!(taken.contains(&"bin/etcdutl"));
    }

    #[test]
    fn each_component_says_where_it_is_from() {
        let components = Components::of("v1.36.3".parse().unwrap()).unwrap();
        let described = described("v1.36.3", &components, "arm64");
        insta::assert_snapshot!(licence_index(&described));
    }
}
