//! What one SSH connection needs to know, resolved: no defaults are looked up later.
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Sudo;

/// One host and how to log in.
#[derive(Clone, Debug, PartialEq)]
pub struct SshSettings {
    /// Name in messages.
    pub name: String,
    /// Address or DNS name.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// Private key; without one, the agent and the usual files are tried.
    pub identity_file: Option<PathBuf>,
    /// The known_hosts file.
    pub known_hosts: PathBuf,
    /// Pinned key, `SHA256:…`; known_hosts then only serves to refuse revoked keys.
    pub host_key: Option<String>,
    /// How the login becomes root.
    pub sudo: Sudo,
    /// Limit for connecting, greeting and logging in together.
    pub connect_timeout: Duration,
}

impl SshSettings {
    /// `address:port`, for messages.
    pub fn place(&self) -> String {
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }
}
