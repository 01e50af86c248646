//! What a stock kubelet waits for at its start though it is not there: answered at once, or not asked for.
//!
//! - cAdvisor, which is compiled into it, asks for Docker's root folder five times, a second apart, and then takes the
//!   default (`RootDir` in cadvisor/container/docker, Kubernetes 1.20). Here somebody tells it the default.
//! - Its credential provider for Amazon's registry waits for the metadata of an Amazon machine (`ecrProvider.Enabled`),
//!   six seconds in a network that drops the question. Elsewhere it is told not to ask.
use std::path::{Path, PathBuf};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;

use super::super::cni::listen;

/// Where Docker lies if nobody says otherwise.
const DOCKER_ROOT: &str = "/var/lib/docker";

/// Answers in the place of Docker until it is dropped: that there is none, but where it would be.
pub struct NoDocker(AbortOnDropHandle<()>);

impl NoDocker {
    /// Listens there.
    pub fn start(socket: &Path) -> std::io::Result<NoDocker> {
        Ok(NoDocker(AbortOnDropHandle::new(tokio::spawn(serve(listen(socket)?)))))
    }

    /// Whether it still answers.
    pub fn answers(&self) -> bool {
        !self.0.is_finished()
    }
}

async fn serve(listener: UnixListener) {
    if let Err(error) = axum::serve(listener, Router::new().fallback(answer)).await {
        tracing::debug!(%error, "nobody tells the kubelet where Docker would be");
    }
}

/// Anything but `info` fails, so that cAdvisor looks for no containers of Docker's.
async fn answer(request: Request) -> Response {
    if request.uri().path().ends_with("/info") {
        return Json(serde_json::json!({ "DockerRootDir": DOCKER_ROOT })).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

/// Variables of the kubelet's environment that keep it from waiting for metadata that this machine does not have.
/// `sys`: `/sys`.
pub fn environment(sys: &Path) -> Vec<(String, String)> {
    if of_amazon(sys) { Vec::new() } else { vec![("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned())] }
}

/// Where Amazon's manual says that its machines can be told by (`identify_ec2_instances`).
fn of_amazon(sys: &Path) -> bool {
    let says = |file: &str| std::fs::read_to_string(sys.join(PathBuf::from(file))).unwrap_or_default().to_lowercase();
    let vendor =
        ["class/dmi/id/sys_vendor", "class/dmi/id/board_vendor"].iter().any(|file| says(file).contains("amazon"));
    vendor || ["hypervisor/uuid", "class/dmi/id/product_uuid"].iter().any(|file| says(file).starts_with("ec2"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_asks_for_docker_is_told_a_folder_and_finds_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let no_docker = NoDocker::start(&socket).unwrap();
        let ask = |path: &str| {
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let info = ask("/v1.40/info");
        assert!(info.starts_with("HTTP/1.1 200") && info.contains(r#"{"DockerRootDir":"/var/lib/docker"}"#), "{info}");
        for other in ["/v1.40/version", "/_ping", "/v1.40/containers/json"] {
            assert!(ask(other).starts_with("HTTP/1.1 404"), "{other}");
        }
        assert!(no_docker.answers());
    }

    #[test]
    fn only_a_machine_of_amazons_is_asked_for_its_metadata() {
        let files = |vendor: &str, uuid: &str| {
            let folder = tempfile::tempdir().unwrap();
            let id = folder.path().join("class/dmi/id");
            std::fs::create_dir_all(&id).unwrap();
            std::fs::write(id.join("sys_vendor"), vendor).unwrap();
            std::fs::write(id.join("product_uuid"), uuid).unwrap();
            environment(folder.path()).is_empty()
        };
        assert!(files("Amazon EC2\n", "x"));
        assert!(files("Xen\n", "EC2A1B2C-0000\n"));
        assert!(!files("QEMU\n", "0ec2\n"));
        assert!(!environment(Path::new("/nonexistent")).is_empty());
    }
}
