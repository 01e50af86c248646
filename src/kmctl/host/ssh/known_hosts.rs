//! OpenSSH's known_hosts file, with our own reader.
//!
//! libssh2's reader ignores `@revoked` and `@cert-authority` lines and wildcards, and reports a host that is known by
//! another type of key as a mismatch. This reader refuses a revoked key and returns the types of the known keys, so
//! that the server is asked for a key that can be compared.
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;
use ring::rand::SecureRandom as _;
use sha2::{Digest, Sha256};

use super::wire::Wire;

/// What a known_hosts file says about one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Keys that the host may present.
    pub keys: Vec<KnownKey>,
    /// Keys that it must not present.
    pub revoked: Vec<KnownKey>,
    /// Authorities whose certificates are valid for this host.
    pub authorities: Vec<KnownKey>,
}

/// One key and its line in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The key's type, e.g. `ssh-ed25519`.
    pub kind: String,
    /// The key in SSH's wire form.
    pub blob: Vec<u8>,
    /// Line in the file, from 1.
    pub line: usize,
}

impl Known {
    /// Reads what `file` says about `host` at `port`. A file that does not exist says nothing.
    pub fn read(file: &Path, host: &str, port: u16) -> io::Result<Known> {
        match std::fs::read(file) {
            Ok(content) => Ok(Known::parse(&String::from_utf8_lossy(&content), host, port)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses a file's content. Invalid lines are ignored, as OpenSSH does.
    pub fn parse(content: &str, host: &str, port: u16) -> Known {
        let (wanted, plain) = (name(host, port), host.to_lowercase());
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
            // Authorities apply to machines, whatever port their sshd uses. To be safe, so do revocations.
            if !matches(names, &wanted) && (marker.is_none() || !matches(names, &plain)) {
                continue;
            }
            let key = KnownKey { kind: kind.to_owned(), blob, line: index + 1 };
            match marker {
                None => known.keys.push(key),
                Some("@revoked") => known.revoked.push(key),
                Some("@cert-authority") => known.authorities.push(key),
                Some(_) => {}
            }
        }
        known
    }
}

/// A host's name in the file: its plain name on port 22, and in brackets with its port on any other.
pub fn name(host: &str, port: u16) -> String {
    if port == 22 { host.to_lowercase() } else { format!("[{}]:{port}", host.to_lowercase()) }
}

/// One at a time: many hosts may be new at once.
static ADDING: Mutex<()> = Mutex::new(());

/// Adds a line for `host` at `port`, hashed if the file has hashed names. The file is replaced atomically, so a
/// concurrent reader sees either the old or the new content. Its directory is created if it is missing.
///
/// # Errors
/// Those of reading and writing, and [`std::io::ErrorKind::InvalidInput`] if `file` is not a regular file.
pub fn add(file: &Path, host: &str, port: u16, blob: &[u8]) -> io::Result<()> {
    let _one = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
    // A symbolic link remains one: its target is replaced.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let (mut content, permissions) = match std::fs::metadata(&file) {
        Ok(metadata) if metadata.is_file() => (std::fs::read(&file)?, Some(metadata.permissions())),
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => return Err(error),
    };
    if Known::parse(&String::from_utf8_lossy(&content), host, port).keys.iter().any(|key| key.blob == blob) {
        return Ok(());
    }
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    let mut names = name(host, port);
    if content.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"|1|")) {
        names = hashed(&names)?;
    }
    content.extend(format!("{names} {} {}\n", kind_of(blob), STANDARD.encode(blob)).bytes());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&content)?;
    if let Some(permissions) = permissions {
        new.as_file().set_permissions(permissions)?;
    }
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}

/// Hashes a name, so that the file does not reveal it.
fn hashed(name: &str) -> io::Result<String> {
    let mut salt = [0; 20];
    ring::rand::SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("random number generator failed"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    Ok(format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hmac::sign(&key, name.as_bytes()))))
}

/// The fingerprint as OpenSSH prints it: `SHA256:…`.
pub fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

/// The type of a key, which is the first string of its wire form.
pub fn kind_of(blob: &[u8]) -> String {
    Wire::new(blob).text().unwrap_or_default()
}

/// Whether the first column of a line names the host: a hash, or patterns of which none may exclude it.
fn matches(names: &str, wanted: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        let mut parts = hashed.split('|');
        let (Some(salt), Some(hash)) = (parts.next(), parts.next()) else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        // The file format prescribes SHA-1. It only hides names and protects nothing.
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

/// Whether the pattern matches: `*` matches any text and `?` one character.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
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
        super::hashed(name).unwrap()
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
        let content = format!(
            "@revoked {}\n@cert-authority {}\n@unknown {}\n@cert-authority {}",
            line("*", 1),
            line("h", 2),
            line("h", 3),
            line("*.other,[h]:23", 4)
        );
        for (port, authorities) in [(22, vec![2]), (23, vec![2, 4])] {
            let known = Known::parse(&content, "h", port);
            assert!(known.keys.is_empty());
            assert_eq!(known.revoked.len(), 1);
            assert_eq!(known.authorities.iter().map(|key| key.line).collect::<Vec<_>>(), authorities, "{port}");
        }
    }

    #[test]
    fn an_added_key_is_known_and_the_rest_of_the_file_stays() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("new/.ssh/known");
        add(&file, "h", 22, &blob("ssh-ed25519", 1)).unwrap();
        // Written without a final line break, as some editors do, and already known.
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap().trim_end()).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        add(&file, "H", 22, &blob("ssh-ed25519", 1)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        add(&link, "h", 2222, &blob("ssh-ed25519", 2)).unwrap();
        let content = std::fs::read_to_string(&file).unwrap();
        let first = STANDARD.encode(blob("ssh-ed25519", 1));
        let second = STANDARD.encode(blob("ssh-ed25519", 2));
        assert_eq!(content, format!("h ssh-ed25519 {first}\n[h]:2222 ssh-ed25519 {second}\n"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!((mode & 0o777, link.is_symlink()), (0o644, true));
    }

    #[test]
    fn a_name_is_hidden_where_the_others_are() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("known");
        std::fs::write(&file, line(&hashed("other"), 1) + "\n").unwrap();
        add(&file, "h", 22, &blob("ssh-ed25519", 2)).unwrap();
        let content = std::fs::read_to_string(&file).unwrap();
        assert_eq!(content.lines().filter(|line| line.starts_with("|1|")).count(), 2, "{content}");
        assert_eq!(Known::parse(&content, "h", 22).keys.len(), 1);
    }

    #[test]
    fn many_keys_at_once_are_all_added_and_what_is_no_file_is_left_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("known");
        std::thread::scope(|scope| {
            for index in 0..16u8 {
                let file = &file;
                scope.spawn(move || add(file, &format!("h{index}"), 22, &blob("ssh-ed25519", index)).unwrap());
            }
        });
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 16);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = add(Path::new("/dev/null"), "h", 22, &blob("ssh-ed25519", 1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
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
