//! Tests against a real sshd, private to each test: its own keys, its own configuration, a port on loopback.
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::known_hosts::fingerprint;
use super::{Secrets, SshHost, SshSettings};
use crate::host::{Command, Host, HostError};
use kmctl_core::cluster::Sudo;
use kmctl_core::progress::{Event, Plain, Progress};

#[path = "../../../../tests/fixture/sshd.rs"]
mod sshd;

mod certificates;
mod ciphers;
mod jump;
mod new_keys;
mod passphrases;
mod sudo;

use sshd::{Sshd, key};

/// A running sshd, and how to log in there.
struct Server {
    sshd: Sshd,
    port: u16,
}

impl Server {
    /// An sshd with host keys of the given types, and a login key.
    fn start(kinds: &[&str]) -> Server {
        Server::configured(kinds, "")
    }

    fn configured(kinds: &[&str], more: &str) -> Server {
        let sshd = Sshd::start(kinds, more);
        let port = sshd.address.port();
        Server { sshd, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sshd.path(name)
    }

    fn log(&self) -> String {
        self.sshd.log()
    }

    fn public(&self, kind: &str) -> String {
        self.sshd.public(kind)
    }

    fn fingerprint(&self, kind: &str) -> String {
        use base64::Engine as _;
        let public = self.public(kind);
        let blob = base64::engine::general_purpose::STANDARD.decode(public.split(' ').nth(1).unwrap()).unwrap();
        fingerprint(&blob)
    }

    fn known_as(&self, content: String) -> SshSettings {
        std::fs::write(self.path("known"), content).unwrap();
        SshSettings {
            name: "cp1".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: "root".to_owned(),
            identity_file: Some(self.path("login")),
            known_hosts: self.path("known"),
            host_key: None,
            accept_new: false,
            is_jump: false,
            jump: Vec::new(),
            sudo: Sudo::None,
            connect_timeout: Duration::from_secs(10),
            secrets: Secrets::none(),
        }
    }

    fn settings(&self) -> SshSettings {
        self.known_as(format!("[127.0.0.1]:{} {}\n", self.port, self.public("ed25519")))
    }

    async fn host(&self) -> SshHost {
        connect(self.settings()).await.unwrap()
    }
}

async fn connect(settings: SshSettings) -> Result<SshHost, HostError> {
    SshHost::connect(settings, &Progress::silent()).await
}

async fn refused(settings: SshSettings) -> (String, String) {
    let error = connect(settings).await.err().expect("the host is refused");
    (error.to_string(), error.hint().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_key_in_known_hosts_is_trusted_plain_and_hashed() {
    let server = Server::start(&["ed25519"]);
    connect(server.settings()).await.unwrap();
    let hash = Process::new("ssh-keygen").arg("-Hf").arg(server.path("known")).output().unwrap();
    assert!(hash.status.success());
    let content = std::fs::read_to_string(server.path("known")).unwrap();
    assert!(content.starts_with("|1|"), "{content}");
    connect(server.known_as(content)).await.unwrap();
}

#[tokio::test]
async fn a_host_known_by_another_type_of_key_is_asked_for_that_key() {
    let server = Server::start(&["ed25519", "ecdsa", "rsa"]);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let known = format!("[127.0.0.1]:{} {}\n", server.port, server.public(kind));
        connect(server.known_as(known)).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[tokio::test]
async fn a_pinned_key_of_any_type_is_found_and_needs_no_known_hosts() {
    let server = Server::start(&["ed25519", "ecdsa", "rsa"]);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let mut settings = server.known_as(String::new());
        settings.host_key = Some(server.fingerprint(kind));
        connect(settings).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[tokio::test]
async fn an_unknown_host_is_refused_with_its_fingerprint() {
    let server = Server::start(&["ed25519"]);
    // The plain name applies to port 22 only.
    let (what, hint) = refused(server.known_as(format!("127.0.0.1 {}\n", server.public("ed25519")))).await;
    assert!(what.contains(&server.fingerprint("ed25519")) && what.contains("is not in"), "{what}");
    assert!(hint.contains("--accept-new-host-keys") && hint.contains("hostKey of cp1"), "{hint}");
}

#[tokio::test]
async fn a_changed_key_is_refused_with_both_fingerprints_and_the_cure() {
    let (server, old) = (Server::start(&["ed25519"]), Server::start(&["ed25519", "rsa"]));
    for kind in ["ed25519", "rsa"] {
        let known = format!("[127.0.0.1]:{} {}\n", server.port, old.public(kind));
        let (what, hint) = refused(server.known_as(known)).await;
        assert!(what.contains(&server.fingerprint("ed25519")), "{what}");
        assert!(
            what.contains(&old.fingerprint(kind)) && what.contains("known has") && what.contains("line 1"),
            "{what}"
        );
        assert!(hint.contains(&format!("ssh-keygen -R '[127.0.0.1]:{}'", server.port)), "{hint}");
    }
}

#[tokio::test]
async fn a_pin_that_does_not_match_is_refused_even_if_known_hosts_agrees() {
    let server = Server::start(&["ed25519"]);
    let mut settings = server.settings();
    settings.host_key = Some("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let (what, hint) = refused(settings).await;
    assert!(
        what.contains("hostKey in cluster.yaml is SHA256:AAAA") && what.contains(&server.fingerprint("ed25519")),
        "{what}"
    );
    assert!(hint.contains("hostKey of cp1"), "{hint}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_even_if_another_line_knows_it_or_it_is_pinned() {
    let server = Server::start(&["ed25519"]);
    let (port, public) = (server.port, server.public("ed25519"));
    let mut settings = server.known_as(format!("[127.0.0.1]:{port} {public}\n@revoked * {public}\n"));
    for pin in [None, Some(server.fingerprint("ed25519"))] {
        settings.host_key = pin;
        let (what, _) = refused(settings.clone()).await;
        assert!(what.contains("is revoked by") && what.ends_with("known:2"), "{what}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_named() {
    let server = Server::start(&["ed25519"]);
    key(server.sshd.folder.path(), "stranger", "ed25519", "");
    key(server.sshd.folder.path(), "locked", "ed25519", "secret");
    std::fs::write(server.path("garbage"), "no key").unwrap();
    let cases = [
        ("stranger", "rejected"),
        ("locked", "rejected"),
        ("absent", "No such file"),
        ("garbage", "not a readable private key"),
    ];
    for (name, reason) in cases {
        let mut settings = server.settings();
        settings.identity_file = Some(server.path(name));
        let (what, hint) = refused(settings).await;
        assert!(what.contains(name) && what.contains(reason), "{name}: {what}");
        assert!(hint.contains("ssh.identityFile"), "{hint}");
    }
}

#[tokio::test]
async fn a_command_gets_its_input_and_its_status_is_told() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let output = host.run(Command::new(["sh", "-c", "cat; echo \"$0\" >&2; exit 3", "it's $HOME"]).stdin("in")).await;
    let output = output.unwrap();
    assert_eq!((output.status, output.text().as_str(), output.last_words().as_str()), (3, "in", "it's $HOME"));
    let killed = host.run(Command::new(["sh", "-c", "kill -TERM $$"])).await.unwrap();
    assert_eq!(killed.status, 143);
    let early = host.run(Command::new(["sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 4"])).await.unwrap();
    assert_eq!(early.status, 4);
}

#[tokio::test]
async fn megabytes_pass_in_both_directions_at_once() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let input: Vec<u8> = (0..24u32 << 20).map(|index| (index % 251) as u8).collect();
    let (sent, mut seen) = mpsc::channel(4);
    let (lines, mut dropped) = mpsc::channel(1);
    let source = Box::new(std::io::Cursor::new(input.clone()));
    let run = host.run_with_input(Command::new(["tee", "/dev/stderr"]), source, sent, lines);
    let last = async {
        let mut last = 0;
        while let Some(bytes) = seen.recv().await {
            assert!(bytes > last);
            last = bytes;
        }
        last
    };
    let drain = async { while dropped.recv().await.is_some() {} };
    let (output, last, ()) = tokio::join!(run, last, drain);
    let output = output.unwrap();
    assert_eq!(output.status, 0);
    assert!(output.stdout == input && output.stderr == input);
    assert!(last > 0);
}

#[tokio::test]
async fn a_command_that_ignores_its_input_ends_all_the_same() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let output = host.run(Command::new(["sh", "-c", "echo enough"]).stdin(vec![b'x'; 8 << 20])).await.unwrap();
    assert_eq!((output.status, output.text().as_str()), (0, "enough\n"));
    // The connection still works.
    assert_eq!(host.run(Command::new(["echo", "again"])).await.unwrap().text(), "again\n");
}

#[tokio::test]
async fn lines_arrive_while_the_command_runs() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let (sender, mut lines) = mpsc::channel(1);
    let script = "echo one; read answer; echo $answer; printf end";
    let reader = async {
        let mut seen = vec![lines.recv().await.unwrap()];
        while let Some(line) = lines.recv().await {
            seen.push(line);
        }
        seen
    };
    let (output, seen) =
        tokio::join!(host.run_lines(Command::new(["sh", "-c", script]).stdin("two\n"), sender), reader);
    assert_eq!(output.unwrap().status, 0);
    assert_eq!(seen, ["one", "two", "end"]);
}

#[tokio::test]
async fn a_silent_command_fails_after_its_limit_and_others_go_on() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let slow = host.run(Command::new(["sleep", "30"]).timeout(Duration::from_millis(300)));
    let chatty = host.run(
        Command::new(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done"])
            .timeout(Duration::from_millis(900)),
    );
    let (slow, chatty) = tokio::join!(slow, chatty);
    assert!(matches!(slow, Err(HostError::Timeout(_))), "{slow:?}");
    assert_eq!(chatty.unwrap().status, 0);
}

#[tokio::test]
async fn dropping_a_command_closes_its_channel_and_keeps_the_connection() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let marker = server.path("ended");
    // Reading fails with the channel, which is how a remote command learns that it was cancelled.
    let script = format!("cat >/dev/null; touch {}", marker.display());
    let input = Box::new(Endless);
    let (sent, mut first) = mpsc::channel(1);
    let (lines, _kept) = mpsc::channel(1);
    {
        let run = host.run_with_input(Command::new(["sh", "-c", &script]), input, sent, lines);
        tokio::select! {
            _ = run => panic!("the command does not end"),
            _ = first.recv() => {}
        }
    }
    let deadline = Instant::now() + Duration::from_secs(8);
    while !marker.exists() {
        assert!(Instant::now() < deadline, "the command still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(host.run(Command::new(["echo", "again"])).await.unwrap().text(), "again\n");
}

struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(0);
        Ok(buffer.len())
    }
}

#[tokio::test]
async fn one_connection_serves_all_commands() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let runs = (0..6).map(|index| host.run(Command::new(["echo".to_owned(), index.to_string()])));
    let outputs = futures::future::join_all(runs).await;
    for (index, output) in outputs.into_iter().enumerate() {
        assert_eq!(output.unwrap().text(), format!("{index}\n"));
    }
    let log = server.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

/// Echoes everything until the end of input, then closes.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_stream_carries_megabytes_both_ways_and_knows_its_end() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let address = echo().await;
    let input: Vec<u8> = (0..16u32 << 20).map(|index| (index % 249) as u8).collect();
    let streams = (0..3).map(|_| async {
        let (mut read, mut write) = tokio::io::split(host.dial(address).await.unwrap());
        let send = async {
            write.write_all(&input).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let receive = async {
            let mut seen = Vec::new();
            read.read_to_end(&mut seen).await.unwrap();
            seen
        };
        let ((), seen) = tokio::join!(send, receive);
        assert!(seen == input, "{} bytes came back", seen.len());
    });
    futures::future::join_all(streams).await;
    let log = server.log();
    assert_eq!(log.matches("Accepted publickey").count(), 2, "{log}");
}

#[tokio::test]
async fn a_stream_that_is_not_read_stops_nobody() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let address = echo().await;
    let (_unread, mut write) = tokio::io::split(host.dial(address).await.unwrap());
    let flood = tokio::time::timeout(Duration::from_secs(2), write.write_all(&vec![0; 64 << 20])).await;
    assert!(flood.is_err(), "the flood is held back");
    let mut other = host.dial(address).await.unwrap();
    other.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    other.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn a_stream_outlives_its_host_and_an_idle_one_does_not_burn_the_processor() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let mut stream = host.dial(echo().await).await.unwrap();
    drop(host);
    stream.write_all(b"still").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    let before = processor_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(processor_time() - before < 0.2, "{}", processor_time() - before);
}

/// Seconds of CPU time of this process so far.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), counted from the one after the name, in hundredths on every Linux.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test]
async fn an_address_that_refuses_is_told_and_the_next_dial_works() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = host.dial(closed).await.err().unwrap();
    assert_eq!(error.to_string(), format!("failed to connect from the host to {closed}"));
    host.dial(echo().await).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_made_anew_for_the_next_command() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let parent = host.run(Command::new(["sh", "-c", "echo $PPID"])).await.unwrap().text();
    // Kills the server's half of exactly this connection.
    let killed = host.run(Command::new(["kill", parent.trim()])).await;
    drop(killed);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !host.run(Command::new(["true"])).await.is_ok_and(|output| output.success()) {
        assert!(Instant::now() < deadline, "no new connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_named_within_three_seconds_and_given_up_in_time() {
    // Accepts and sends nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = SshSettings {
        name: "cp2".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        user: "root".to_owned(),
        identity_file: None,
        known_hosts: "/nonexistent".into(),
        host_key: None,
        accept_new: false,
        is_jump: false,
        jump: Vec::new(),
        sudo: Sudo::None,
        connect_timeout: Duration::from_secs(4),
        secrets: Secrets::none(),
    };
    let (sender, mut notes) = mpsc::unbounded_channel();
    let began = Instant::now();
    let progress = Progress::new(Recorder(sender));
    let (result, named) = tokio::join!(SshHost::connect(settings, &progress), async {
        let note = notes.recv().await.unwrap();
        (note, began.elapsed())
    });
    let error = result.err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("it sends nothing") && source == "no response within 4s", "{error}: {source}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(named.0.contains("cp2") && named.1 < Duration::from_millis(3300), "{named:?}");
}

struct Recorder(mpsc::UnboundedSender<String>);

impl kmctl_core::progress::Draw for Recorder {
    fn draw(&self, event: &Event) {
        if let Event::Note { scope, text } = event {
            let _ = self.0.send(format!("{scope}: {text}"));
        }
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        print();
    }
}

#[tokio::test]
async fn the_agent_is_asked_for_all_its_keys() {
    let server = Server::start(&["ed25519"]);
    key(server.sshd.folder.path(), "stranger", "ed25519", "");
    key(server.sshd.folder.path(), "second", "ecdsa", "");
    let socket = server.path("agent");
    let mut agent = Process::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in ["stranger", "second", "login"] {
        let added = Process::new("ssh-add").arg("-q").arg(server.path(name)).env("SSH_AUTH_SOCK", &socket).status();
        assert!(added.unwrap().success());
    }
    // The file of a key that the agent holds no longer needs its passphrase.
    std::fs::copy(server.path("login"), server.path("locked")).unwrap();
    let lock = Process::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "secret", "-f"])
        .arg(server.path("locked"))
        .output();
    assert!(lock.unwrap().status.success());
    let _ = server.settings();
    // In a process of its own, because all tests share the environment.
    let test = std::env::current_exe().unwrap();
    let output = Process::new(test)
        .args(["--ignored", "--nocapture", "host::ssh::tests::logs_in_with_the_agent"])
        .env("SSH_AUTH_SOCK", &socket)
        .env("LOCKED", server.path("locked"))
        .env("KNOWN", server.path("known"))
        .env("PORT", server.port.to_string())
        .output()
        .unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 passed"), "{text}");
}

/// How to log in to the server of `the_agent_is_asked_for_all_its_keys`.
fn told_by_environment() -> SshSettings {
    SshSettings {
        name: "cp1".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: std::env::var("PORT").unwrap().parse().unwrap(),
        user: "root".to_owned(),
        identity_file: None,
        known_hosts: std::env::var("KNOWN").unwrap().into(),
        host_key: None,
        accept_new: false,
        is_jump: false,
        jump: Vec::new(),
        sudo: Sudo::None,
        connect_timeout: Duration::from_secs(10),
        secrets: Secrets::none(),
    }
}

#[tokio::test]
#[ignore = "run by the_agent_is_asked_for_all_its_keys, which sets its environment"]
async fn logs_in_with_the_agent_although_the_file_is_locked() {
    let locked = std::env::var("LOCKED").unwrap().into();
    let settings = SshSettings { identity_file: Some(locked), ..told_by_environment() };
    SshHost::connect(settings, &Progress::silent()).await.unwrap();
}

#[tokio::test]
#[ignore = "run by the_agent_is_asked_for_all_its_keys, which sets its environment"]
async fn logs_in_with_the_agent() {
    let settings = told_by_environment();
    let mut out = std::io::stderr();
    let _ = writeln!(out, "trying {}", settings.place());
    SshHost::connect(settings, &Progress::new(Plain::new(out))).await.unwrap();
}

#[tokio::test]
async fn a_command_that_says_nothing_for_longer_than_a_dead_server_would_is_waited_for() {
    let server = Server::start(&["ed25519"]);
    let host = server.host().await;
    let (lines, _kept) = mpsc::channel(1);
    let command = Command::new(["sleep", "23"]).stdin("x").timeout(Duration::from_secs(60));
    assert_eq!(host.run_lines(command, lines).await.unwrap().status, 0);
}
