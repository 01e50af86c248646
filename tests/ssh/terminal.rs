//! A terminal of a test's own, for what kmctl asks.
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

/// How long anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program on a terminal.
pub struct Terminal {
    keyboard: File,
    line: OwnedFd,
    seen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    /// Runs `command` there, in a session of its own, so that Ctrl-C reaches it.
    pub fn run(command: &Command) -> Terminal {
        let pair = openpty(None, None).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut screen, shown) = (File::from(pair.master.try_clone().unwrap()), seen.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count) = screen.read(&mut chunk) {
                if count == 0 {
                    return;
                }
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        });
        Terminal { keyboard: File::from(pair.master), line: pair.slave, seen, child }
    }

    /// What stands on the screen.
    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `text` has been shown `times` times, and nobody sees what is typed.
    pub fn question(&self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.seen().matches(text).count() < times || self.shows_typing() {
            assert!(Instant::now() < deadline, "{}", self.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types.
    pub fn say(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub fn shows_typing(&self) -> bool {
        tcgetattr(&self.line).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits for the end.
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The last words may be on their way to the screen.
                std::thread::sleep(Duration::from_millis(100));
                return status;
            }
            assert!(Instant::now() < deadline, "kmctl does not end: {}", self.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
