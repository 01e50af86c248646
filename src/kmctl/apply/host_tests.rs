//! How `km` is installed on a host.
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::host::LocalHost;
use crate::host::fake::FakeHost;
use crate::inventory::Bare;
use kmctl_core::progress::{self, Draw};
use kmctl_core::protocol::host::{EtcdData, FORMAT, Observations, Ownership};

/// Records the starts of steps and what they are at.
#[derive(Clone, Default)]
struct Keeping(Arc<Mutex<Vec<String>>>);

impl Draw for Keeping {
    fn draw(&self, event: &progress::Event) {
        let text = match event {
            progress::Event::Started { text, .. } => text.clone(),
            progress::Event::At { text, .. } => format!("at {text}"),
            progress::Event::Note { text, .. } => format!("note {text}"),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        print();
    }
}

#[test]
fn programs_that_come_after_a_unit_are_a_step_and_not_a_line_each() {
    let kept = Keeping::default();
    let progress = Progress::new(kept.clone());
    let text = StepText { running: "Preparing etcd", done: "Prepared etcd" };
    let mut show = ProgressReporter::new("cp1", &progress, text, 7);
    for (name, change) in [
        ("etcd.service", Change::Started),
        ("/bin/a", Change::Created),
        ("/bin/b", Change::Created),
        ("votes", Change::Unchanged),
    ] {
        show.event(Event::Started { item: name.to_owned() });
        show.event(Event::Done { item: name.to_owned(), change });
    }
    show.event(Event::Finished { changed: 3, unchanged: 1 });
    let told = kept.0.lock().unwrap().clone();
    assert_eq!(told, ["Preparing etcd", "etcd.service", SENDING.running, "at /bin/a", "at /bin/b", "votes"]);
}

#[test]
fn what_remains_of_an_item_is_named() {
    let kept = Keeping::default();
    let progress = Progress::new(kept.clone());
    let text = StepText { running: "Removing nodes", done: "Removed nodes" };
    let mut show = ProgressReporter::new("cp1", &progress, text, 0);
    show.event(Event::Started { item: "nodes".to_owned() });
    let remains = vec!["agent a1 is not cleaned".to_owned()];
    show.event(Event::Incomplete { item: "nodes".to_owned(), remains });
    assert_eq!(*kept.0.lock().unwrap(), ["Removing nodes", "nodes", "note agent a1 is not cleaned"]);
}

async fn receive(path: &Path, size: usize, bytes: &str) -> Output {
    let argv = ["sh", "-c", RECEIVE, "sh", &path.display().to_string(), &size.to_string()].map(str::to_owned);
    LocalHost.run(Command::new(argv).stdin(bytes)).await.unwrap()
}

#[tokio::test]
async fn a_program_gets_its_name_only_when_all_of_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bin/km");
    let cut = receive(&path, 11, "the prog").await;
    assert_eq!((cut.status, cut.last_words().as_str()), (1, "the upload is incomplete"));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    assert!(receive(&path, 11, "the program").await.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the program");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn a_km_that_is_another_one_than_was_sent_is_not_used() {
    let manifest = HostManifest {
        format: FORMAT,
        cluster: "demo".to_owned(),
        host: "cp1".to_owned(),
        version: "v1.37.2".to_owned(),
        items: Vec::new(),
    };
    let observations = |km: &str| Observations {
        format: FORMAT,
        hostname: "cp1".to_owned(),
        km: Some(km.to_owned()),
        lock: None,
        ownership: Ownership::default(),
        etcd_data: EtcdData::default(),
        versions: Vec::new(),
        members: Vec::new(),
        founder: None,
        items: Vec::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("km"), "the program").unwrap();
    let work = Work {
        bundle: None,
        secrets: BTreeMap::new(),
        km: (folder.path().join("km"), "right".to_owned()),
        cluster_id: "1".to_owned(),
        begin_anew: false,
        holder: LockOwner::default(),
        progress: Progress::silent(),
        limits: Limits::default(),
        verified: Arc::default(),
    };
    for (there, expected) in [
        ("right", Ok(())),
        ("wrong", Err("failed to install km on cp1: the installed file differs from the uploaded one".to_owned())),
    ] {
        let text = serde_json::to_string(&observations(there)).unwrap();
        let host = FakeHost::new("cp1").answers("host inspect", 0, &text).answers("kmctl-new", 0, "");
        let found = prepare(&host, &manifest, Found::Bare(Bare::default()), &work).await;
        assert_eq!(found.map(drop).map_err(|error| error.to_string()), expected);
    }
}
