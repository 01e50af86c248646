//! Becoming root through sudo: the command line, and what sudo prints on standard error before the command's own
//! output.
//!
//! sudo prints a prompt when it wants the password, and a line of ours is printed once sudo has started the command. So
//! the password is sent only to sudo, the command's input only to the command, and a refusal is never mistaken for a
//! failure of the command.
use super::secrets::Secret;
use super::settings::SshSettings;
use crate::host::{HostError, command_line};
use kmctl_core::cluster::Sudo;

/// The prompt that sudo prints when it wants the password.
const PROMPT: &str = "kmctl asks for the password of sudo:";

/// The line that is printed as root before the command starts.
const STARTED: &str = "kmctl is root";

/// The line that runs `argv` as root, for the login's shell.
pub(super) fn line(argv: &[String], sudo: Sudo) -> String {
    // Not localized, because sudo's output is shown. `env`, because not every login shell supports assignments.
    let mut line: Vec<&str> = vec!["env", "LC_ALL=C", "sudo"];
    match sudo {
        Sudo::None => return command_line(argv),
        Sudo::Nopasswd => line.push("-n"),
        Sudo::Password => line.extend(["-S", "-p", PROMPT]),
    }
    line.extend(["--", "sh", "-c", r#"echo "$0" >&2; exec "$@""#, STARTED]);
    line.extend(argv.iter().map(String::as_str));
    command_line(&line)
}

/// Holds back a command's input until sudo has started the command.
pub(super) struct Gate {
    host: String,
    user: String,
    try_it: String,
    sudo: Sudo,
    password: Option<Secret>,
    /// sudo has been given the password.
    given: bool,
}

/// What standard error contains so far.
pub(super) enum Heard {
    /// Nothing that matters.
    Nothing,
    /// sudo requested this password.
    Asked(Secret),
    /// sudo does not accept the password.
    Wrong,
    /// The command runs.
    Started,
}

impl Gate {
    /// `None` if sudo is not needed.
    pub(super) fn new(settings: &SshSettings, password: Option<Secret>) -> Option<Gate> {
        (settings.sudo != Sudo::None).then(|| Gate {
            host: settings.name.clone(),
            user: settings.user.clone(),
            try_it: settings.ssh_command(),
            sudo: settings.sudo,
            password,
            given: false,
        })
    }

    /// Whether input must wait, so that sudo does not read it as the password.
    pub(super) fn holds_input(&self) -> bool {
        self.sudo == Sudo::Password
    }

    /// Reads standard error, and removes what does not belong to the command.
    pub(super) fn hear(&mut self, stderr: &mut Vec<u8>) -> Heard {
        let started = format!("{STARTED}\n");
        if let Some(end) = end_of(stderr, started.as_bytes()) {
            stderr.drain(..end);
            return Heard::Started;
        }
        let Some(end) = end_of(stderr, PROMPT.as_bytes()) else { return Heard::Nothing };
        stderr.drain(..end);
        match (&self.password, self.given) {
            (Some(password), false) => {
                self.given = true;
                Heard::Asked(password.clone())
            }
            _ => Heard::Wrong,
        }
    }

    /// The error for a command that sudo did not start. `words` are sudo's last output.
    pub(super) fn refusal(&self, status: i32, words: &str) -> HostError {
        let Gate { host, user, .. } = self;
        let words = words.strip_prefix("sudo: ").unwrap_or(words);
        if status == 126 || status == 127 {
            return HostError::Sudo {
                what: format!("sudo is not available to {user} on {host}: {words}"),
                hint: format!("install it as root on {host}, e.g. `apt-get install sudo`, or set ssh.user to root"),
            };
        }
        if words.contains("have a tty") || words.contains("no tty present") {
            return HostError::Sudo {
                what: format!("sudo on {host} denied {user}: {words}"),
                hint: format!("run as root on {host}: `echo 'Defaults:{user} !requiretty' >> /etc/sudoers.d/kmctl`"),
            };
        }
        let rule = match self.sudo {
            Sudo::Password => "ALL=(ALL) ALL",
            _ => "ALL=(ALL) NOPASSWD: ALL",
        };
        let other = match self.sudo {
            Sudo::Password => "",
            _ => ", or set ssh.sudo to password in cluster.yaml",
        };
        HostError::Sudo {
            what: format!("sudo on {host} denied {user}: {words}"),
            hint: format!("run as root on {host}: `echo '{user} {rule}' > /etc/sudoers.d/kmctl`{other}"),
        }
    }

    /// The error for a password that sudo does not accept.
    pub(super) fn wrong(&self) -> HostError {
        let Gate { host, user, try_it, .. } = self;
        HostError::Sudo {
            what: format!("sudo on {host} rejected the password of {user}"),
            hint: format!(
                "test it with `{} sudo true`; all hosts must have the same password, or ssh.sudo nopasswd",
                try_it.replacen("ssh ", "ssh -t ", 1)
            ),
        }
    }
}

/// Where `needle` ends in `text`.
fn end_of(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle).map(|start| start + needle.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;

    fn gate(sudo: Sudo) -> Gate {
        let password = (sudo == Sudo::Password).then(|| Arc::new(Zeroizing::new("pw".to_owned())));
        let (host, user, try_it) = ("cp1".to_owned(), "ops".to_owned(), "ssh ops@10.0.0.1".to_owned());
        Gate { host, user, try_it, sudo, password, given: false }
    }

    #[test]
    fn the_password_is_given_once_and_only_when_it_is_asked_for() {
        let mut gate = gate(Sudo::Password);
        let mut stderr = b"sudo: unable to resolve host".to_vec();
        assert!(matches!(gate.hear(&mut stderr), Heard::Nothing));
        stderr.extend(b"\n");
        stderr.extend(PROMPT.as_bytes());
        assert!(matches!(gate.hear(&mut stderr), Heard::Asked(password) if password.as_str() == "pw"));
        assert!(stderr.is_empty() && matches!(gate.hear(&mut stderr), Heard::Nothing));
        stderr.extend(b"\nSorry, try again.\n");
        stderr.extend(PROMPT.as_bytes());
        assert!(matches!(gate.hear(&mut stderr), Heard::Wrong));
    }

    #[test]
    fn what_the_command_says_itself_is_left_to_it() {
        for sudo in [Sudo::Nopasswd, Sudo::Password] {
            let mut stderr = format!("noise\n{STARTED}\nits own {PROMPT}").into_bytes();
            assert!(matches!(gate(sudo).hear(&mut stderr), Heard::Started));
            assert_eq!(String::from_utf8(stderr).unwrap(), format!("its own {PROMPT}"));
        }
    }

    #[test]
    fn no_secret_is_in_the_line_and_every_argument_is_quoted() {
        let argv = ["sh".to_owned(), "-c".to_owned(), "echo it's".to_owned()];
        assert_eq!(line(&argv, Sudo::None), r"sh -c 'echo it'\''s'");
        let line = line(&argv, Sudo::Password);
        assert!(line.starts_with("env LC_ALL=C sudo -S -p 'kmctl asks") && line.ends_with(r"sh -c 'echo it'\''s'"));
    }
}
