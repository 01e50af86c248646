//! Which key a host may present, and the error for one that it may not. No I/O.
use std::time::SystemTime;

use super::certificate::Certificate;
use super::known_hosts::{Known, KnownKey, fingerprint, kind_of, name};
use super::settings::SshSettings;
use crate::host::HostError;

/// Host key algorithms by type of key, in the order of preference: for plain keys, and for certificates.
const ALGORITHMS: [(&str, &str, &str); 5] = [
    ("ssh-ed25519", "ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256-cert-v01@openssh.com"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384-cert-v01@openssh.com"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521-cert-v01@openssh.com"),
    // The same key signs with newer hashes. Plain ssh-rsa means SHA-1 and is not offered.
    ("ssh-rsa", "rsa-sha2-512,rsa-sha2-256", "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com"),
];

/// Which keys the host may present.
pub(super) struct Trust<'a> {
    pub(super) settings: &'a SshSettings,
    pub(super) known: &'a Known,
}

/// The verdict on a presented key.
pub(super) enum Verdict {
    Trusted,
    /// Nothing is known of this host, and that is allowed.
    New,
    /// No further attempts.
    Refused(HostError),
    /// Not the expected key. The host may have others.
    Other,
}

impl Trust<'_> {
    /// The algorithms to request of the server, per attempt. A pinned fingerprint does not reveal its type, so each
    /// type is tried in turn. For entries in known_hosts, certificates and the types of the known keys are first,
    /// followed by any plain key, so that the error can show the host's key.
    pub(super) fn attempts(&self) -> Vec<String> {
        let all = ALGORITHMS.map(|(_, plain, _)| plain).join(",");
        if self.settings.host_key.is_some() {
            return ALGORITHMS.iter().map(|(_, plain, _)| (*plain).to_owned()).collect();
        }
        let mut first = Vec::new();
        if !self.known.authorities.is_empty() {
            first.extend(ALGORITHMS.iter().map(|(_, _, certificate)| *certificate));
        }
        let is_known = |kind: &str| self.known.keys.iter().any(|key| key.kind == kind);
        first.extend(ALGORITHMS.iter().filter(|(kind, _, _)| is_known(kind)).map(|(_, plain, _)| *plain));
        if first.is_empty() { vec![all] } else { vec![first.join(","), all] }
    }

    /// Judges the key that the server has proved to have.
    pub(super) fn judge(&self, shown: &[u8], now: SystemTime) -> Verdict {
        let certificate = Certificate::parse(shown);
        let key = certificate.as_ref().map_or(shown, |certificate| &certificate.key);
        if let Some(revoked) = self.known.revoked.iter().find(|revoked| revoked.blob == key) {
            return Verdict::Refused(self.revoked(revoked, "host key"));
        }
        if let Some(certificate) = &certificate {
            if let Some(revoked) = self.known.revoked.iter().find(|revoked| revoked.blob == certificate.authority) {
                return Verdict::Refused(self.revoked(revoked, "authority of the host certificate"));
            }
            if let Some(line) = self.known.authorities.iter().find(|line| line.blob == certificate.authority) {
                return match certificate.check(&self.settings.address, now) {
                    Ok(()) => Verdict::Trusted,
                    Err(reason) => Verdict::Refused(self.bad_certificate(key, line, &reason)),
                };
            }
        }
        let trusted = match &self.settings.host_key {
            Some(pinned) => *pinned == fingerprint(key),
            None => self.known.keys.iter().any(|known| known.blob == key),
        };
        if trusted {
            return Verdict::Trusted;
        }
        // A host that should have a certificate is not new.
        let unheard_of = self.known.keys.is_empty() && self.known.authorities.is_empty();
        if self.settings.accept_new && self.settings.host_key.is_none() && unheard_of {
            return Verdict::New;
        }
        Verdict::Other
    }

    fn revoked(&self, key: &KnownKey, what: &str) -> HostError {
        let (place, file) = (self.settings.place(), self.settings.known_hosts.display());
        HostError::HostKey {
            what: format!(
                "{what} of {place} ({}, {}) is revoked by {file}:{}",
                fingerprint(&key.blob),
                key.kind,
                key.line
            ),
            hint: "find out first why the key was revoked; to create a new one, run as root on the console `rm \
                /etc/ssh/ssh_host_*_key*` and `ssh-keygen -A`, restart sshd, and run the command again with \
                --accept-new-host-keys"
                .to_owned(),
        }
    }

    fn bad_certificate(&self, key: &[u8], authority: &KnownKey, reason: &str) -> HostError {
        let (place, file) = (self.settings.place(), self.settings.known_hosts.display());
        HostError::HostKey {
            what: format!(
                "host key of {place} is {}, and its certificate by {} ({file}:{}) {reason}",
                described(key),
                described(&authority.blob),
                authority.line
            ),
            hint: format!(
                "sign the host key again with the authority: `ssh-keygen -s AUTHORITY -h -I {} -n {} -V +52w \
                 ssh_host_ed25519_key.pub`, and set HostCertificate in sshd_config of the host",
                self.settings.address, self.settings.address
            ),
        }
    }

    /// Why `shown` is not accepted, with both fingerprints and the cure.
    pub(super) fn refusal(&self, shown: &[u8]) -> HostError {
        let (place, file) = (self.settings.place(), self.settings.known_hosts.display());
        let certificate = Certificate::parse(shown);
        let key = certificate.as_ref().map_or(shown, |certificate| &certificate.key);
        let seen = described(key);
        if let Some(pinned) = &self.settings.host_key {
            return HostError::HostKey {
                what: format!("wrong host key for {place}: {seen}, but hostKey in cluster.yaml is {pinned}"),
                hint: format!(
                    "possible man-in-the-middle attack; if the host was reinstalled, compare with `{}` on its \
                     console, then set hostKey of {} in cluster.yaml",
                    show_key(key),
                    self.settings.name
                ),
            };
        }
        if !self.known.keys.is_empty() {
            let known: Vec<_> =
                self.known.keys.iter().map(|key| format!("{} at line {}", described(&key.blob), key.line)).collect();
            return HostError::HostKey {
                what: format!("wrong host key for {place}: {seen}, but {file} has {}", known.join(", ")),
                hint: format!(
                    "possible man-in-the-middle attack; if the host was reinstalled, compare with `{}` on its \
                     console, then run `ssh-keygen -R '{}' -f {file}` and the command again with \
                     --accept-new-host-keys",
                    show_key(key),
                    name(&self.settings.address, self.settings.port)
                ),
            };
        }
        if let Some(line) = self.known.authorities.first() {
            let has = match &certificate {
                Some(certificate) => format!("a certificate by {}", described(&certificate.authority)),
                None => "no certificate".to_owned(),
            };
            return HostError::HostKey {
                what: format!(
                    "host key of {place} is {seen} with {has}, but {file}:{} requires a certificate by {}",
                    line.line,
                    described(&line.blob)
                ),
                hint: format!(
                    "sign the host key with that authority: `ssh-keygen -s AUTHORITY -h -I {} -n {} \
                     ssh_host_ed25519_key.pub`{}",
                    self.settings.address,
                    self.settings.address,
                    self.or_pin()
                ),
            };
        }
        HostError::HostKey {
            what: format!("unknown host key for {place}: {seen} is not in {file}"),
            hint: format!(
                "compare it with `{}` on the host's console, then run the command again with --accept-new-host-keys{}",
                show_key(key),
                self.or_pin()
            ),
        }
    }

    /// The other cure, if there is one.
    fn or_pin(&self) -> String {
        if self.settings.is_jump {
            return String::new();
        }
        format!(", or set hostKey of {} in cluster.yaml", self.settings.name)
    }

    /// Why a server that has no key to present at all is not accepted.
    pub(super) fn keyless(&self) -> HostError {
        HostError::HostKey {
            what: format!("{} offers no host key of a supported type", self.settings.place()),
            hint: "run `ssh-keygen -A` on the host; supported are ed25519, ECDSA, and RSA with SHA-2".to_owned(),
        }
    }
}

/// Fingerprint and type.
fn described(key: &[u8]) -> String {
    format!("{} ({})", fingerprint(key), kind_of(key))
}

/// The command that shows this key's fingerprint on the host itself.
fn show_key(key: &[u8]) -> String {
    let kind = match kind_of(key).as_str() {
        "ssh-rsa" => "rsa",
        kind if kind.starts_with("ecdsa") => "ecdsa",
        _ => "ed25519",
    };
    format!("ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub")
}
