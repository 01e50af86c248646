//! Connections that end before the file does.
use crate::desk::{Desk, VERSION};
use crate::upstream::{Manner, Upstream};

#[test]
fn a_file_is_continued_wherever_the_connection_ends() {
    let upstream = Upstream::start(VERSION);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    let size = upstream.get(&kubelet).len();
    for cut in [4000, size / 3, size / 2, size - 1] {
        let desk = Desk::new(&upstream);
        upstream.let_be(&kubelet, Manner::Cut(cut));
        upstream.requests();
        desk.create().succeeds();
        desk.bundle();
        let parts: Vec<_> = upstream.requests().into_iter().filter(|(path, _)| *path == kubelet).collect();
        assert_eq!(parts.len(), size.div_ceil(cut), "{cut}");
        for (index, (_, part)) in parts.into_iter().enumerate() {
            assert_eq!(part, (index > 0).then(|| format!("bytes={}-", index * cut)), "{cut}");
        }
        upstream.let_be(&kubelet, Manner::Well);
    }
}

#[test]
fn the_next_run_continues_what_was_cut_in_any_file() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let files = upstream.paths(|path| {
        let is_text = [".sha256", ".sha256sum", "SHA256SUMS"].iter().any(|end| path.ends_with(end));
        !is_text && (!path.starts_with("v2/") || path.contains("/blobs/"))
    });
    assert_eq!(files.len(), 15);
    // As a run leaves them that was killed at some point.
    for (index, path) in files.iter().enumerate() {
        let bytes = upstream.get(path);
        let upstreams = match path.strip_prefix("v2/registry.k8s.io/") {
            Some(blob) => format!("registry.k8s.io/v2/{blob}"),
            None => path.clone(),
        };
        let partial = desk.cache().join(format!("{upstreams}.partial"));
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(partial, &bytes[..bytes.len() * index / files.len()]).unwrap();
    }
    desk.create().succeeds();
    desk.bundle();
    let asked = upstream.requests();
    for (index, path) in files.iter().enumerate() {
        let part = asked.iter().find(|(asked, _)| asked == path).unwrap().1.clone();
        let from = upstream.get(path).len() * index / files.len();
        assert_eq!(part, (from > 0).then(|| format!("bytes={from}-")), "{path}");
    }
}

#[test]
fn a_server_that_sends_all_of_it_once_is_understood() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    upstream.let_be(&kubelet, Manner::CutAndForget(upstream.get(&kubelet).len() * 2 / 3));
    desk.create().succeeds();
    desk.bundle();
}

#[test]
fn a_redirect_with_a_signature_that_expires_is_asked_for_anew() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let archives = upstream.paths(|path| path.ends_with("gz"));
    assert_eq!(archives.len(), 3);
    for archive in &archives {
        upstream.let_be(archive, Manner::Redirect(upstream.get(archive).len() / 3));
    }
    desk.create().succeeds();
    desk.bundle();
    let asked = upstream.requests();
    for archive in &archives {
        let parts = asked.iter().filter(|(path, _)| path == archive).count();
        assert!(parts >= 3, "{archive}: {parts}");
    }
}

#[test]
fn a_part_of_something_else_is_thrown_away() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    for length in [10, 1_000_000] {
        let partial = desk.cache().join(format!("{kubelet}.partial"));
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(&partial, vec![7; length]).unwrap();
        _ = std::fs::remove_file(desk.cache().join(&kubelet));
        desk.create().succeeds();
        desk.bundle();
        assert!(!partial.exists());
    }
    // And so is a whole file that is another one by now.
    std::fs::write(desk.cache().join(&kubelet), "x").unwrap();
    desk.create().succeeds();
    desk.bundle();
}

#[test]
fn a_connection_that_brings_nothing_is_given_up_and_told() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    upstream.let_be(&kubelet, Manner::Cut(0));
    desk.create().fails(1, &[&format!("failed to download {}/{kubelet}: ", upstream.url()), "it resumes"]);
    desk.has_no_bundle();
}
