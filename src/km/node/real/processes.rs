//! Starts processes through `km node-child`, which dies with its parent (parent-death signal) and has its own process
//! group. Setting these between fork and exec here would need unsafe code.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child as Process, Command};
use tokio::task::JoinHandle;

use super::super::deps::{Child, DepError, ProcessLauncher, Program};
use super::signals;

/// A log is rotated at this size in bytes, and the previously rotated one is removed: at most two files per log.
const LOG_LIMIT: u64 = 10 << 20;

/// Starts processes on this machine.
pub struct RealLauncher {
    logs: PathBuf,
}

impl RealLauncher {
    /// With logs in this directory.
    pub fn new(logs: PathBuf) -> Self {
        RealLauncher { logs }
    }
}

#[async_trait]
impl ProcessLauncher for RealLauncher {
    async fn start(&self, program: Program) -> Result<Box<dyn Child>, DepError> {
        let Program { name, argv, environment } = program;
        // Not by km's path: the binary may be removed from the sandbox, while /proc still has it.
        let mut command = Command::new("/proc/self/exe");
        command.args(["node-child", "--parent", &std::process::id().to_string(), "--"]).args(argv);
        command.env_clear().envs(environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(DepError::io(format!("start {name}")))?;
        let log = std::sync::Arc::new(std::sync::Mutex::new(Log::open(&self.logs, &name)));
        let mut pumps = Vec::new();
        if let Some(stdout) = process.stdout.take() {
            pumps.push(tokio::spawn(pump(stdout, log.clone())));
        }
        if let Some(stderr) = process.stderr.take() {
            pumps.push(tokio::spawn(pump(stderr, log)));
        }
        Ok(Box::new(RealChild { process, pumps }))
    }
}

struct RealChild {
    process: Process,
    pumps: Vec<JoinHandle<()>>,
}

#[async_trait]
impl Child for RealChild {
    async fn wait(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => format!("exited ({status})"),
            Err(error) => format!("exited ({error})"),
        }
    }

    async fn stop(&mut self, grace: Duration) {
        if let Some(pid) = self.process.id() {
            signals::terminate(pid as i32);
        }
        if tokio::time::timeout(grace, self.process.wait()).await.is_err() {
            // Fails only if the process has already ended.
            let _ = self.process.kill().await;
        }
    }
}

impl Drop for RealChild {
    fn drop(&mut self) {
        // A grandchild may hold the pipe open indefinitely.
        self.pumps.iter().for_each(JoinHandle::abort);
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, log: std::sync::Arc<std::sync::Mutex<Log>>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&buffer[..count]);
    }
}

/// A log of bounded size. Data that cannot be written are dropped: a full disk must not stop the node.
struct Log {
    path: PathBuf,
    file: Option<std::fs::File>,
    size: u64,
}

impl Log {
    fn open(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).ok();
        let size = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        Log { path, file, size }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.size + bytes.len() as u64 > LOG_LIMIT {
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            self.file = std::fs::File::create(&self.path).ok();
            self.size = 0;
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(bytes);
            self.size += bytes.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_takes_more_than_twice_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), "kubelet");
        for _ in 0..40 {
            log.append(&vec![b'x'; 1 << 20]);
        }
        let total: u64 = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 2 * LOG_LIMIT && total > LOG_LIMIT, "{total}");
    }
}
