//! Hosts that are reached through others.
use super::passphrases::Operator;
use super::*;

/// `target`, through `hops`.
fn through(target: &Server, hops: &[&Server]) -> SshSettings {
    let hop = |server: &&Server| SshSettings { name: "jump".to_owned(), is_jump: true, ..server.settings() };
    SshSettings { jump: hops.iter().map(hop).collect(), ..target.settings() }
}

/// The whole chain of causes, and the hint.
async fn told(settings: SshSettings) -> (String, String) {
    let error = connect(settings).await.err().expect("the host is not reached");
    let hint = error.hint().unwrap_or_default().to_owned();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    (text, hint)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_or_two_jump_hosts_lead_to_the_host_with_commands_and_streams() {
    let (target, first, second) =
        (Server::start(&["ed25519"]), Server::start(&["ed25519"]), Server::start(&["ecdsa", "ed25519"]));
    for hops in [vec![&first], vec![&first, &second]] {
        let host = connect(through(&target, &hops)).await.unwrap();
        // The last jump host's sshd connects to the host.
        let last = hops.last().unwrap();
        let from = host.run(Command::new(["sh", "-c", "echo $SSH_CONNECTION"])).await.unwrap().text();
        let port = from.split(' ').nth(1).unwrap().to_owned();
        assert!(target.log().contains(&format!("port {port}")), "{from}");
        assert!(last.log().contains("Accepted publickey"), "{}", last.log());
        let input: Vec<u8> = (0..4u32 << 20).map(|index| (index % 251) as u8).collect();
        let output = host.run(Command::new(["cat"]).stdin(input.clone())).await.unwrap();
        assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
        let (mut read, mut write) = tokio::io::split(host.dial(echo().await).await.unwrap());
        let send = async {
            write.write_all(&input).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut seen = Vec::new();
        let (_, count) = tokio::join!(send, read.read_to_end(&mut seen));
        assert!(count.unwrap() == input.len() && seen == input);
    }
}

#[tokio::test]
async fn the_way_is_given_up_with_the_host() {
    let (target, hop) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let host = connect(through(&target, &[&hop])).await.unwrap();
    host.run(Command::new(["true"])).await.unwrap();
    assert!(!hop.log().contains("isconnect"), "{}", hop.log());
    drop(host);
    until("the jump host is let go", || hop.log().contains("isconnect")).await;
    until("the host is let go", || target.log().contains("isconnect")).await;
}

#[tokio::test]
async fn a_jump_hosts_key_is_checked_like_any_other() {
    let (target, hop, old) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let mut settings = through(&target, &[&hop]);
    settings.jump[0] =
        SshSettings { is_jump: true, ..hop.known_as(format!("[127.0.0.1]:{} {}\n", hop.port, old.public("ed25519"))) };
    let (text, hint) = told(settings.clone()).await;
    assert!(
        text.starts_with(&format!(
            "failed to connect through jump host root@127.0.0.1:{}: wrong host key for",
            hop.port
        )),
        "{text}"
    );
    assert!(text.contains(&hop.fingerprint("ed25519")) && text.contains(&old.fingerprint("ed25519")), "{text}");
    assert!(hint.contains("ssh-keygen -R"), "{hint}");
    // cluster.yaml has no field to pin a jump host's key.
    settings.jump[0] = SshSettings { is_jump: true, ..hop.known_as(String::new()) };
    let (text, hint) = told(settings.clone()).await;
    assert!(text.contains("is not in") && !hint.contains("hostKey"), "{text} {hint}");
    // Both are new at once.
    settings.accept_new = true;
    settings.known_hosts = target.path("new");
    settings.jump[0].accept_new = true;
    settings.jump[0].known_hosts = target.path("new");
    connect(settings).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.path("new")).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn the_host_behind_a_jump_host_is_checked_too() {
    let (target, hop, old) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let known = format!("[127.0.0.1]:{} {}\n", target.port, old.public("ed25519"));
    let settings = SshSettings { jump: through(&target, &[&hop]).jump, ..target.known_as(known) };
    let (text, _) = told(settings).await;
    assert!(text.starts_with(&format!("wrong host key for 127.0.0.1:{}: ", target.port)), "{text}");
}

#[tokio::test]
async fn what_fails_on_the_way_is_told_with_the_jump_host() {
    let (target, hop) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let deaf = Server::configured(&["ed25519"], "AllowTcpForwarding no");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let way = |server: &Server| format!("failed to connect through jump host root@127.0.0.1:{}: ", server.port);

    let (text, hint) = told(through(&target, &[&deaf])).await;
    assert!(text.starts_with(&format!("{}failed to connect to 127.0.0.1:{}: ", way(&deaf), target.port)), "{text}");
    assert!(hint.contains(&format!("ssh -J root@127.0.0.1:{} -p {} ", deaf.port, target.port)), "{hint}");

    let (text, _) = told(SshSettings { port: closed, ..through(&target, &[&hop]) }).await;
    assert!(text.starts_with(&format!("{}failed to connect to 127.0.0.1:{closed}: ", way(&hop))), "{text}");

    let mut settings = through(&target, &[&hop]);
    settings.jump[0].port = closed;
    let (text, _) = told(settings).await;
    assert!(text.starts_with("failed to connect through jump host") && text.contains("Connection refused"), "{text}");
    assert!(!target.log().contains("Accepted"), "{}", target.log());
}

#[tokio::test]
async fn silence_on_the_way_or_at_its_end_is_given_up_in_time() {
    let (target, hop) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let limit = Duration::from_secs(1);
    let mut at_the_end = through(&target, &[&hop]);
    at_the_end.port = port;
    at_the_end.connect_timeout = limit;
    let mut on_the_way = through(&target, &[&hop]);
    on_the_way.jump[0].port = port;
    on_the_way.jump[0].connect_timeout = limit;
    for settings in [at_the_end, on_the_way] {
        let began = Instant::now();
        let (text, _) = told(settings).await;
        assert!(text.contains("it sends nothing: no response within 1s"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn giving_up_ends_the_attempt_on_the_way_at_once() {
    let (target, hop) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = through(&target, &[&hop]);
    settings.jump[0].port = silent.local_addr().unwrap().port();
    let (accepted, stream) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || accepted.send(silent.accept().unwrap().0));
    let mut stream = tokio::select! {
        _ = connect(settings) => panic!("nobody answers"),
        stream = stream => stream.unwrap(),
    };
    // The greeting, and then the end, long before the limit of ten seconds.
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).expect("the connection ends");
    assert!(seen.starts_with(b"SSH-2.0-"));
}

#[tokio::test]
async fn a_jump_host_that_goes_away_ends_the_connection_and_the_next_command_makes_a_new_one() {
    let (target, hop) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let host = connect(through(&target, &[&hop])).await.unwrap();
    let way = connect(hop.settings()).await.unwrap();
    // The sshd of the first connection: the listener's other child.
    let script = "kill $(pgrep -P $(ps -o ppid= -p $PPID) | grep -vx $PPID)";
    let killed = way.run(Command::new(["sh", "-c", script])).await.unwrap();
    assert!(killed.success(), "{}", killed.last_words());
    let deadline = Instant::now() + Duration::from_secs(8);
    while !host.run(Command::new(["true"])).await.is_ok_and(|output| output.success()) {
        assert!(Instant::now() < deadline, "no new connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(target.log().matches("Accepted publickey").count(), 2, "{}", target.log());
}

#[tokio::test]
async fn one_passphrase_opens_the_key_for_the_whole_way() {
    let (target, hop) = (Server::start(&["ed25519"]), Server::start(&["ed25519"]));
    let lock = Process::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "secret", "-f"])
        .arg(target.path("login"))
        .output();
    assert!(lock.unwrap().status.success());
    std::fs::copy(target.path("login.pub"), hop.path("authorized")).unwrap();
    let operator = Operator::who_says(&["secret"]);
    let mut settings = through(&target, &[&hop]);
    settings.secrets = Secrets::new(operator.clone());
    settings.jump[0].secrets = settings.secrets.clone();
    settings.jump[0].identity_file = settings.identity_file.clone();
    connect(settings).await.unwrap();
    assert_eq!(operator.asked(), 1);
}

#[tokio::test]
async fn many_hosts_at_once_do_not_crowd_out_their_jump_host() {
    let target = Server::configured(&["ed25519"], "MaxStartups 100");
    let hop = Server::configured(&["ed25519"], "MaxStartups 10");
    let settings = through(&target, &[&hop]);
    let all = futures::future::join_all((0..30).map(|_| connect(settings.clone()))).await;
    assert!(all.iter().all(Result::is_ok), "{}", hop.log());
    assert_eq!(hop.log().matches("Accepted publickey").count(), 30);
}
