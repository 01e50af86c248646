//! The forms in which upstream publishes a sha256.

/// The digest of the file `name` in a published text: the bare digest, or lines as sha256sum writes them, possibly
/// inside a clear-signed text.
pub(super) fn digest_of(name: &str, text: &str) -> Option<String> {
    let text = text.trim();
    if is_digest(text) {
        return Some(text.to_lowercase());
    }
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (digest, file) = (words.next()?, words.next()?);
        // `*` marks a file that was read as binary.
        let file = file.trim_start_matches('*');
        let file = file.rsplit('/').next().unwrap_or(file);
        (words.next().is_none() && file == name && is_digest(digest)).then(|| digest.to_lowercase())
    })
}

/// Whether it is 64 hexadecimal digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_that_upstream_uses_is_read() {
        let (one, other) = ("0A".repeat(32), "1b".repeat(32));
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{other}  runc.arm64\n{one} *runc.amd64\n\
             -----BEGIN PGP SIGNATURE-----\n\niQIzBAEBCgAdFiEE\n=abcd\n-----END PGP SIGNATURE-----\n"
        );
        let table = [
            ("bare, without a line's end", "kubelet", one.clone(), true),
            ("with a line's end", "kubelet", format!("{one}\n"), true),
            ("one of many", "etcd.tar.gz", format!("{other}  other.tar.gz\n{one}  etcd.tar.gz\n"), true),
            ("with a path", "c.tgz", format!("{one}  ./release/c.tgz\n"), true),
            ("clear-signed", "runc.amd64", signed, true),
            ("of other files only", "etcd.tar.gz", format!("{other}  other.tar.gz\n"), false),
            ("a page", "kubelet", "<html>not found</html>".to_owned(), false),
            ("too short", "kubelet", one[1..].to_owned(), false),
            ("nothing", "kubelet", String::new(), false),
        ];
        for (what, name, text, known) in table {
            assert_eq!(digest_of(name, &text), known.then(|| one.to_lowercase()), "{what}");
        }
    }
}
