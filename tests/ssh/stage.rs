//! A cluster.yaml, the kmctl that reads it, and what it said.
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::sshd::Sshd;

/// One operator's folder: cluster.yaml, known_hosts, keys.
pub struct Stage {
    pub folder: TempDir,
    /// What is shown by another name, because it differs from run to run.
    names: Vec<(String, String)>,
}

impl Stage {
    /// `known` is the known_hosts file, `ssh` what stands in `spec.ssh` beside it, `hosts` the control-plane hosts.
    pub fn new(known: &str, ssh: &str, hosts: &str) -> Stage {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("known_hosts"), known).unwrap();
        let content = format!(
            "apiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  \
             mesos: {{ master: \"127.0.0.1:1\" }}\n  ssh: {{ knownHosts: known_hosts, {ssh} }}\n  \
             controlPlane: {{ endpoint: \"127.0.0.1:6443\", hosts: [{hosts}] }}\n  bundle: none.bundle\n"
        );
        std::fs::write(folder.path().join("cluster.yaml"), content).unwrap();
        let names = vec![(folder.path().display().to_string(), "[here]".to_owned())];
        Stage { folder, names }
    }

    /// One host `cp1`, whose sshd is `server`, logged in to with its login key.
    pub fn with(server: &Sshd, known: &str, ssh: &str) -> Stage {
        let login = server.path("login").display().to_string();
        let ssh = format!("port: {}, identityFile: {login}, {ssh}", server.address.port());
        let mut stage = Stage::new(known, &ssh, "{ address: 127.0.0.1, name: cp1 }");
        stage.call(&login, "[login key]");
        stage.call(&server.address.port().to_string(), "[port]");
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Shows `text` as `name` from now on.
    pub fn call(&mut self, text: &str, name: &str) {
        self.names.push((text.to_owned(), name.to_owned()));
    }

    /// The same for the fingerprint of a public key, `type base64`.
    pub fn call_key(&mut self, public: &str, name: &str) {
        self.call(&fingerprint(public), name);
    }

    /// kmctl with these arguments, in a world without agent, keys and colours.
    pub fn kmctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmctl"));
        command.arg("-f").arg(self.path("cluster.yaml")).args(arguments);
        command.env("HOME", self.folder.path()).env("TERM", "dumb").env_remove("SSH_AUTH_SOCK").env_remove("CI");
        command
    }

    /// Runs `kmctl plan` without a terminal; standard error and the exit code.
    pub fn plan(&self, more: &[&str]) -> String {
        let output = self.kmctl(&[&["plan"], more].concat()).output().unwrap();
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
        self.told(&String::from_utf8_lossy(&output.stderr), output.status.code())
    }

    /// What was said, as it stands in the golden files.
    pub fn told(&self, said: &str, code: Option<i32>) -> String {
        let mut text = said.to_owned();
        for (what, name) in &self.names {
            text = text.replace(what, name);
        }
        format!("{text}exit code {}\n", code.map_or("none".to_owned(), |code| code.to_string()))
    }
}

/// `SHA256:…` of a public key, `type base64`.
pub fn fingerprint(public: &str) -> String {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    let blob = STANDARD.decode(public.split(' ').nth(1).unwrap()).unwrap();
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}
