//! The settings of one SSH connection, resolved: no defaults are looked up later.
use std::path::PathBuf;
use std::time::Duration;

use super::secrets::Secrets;
use kmctl_core::cluster::Sudo;

/// How often a keepalive is sent to a silent server while something is running.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(5);

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
    /// Private key. Without one, the agent and the usual files are tried.
    pub identity_file: Option<PathBuf>,
    /// Path of the known_hosts file.
    pub known_hosts: PathBuf,
    /// Pinned key, `SHA256:…`. known_hosts is then only used to refuse revoked keys.
    pub host_key: Option<String>,
    /// Whether a host without an entry in known_hosts is trusted and its key written there.
    pub accept_new: bool,
    /// It is only a jump host, for which cluster.yaml has no pin.
    pub is_jump: bool,
    /// The jump hosts, the one that is reached from here first. Their own `jump` is ignored.
    pub jump: Vec<SshSettings>,
    /// How the login becomes root.
    pub sudo: Sudo,
    /// Limit for connecting, greeting and logging in together. It applies to each jump host and to the host itself.
    pub connect_timeout: Duration,
    /// Passphrases and passwords.
    pub secrets: Secrets,
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

    /// The jump host before this one, with the jump hosts before it.
    pub(super) fn hop(&self) -> Option<SshSettings> {
        let (last, before) = self.jump.split_last()?;
        Some(SshSettings { jump: before.to_vec(), ..last.clone() })
    }

    /// `ssh` and its arguments for trying the same, for hints.
    pub(super) fn ssh_command(&self) -> String {
        let mut words = vec!["ssh".to_owned()];
        if !self.jump.is_empty() {
            let hops: Vec<_> = self.jump.iter().map(|hop| format!("{}@{}", hop.user, hop.place())).collect();
            words.push(format!("-J {}", hops.join(",")));
        }
        if self.port != 22 {
            words.push(format!("-p {}", self.port));
        }
        words.push(format!("{}@{}", self.user, self.address));
        words.join(" ")
    }
}
