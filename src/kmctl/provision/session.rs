//! What a command passes to its phases: where progress is reported, and how hosts are reached.
use std::path::PathBuf;
use std::time::Duration;

use crate::host::ssh::{Secrets, SshSettings};
use crate::host::{HostError, SshHost};
use kmctl_core::cluster::{HostSpec, Loaded, SshSpec, Sudo, jump_host, quantity};
use kmctl_core::progress::Progress;

/// Everything a command's phases have in common.
#[derive(Clone)]
pub struct Session {
    /// Where work is reported.
    pub progress: Progress,
    /// Skip confirmations: interruptions on a host that answers after the confirmation are approved as well.
    pub assume_yes: bool,
    /// Trust hosts that known_hosts does not list, and add their keys to it.
    pub accept_new_host_keys: bool,
    /// Passphrases and passwords, asked for once per command.
    pub secrets: Secrets,
}

impl Session {
    /// Connects to one control-plane host.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn connect(&self, loaded: &Loaded, host: &HostSpec) -> Result<SshHost, HostError> {
        SshHost::connect(self.ssh_settings(loaded, host), &self.progress).await
    }

    /// How `host` is reached: by its own settings, else by the cluster's.
    pub fn ssh_settings(&self, loaded: &Loaded, host: &HostSpec) -> SshSettings {
        let settings = ssh_settings(&loaded.cluster.spec.ssh, host, &self.secrets);
        let accept_new = self.accept_new_host_keys;
        let jump = settings.jump.into_iter().map(|hop| SshSettings { accept_new, ..hop }).collect();
        SshSettings { accept_new, jump, ..settings }
    }
}

fn ssh_settings(ssh: &SshSpec, host: &HostSpec, secrets: &Secrets) -> SshSettings {
    let own = host.ssh.clone().unwrap_or_default();
    let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    // Checked when the file was read.
    let seconds = |text: String| quantity::duration(&text).unwrap_or(Duration::from_secs(10));
    let mut settings = SshSettings {
        name: host.name.clone(),
        address: host.address.clone(),
        port: own.port.unwrap_or(ssh.port),
        user: own.user.unwrap_or_else(|| ssh.user.clone()),
        identity_file: path(own.identity_file.unwrap_or_else(|| ssh.identity_file.clone())),
        known_hosts: own.known_hosts.unwrap_or_else(|| ssh.known_hosts.clone()).into(),
        host_key: (!host.host_key.is_empty()).then(|| host.host_key.clone()),
        accept_new: false,
        is_jump: false,
        jump: Vec::new(),
        sudo: own.sudo.unwrap_or(ssh.sudo),
        connect_timeout: seconds(own.connect_timeout.unwrap_or_else(|| ssh.connect_timeout.clone())),
        secrets: secrets.clone(),
    };
    let hops = own.jump.unwrap_or_else(|| ssh.jump.clone());
    // Also checked when the file was read.
    let hops = hops.iter().filter_map(|hop| jump_host(hop));
    settings.jump = hops
        .map(|(user, address, port)| SshSettings {
            name: format!("jump host {address}"),
            address: address.to_owned(),
            port,
            user: user.map_or_else(|| settings.user.clone(), str::to_owned),
            host_key: None,
            is_jump: true,
            sudo: Sudo::None,
            ..settings.clone()
        })
        .collect();
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_way_or_the_clusters() {
        let ssh = SshSpec { user: "ops".to_owned(), jump: vec!["b1".to_owned()], ..SshSpec::default() };
        let mut host: HostSpec =
            serde_json::from_str(r#"{ "address": "10.0.0.1", "name": "cp1", "hostKey": "SHA256:x" }"#).unwrap();
        let secrets = Secrets::none();
        let settings = ssh_settings(&ssh, &host, &secrets);
        assert_eq!((settings.user.as_str(), settings.port, settings.is_jump), ("ops", 22, false));
        let [hop] = &settings.jump[..] else { unreachable!("one jump host") };
        assert_eq!((hop.user.as_str(), hop.place().as_str(), &hop.host_key), ("ops", "b1:22", &None));
        assert!(hop.is_jump && hop.secrets == secrets);
        let own = r#"{ "user": "root", "jump": ["me@b2:2222", "[fd00::1]:22"] }"#;
        host.ssh = Some(serde_json::from_str(own).unwrap());
        let settings = ssh_settings(&ssh, &host, &secrets);
        let hops: Vec<_> = settings.jump.iter().map(|hop| format!("{}@{}", hop.user, hop.place())).collect();
        assert_eq!(hops, ["me@b2:2222", "root@[fd00::1]:22"]);
    }
}
