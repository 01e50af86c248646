//! What one SSH connection needs to know, resolved: no defaults are looked up later.
use std::path::PathBuf;
use std::time::Duration;

use super::secrets::Secrets;
use kmctl_core::cluster::Sudo;

/// How often the server is asked for a sign of life while something is under way.
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
    /// Private key; without one, the agent and the usual files are tried.
    pub identity_file: Option<PathBuf>,
    /// The known_hosts file.
    pub known_hosts: PathBuf,
    /// Pinned key, `SHA256:…`; known_hosts then only serves to refuse revoked keys.
    pub host_key: Option<String>,
    /// A host of which known_hosts says nothing is trusted, and its key is written there.
    pub accept_new: bool,
    /// It is only gone through; cluster.yaml has no pin for it.
    pub is_jump: bool,
    /// The hosts to go through, first the one that is reached from here. Their own `jump` is not looked at.
    pub jump: Vec<SshSettings>,
    /// How the login becomes root.
    pub sudo: Sudo,
    /// Limit for connecting, greeting and logging in together; for each jump host and for the host itself.
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

    /// The jump host before this one, with what leads there.
    pub(super) fn hop(&self) -> Option<SshSettings> {
        let (last, before) = self.jump.split_last()?;
        Some(SshSettings { jump: before.to_vec(), ..last.clone() })
    }

    /// `ssh` and what it needs to be told to try the same, for hints.
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
