//! Authenticates to a server: with the agent's keys, then with key files.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ssh2::{ErrorCode, Session};

use super::denied::{Denied, ssh_error};
use super::key_file::KeyFile;
use super::known_hosts::fingerprint;
use super::secrets::Secret;
use super::settings::SshSettings;
use crate::host::HostError;

/// libssh2's codes for a key file that it cannot read, or not with this passphrase.
const UNREADABLE: [i32; 2] = [-16, -48];

/// libssh2's code for a key that the server refuses before any signature is made.
const UNWANTED: i32 = -18;

/// libssh2's code for a signature that could not be made, or was not accepted.
const UNSIGNED: i32 = -19;

/// Tries the identities in order. The error lists those that were tried.
pub(super) fn log_in(
    session: &Session,
    settings: &SshSettings,
    passphrases: &BTreeMap<PathBuf, Secret>,
) -> Result<(), Denied> {
    let mut attempt = Attempt { session, settings, passphrases, tried: Vec::new() };
    let accepted = match &settings.identity_file {
        Some(file) => attempt.file(file)?,
        None => attempt.agent(None)? || attempt.usual_files()?,
    };
    if accepted {
        return Ok(());
    }
    let mut tried = attempt.tried;
    if tried.is_empty() {
        tried.push("no ssh-agent, no key file".to_owned());
    }
    Err(Denied::Host(HostError::Authentication {
        what: format!(
            "{} rejected all keys for user {} (tried: {})",
            settings.place(),
            settings.user,
            tried.join("; ")
        ),
        hint: format!(
            "set ssh.user and ssh.identityFile in cluster.yaml, or `ssh-add` the key; test with `{} true`",
            settings.ssh_command()
        ),
    }))
}

/// One login attempt.
struct Attempt<'a> {
    session: &'a Session,
    settings: &'a SshSettings,
    passphrases: &'a BTreeMap<PathBuf, Secret>,
    tried: Vec<String>,
}

impl Attempt<'_> {
    fn usual_files(&mut self) -> Result<bool, Denied> {
        let Some(home) = std::env::home_dir() else { return Ok(false) };
        for name in ["id_ed25519", "id_ecdsa", "id_rsa"] {
            let file = home.join(".ssh").join(name);
            if file.exists() && self.file(&file)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tries a key file. The agent is tried first, because it may hold the same key without a passphrase.
    fn file(&mut self, file: &Path) -> Result<bool, Denied> {
        let private = match std::fs::read(file) {
            Ok(private) => zeroize::Zeroizing::new(private),
            Err(error) => {
                self.tried.push(format!("{}: {error}", file.display()));
                return Ok(false);
            }
        };
        let private = zeroize::Zeroizing::new(String::from_utf8_lossy(&private).into_owned());
        let beside = std::fs::read_to_string(with_pub(file)).ok();
        let key = KeyFile::parse(&private, beside.as_deref());
        if self.settings.identity_file.is_some()
            && let Some(public) = &key.public
            && self.agent(Some(public))?
        {
            return Ok(true);
        }
        let passphrase = self.passphrases.get(file).filter(|_| key.encrypted);
        if key.encrypted && passphrase.is_none() {
            if self.is_unwanted(&key, &private)? {
                self.tried.push(format!("{}: rejected", file.display()));
                return Ok(false);
            }
            return Err(Denied::Passphrase { file: file.to_owned(), wrong: None });
        }
        let text = passphrase.map(|secret| secret.as_str());
        let Err(error) = self.session.userauth_pubkey_file(&self.settings.user, None, file, text) else {
            return Ok(true);
        };
        match (error.code(), passphrase) {
            (ErrorCode::Session(code), Some(wrong)) if UNREADABLE.contains(&code) => {
                Err(Denied::Passphrase { file: file.to_owned(), wrong: Some(wrong.clone()) })
            }
            (ErrorCode::Session(code), None) if UNREADABLE.contains(&code) => {
                self.tried.push(format!("{}: not a readable private key", file.display()));
                Ok(false)
            }
            (ErrorCode::Session(UNWANTED | UNSIGNED), _) => {
                self.tried.push(format!("{}: rejected", file.display()));
                Ok(false)
            }
            _ => Err(ssh_error("log in", error, self.settings).into()),
        }
    }

    /// Whether the server would refuse this key anyway, so that its passphrase is not needed.
    fn is_unwanted(&self, key: &KeyFile, private: &str) -> Result<bool, Denied> {
        let Some(public) = key.line() else { return Ok(false) };
        // The server is queried before the signature is made, which fails without the passphrase.
        match self.session.userauth_pubkey_memory(&self.settings.user, Some(&public), private, None) {
            Err(error) if error.code() == ErrorCode::Session(UNWANTED) => Ok(true),
            Err(error) if error.code() == ErrorCode::Session(UNSIGNED) => Ok(false),
            Err(error) => Err(ssh_error("log in", error, self.settings).into()),
            Ok(()) => Ok(false),
        }
    }

    /// Tries the agent's keys, or only the one whose public half is `only`.
    fn agent(&mut self, only: Option<&[u8]>) -> Result<bool, Denied> {
        if std::env::var_os("SSH_AUTH_SOCK").is_none() {
            return Ok(false);
        }
        let mut agent = self.session.agent().map_err(|error| ssh_error("query ssh-agent", error, self.settings))?;
        if agent.connect().and_then(|()| agent.list_identities()).is_err() {
            self.tried.push("ssh-agent: no response".to_owned());
            return Ok(false);
        }
        for identity in agent.identities().unwrap_or_default() {
            if only.is_some_and(|only| only != identity.blob()) {
                continue;
            }
            match agent.userauth(&self.settings.user, &identity) {
                Ok(()) => return Ok(true),
                Err(_) => self.tried.push(format!("ssh-agent key {}: rejected", fingerprint(identity.blob()))),
            }
        }
        Ok(false)
    }
}

fn with_pub(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}
