//! Host certificates, signed by authorities of the tests' own.
use tempfile::TempDir;

use super::*;

/// An sshd whose key has a certificate, and the authority that signed it.
struct Certified {
    server: Server,
    folder: TempDir,
}

fn keygen(folder: &TempDir, arguments: &[&str]) {
    let output = Process::new("ssh-keygen").current_dir(folder.path()).arg("-q").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Certified {
    fn start(host: &str, authority: &str, arguments: &[&str]) -> Certified {
        let folder = TempDir::new().unwrap();
        keygen(&folder, &["-t", authority, "-N", "", "-C", "", "-f", "authority"]);
        keygen(&folder, &["-t", host, "-N", "", "-C", "", "-f", "host"]);
        keygen(&folder, &[&["-s", "authority", "-I", "test"], arguments, &["host.pub"]].concat());
        let path = folder.path().join("host").display().to_string();
        let server = Server::configured(&[], &format!("HostKey {path}\nHostCertificate {path}-cert.pub"));
        Certified { server, folder }
    }

    fn public(&self, name: &str) -> String {
        let line = std::fs::read_to_string(self.folder.path().join(name).with_extension("pub")).unwrap();
        line.trim().to_owned()
    }

    fn fingerprint(&self, name: &str) -> String {
        use base64::Engine as _;
        let public = self.public(name);
        fingerprint(&base64::engine::general_purpose::STANDARD.decode(public.split(' ').nth(1).unwrap()).unwrap())
    }

    /// Settings for which known_hosts has these lines, where AUTHORITY and HOST are placeholders for the keys.
    fn known_as(&self, lines: &str) -> SshSettings {
        let lines = lines.replace("AUTHORITY", &self.public("authority")).replace("HOST", &self.public("host"));
        self.server.known_as(lines + "\n")
    }
}

const GOOD: [&str; 3] = ["-h", "-n", "localhost,127.0.0.1"];

#[tokio::test]
async fn a_certificate_of_a_known_authority_is_trusted() {
    for (host, authority) in [("ed25519", "ed25519"), ("ecdsa", "rsa"), ("rsa", "ecdsa")] {
        let certified = Certified::start(host, authority, &GOOD);
        // Authorities are listed without a port, and ssh finds them that way, too.
        let settings = certified.known_as("@cert-authority 127.0.0.*,*.example.com AUTHORITY");
        let host = connect(settings).await.unwrap_or_else(|error| panic!("{host} by {authority}: {error}"));
        assert_eq!(host.run(Command::new(["echo", "in"])).await.unwrap().text(), "in\n");
    }
}

#[tokio::test]
async fn a_bad_certificate_is_refused_with_the_reason_even_if_the_key_itself_is_known() {
    let table: [(&[&str], &str); 4] = [
        (&["-h", "-n", "127.0.0.1", "-V", "20200101:20200102"], "expired at 2020-01-0"),
        (&["-h", "-n", "cp9,127.0.0.11"], "is valid for cp9, 127.0.0.11, not for 127.0.0.1"),
        (&["-h"], "lists no host"),
        (&["-h", "-n", "127.0.0.1", "-V", "+52w:+104w"], "is not valid before"),
    ];
    for (arguments, reason) in table {
        let certified = Certified::start("ed25519", "ed25519", arguments);
        let port = certified.server.port;
        let settings = certified.known_as(&format!("@cert-authority 127.0.0.1 AUTHORITY\n[127.0.0.1]:{port} HOST"));
        let (what, hint) = refused(settings).await;
        assert!(what.contains(reason) && what.contains("known:1)"), "{what}");
        assert!(what.contains(&certified.fingerprint("host")), "{what}");
        assert!(what.contains(&certified.fingerprint("authority")), "{what}");
        assert!(hint.contains("ssh-keygen -s AUTHORITY -h"), "{hint}");
    }
}

#[tokio::test]
async fn revoking_an_authority_or_a_key_ends_the_trust_in_its_certificates() {
    let certified = Certified::start("ed25519", "ed25519", &GOOD);
    for (name, text) in [("AUTHORITY", "authority of the host certificate"), ("HOST", "host key")] {
        let settings = certified.known_as(&format!("@cert-authority * AUTHORITY\n@revoked * {name}"));
        let (what, _) = refused(settings).await;
        assert!(what.starts_with(text) && what.ends_with("known:2"), "{what}");
    }
}

#[tokio::test]
async fn a_host_that_should_have_a_certificate_is_not_taken_for_new() {
    let (certified, plain) = (Certified::start("ed25519", "ed25519", &GOOD), Server::start(&["ed25519"]));
    let other = Certified::start("ed25519", "ed25519", &GOOD);
    let line = format!("@cert-authority 127.0.0.1 {}\n", certified.public("authority"));
    for (server, has) in [
        (&plain, "with no certificate".to_owned()),
        (&other.server, format!("with a certificate by {}", other.fingerprint("authority"))),
    ] {
        let settings = SshSettings { accept_new: true, ..server.known_as(line.clone()) };
        let (what, hint) = refused(settings).await;
        assert!(what.contains(&has) && what.contains(&certified.fingerprint("authority")), "{what}");
        assert!(hint.contains("hostKey of cp1"), "{hint}");
        assert_eq!(std::fs::read_to_string(server.path("known")).unwrap(), line);
    }
}

#[tokio::test]
async fn a_known_or_pinned_key_needs_no_certificate() {
    let certified = Certified::start("ed25519", "ed25519", &GOOD);
    let other = Certified::start("ed25519", "ed25519", &GOOD);
    let port = certified.server.port;
    let authority = other.public("authority");
    connect(certified.known_as(&format!("@cert-authority * {authority}\n[127.0.0.1]:{port} HOST"))).await.unwrap();
    let mut settings = certified.known_as("");
    settings.host_key = Some(certified.fingerprint("host"));
    connect(settings).await.unwrap();
}
