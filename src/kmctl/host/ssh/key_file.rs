//! What a private key's file reveals without its passphrase.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::Wire;

/// The first bytes of OpenSSH's own format.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A private key as stored on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeyFile {
    /// It needs a passphrase.
    pub(super) encrypted: bool,
    /// The public half in wire form, if it is known.
    pub(super) public: Option<Vec<u8>>,
}

impl KeyFile {
    /// Parses the file's content, and that of the `.pub` file beside it, if there is one.
    pub(super) fn parse(private: &str, public: Option<&str>) -> KeyFile {
        let beside = public.and_then(|line| STANDARD.decode(line.split_ascii_whitespace().nth(1)?).ok());
        match opened(private) {
            Some((encrypted, public)) => KeyFile { encrypted, public: Some(public) },
            // PKCS#8 and the older forms, which say so in their headers.
            None => KeyFile {
                encrypted: private.contains("BEGIN ENCRYPTED PRIVATE KEY")
                    || private.contains("Proc-Type: 4,ENCRYPTED"),
                public: beside,
            },
        }
    }

    /// The public half as a line of a `.pub` file.
    pub(super) fn line(&self) -> Option<String> {
        let public = self.public.as_ref()?;
        Some(format!("{} {}", Wire::new(public).text()?, STANDARD.encode(public)))
    }
}

/// Whether a key in OpenSSH's format is encrypted, and its public half, which never is.
fn opened(private: &str) -> Option<(bool, Vec<u8>)> {
    let body = private.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?.1.split_once("-----END")?.0;
    let body: String = body.split_ascii_whitespace().collect();
    let body = STANDARD.decode(body).ok()?;
    let mut wire = Wire::new(body.strip_prefix(MAGIC)?);
    let (cipher, _derivation, _options) = (wire.string()?, wire.string()?, wire.string()?);
    let _count = wire.u32()?;
    Some((cipher != b"none", wire.string()?.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn every_form_of_key_tells_whether_it_is_encrypted() {
        for (kind, format) in [("ed25519", "RFC4716"), ("rsa", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "PKCS8")] {
            for passphrase in ["", "secret"] {
                let folder = TempDir::new().unwrap();
                let path = folder.path().join("key");
                let mut make = Command::new("ssh-keygen");
                make.args(["-q", "-t", kind, "-m", format, "-N", passphrase, "-f"]).arg(&path);
                assert!(make.status().unwrap().success());
                let (private, public) = (
                    std::fs::read_to_string(&path).unwrap(),
                    std::fs::read_to_string(path.with_extension("pub")).unwrap(),
                );
                let key = KeyFile::parse(&private, Some(&public));
                assert_eq!(key.encrypted, !passphrase.is_empty(), "{kind} {format}");
                let line = key.line().unwrap();
                assert!(public.starts_with(&line), "{kind} {format}: {line}");
                // Only OpenSSH's own format contains the public half.
                let alone = KeyFile::parse(&private, None);
                assert_eq!(alone.public.is_some(), format == "RFC4716", "{kind} {format}");
            }
        }
        assert_eq!(KeyFile::parse("what is this?", None), KeyFile::default());
    }
}
