//! This machine as a [`Host`].
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;

use super::transport::{Command, Host, HostError, Output, Stream};

/// How many bytes of an input are copied at once.
const CHUNK: usize = 64 * 1024;

/// This machine, with the permissions of kmctl itself.
pub struct LocalHost;

fn broken(what: &str) -> impl Fn(std::io::Error) -> HostError {
    let what = what.to_owned();
    move |source| HostError::Broken { what: what.clone(), source }
}

fn start(command: &Command) -> Result<Child, HostError> {
    let Some((program, arguments)) = command.argv.split_first() else {
        return Err(HostError::Unsupported("the command is empty".to_owned()));
    };
    tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(broken(&format!("start {program}")))
}

async fn feed(stdin: Option<ChildStdin>, mut source: Box<dyn Read + Send>, sent: Option<mpsc::Sender<u64>>) {
    let Some(mut stdin) = stdin else { return };
    let mut total = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(count) = source.read(&mut chunk) else { return };
        // A command may stop reading. Its exit status says why.
        if count == 0 || stdin.write_all(&chunk[..count]).await.is_err() {
            return;
        }
        total += count as u64;
        if let Some(sent) = &sent {
            let _ = sent.try_send(total);
        }
    }
}

async fn finish(
    command: Command,
    source: Box<dyn Read + Send>,
    sent: Option<mpsc::Sender<u64>>,
    lines: Option<mpsc::Sender<String>>,
) -> Result<Output, HostError> {
    let mut child = start(&command)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(mut stderr)) = (stdout, stderr) else {
        return Err(HostError::Unsupported("the command has no output".to_owned()));
    };
    let mut output = Output::default();
    let collect_stdout = async {
        let mut seen = Vec::new();
        let mut stdout = BufReader::new(stdout);
        loop {
            let start = seen.len();
            if stdout.read_until(b'\n', &mut seen).await? == 0 {
                return std::io::Result::Ok(seen);
            }
            if let Some(lines) = &lines {
                let line = String::from_utf8_lossy(&seen[start..]).trim_end_matches('\n').to_owned();
                let _ = lines.send(line).await;
            }
        }
    };
    let collect_stderr = async {
        let mut seen = Vec::new();
        stderr.read_to_end(&mut seen).await?;
        std::io::Result::Ok(seen)
    };
    let work = async {
        let ((), stdout, stderr, status) =
            tokio::join!(feed(stdin, source, sent), collect_stdout, collect_stderr, child.wait());
        Ok::<_, std::io::Error>((stdout?, stderr?, status?))
    };
    let (stdout, stderr, status) = tokio::time::timeout(command.timeout, work)
        .await
        .map_err(|_| HostError::Timeout(command.timeout))?
        .map_err(broken("exchange data with the command"))?;
    output.stdout = stdout;
    output.stderr = stderr;
    output.status = status.code().unwrap_or_else(|| {
        use std::os::unix::process::ExitStatusExt;
        128 + status.signal().unwrap_or(0)
    });
    Ok(output)
}

#[async_trait]
impl Host for LocalHost {
    fn name(&self) -> &str {
        "this machine"
    }

    async fn run(&self, mut command: Command) -> Result<Output, HostError> {
        let stdin = Box::new(std::io::Cursor::new(std::mem::take(&mut command.stdin)));
        finish(command, stdin, None, None).await
    }

    async fn run_lines(&self, mut command: Command, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        let stdin = Box::new(std::io::Cursor::new(std::mem::take(&mut command.stdin)));
        finish(command, stdin, None, Some(lines)).await
    }

    async fn run_with_input(
        &self,
        command: Command,
        source: Box<dyn Read + Send>,
        sent: mpsc::Sender<u64>,
        lines: mpsc::Sender<String>,
    ) -> Result<Output, HostError> {
        finish(command, source, Some(sent), Some(lines)).await
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Stream>, HostError> {
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .map_err(|source| HostError::Connect { address: address.to_string(), source })?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_command_gets_its_input_and_its_status_is_told() {
        let script = "cat; echo oops >&2; exit 3";
        let output = LocalHost.run(Command::new(["sh", "-c", script]).stdin("in")).await.unwrap();
        assert_eq!((output.status, output.text().as_str(), output.last_words().as_str()), (3, "in", "oops"));
    }

    #[tokio::test]
    async fn lines_arrive_while_the_command_runs() {
        let (sender, mut lines) = mpsc::channel(1);
        let run = LocalHost.run_lines(Command::new(["sh", "-c", "echo one; echo two"]), sender);
        let collect = async {
            let mut seen = Vec::new();
            while let Some(line) = lines.recv().await {
                seen.push(line);
            }
            seen
        };
        let (output, seen) = tokio::join!(run, collect);
        assert_eq!(output.unwrap().status, 0);
        assert_eq!(seen, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_silent_command_fails_after_its_limit() {
        let command = Command::new(["sleep", "20"]).timeout(Duration::from_millis(50));
        assert!(matches!(LocalHost.run(command).await, Err(HostError::Timeout(_))));
    }

    #[tokio::test]
    async fn a_signal_counts_as_128_and_its_number() {
        let output = LocalHost.run(Command::new(["sh", "-c", "kill -9 $$"])).await.unwrap();
        assert_eq!(output.status, 137);
    }
}
