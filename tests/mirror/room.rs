//! Disks that are full.
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::desk::{BUNDLE, Desk, VERSION, run};
use crate::upstream::Upstream;

/// A file system of so many kilobytes, while it lives.
struct Small(PathBuf);

impl Small {
    fn at(path: &Path, kilobytes: u32) -> Small {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={kilobytes}k");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("it runs as root");
        Small(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_under_the_downloads_is_told_and_the_next_run_continues() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let small = Small::at(&desk.path("cache"), 64);
    desk.create().fails(1, &["failed to write ", "No space left on device", "hint: free about 1 GB in "]);
    desk.has_no_bundle();
    drop(small);
    desk.create().succeeds();
    desk.bundle();
}

#[test]
fn a_full_disk_under_the_bundle_never_leaves_one() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let url = upstream.url();
    let out = format!("small/{BUNDLE}");
    let create = ["bundle", "create", "--kubernetes", VERSION, "--mirror", &url, "--lock", "lock", "--out", &out];
    // Too little for the packed files, and for the bundle beside them.
    for kilobytes in [64, 200, 400, 600] {
        let small = Small::at(&desk.path("small"), kilobytes);
        let full = desk.kmctl(&create);
        full.fails(
            1,
            &[
                "failed to write small/kubernetes-v1.37.2.bundle",
                "No space left on device",
                "hint: free about 1 GB in small",
            ],
        );
        let left: Vec<_> = std::fs::read_dir(desk.path("small")).unwrap().collect();
        assert!(left.is_empty(), "{kilobytes}: {left:?}");
        drop(small);
    }
    let _small = Small::at(&desk.path("small"), 4096);
    desk.kmctl(&create).succeeds();
    crate::desk::verified(&desk.path(&out));
}

#[test]
fn a_limit_on_the_size_of_files_never_leaves_a_bundle() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    desk.create().succeeds();
    let size = std::fs::metadata(desk.path(BUNDLE)).unwrap().len();
    std::fs::remove_file(desk.path(BUNDLE)).unwrap();
    let create = ["bundle", "create", "--kubernetes", VERSION, "--mirror", &upstream.url()];
    let mut limited = std::process::Command::new("prlimit");
    let inner = desk.command(&create, &[]);
    limited.arg(format!("--fsize={}", size - 1)).arg(inner.get_program()).args(inner.get_args());
    limited.current_dir(desk.path("")).env("XDG_CACHE_HOME", desk.path("cache")).stderr(std::process::Stdio::piped());
    // Whether by an error or by the signal that belongs to the limit.
    let ended = run(&mut limited);
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    assert!(!desk.path(BUNDLE).exists());
    desk.create().succeeds();
    desk.bundle();
}
