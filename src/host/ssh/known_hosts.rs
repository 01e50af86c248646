//! OpenSSH's known_hosts file, read by ourselves.
//!
//! libssh2's own reader passes over `@revoked` and `@cert-authority` lines and wildcards, and calls a host that is
//! known by another type of key a mismatch. Here a revoked key is refused, and the types of the known keys are handed
//! back, so that the server is asked for a key that can be compared at all.
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;
use sha2::{Digest, Sha256};

/// What a known_hosts file says about one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Keys that the host may show.
    pub keys: Vec<KnownKey>,
    /// Keys that it must not show.
    pub revoked: Vec<KnownKey>,
    /// The line of a certificate authority for this host, which is not supported yet.
    pub authority: Option<usize>,
}

/// One key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// E.g. `ssh-ed25519`.
    pub kind: String,
    /// The key in SSH's wire form.
    pub blob: Vec<u8>,
    /// Line in the file, from 1.
    pub line: usize,
}

impl Known {
    /// Reads what `file` says about `host` at `port`. A file that does not exist says nothing.
    pub fn read(file: &Path, host: &str, port: u16) -> std::io::Result<Known> {
        match std::fs::read(file) {
            Ok(content) => Ok(Known::parse(&String::from_utf8_lossy(&content), host, port)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::default()),
            Err(error) => Err(error),
        }
    }

    /// The same for a file's content. Lines that make no sense are passed over, as OpenSSH does.
    pub fn parse(content: &str, host: &str, port: u16) -> Known {
        // OpenSSH looks for the plain name on port 22, and only for the bracketed form on any other.
        let wanted = if port == 22 { host.to_lowercase() } else { format!("[{}]:{port}", host.to_lowercase()) };
        let mut known = Known::default();
        for (index, line) in content.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let (marker, names) = match words.next() {
                Some(marker) if marker.starts_with('@') => (Some(marker), words.next()),
                names => (None, names),
            };
            let (Some(names), Some(kind), Some(key)) = (names, words.next(), words.next()) else { continue };
            let Ok(blob) = STANDARD.decode(key) else { continue };
            if !matches(names, &wanted) {
                continue;
            }
            let key = KnownKey { kind: kind.to_owned(), blob, line: index + 1 };
            match marker {
                None => known.keys.push(key),
                Some("@revoked") => known.revoked.push(key),
                Some("@cert-authority") => known.authority = Some(index + 1),
                Some(_) => {}
            }
        }
        known
    }
}

/// The fingerprint as OpenSSH prints it: `SHA256:…`.
pub fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

/// The type of a key, which is the first string of its wire form.
pub fn kind_of(blob: &[u8]) -> String {
    let length = blob.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
    String::from_utf8_lossy(blob.get(4..4 + length).unwrap_or_default()).into_owned()
}

/// Whether the first column of a line names the host: a hash, or patterns of which none may exclude it.
fn matches(names: &str, wanted: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        let mut parts = hashed.split('|');
        let (Some(salt), Some(hash)) = (parts.next(), parts.next()) else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        // SHA-1 is what the file format prescribes; it hides names and protects nothing.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, wanted.as_bytes(), &hash).is_ok();
    }
    let mut found = false;
    for pattern in names.to_lowercase().split(',') {
        match pattern.strip_prefix('!') {
            Some(excluded) if glob(excluded.as_bytes(), wanted.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(pattern.as_bytes(), wanted.as_bytes()),
        }
    }
    found
}

/// `*` stands for any text and `?` for one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => glob(&pattern[1..], text) || (!text.is_empty() && glob(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(p), Some(t)) if p == t => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key in wire form whose type is `kind`.
    fn blob(kind: &str, fill: u8) -> Vec<u8> {
        let mut blob = (kind.len() as u32).to_be_bytes().to_vec();
        blob.extend(kind.as_bytes());
        blob.extend([0, 0, 0, 1, fill]);
        blob
    }

    fn line(names: &str, fill: u8) -> String {
        format!("{names} ssh-ed25519 {} comment", STANDARD.encode(blob("ssh-ed25519", fill)))
    }

    fn hashed(name: &str) -> String {
        let salt = b"twenty bytes of salt";
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
        format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hmac::sign(&key, name.as_bytes())))
    }

    #[test]
    fn a_line_speaks_of_a_host_as_openssh_would_read_it() {
        let table = [
            ("10.0.0.1", "10.0.0.1", 22, true),
            ("10.0.0.1", "10.0.0.1", 2222, false),
            ("[10.0.0.1]:2222", "10.0.0.1", 2222, true),
            ("[10.0.0.1]:2222", "10.0.0.1", 22, false),
            ("other,CP1.example.com", "cp1.example.com", 22, true),
            ("*.example.com", "cp1.example.com", 22, true),
            ("*.example.com,!cp1.example.com", "cp1.example.com", 22, false),
            ("!cp1.example.com", "cp1.example.com", 22, false),
            ("10.0.0.?", "10.0.0.1", 22, true),
            ("10.0.0.?", "10.0.0.11", 22, false),
            (&hashed("10.0.0.1"), "10.0.0.1", 22, true),
            (&hashed("10.0.0.2"), "10.0.0.1", 22, false),
            (&hashed("[10.0.0.1]:2222"), "10.0.0.1", 2222, true),
            (&hashed("10.0.0.1"), "10.0.0.1", 2222, false),
        ];
        for (names, host, port, expected) in table {
            let known = Known::parse(&line(names, 1), host, port);
            assert_eq!(!known.keys.is_empty(), expected, "{names} for {host}:{port}");
        }
    }

    #[test]
    fn several_keys_of_one_host_are_all_kept_with_their_lines() {
        let rsa = format!("h ssh-rsa {}", STANDARD.encode(blob("ssh-rsa", 3)));
        let content = format!("# a comment\n{}\n\nother ssh-ed25519 AAAA\n{rsa}\n", line("h", 1));
        let known = Known::parse(&content, "h", 22);
        let seen: Vec<_> = known.keys.iter().map(|key| (key.kind.as_str(), key.line)).collect();
        assert_eq!(seen, [("ssh-ed25519", 2), ("ssh-rsa", 5)]);
    }

    #[test]
    fn markers_are_told_apart_from_names() {
        let content = format!("@revoked {}\n@cert-authority {}\n@unknown {}", line("*", 1), line("h", 2), line("h", 3));
        let known = Known::parse(&content, "h", 22);
        assert!(known.keys.is_empty());
        assert_eq!(known.revoked.len(), 1);
        assert_eq!(known.authority, Some(2));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        for content in
            ["h", "h ssh-ed25519", "h ssh-ed25519 not*base64", "|1|x|y ssh-ed25519 AAAA", "|1| ssh-ed25519 AAAA"]
        {
            assert_eq!(Known::parse(content, "h", 22), Known::default(), "{content}");
        }
    }

    #[test]
    fn the_type_of_a_key_is_read_from_its_wire_form() {
        assert_eq!(kind_of(&blob("ecdsa-sha2-nistp256", 0)), "ecdsa-sha2-nistp256");
        assert_eq!(kind_of(&[0, 0, 0, 200, 1]), "");
        assert_eq!(kind_of(&[]), "");
    }
}
