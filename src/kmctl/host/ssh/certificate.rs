//! Host certificates (OpenSSH's `PROTOCOL.certkeys`): a host key with names and dates, signed by an authority.
//!
//! libssh2 treats such a certificate as the host key, and proves that the server has its key. This module checks
//! whether the authority is trusted and the certificate is valid.
use std::time::{SystemTime, UNIX_EPOCH};

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use super::known_hosts::{glob, kind_of};
use super::wire::{Wire, put};

/// The suffix of a certificate's type.
const SUFFIX: &str = "-cert-v01@openssh.com";

/// The certificate is a host's, not a user's.
const HOST: u32 = 2;

/// A certificate as its server presents it. Nothing in it may be trusted before [`Certificate::check`].
pub(super) struct Certificate {
    /// The host's own key, in the form used in known_hosts.
    pub(super) key: Vec<u8>,
    /// The key that signed.
    pub(super) authority: Vec<u8>,
    role: u32,
    names: Vec<String>,
    /// Seconds since 1970. Valid from the first up to, but not including, the second.
    valid: (u64, u64),
    has_options: bool,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Certificate {
    /// `None` if `blob` is not a certificate.
    pub(super) fn parse(blob: &[u8]) -> Option<Certificate> {
        let kind = kind_of(blob);
        let plain = kind.strip_suffix(SUFFIX)?;
        let fields = match plain {
            "ssh-ed25519" => 1,
            "ssh-rsa" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" => 2,
            _ => return None,
        };
        let mut wire = Wire::new(blob);
        let (_kind, _nonce) = (wire.string()?, wire.string()?);
        let mut key = Vec::new();
        put(&mut key, plain.as_bytes());
        for _ in 0..fields {
            put(&mut key, wire.string()?);
        }
        let (_serial, role, _id) = (wire.u64()?, wire.u32()?, wire.string()?);
        let mut list = Wire::new(wire.string()?);
        let mut names = Vec::new();
        while !list.rest().is_empty() {
            names.push(list.text()?);
        }
        let valid = (wire.u64()?, wire.u64()?);
        let has_options = !wire.string()?.is_empty();
        let (_extensions, _reserved) = (wire.string()?, wire.string()?);
        let authority = wire.string()?.to_vec();
        let signed = blob[..blob.len() - wire.rest().len()].to_vec();
        let signature = wire.string()?.to_vec();
        wire.rest().is_empty().then_some(Certificate {
            key,
            authority,
            role,
            names,
            valid,
            has_options,
            signed,
            signature,
        })
    }

    /// Checks that the certificate certifies at `now` that its key is `host`'s. The error text continues the words "its
    /// certificate".
    pub(super) fn check(&self, host: &str, now: SystemTime) -> Result<(), String> {
        verify(&self.authority, &self.signed, &self.signature)?;
        if self.role != HOST {
            return Err("is not a host certificate".to_owned());
        }
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (from, until) = self.valid;
        if now < from {
            return Err(format!("is not valid before {}", date(from)));
        }
        if now >= until {
            return Err(format!("expired at {}", date(until)));
        }
        if self.names.is_empty() {
            return Err("lists no host".to_owned());
        }
        let names = |name: &String| glob(name.to_lowercase().as_bytes(), host.to_lowercase().as_bytes());
        if !self.names.iter().any(names) {
            return Err(format!("is valid for {}, not for {host}", self.names.join(", ")));
        }
        // No such option is defined for hosts, and an unknown critical option must not be ignored.
        if self.has_options {
            return Err("has critical options, which host certificates must not have".to_owned());
        }
        Ok(())
    }
}

fn date(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| "the end of time".to_owned(), |timestamp| timestamp.to_string())
}

/// Verifies that `signature` over `message` was made with `key`'s private half. SHA-1 is not accepted.
fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), String> {
    let wrong = || "is not signed by its authority".to_owned();
    let mut wire = Wire::new(signature);
    let (algorithm, signature) = (wire.text().ok_or_else(wrong)?, wire.string().ok_or_else(wrong)?);
    let mut wire = Wire::new(key);
    let kind = wire.text().ok_or_else(wrong)?;
    let raw = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8], signature: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).map_err(|_| wrong())
    };
    match (kind.as_str(), algorithm.as_str()) {
        ("ssh-ed25519", "ssh-ed25519") => raw(&ED25519, wire.string().ok_or_else(wrong)?, signature),
        ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") | ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => {
            let (algorithm, width): (&'static dyn VerificationAlgorithm, usize) =
                if kind.ends_with("256") { (&ECDSA_P256_SHA256_FIXED, 32) } else { (&ECDSA_P384_SHA384_FIXED, 48) };
            let (_curve, point) = (wire.string(), wire.string().ok_or_else(wrong)?);
            raw(algorithm, point, &fixed(signature, width).ok_or_else(wrong)?)
        }
        ("ssh-rsa", "rsa-sha2-256" | "rsa-sha2-512") => {
            let (e, n) = (wire.string().ok_or_else(wrong)?, wire.string().ok_or_else(wrong)?);
            let parameters =
                if algorithm.ends_with("256") { &RSA_PKCS1_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA512 };
            let key = RsaPublicKeyComponents { n: number(n), e: number(e) };
            key.verify(parameters, message, signature).map_err(|_| wrong())
        }
        _ => Err(format!("has an unsupported signature: {algorithm} by a key of type {kind}")),
    }
}

/// A number without the leading zeros that the wire form may have.
fn number(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

/// ECDSA's two numbers, each of `width` bytes, one after the other.
fn fixed(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut wire = Wire::new(signature);
    let mut out = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let number = number(wire.string()?);
        out.resize(out.len() + width.checked_sub(number.len())?, 0);
        out.extend(number);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use base64::Engine as _;
    use tempfile::TempDir;

    use super::*;

    /// A certificate that `ssh-keygen` makes with these arguments, by an authority of type `kind` and `bits`.
    fn certificate(kind: &str, bits: &str, arguments: &[&str]) -> Vec<u8> {
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let output = Command::new("ssh-keygen").current_dir(folder.path()).args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["-q", "-t", kind, "-b", bits, "-N", "", "-f", "authority"]);
        run(&["-q", "-t", "ed25519", "-N", "", "-f", "host"]);
        let mut sign = vec!["-q", "-s", "authority", "-I", "id"];
        sign.extend(arguments);
        sign.push("host.pub");
        run(&sign);
        let line = std::fs::read_to_string(folder.path().join("host-cert.pub")).unwrap();
        base64::engine::general_purpose::STANDARD.decode(line.split(' ').nth(1).unwrap()).unwrap()
    }

    fn check(blob: &[u8], host: &str, now: SystemTime) -> String {
        Certificate::parse(blob).expect("a certificate").check(host, now).err().unwrap_or_default()
    }

    #[test]
    fn authorities_of_every_usual_type_are_verified() {
        for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("rsa", "2048"), ("rsa", "3072")] {
            // Often enough for a number of an ECDSA signature that is shorter than its field.
            for _ in 0..if kind == "ecdsa" { 8 } else { 1 } {
                let blob = certificate(kind, bits, &["-h", "-n", "cp1,cp1.example.com"]);
                assert_eq!(check(&blob, "CP1.example.com", SystemTime::now()), "", "{kind} {bits}");
            }
        }
        let sha1 = certificate("rsa", "2048", &["-h", "-n", "cp1", "-t", "ssh-rsa"]);
        assert!(check(&sha1, "cp1", SystemTime::now()).contains("unsupported signature: ssh-rsa"));
        let wide = certificate("ecdsa", "521", &["-h", "-n", "cp1"]);
        assert!(check(&wide, "cp1", SystemTime::now()).contains("unsupported signature"));
    }

    #[test]
    fn a_certificate_speaks_only_of_its_hosts_and_its_time() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let dates = ["-h", "-n", "cp1,cp2", "-V", "19700101000100Z:19700101000200Z"];
        let blob = certificate("ed25519", "256", &dates);
        assert_eq!(check(&blob, "cp2", at(60)), "");
        assert_eq!(check(&blob, "cp3", at(60)), "is valid for cp1, cp2, not for cp3");
        assert_eq!(check(&blob, "cp1", at(59)), "is not valid before 1970-01-01T00:01:00Z");
        assert_eq!(check(&blob, "cp1", at(120)), "expired at 1970-01-01T00:02:00Z");
        assert_eq!(check(&certificate("ed25519", "256", &["-h"]), "cp1", at(0)), "lists no host");
        assert_eq!(check(&certificate("ed25519", "256", &["-n", "cp1"]), "cp1", at(0)), "is not a host certificate");
    }

    #[test]
    fn a_name_may_be_a_pattern() {
        let blob = certificate("ed25519", "256", &["-h", "-n", "10.0.0.?,*.example.com"]);
        for (host, good) in
            [("10.0.0.1", true), ("10.0.0.11", false), ("CP1.example.com", true), ("example.com", false)]
        {
            assert_eq!(check(&blob, host, SystemTime::now()).is_empty(), good, "{host}");
        }
    }

    #[test]
    fn no_byte_of_a_certificate_can_be_changed() {
        let blob = certificate("ed25519", "256", &["-h", "-n", "cp1"]);
        for index in 0..blob.len() {
            let mut changed = blob.clone();
            changed[index] ^= 1;
            let good = Certificate::parse(&changed).is_some_and(|it| it.check("cp1", SystemTime::now()).is_ok());
            assert!(!good, "byte {index}");
            assert!(Certificate::parse(&blob[..index]).is_none(), "cut at {index}");
        }
    }

    #[test]
    fn the_key_in_a_certificate_is_the_one_in_its_public_file() {
        let blob = certificate("ed25519", "256", &["-h", "-n", "cp1"]);
        let parsed = Certificate::parse(&blob).unwrap();
        assert_eq!(kind_of(&parsed.key), "ssh-ed25519");
        assert_eq!(parsed.key.len(), 4 + 11 + 4 + 32);
        assert!(Certificate::parse(&parsed.key).is_none());
    }
}
