//! `km node`'s side of the CNI plugin: answers over a Unix socket which host ports a pod was granted, and records the
//! pod's address.
//!
//! The socket is in a directory that only root can enter, and no secrets are exchanged.
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::cni::wire::{LINE_LIMIT, PortsAnswer, PortsRequest, Question, Sandbox};
use kmctl_core::protocol::launch::PortMapping;

/// Limit for one request; a plugin that sends nothing must not hold its connection indefinitely.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept, which mostly means a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The granted ports and the sandboxes of this node's pods.
pub trait GrantedPorts: Send + Sync {
    /// The ports of the pod with this UID, or with this namespace and name if no UID is given. None: this node has no
    /// task for the pod.
    fn granted(&self, pod: &PortsRequest) -> Option<Vec<PortMapping>>;
    /// Records that the pod, if it belongs to this node, has this sandbox and no other.
    fn attach(&self, pod: &PortsRequest, sandbox: Sandbox);
    /// Records that the sandbox with this container id is being removed.
    fn detach(&self, container: &str);
}

/// Opens the socket, replacing one that an earlier run left.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Serves until dropped.
pub async fn serve(listener: UnixListener, pods: Arc<dyn GrantedPorts>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let pods = pods.clone();
                tokio::spawn(async move {
                    match timeout(QUESTION_LIMIT, answer(stream, pods.as_ref())).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "request of the CNI plugin failed"),
                        Err(_) => tracing::warn!("no request from a CNI plugin in time"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a CNI plugin");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, pods: &dyn GrantedPorts) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_LIMIT)).read_line(&mut line).await?;
    let granted = |pod: &PortsRequest| pods.granted(pod).map_or(PortsAnswer::Unknown, PortsAnswer::Ports);
    let answer = match serde_json::from_str(&line)? {
        Question::Ports(pod) => granted(&pod),
        Question::Attach(pod, sandbox) => {
            pods.attach(&pod, sandbox);
            granted(&pod)
        }
        Question::Detach(container) => {
            pods.detach(&container);
            PortsAnswer::Noted
        }
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[derive(Default)]
    struct OnePod(std::sync::Mutex<Vec<String>>);

    impl GrantedPorts for OnePod {
        fn granted(&self, pod: &PortsRequest) -> Option<Vec<PortMapping>> {
            let named = (pod.namespace.as_str(), pod.name.as_str()) == ("ns", "web");
            let known = pod.uid.as_ref().map_or(named, |uid| uid == "u1");
            known.then(|| vec![PortMapping { container_port: 80, host_port: 31001, protocol: "TCP".to_owned() }])
        }

        fn attach(&self, pod: &PortsRequest, sandbox: Sandbox) {
            self.0.lock().unwrap().push(format!("{} is at {} in {}", pod.name, sandbox.address, sandbox.container));
        }

        fn detach(&self, container: &str) {
            self.0.lock().unwrap().push(format!("{container} goes"));
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
        let pod = Arc::new(OnePod::default());
        let server = tokio::spawn(serve(listen(&socket).unwrap(), pod.clone()));
        let ports = "{\"ports\":[{\"containerPort\":80,\"hostPort\":31001,\"protocol\":\"TCP\"}]}\n";
        let cases = [
            ("{\"ports\":{\"uid\":\"u1\",\"namespace\":\"x\",\"name\":\"y\"}}\n", ports),
            ("{\"ports\":{\"namespace\":\"ns\",\"name\":\"web\"}}\n", ports),
            ("{\"ports\":{\"uid\":\"u2\",\"namespace\":\"ns\",\"name\":\"web\"}}\n", "\"unknown\"\n"),
            (
                "{\"attach\":[{\"namespace\":\"ns\",\"name\":\"web\"},{\"container\":\"c\",\"address\":\"172.30.0.5\"}]}\n",
                ports,
            ),
            ("{\"detach\":\"c\"}\n", "\"noted\"\n"),
            ("nonsense\n", ""),
        ];
        for (question, expected) in cases {
            let socket = socket.clone();
            let answer = tokio::task::spawn_blocking(move || ask(&socket, question)).await.unwrap();
            assert_eq!(answer, expected, "{question}");
        }
        assert_eq!(*pod.0.lock().unwrap(), ["web is at 172.30.0.5 in c", "c goes"]);
        server.abort();
    }
}
