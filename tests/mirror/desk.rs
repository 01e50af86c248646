//! An operator's directory, and `kmctl` in it.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kmctl_core::bundle::Bundle;
use tempfile::TempDir;

use crate::upstream::Upstream;

/// The version that most tests make a bundle of.
pub const VERSION: &str = "v1.37.2";

/// What the bundle is called.
pub const BUNDLE: &str = "kubernetes-v1.37.2.bundle";

/// An operator's directory.
pub struct Desk {
    folder: TempDir,
    mirror: String,
}

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// It failed with this code and says all this; nothing of it is a panic.
    #[track_caller]
    pub fn fails(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "no `{text}` in:\n{}", self.stderr);
        }
        assert!(self.stderr.contains("\nhint: "), "no hint in:\n{}", self.stderr);
    }

    #[track_caller]
    pub fn succeeds(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
    }
}

impl Desk {
    /// One whose `--mirror` is `upstream`.
    pub fn new(upstream: &Upstream) -> Desk {
        Desk { folder: TempDir::new().unwrap(), mirror: upstream.url() }
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where downloads are kept.
    pub fn cache(&self) -> PathBuf {
        self.path("cache/kmctl/downloads")
    }

    /// Removes what was downloaded.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.path("cache")).unwrap_or_default();
    }

    /// A `kmctl` with these arguments and `environment`, not started yet.
    pub fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmctl"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `kmctl` to its end.
    pub fn kmctl(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments, &[]))
    }

    /// The command that most tests are about.
    pub fn create(&self) -> Run {
        self.kmctl(&["bundle", "create", "--kubernetes", VERSION, "--mirror", &self.mirror])
    }

    /// The same, started.
    pub fn start(&self) -> Child {
        let arguments = ["bundle", "create", "--kubernetes", VERSION, "--mirror", &self.mirror];
        self.command(&arguments, &[]).spawn().unwrap()
    }

    /// The bundle, which must be whole.
    #[track_caller]
    pub fn bundle(&self) -> Bundle {
        verified(&self.path(BUNDLE))
    }

    /// There is no bundle, not even a part of one under another name.
    #[track_caller]
    pub fn has_no_bundle(&self) {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name.ends_with(".bundle") || name.ends_with(".partial")), "{names:?}");
    }
}

/// A bundle whose every file is what its manifest says.
#[track_caller]
pub fn verified(path: &Path) -> Bundle {
    let bundle = Bundle::open(path).unwrap();
    bundle.verify(|_| true).unwrap();
    for required in kmctl_core::bundle::required() {
        assert!(bundle.manifest().files.iter().any(|file| file.path == required), "{required}");
    }
    bundle
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Run {
    end(command.spawn().unwrap())
}

/// Waits for a run's end.
pub fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Run {
    /// It failed with this code.
    #[track_caller]
    pub fn fails_without_hint(&self, code: i32) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
    }
}
