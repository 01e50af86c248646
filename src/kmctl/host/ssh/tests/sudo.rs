//! Logins that are not root. sshd runs in a mount namespace of its own, where this machine has other users and other
//! rules for sudo.
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Child;

use super::passphrases::Operator;
use super::*;
use crate::host::ssh::SshSettings;

/// Users of the namespace: one that needs a password (`pw`), one that does not, one that sudo does not know.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      sshd:x:9100:65534::/run/sshd:/usr/sbin/nologin\n\
                      asked:x:9101:9101::/tmp:/bin/sh\n\
                      free:x:9102:9102::/tmp:/bin/sh\n\
                      stranger:x:9103:9103::/tmp:/bin/sh\n\
                      tied:x:9104:9104::/tmp:/bin/sh\n";
const SUDOERS: &str = "Defaults !fqdn, !lecture\nroot ALL=(ALL) ALL\nasked ALL=(ALL) ALL\nfree ALL=(ALL) NOPASSWD: ALL\n\
                       Defaults:tied requiretty\ntied ALL=(ALL) NOPASSWD: ALL\n";

/// What is bind-mounted over this machine's own files before sshd starts. Every login prints something first, as login
/// scripts do.
const ENTER: &str = r#"
set -e
mount --make-rprivate /
for name in passwd group shadow sudoers; do mount --bind "$1/$name" /etc/$name; done
[ -z "$2" ] || mount --bind /dev/null "$2"
sed "s/^ListenAddress .*/ListenAddress 127.0.0.1:$3/" "$1/config" >"$1/users-config"
exec /usr/sbin/sshd -D -e -f "$1/users-config"
"#;

/// A running sshd for these users.
struct Users {
    server: Server,
    process: Child,
    port: u16,
}

impl Users {
    /// `hidden` is a file that the users cannot run.
    fn start(hidden: &str) -> Users {
        // Only its keys and its directory are used.
        let server = Server::start(&["ed25519"]);
        let crypt = Process::new("perl").args(["-e", "print crypt('pw', '$6$kmctl$')"]).output().unwrap();
        let hash = String::from_utf8(crypt.stdout).unwrap();
        let files = [
            ("passwd", PASSWD.to_owned()),
            ("group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
            (
                "shadow",
                ["asked", "free", "stranger", "tied", "root"]
                    .map(|user| format!("{user}:{hash}:19000::::::\n"))
                    .concat(),
            ),
            ("sudoers", SUDOERS.to_owned()),
        ];
        for (name, content) in files {
            std::fs::write(server.path(name), content).unwrap();
            let mode = if name == "passwd" || name == "group" { 0o644 } else { 0o440 };
            std::fs::set_permissions(server.path(name), Permissions::from_mode(mode)).unwrap();
        }
        // sshd reads the authorized keys with the users' permissions.
        std::fs::set_permissions(server.path(""), Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Process::new("unshare")
            .args(["-m", "sh", "-c", ENTER, "sh"])
            .arg(server.path(""))
            .args([hidden, &port.to_string()])
            .stderr(std::fs::File::create(server.path("users-log")).unwrap())
            .spawn()
            .unwrap();
        let users = Users { server, process, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        users
    }

    fn settings(&self, user: &str, sudo: Sudo, operator: &Operator) -> SshSettings {
        let known = format!("[127.0.0.1]:{} {}\n", self.port, self.server.public("ed25519"));
        SshSettings {
            port: self.port,
            user: user.to_owned(),
            sudo,
            secrets: Secrets::new(operator.clone()),
            ..self.server.known_as(known)
        }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The error and the hint of a command that sudo refuses.
async fn turned_away(settings: SshSettings) -> (String, String) {
    let host = connect(settings).await.unwrap();
    let error = host.run(Command::new(["id", "-u"]).privileged().stdin("input")).await.unwrap_err();
    assert!(matches!(error, HostError::Sudo { .. }), "{error:?}");
    // What needs no root still works.
    assert!(host.run(Command::new(["true"])).await.unwrap().success());
    (error.to_string(), error.hint().unwrap().to_owned())
}

#[tokio::test]
async fn sudo_lets_commands_through_with_their_input_output_and_status() {
    let users = Users::start("");
    for (user, sudo, questions) in
        [("asked", Sudo::Password, 1), ("free", Sudo::Nopasswd, 0), ("free", Sudo::Password, 1)]
    {
        let operator = Operator::who_says(&["pw"]);
        let host = connect(users.settings(user, sudo, &operator)).await.unwrap();
        let plain = host.run(Command::new(["id", "-un"])).await.unwrap();
        assert_eq!(plain.text(), format!("{user}\n"));
        for _ in 0..2 {
            let script = "id -u; cat; echo \"it's $1\" >&2; exit 3";
            let command = Command::new(["sh", "-c", script, "sh", "$HOME"]).privileged().stdin("line one\nline two\n");
            let output = host.run(command).await.unwrap();
            assert_eq!(output.text(), "0\nline one\nline two\n", "{user}");
            assert_eq!((output.status, String::from_utf8(output.stderr).unwrap().as_str()), (3, "it's $HOME\n"));
        }
        assert_eq!(operator.asked(), questions, "{user}");
    }
}

#[tokio::test]
async fn megabytes_go_to_the_command_and_the_password_does_not() {
    let users = Users::start("");
    let operator = Operator::who_says(&["pw"]);
    let host = connect(users.settings("asked", Sudo::Password, &operator)).await.unwrap();
    let input: Vec<u8> = (0..8u32 << 20).map(|index| (index % 251) as u8).collect();
    let (sent, mut seen) = mpsc::channel(64);
    let (lines, mut dropped) = mpsc::channel(1);
    let source = Box::new(std::io::Cursor::new(input.clone()));
    let run = host.run_with_input(Command::new(["cat"]).privileged(), source, sent, lines);
    let last = async {
        let mut last = 0;
        while let Some(bytes) = seen.recv().await {
            last = bytes;
        }
        last
    };
    let drain = async { while dropped.recv().await.is_some() {} };
    let (output, last, ()) = tokio::join!(run, last, drain);
    assert!(output.unwrap().stdout == input);
    assert!(last <= input.len() as u64, "{last}");
    // Many commands at once prompt only once.
    let runs = (0..6).map(|_| host.run(Command::new(["id", "-u"]).privileged()));
    assert!(futures::future::join_all(runs).await.into_iter().all(|output| output.unwrap().text() == "0\n"));
    assert_eq!(operator.asked(), 1);
}

#[tokio::test]
async fn the_password_stands_in_no_process_and_no_log() {
    let users = Users::start("");
    let operator = Operator::who_says(&["pw"]);
    let host = connect(users.settings("asked", Sudo::Password, &operator)).await.unwrap();
    // The command's ancestors, as any user on the host can see them, up to sshd.
    let script = "p=$$; while [ $p -gt 1 ]; do tr '\\0' ' ' </proc/$p/cmdline; tr '\\0' ' ' </proc/$p/environ; echo; \
                  p=$(awk '/^PPid/{print $2}' /proc/$p/status); done";
    let seen = host.run(Command::new(["sh", "-c", script]).privileged()).await.unwrap().text();
    assert!(seen.contains("sudo -S -p"), "{seen}");
    assert!(!seen.split(|c: char| !c.is_alphanumeric()).any(|word| word == "pw"), "{seen}");
    let log = std::fs::read_to_string(users.server.path("users-log")).unwrap();
    assert!(!log.split(|c: char| !c.is_alphanumeric()).any(|word| word == "pw"), "{log}");
}

#[tokio::test]
async fn a_refusal_names_host_user_and_the_line_that_cures_it() {
    let users = Users::start("");
    let (what, hint) = turned_away(users.settings("asked", Sudo::Nopasswd, &Operator::default())).await;
    assert_eq!(what, "sudo on cp1 denied asked: a password is required");
    assert_eq!(
        hint,
        "run as root on cp1: `echo 'asked ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/kmctl`, or set ssh.sudo to password in \
         cluster.yaml"
    );
    let (what, hint) = turned_away(users.settings("stranger", Sudo::Password, &Operator::who_says(&["pw"]))).await;
    assert!(what.starts_with("sudo on cp1 denied stranger: stranger is not in the sudoers file"), "{what}");
    assert_eq!(hint, "run as root on cp1: `echo 'stranger ALL=(ALL) ALL' > /etc/sudoers.d/kmctl`");
    for sudo in [Sudo::Nopasswd, Sudo::Password] {
        let (what, hint) = turned_away(users.settings("tied", sudo, &Operator::who_says(&["pw"]))).await;
        assert_eq!(what, "sudo on cp1 denied tied: sorry, you must have a tty to run sudo");
        assert_eq!(hint, "run as root on cp1: `echo 'Defaults:tied !requiretty' >> /etc/sudoers.d/kmctl`");
    }
    // sudo reveals no more to a stranger than that it wants a password.
    let (what, _) = turned_away(users.settings("stranger", Sudo::Nopasswd, &Operator::default())).await;
    assert_eq!(what, "sudo on cp1 denied stranger: a password is required");
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let users = Users::start("");
    let operator = Operator::who_says(&["wrong"]);
    let (what, hint) = turned_away(users.settings("asked", Sudo::Password, &operator)).await;
    assert_eq!(what, "sudo on cp1 rejected the password of asked");
    assert!(hint.contains(&format!("ssh -t -p {} asked@127.0.0.1 sudo true", users.port)), "{hint}");
    assert_eq!(operator.asked(), 1);
}

#[tokio::test]
async fn without_sudo_or_anybody_to_ask_that_is_what_is_told() {
    let users = Users::start("/usr/bin/sudo");
    let (what, hint) = turned_away(users.settings("free", Sudo::Nopasswd, &Operator::default())).await;
    assert!(what.starts_with("sudo is not available to free on cp1: "), "{what}");
    assert!(hint.contains("apt-get install sudo"), "{hint}");
    let nobody =
        SshSettings { secrets: Secrets::none(), ..users.settings("asked", Sudo::Password, &Operator::default()) };
    let (what, hint) = turned_away(nobody).await;
    assert_eq!(what, "sudo requires the password of asked, but there is no terminal");
    assert!(hint.contains("NOPASSWD"), "{hint}");
}

#[tokio::test]
async fn what_is_no_root_and_needs_no_sudo_is_left_as_it_is() {
    let users = Users::start("");
    let host = connect(users.settings("free", Sudo::None, &Operator::default())).await.unwrap();
    assert_eq!(host.run(Command::new(["id", "-un"]).privileged()).await.unwrap().text(), "free\n");
}
