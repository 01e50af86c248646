//! The same cases against the registry of `upstream.rs` and against a real one.
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::desk::{Desk, VERSION};
use crate::upstream::Upstream;

/// Images by tag, by digest, and by parts, and one that does not exist.
fn cases(upstream: &Upstream) {
    let desk = Desk::new(upstream);
    desk.create().succeeds();
    let bundle = desk.bundle();
    let images: Vec<_> = bundle.manifest().files.iter().filter(|file| file.path.starts_with("images/")).collect();
    assert_eq!(images.len(), 2);
    let first = std::fs::read(bundle.path()).unwrap();

    // A blob that is here in part is continued.
    let blobs = desk.cache().join("registry.k8s.io/v2/pause/blobs");
    let mut continued = Vec::new();
    for blob in std::fs::read_dir(&blobs).unwrap() {
        let blob = blob.unwrap().path();
        let bytes = std::fs::read(&blob).unwrap();
        let name = blob.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::write(blobs.join(format!("{name}.partial")), &bytes[..bytes.len() / 2]).unwrap();
        std::fs::remove_file(&blob).unwrap();
        continued.push((name, bytes.len() / 2));
    }
    assert_eq!(continued.len(), 3);
    upstream.requests();
    desk.create().succeeds();
    assert!(std::fs::read(desk.bundle().path()).unwrap() == first);
    let asked = upstream.requests();
    for (name, from) in continued {
        let part = asked.iter().find(|(path, _)| path.ends_with(&name)).unwrap().1.clone();
        assert_eq!(part, Some(format!("bytes={from}-")), "{name}");
    }

    // A version whose images nobody pushed.
    let other = Desk::new(upstream);
    let lock = std::fs::read_to_string(desk.path("kubernetes-v1.37.2.bundle.lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    let mut components = lock["components"].clone();
    components["pause"] = "9.9".into();
    let pinned = serde_json::json!({
        "format": 1, "kubernetes": VERSION, "architecture": "amd64", "components": components, "files": [],
    });
    std::fs::write(other.path("kubernetes-v1.37.2.bundle.lock"), pinned.to_string()).unwrap();
    other.create().fails(1, &["failed to pull registry.k8s.io/pause:9.9 from 127.0.0.1:"]);
    other.has_no_bundle();
}

#[test]
fn images_are_pulled_from_the_registry_of_this_process() {
    cases(&Upstream::start(VERSION));
}

/// Debian's docker-registry, with its data in a directory of its own.
struct Real {
    child: Child,
    _folder: TempDir,
    address: std::net::SocketAddr,
}

impl Real {
    fn start() -> Real {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let configuration = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
             http: {{ addr: '{port}' }}\n",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("registry.yml"), configuration).unwrap();
        let program = std::env::var_os("KMCTL_TEST_REGISTRY").unwrap_or_else(|| "docker-registry".into());
        let child = Command::new(program)
            .arg("serve")
            .arg(folder.path().join("registry.yml"))
            .stdout(Stdio::null())
            .spawn()
            .expect("Debian's package docker-registry is installed");
        let real = Real { child, _folder: folder, address: port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(port).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        real
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs Debian's package docker-registry"]
fn images_are_pulled_from_a_real_registry() {
    let real = Real::start();
    let upstream = Upstream::start(VERSION);
    upstream.behind(real.address);
    cases(&upstream);
}
