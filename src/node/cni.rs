//! `km node`'s side of the CNI plugin: answers, over a unix socket, which host ports a pod was granted.
//!
//! The socket lies in a folder that only root enters; nothing secret is said, and nothing can be changed by asking.
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::launch::PortMapping;
use crate::cni::wire::{LINE_LIMIT, PortsAnswer, PortsRequest};

/// For one question; a plugin that says nothing must not hold its connection for ever.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);

/// After a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Knows the pods of this node.
pub trait GrantedPorts: Send + Sync {
    /// The ports of the pod with this UID, or of this namespace and name where no UID is given. None: there is no
    /// task for it here.
    fn granted(&self, uid: Option<&str>, namespace: &str, name: &str) -> Option<Vec<PortMapping>>;
}

/// Opens the socket, in place of one that an earlier run left.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Answers for ever; drop it to end.
pub async fn serve(listener: UnixListener, pods: Arc<dyn GrantedPorts>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let pods = pods.clone();
                tokio::spawn(async move {
                    match timeout(QUESTION_LIMIT, answer(stream, pods.as_ref())).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "a question of the CNI plugin was not answered"),
                        Err(_) => tracing::warn!("a CNI plugin did not ask in time"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a CNI plugin");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, pods: &dyn GrantedPorts) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_LIMIT)).read_line(&mut line).await?;
    let request: PortsRequest = serde_json::from_str(&line)?;
    let answer = match pods.granted(request.uid.as_deref(), &request.namespace, &request.name) {
        Some(ports) => PortsAnswer::Ports(ports),
        None => PortsAnswer::Unknown,
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    struct OnePod;

    impl GrantedPorts for OnePod {
        fn granted(&self, uid: Option<&str>, namespace: &str, name: &str) -> Option<Vec<PortMapping>> {
            let known = uid.map_or((namespace, name) == ("ns", "web"), |uid| uid == "u1");
            known.then(|| vec![PortMapping { container_port: 80, host_port: 31001, protocol: "TCP".to_owned() }])
        }
    }

    fn ask(socket: &Path, question: &str) -> String {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pods_are_known_by_uid_else_by_name_and_nonsense_gets_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ports.sock");
        drop(listen(&socket).unwrap());
        let server = tokio::spawn(serve(listen(&socket).unwrap(), Arc::new(OnePod)));
        let ports = "{\"ports\":[{\"containerPort\":80,\"hostPort\":31001,\"protocol\":\"TCP\"}]}\n";
        let cases = [
            ("{\"uid\":\"u1\",\"namespace\":\"x\",\"name\":\"y\"}\n", ports),
            ("{\"namespace\":\"ns\",\"name\":\"web\"}\n", ports),
            ("{\"uid\":\"u2\",\"namespace\":\"ns\",\"name\":\"web\"}\n", "\"unknown\"\n"),
            ("nonsense\n", ""),
        ];
        for (question, expected) in cases {
            let socket = socket.clone();
            let answer = tokio::task::spawn_blocking(move || ask(&socket, question)).await.unwrap();
            assert_eq!(answer, expected, "{question}");
        }
        server.abort();
    }
}
