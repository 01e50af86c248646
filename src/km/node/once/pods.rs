//! The pods of a run. They replace the API: they are written as static pod manifests to the run's tmpfs, and followed
//! through the kubelet's own list. A pod starts when both its task and its description from kmctl exist.
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::super::decide::{Deletion, Event, PodPhase, PodView};
use super::super::deps::{ApiClient, DepError};
use super::kubelet::StandaloneKubelet;
use super::logs::Follower;
use super::view::{StartFailure, seen, stuck};
use super::voice::OutputChannel;
use kmctl_core::node::spec::DepsSpec;
use kmctl_core::protocol::launch::PodLaunch;
use kmctl_core::protocol::runonce::{FromNode, GivenPod};
use mesos::types::Bytes;
use runonce::decide::rewrite::{GivenFile, Rewritten, rewrite};

/// Interval of the queries to the kubelet.
const POLL: Duration = Duration::from_millis(300);
/// Interval at which logs are read.
const LOG_POLL: Duration = Duration::from_millis(100);
/// How long the report of an end waits for the acknowledgement of the pod's output.
const HEARD_LIMIT: Duration = Duration::from_secs(15);
/// How long a container may try to start: two pulls of an image, with the kubelet's backoff in between.
const STUCK_LIMIT: Duration = Duration::from_secs(60);
/// How long the kubelet may not answer before its pods count as unknown. This is only reported.
const SILENCE: Duration = Duration::from_secs(20);

/// How pods ended, by UID; the session adds it to the last states of their tasks.
#[derive(Clone, Debug, Default)]
pub struct Ends(Arc<Mutex<BTreeMap<String, u8>>>);

impl Ends {
    /// The exit code of a pod that has ended on its own.
    pub fn of(&self, uid: &str) -> Option<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    fn note(&self, uid: &str, code: u8) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), code);
    }
}

/// The pods of one run.
pub struct StandalonePods {
    spec: DepsSpec,
    kubelet: Arc<StandaloneKubelet>,
    voice: Arc<dyn OutputChannel>,
    ends: Ends,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the kubelet runs. Before that, the tmpfs for pods' files may not be mounted yet.
    open: bool,
    given: BTreeMap<String, GivenPod>,
    admitted: BTreeSet<String>,
    placed: BTreeMap<String, Following>,
    /// Why a pod could not be placed.
    refused: BTreeMap<String, String>,
    deleted: BTreeSet<String>,
    /// Pods whose end was reported, or is about to be.
    ended: BTreeSet<String>,
}

/// The task that follows a pod's output.
struct Following {
    manifest: PathBuf,
    end: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl StandalonePods {
    /// For one run.
    pub fn new(spec: DepsSpec, kubelet: Arc<StandaloneKubelet>, voice: Arc<dyn OutputChannel>, ends: Ends) -> Self {
        StandalonePods { spec, kubelet, voice, ends, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pods that have a task, but no description yet.
    pub fn wanted(&self) -> Vec<String> {
        let state = self.state();
        state.admitted.iter().filter(|uid| !state.given.contains_key(*uid)).cloned().collect()
    }

    /// Stores the pods' descriptions from kmctl.
    pub fn give(&self, pods: Vec<GivenPod>) {
        for pod in pods {
            let uid = pod.uid.clone();
            self.state().given.entry(uid.clone()).or_insert(pod);
            self.start(&uid);
        }
    }

    /// Called when the kubelet runs: pods may start from now on.
    fn open(&self) {
        self.state().open = true;
        let admitted = self.state().admitted.clone();
        admitted.iter().for_each(|uid| self.start(uid));
    }

    /// Starts a pod, once, as soon as it has its task and its description.
    fn start(&self, uid: &str) {
        let mut state = self.state();
        if !state.open {
            return;
        }
        let known = state.placed.contains_key(uid) || state.refused.contains_key(uid) || state.deleted.contains(uid);
        if known || !state.admitted.contains(uid) {
            return;
        }
        let Some(given) = state.given.get(uid).cloned() else { return };
        match self.place(&given) {
            Ok(following) => {
                info!(uid, "the pod has its manifest");
                state.placed.insert(uid.to_owned(), following);
            }
            Err(error) => {
                state.refused.insert(uid.to_owned(), error.chain());
            }
        }
    }

    fn place(&self, given: &GivenPod) -> Result<Following, DepError> {
        let folders = &self.spec.folders;
        let own = folders.settings("given").join(&given.uid);
        let Rewritten { pod, folders: made, files } =
            rewrite(given, &own).map_err(DepError::other("prepare the pod"))?;
        for folder in made {
            make(&folder)?;
        }
        for file in &files {
            write(file)?;
        }
        let containers = pod.spec.as_ref().map(|spec| {
            let init = spec.init_containers.iter().flatten();
            init.chain(&spec.containers).map(|container| container.name.clone()).collect::<Vec<_>>()
        });
        let follower = Follower::new(folders.pod_logs(), given.uid.clone(), containers.unwrap_or_default());
        let mut document = serde_json::to_value(&pod).map_err(DepError::other("write the pod's manifest"))?;
        if let Some(object) = document.as_object_mut() {
            object.insert("apiVersion".to_owned(), "v1".into());
            object.insert("kind".to_owned(), "Pod".into());
        }
        let manifests = folders.settings("manifests");
        make(&manifests)?;
        let manifest = manifests.join(format!("{}.json", given.uid));
        // The kubelet skips names that begin with a dot, so it never reads a partial manifest.
        let partial = manifests.join(format!(".{}.part", given.uid));
        let what = || format!("write {}", manifest.display());
        write(&GivenFile {
            path: partial.clone(),
            content: document.to_string().into_bytes(),
            mode: 0o600,
            group: None,
        })?;
        std::fs::rename(&partial, &manifest).map_err(DepError::io(what()))?;
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(follow(follower, given.uid.clone(), self.voice.clone(), ended));
        Ok(Following { manifest, end, task: Some(task) })
    }

    /// Queries the kubelet once and sends events for all changes.
    async fn look(
        self: &Arc<Self>,
        events: &mpsc::UnboundedSender<Event>,
        told: &mut BTreeMap<String, PodView>,
        waiting: &mut BTreeMap<String, Instant>,
    ) -> Result<(), DepError> {
        // Not in the loop's head, where the lock would be held during the whole loop.
        let refused = std::mem::take(&mut self.state().refused);
        for (uid, why) in refused {
            self.state().deleted.insert(uid.clone());
            let _ = events.send(Event::PodSeen(failed(&uid, why)));
        }
        let pods = self.kubelet.pods().await?;
        let mut present = BTreeSet::new();
        for pod in &pods {
            let (view, code) = seen(pod);
            let uid = view.uid.clone();
            present.insert(uid.clone());
            if self.state().ended.contains(&uid) {
                continue;
            }
            if matches!(view.phase, PodPhase::Succeeded | PodPhase::Failed) {
                if let Some(code) = code {
                    self.ends.note(&uid, code);
                }
                self.state().ended.insert(uid.clone());
                let (pods, events) = (self.clone(), events.clone());
                tokio::spawn(async move { pods.tell_end(view, &events).await });
                continue;
            }
            if let Some(StartFailure { why, hopeless }) = stuck(pod) {
                let since = *waiting.entry(uid.clone()).or_insert_with(Instant::now);
                if hopeless || since.elapsed() >= STUCK_LIMIT {
                    self.state().ended.insert(uid.clone());
                    let _ = events.send(Event::PodSeen(PodView { message: why, ..failed(&uid, String::new()) }));
                    continue;
                }
            }
            if told.get(&uid) != Some(&view) {
                told.insert(uid, view.clone());
                let _ = events.send(Event::PodSeen(view));
            }
        }
        let gone: Vec<String> = self.state().deleted.iter().filter(|uid| !present.contains(*uid)).cloned().collect();
        for uid in gone {
            self.state().deleted.remove(&uid);
            self.drain(&uid).await;
            let _ = events.send(Event::PodGone { uid });
        }
        Ok(())
    }

    /// Reports a pod's end after all of its output has arrived.
    async fn tell_end(&self, view: PodView, events: &mpsc::UnboundedSender<Event>) {
        self.drain(&view.uid).await;
        let _ = events.send(Event::PodSeen(view));
    }

    async fn drain(&self, uid: &str) {
        let task = {
            let mut state = self.state();
            let Some(following) = state.placed.get_mut(uid) else { return };
            let _ = following.end.send(true);
            following.task.take()
        };
        if let Some(mut task) = task
            && tokio::time::timeout(HEARD_LIMIT, &mut task).await.is_err()
        {
            warn!(uid, "not all output was received");
            task.abort();
        }
        if !self.voice.wait_acked(HEARD_LIMIT).await {
            warn!(uid, "not all output was received");
        }
    }
}

fn failed(uid: &str, message: String) -> PodView {
    PodView {
        uid: uid.to_owned(),
        namespace: String::new(),
        name: String::new(),
        phase: PodPhase::Failed,
        message,
        terminating: false,
        stopped: false,
        grace: None,
    }
}

/// Sends a pod's output until the end was announced and everything was read.
async fn follow(mut follower: Follower, uid: String, voice: Arc<dyn OutputChannel>, mut ended: watch::Receiver<bool>) {
    loop {
        // Checked before reading: output that is written after the announcement is ignored.
        let last = *ended.borrow();
        let pieces = follower.read();
        let nothing = pieces.is_empty();
        for piece in pieces {
            let (container, error, data) = (piece.container, piece.error, Bytes(piece.data));
            voice.say(FromNode::Output { sequence: 0, uid: uid.clone(), container, error, data }).await;
        }
        if nothing && last {
            return;
        }
        if nothing {
            tokio::select! {
                () = tokio::time::sleep(LOG_POLL) => {}
                _ = ended.changed() => {}
            }
        }
    }
}

/// Replaces the client of the Kubernetes API in a run.
pub struct PodSource(pub Arc<StandalonePods>);

#[async_trait]
impl ApiClient for PodSource {
    async fn watch_pods(&self, events: mpsc::UnboundedSender<Event>) {
        let (mut told, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        let mut answered = Instant::now();
        self.0.open();
        while !events.is_closed() {
            match self.0.look(&events, &mut told, &mut waiting).await {
                Ok(()) => answered = Instant::now(),
                Err(error) if answered.elapsed() >= SILENCE => {
                    answered = Instant::now();
                    self.0.voice.say(FromNode::Note { text: error.chain() }).await;
                }
                Err(error) => tracing::debug!("{}", error.chain()),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn admit(&self, pod: &PodLaunch) -> Result<(), DepError> {
        self.0.state().admitted.insert(pod.uid.clone());
        self.0.start(&pod.uid);
        Ok(())
    }

    async fn delete_pod(&self, pod: &PodLaunch, _: Option<Duration>) -> Result<Deletion, DepError> {
        let mut state = self.0.state();
        state.deleted.insert(pod.uid.clone());
        let Some(following) = state.placed.get(&pod.uid) else {
            state.deleted.remove(&pod.uid);
            // Otherwise it would start once the kubelet runs.
            state.admitted.remove(&pod.uid);
            return Ok(Deletion::Absent);
        };
        // The kubelet stops a static pod whose manifest is removed, within the pod's own grace period.
        match std::fs::remove_file(&following.manifest) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(DepError::Io { what: format!("remove {}", following.manifest.display()), source })
            }
            _ => Ok(Deletion::Accepted),
        }
    }
}

fn make(folder: &Path) -> Result<(), DepError> {
    std::fs::create_dir_all(folder).map_err(DepError::io(format!("create {}", folder.display())))
}

fn write(file: &GivenFile) -> Result<(), DepError> {
    let GivenFile { path, content, mode, group } = file;
    let what = || format!("write {}", path.display());
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut opened = opened.map_err(DepError::io(what()))?;
    std::io::Write::write_all(&mut opened, content).map_err(DepError::io(what()))?;
    if group.is_some() {
        chown(path, None, *group).map_err(DepError::io(what()))?;
    }
    // Set separately, because the process's umask would restrict the mode above.
    opened.set_permissions(std::fs::Permissions::from_mode(*mode)).map_err(DepError::io(what()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::node::spec::Place;
    use kmctl_core::protocol::launch;
    use kmctl_core::protocol::launch::FORMAT;

    struct Silence;

    #[async_trait]
    impl OutputChannel for Silence {
        async fn say(&self, _: FromNode) {}

        async fn wait_acked(&self, _: Duration) -> bool {
            true
        }
    }

    fn pods(root: &Path) -> (Arc<StandalonePods>, DepsSpec) {
        let mut launch = launch::example();
        launch.root_dir = root.to_owned();
        let spec = DepsSpec::for_run(&launch, &Place::example(), false);
        let kubelet = Arc::new(StandaloneKubelet::new(spec.clone()));
        (Arc::new(StandalonePods::new(spec.clone(), kubelet, Arc::new(Silence), Ends::default())), spec)
    }

    fn given(more: serde_json::Value) -> GivenPod {
        let mut spec = serde_json::json!({"containers": [{"name": "a", "image": "i"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(serde_json::json!({
            "uid": "u1", "pod": {"metadata": {"name": "web"}, "spec": spec},
            "secrets": [{"metadata": {"name": "s"}, "data": {"k": "c2VjcmV0"}}]}))
        .unwrap()
    }

    fn task() -> PodLaunch {
        PodLaunch {
            format: FORMAT,
            namespace: "default".into(),
            name: "web".into(),
            uid: "u1".into(),
            ports: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_pod_starts_when_it_has_its_task_is_known_and_the_kubelet_runs_whichever_comes_last() {
        for (task_first, kubelet_last) in [(true, true), (true, false), (false, true), (false, false)] {
            let folder = tempfile::tempdir().unwrap();
            let (pods, spec) = pods(folder.path());
            let source = PodSource(pods.clone());
            let manifest = spec.folders.settings("manifests/u1.json");
            let volumes =
                serde_json::json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}]});
            if task_first {
                source.admit(&task()).await.unwrap();
                assert_eq!(pods.wanted(), ["u1"]);
            }
            assert!(!manifest.exists());
            if !kubelet_last {
                pods.open();
            }
            pods.give(vec![given(volumes)]);
            if !task_first {
                assert!(!manifest.exists(), "it has no resources yet");
                source.admit(&task()).await.unwrap();
            }
            if kubelet_last {
                let given = spec.folders.settings("given");
                assert!(!manifest.exists() && !given.exists(), "there may be no tmpfs yet");
                pods.open();
            }
            assert!(pods.wanted().is_empty());
            let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
            assert_eq!((&written["kind"], &written["metadata"]["uid"]), (&"Pod".into(), &"u1".into()));
            let file = spec.folders.settings("given/u1/volumes/v/k");
            assert_eq!(std::fs::read(&file).unwrap(), b"secret");
            for (path, mode) in [(&file, 0o400), (&manifest, 0o600)] {
                assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
            }
            assert_eq!(source.delete_pod(&task(), None).await.unwrap(), Deletion::Accepted);
            assert!(!manifest.exists());
        }
    }

    #[tokio::test]
    async fn a_pod_that_was_never_placed_is_gone_at_once_and_does_not_start_later() {
        let folder = tempfile::tempdir().unwrap();
        let (pods, spec) = pods(folder.path());
        let source = PodSource(pods.clone());
        source.admit(&task()).await.unwrap();
        assert_eq!(source.delete_pod(&task(), None).await.unwrap(), Deletion::Absent);
        pods.open();
        pods.give(vec![given(serde_json::json!({}))]);
        assert!(!spec.folders.settings("manifests/u1.json").exists());
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_prepared_is_failed_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let (pods, _) = pods(folder.path());
        PodSource(pods.clone()).admit(&task()).await.unwrap();
        pods.open();
        pods.give(vec![given(serde_json::json!({"volumes": [{"name": "v", "secret": {"secretName": "none"}}]}))]);
        let (events, mut inbox) = mpsc::unbounded_channel();
        // The kubelet was not started; the failed pod must be reported nevertheless.
        let _ = pods.look(&events, &mut BTreeMap::new(), &mut BTreeMap::new()).await;
        let Some(Event::PodSeen(view)) = inbox.recv().await else { panic!() };
        assert_eq!(view.phase, PodPhase::Failed);
        assert!(view.message.contains("secret `none` not found"), "{}", view.message);
    }
}
