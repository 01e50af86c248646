//! Network namespaces that go with the test.
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Runs a program and returns what it said; the test fails with it.
pub fn run(argv: &[&str]) -> String {
    let output = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{argv:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A named network namespace.
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Makes one; its loopback is up.
    pub fn new(role: &str) -> Namespace {
        let name = format!("kmt-{}-{}-{role}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(&["ip", "netns", "add", &name]);
        let namespace = Namespace { name };
        namespace.run(&["ip", "link", "set", "lo", "up"]);
        namespace
    }

    fn inside<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        [&["ip", "netns", "exec", &self.name], argv].concat()
    }

    /// Runs a program inside.
    pub fn run(&self, argv: &[&str]) -> String {
        run(&self.inside(argv))
    }

    /// Runs a program inside, with input and environment; whether it succeeded, and what it printed.
    pub fn try_run(&self, argv: &[&str], environment: &[(&str, &str)], input: &str) -> (bool, String) {
        let argv = self.inside(argv);
        let mut child = Command::new(argv[0])
            .args(&argv[1..])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Does something with this thread inside; what it opens stays there.
    pub fn inside_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(std::fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Starts a program inside that ends with the returned value.
    pub fn start(&self, argv: &[&str]) -> Program {
        let argv = self.inside(argv);
        let child = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).spawn().unwrap();
        Program(child)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A running program.
pub struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
