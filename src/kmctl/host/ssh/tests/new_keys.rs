//! Hosts that are not in known_hosts, accepted on request.
use super::*;

/// Settings without known_hosts, in a directory that does not exist.
fn unknown(server: &Server) -> SshSettings {
    SshSettings { accept_new: true, known_hosts: server.path("ssh").join("known_hosts"), ..server.settings() }
}

#[tokio::test]
async fn a_new_host_is_told_with_its_fingerprint_and_known_from_then_on() {
    let server = Server::start(&["ed25519", "rsa"]);
    let (sender, mut notes) = mpsc::unbounded_channel();
    let settings = unknown(&server);
    SshHost::connect(settings.clone(), &Progress::new(Recorder(sender))).await.unwrap();
    let note = notes.recv().await.unwrap();
    assert!(note.starts_with("cp1: ") && note.contains(&server.fingerprint("ed25519")), "{note}");
    assert!(note.contains(&settings.known_hosts.display().to_string()), "{note}");
    let content = std::fs::read_to_string(&settings.known_hosts).unwrap();
    assert_eq!(content, format!("[127.0.0.1]:{} {}\n", server.port, server.public("ed25519")));
    connect(SshSettings { accept_new: false, ..settings }).await.unwrap();
    // How ssh itself reads the file.
    let found = Process::new("ssh-keygen")
        .args(["-F", &format!("[127.0.0.1]:{}", server.port), "-f"])
        .arg(server.path("ssh").join("known_hosts"))
        .status();
    assert!(found.unwrap().success());
}

#[tokio::test]
async fn only_what_is_new_is_accepted() {
    let (server, old) = (Server::start(&["ed25519"]), Server::start(&["ed25519", "rsa"]));
    let port = server.port;
    let changed = |kind: &str| format!("[127.0.0.1]:{port} {}\n", old.public(kind));
    let revoked = format!("@revoked * {}\n", server.public("ed25519"));
    for known in [changed("ed25519"), changed("rsa"), revoked] {
        let settings = SshSettings { accept_new: true, ..server.known_as(known.clone()) };
        refused(settings).await;
        assert_eq!(std::fs::read_to_string(server.path("known")).unwrap(), known);
    }
    let mut pinned = unknown(&server);
    pinned.host_key = Some(old.fingerprint("ed25519"));
    refused(pinned).await;
    assert!(!server.path("ssh").exists());
}

#[tokio::test]
async fn a_key_that_cannot_be_written_down_is_not_trusted() {
    let server = Server::start(&["ed25519"]);
    let settings = SshSettings { known_hosts: "/dev/null".into(), ..unknown(&server) };
    let error = connect(settings).await.err().unwrap();
    assert_eq!(error.to_string(), format!("failed to write the host key of 127.0.0.1:{} to /dev/null", server.port));
    assert!(!server.log().contains("Accepted"), "{}", server.log());
}

#[tokio::test]
async fn ten_new_hosts_at_once_are_all_written_down() {
    let servers: Vec<_> = (0..10).map(|_| Server::start(&["ed25519"])).collect();
    let known = servers[0].path("ssh").join("known_hosts");
    let settings = |server| SshSettings { known_hosts: known.clone(), ..unknown(server) };
    let all = futures::future::join_all(servers.iter().map(|server| connect(settings(server)))).await;
    assert!(all.into_iter().all(|result| result.is_ok()));
    assert_eq!(std::fs::read_to_string(&known).unwrap().lines().count(), 10);
}
