//! One golden file for every way in which SSH can fail: the place, the cause, one hint with a command.
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sshd::{Sshd, key};
use crate::stage::Stage;
use crate::terminal::Terminal;

fn golden(name: &str, told: &str) {
    insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, told);
    });
}

fn known(server: &Sshd, kind: &str) -> String {
    format!("[127.0.0.1]:{} {}\n", server.address.port(), server.public(kind))
}

#[test]
fn an_unknown_wrong_or_revoked_host_key() {
    let (server, old) = (Sshd::start(&["ed25519"], ""), Sshd::start(&["ed25519", "rsa"], ""));
    let place = format!("[127.0.0.1]:{} ", server.address.port());
    let cases = [
        ("host-key-unknown", String::new(), ""),
        ("host-key-wrong", format!("# hosts\n{place}{}\n", old.public("ed25519")), ""),
        ("host-key-wrong-type", format!("{place}{}\n", old.public("rsa")), ""),
        ("host-key-revoked", format!("{}@revoked * {}\n", known(&server, "ed25519"), server.public("ed25519")), ""),
        ("host-key-wrong-not-accepted", format!("{place}{}\n", old.public("ed25519")), "--accept-new-host-keys"),
    ];
    for (name, lines, flag) in cases {
        let mut stage = Stage::with(&server, &lines, "");
        stage.call_key(&server.public("ed25519"), "[its key]");
        stage.call_key(&old.public("ed25519"), "[another key]");
        stage.call_key(&old.public("rsa"), "[another key]");
        let flags: &[&str] = if flag.is_empty() { &[] } else { &[flag] };
        golden(name, &stage.plan(flags));
        assert_eq!(std::fs::read_to_string(stage.path("known_hosts")).unwrap(), lines, "{name}");
    }
    assert!(!server.log().contains("Accepted publickey"), "{}", server.log());
}

#[test]
fn a_host_key_that_is_not_the_pinned_one() {
    let server = Sshd::start(&["ed25519"], "");
    let mut stage = Stage::with(&server, &known(&server, "ed25519"), "");
    let content = std::fs::read_to_string(stage.path("cluster.yaml")).unwrap();
    let pin = format!("name: cp1, hostKey: \"SHA256:{}\"", "A".repeat(43));
    std::fs::write(stage.path("cluster.yaml"), content.replace("name: cp1", &pin)).unwrap();
    stage.call_key(&server.public("ed25519"), "[its key]");
    golden("host-key-not-pinned", &stage.plan(&[]));
}

#[test]
fn a_new_host_key_is_accepted_on_request_and_known_afterwards() {
    let server = Sshd::start(&["ed25519"], "");
    let mut stage = Stage::with(&server, "", "");
    stage.call_key(&server.public("ed25519"), "[its key]");
    // The host is reached; there is no bundle, which is told next.
    golden("host-key-accepted", &stage.plan(&["--accept-new-host-keys"]));
    assert_eq!(std::fs::read_to_string(stage.path("known_hosts")).unwrap(), known(&server, "ed25519"));
    golden("host-key-known", &stage.plan(&[]));
}

#[test]
fn a_certificate_that_has_expired() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = key(folder.path(), "authority", "ed25519", "");
    let public = key(folder.path(), "host", "ed25519", "");
    let signed = Command::new("ssh-keygen")
        .current_dir(folder.path())
        .args(["-q", "-s", "authority", "-I", "cp1", "-h", "-n", "127.0.0.1", "-V", "20200101000000Z:20210101000000Z"])
        .arg("host.pub")
        .status();
    assert!(signed.unwrap().success());
    let path = folder.path().join("host").display().to_string();
    let server = Sshd::start(&[], &format!("HostKey {path}\nHostCertificate {path}-cert.pub"));
    let mut stage = Stage::with(&server, &format!("@cert-authority 127.0.0.1 {authority}\n"), "");
    stage.call_key(&public, "[its key]");
    stage.call_key(&authority, "[the authority]");
    golden("certificate-expired", &stage.plan(&[]));
}

#[test]
fn a_host_that_cannot_be_reached_among_others() {
    let server = Sshd::start(&["ed25519"], "");
    let login = server.path("login").display().to_string();
    let port = server.address.port();
    // The second host has the same port on another address of loopback, where nothing listens.
    let mut stage = Stage::new(
        &known(&server, "ed25519"),
        &format!("port: {port}, identityFile: {login}"),
        "{ address: 127.0.0.1, name: cp1 }, { address: 127.0.0.2, name: cp2 }, { address: 127.0.0.3, name: cp3 }",
    );
    stage.call(&port.to_string(), "[port]");
    golden("unreachable", &stage.plan(&[]));
}

#[test]
fn a_silent_host_is_named_within_three_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut stage = Stage::new("", &format!("port: {port}, connectTimeout: 4s"), "{ address: 127.0.0.1, name: cp1 }");
    stage.call(&port.to_string(), "[port]");
    let began = Instant::now();
    let mut child = stage.kmctl(&["plan"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let named = began.elapsed();
    assert!(said.contains("cp1") && named < Duration::from_millis(3500), "{named:?}: {said}");
    stderr.read_to_string(&mut said).unwrap();
    golden("silent", &stage.told(&said, child.wait().unwrap().code()));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[test]
fn a_port_that_is_not_ssh() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write as _;
        for stream in listener.incoming().flatten() {
            // As a web server answers what it does not understand.
            let mut stream = BufReader::new(stream);
            let _ = stream.read_line(&mut String::new());
            let _ = stream.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let mut stage = Stage::new("", &format!("port: {port}"), "{ address: 127.0.0.1, name: cp1 }");
    stage.call(&port.to_string(), "[port]");
    golden("not-ssh", &stage.plan(&[]));
}

#[test]
fn a_key_that_the_host_does_not_want() {
    let server = Sshd::start(&["ed25519"], "");
    std::fs::write(server.path("authorized"), "").unwrap();
    golden("login-refused", &Stage::with(&server, &known(&server, "ed25519"), "").plan(&[]));
}

/// A server whose login key has the passphrase `secret`.
fn locked() -> (Sshd, Stage) {
    let server = Sshd::start(&["ed25519"], "");
    let lock = Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "secret", "-f"])
        .arg(server.path("login"))
        .output();
    assert!(lock.unwrap().status.success());
    let stage = Stage::with(&server, &known(&server, "ed25519"), "");
    (server, stage)
}

#[test]
fn a_passphrase_without_a_terminal() {
    let (_server, stage) = locked();
    golden("passphrase-no-terminal", &stage.plan(&[]));
}

#[test]
fn a_passphrase_is_asked_for_unseen_and_a_wrong_one_is_told() {
    let (server, stage) = locked();
    let mut terminal = Terminal::run(&stage.kmctl(&["plan"]));
    for attempt in 1..=3 {
        terminal.question("Passphrase for ", attempt);
        terminal.say("hidden\n");
    }
    let code = terminal.end().code();
    let seen = terminal.seen();
    assert!(!seen.contains("hidden") && terminal.shows_typing(), "{seen}");
    let told = seen.split_once("error: ").map(|(_, error)| format!("error: {error}").replace('\r', ""));
    golden("passphrase-wrong", &stage.told(&told.expect(&seen), code));
    assert!(!server.log().contains("Accepted publickey"), "{}", server.log());

    let mut terminal = Terminal::run(&stage.kmctl(&["plan"]));
    terminal.question("Passphrase for ", 1);
    terminal.say("secret\n");
    terminal.end();
    let seen = terminal.seen();
    // Logged in: what is missing is the bundle.
    assert!(seen.contains("bundle") && !seen.contains("secret"), "{seen}");
}

#[test]
fn ctrl_c_ends_a_question_and_gives_the_terminal_back() {
    let (_server, stage) = locked();
    let mut terminal = Terminal::run(&stage.kmctl(&["plan"]));
    terminal.question("Passphrase for ", 1);
    terminal.say("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.seen());
    assert!(terminal.shows_typing());
}

#[test]
fn a_jump_host_whose_key_is_wrong() {
    let (server, hop, old) =
        (Sshd::start(&["ed25519"], ""), Sshd::start(&["ed25519"], ""), Sshd::start(&["ed25519"], ""));
    let lines = format!("{}[127.0.0.1]:{} {}\n", known(&server, "ed25519"), hop.address.port(), old.public("ed25519"));
    let mut stage = Stage::with(&server, &lines, &format!("jump: [\"ops@{}\"]", hop.address));
    stage.call(&hop.address.port().to_string(), "[jump port]");
    stage.call_key(&hop.public("ed25519"), "[its key]");
    stage.call_key(&old.public("ed25519"), "[another key]");
    golden("jump-host-key-wrong", &stage.plan(&[]));
}

/// An sshd in a mount namespace where this machine has a user `ops`, password `pw`, and these rules for sudo.
fn with_users(rules: &str) -> (Sshd, tempfile::TempDir) {
    let folder = tempfile::TempDir::new().unwrap();
    let crypt = Command::new("perl").args(["-e", "print crypt('pw', '$6$kmctl$')"]).output().unwrap();
    let hash = String::from_utf8(crypt.stdout).unwrap();
    let files = [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nsshd:x:9100:65534::/run/sshd:/usr/sbin/nologin\nops:x:9101:9101::/tmp:/bin/sh\n"
                .to_owned(),
        ),
        ("group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
        ("shadow", format!("root:*:19000::::::\nops:{hash}:19000::::::\n")),
        ("sudoers", format!("Defaults !fqdn, !lecture\nroot ALL=(ALL) ALL\n{rules}\n")),
    ];
    let mut enter = "set -e; mount --make-rprivate /; ".to_owned();
    for (name, content) in files {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mode = if ["passwd", "group"].contains(&name) { 0o644 } else { 0o440 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        enter += &format!("mount --bind {} /etc/{name}; ", path.display());
    }
    enter += "exec \"$@\"";
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Sshd::launch(address, &["ed25519"], "", |argv| {
        // The user reads which keys may log in.
        let config = std::path::Path::new(argv.last().unwrap());
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(config.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &enter, "sh"]).args(argv);
        command
    });
    (server, folder)
}

#[test]
fn a_user_whom_sudo_refuses() {
    let (server, _folder) = with_users("");
    let lines = known(&server, "ed25519");
    golden("sudo-refused", &Stage::with(&server, &lines, "user: ops, sudo: nopasswd").plan(&[]));
    golden("sudo-no-terminal", &Stage::with(&server, &lines, "user: ops, sudo: password").plan(&[]));
    for (rules, name) in [("", "sudo-password-refused"), ("ops ALL=(ALL) ALL", "sudo-password-wrong")] {
        let (server, _folder) = with_users(rules);
        let stage = Stage::with(&server, &known(&server, "ed25519"), "user: ops, sudo: password");
        let mut terminal = Terminal::run(&stage.kmctl(&["plan"]));
        terminal.question("sudo password for ops", 1);
        terminal.say(if rules.is_empty() { "pw\n" } else { "hidden\n" });
        let code = terminal.end().code();
        let seen = terminal.seen();
        assert!(!seen.contains("hidden"), "{seen}");
        let told = seen.split_once("error: ").map(|(_, error)| format!("error: {error}").replace('\r', ""));
        golden(name, &stage.told(&told.expect(&seen), code));
    }
}
