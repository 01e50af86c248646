//! A client's access to the API server, as in the kubeconfigs that kmctl writes.
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::AgentError;
use super::files::Root;

/// The parts of a kubeconfig that are read back; the rest is compared as text.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<ClusterEntry>,
    users: Vec<UserEntry>,
}

#[derive(Deserialize)]
struct ClusterEntry {
    cluster: ClusterData,
}

#[derive(Deserialize)]
struct ClusterData {
    server: String,
    #[serde(rename = "certificate-authority-data")]
    authority: String,
}

#[derive(Deserialize)]
struct UserEntry {
    user: UserData,
}

#[derive(Deserialize)]
struct UserData {
    #[serde(rename = "client-certificate-data")]
    certificate: String,
    #[serde(rename = "client-key-data")]
    key: String,
}

/// A client's access to the API server, extracted from a kubeconfig.
pub(super) struct Access {
    pub(super) server: String,
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Reads a kubeconfig that kmctl wrote.
pub(super) fn read(root: &Root, path: &str) -> Result<Option<Access>, AgentError> {
    let Some(text) = root.text(path)? else { return Ok(None) };
    Ok(parse(&text))
}

pub(super) fn parse(text: &str) -> Option<Access> {
    let file: Kubeconfig = serde_yaml::from_str(text).ok()?;
    let cluster = file.clusters.into_iter().next()?.cluster;
    let user = file.users.into_iter().next()?.user;
    let decode = |text: String| String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok();
    Some(Access {
        server: cluster.server,
        authority: decode(cluster.authority)?,
        certificate: decode(user.certificate)?,
        key: decode(user.key)?,
    })
}
