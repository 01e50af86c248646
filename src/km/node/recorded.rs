//! Recorded objects for [`KubeletDeps`](super::deps::KubeletDeps): they record the agent's calls and behave as a test
//! configures them. Only for tests.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};

use super::decide::{Deletion, Event, Order, Report};
use super::deps::*;
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::protocol::launch::{Grant, PodLaunch};

/// State that the objects share: the record, and the behavior that a test configures.
#[derive(Default)]
pub struct World {
    /// The recorded calls, in order.
    pub record: Mutex<Vec<String>>,
    /// The error with which creating or resizing the pods' cgroup fails.
    pub cgroup_denied: Mutex<Option<String>>,
    /// Queued ends of children: a child that takes one ends with it.
    pub crashes: Mutex<VecDeque<String>>,
    /// Notifies a running child of a queued end.
    pub crash: Notify,
    /// Added to the wall clock. It must have no effect, which a test shows.
    pub wall_offset: AtomicU64,
    /// Queued answers to deletions. Without one here or in `deletion`, the deletion is accepted, and the watch reports
    /// that the pod is gone.
    pub deletions: Mutex<VecDeque<Result<Deletion, String>>>,
    /// The answer to all further deletions.
    pub deletion: Mutex<Option<Result<Deletion, String>>>,
    /// The sender of the pods' watch.
    pub pods: Mutex<Option<mpsc::UnboundedSender<Event>>>,
}

impl World {
    /// Records a call.
    pub fn note(&self, what: impl Into<String>) {
        self.record.lock().unwrap().push(what.into());
    }

    /// Everything recorded so far.
    pub fn notes(&self) -> Vec<String> {
        self.record.lock().unwrap().clone()
    }

    /// Waits for a record that starts with `begin`.
    pub async fn until(&self, begin: &str) {
        for _ in 0..20_000 {
            if self.notes().iter().any(|note| note.starts_with(begin)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no {begin:?} in {:#?}", self.notes());
    }
}

struct Orders(Arc<World>, AsyncMutex<mpsc::UnboundedReceiver<Order>>);

#[async_trait]
impl Executor for Orders {
    async fn next(&self) -> Option<Order> {
        self.1.lock().await.recv().await
    }

    fn report(&self, report: Report) {
        self.0.note(format!("report {} {:?} {}", report.task_id, report.state, report.message));
    }

    async fn flush(&self) {
        self.0.note("flush");
    }
}

struct Recorded(Arc<World>);

#[async_trait]
impl ApiClient for Recorded {
    async fn watch_pods(&self, events: mpsc::UnboundedSender<Event>) {
        self.0.note("watch pods");
        let _ = events.send(Event::PodsListed);
        *self.0.pods.lock().unwrap() = Some(events.clone());
        events.closed().await;
    }

    async fn delete_pod(&self, pod: &PodLaunch, grace: Option<Duration>) -> Result<Deletion, DepError> {
        let within = grace.map_or(String::new(), |grace| format!(" within {} s", grace.as_secs()));
        self.0.note(format!("delete {}{within}", pod.name));
        let next = self.0.deletions.lock().unwrap().pop_front();
        let answer = next.or_else(|| self.0.deletion.lock().unwrap().clone());
        if answer.is_none()
            && let Some(watch) = &*self.0.pods.lock().unwrap()
        {
            let _ = watch.send(Event::PodGone { uid: pod.uid.clone() });
        }
        answer.unwrap_or(Ok(Deletion::Accepted)).map_err(DepError::NotNow)
    }

    async fn forget_pod(&self, pod: &PodLaunch) -> Result<(), DepError> {
        self.0.note(format!("forget {}", pod.name));
        Ok(())
    }
}

#[async_trait]
impl ArtifactFetcher for Recorded {
    async fn fetch(&self) -> Result<(), DepError> {
        self.0.note("fetch");
        Ok(())
    }
}

#[async_trait]
impl Mounter for Recorded {
    async fn open(&self) -> Result<(), DepError> {
        self.0.note("open");
        Ok(())
    }

    async fn close(&self) -> Result<(), DepError> {
        self.0.note("close");
        Ok(())
    }
}

impl Recorded {
    fn allowed(&self) -> Result<(), DepError> {
        match &*self.0.cgroup_denied.lock().unwrap() {
            Some(why) => Err(DepError::Refused(why.clone())),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Cgroups for Recorded {
    async fn create(&self) -> Result<String, DepError> {
        self.allowed()?;
        self.0.note("cgroup");
        Ok("/c/pods".to_owned())
    }

    async fn resize(&self, total: Grant) -> Result<(), DepError> {
        self.allowed()?;
        self.0.note(format!("bound {} MB", total.mem));
        Ok(())
    }

    async fn is_empty(&self, _: &str) -> bool {
        true
    }

    async fn stop(&self, _: Duration) -> Result<(), DepError> {
        self.0.note("stop pods");
        Ok(())
    }
}

impl PortAllocator for Recorded {
    fn own(&self, preferred: u16) -> Result<u16, DepError> {
        Ok(preferred)
    }

    fn assign(&self, _: &PodLaunch) -> Result<(), DepError> {
        Ok(())
    }

    fn release(&self, uid: &str) {
        self.0.note(format!("release ports of {uid}"));
    }
}

#[async_trait]
impl Names for Recorded {
    async fn open(&self) -> Result<(), DepError> {
        self.0.note("names");
        Ok(())
    }
}

#[async_trait]
impl ProcessLauncher for Recorded {
    async fn start(&self, program: Program) -> Result<Box<dyn Child>, DepError> {
        self.0.note(format!("start {}", program.name));
        Ok(Box::new(RecordedChild(self.0.clone(), program.name)))
    }
}

struct RecordedChild(Arc<World>, String);

#[async_trait]
impl Child for RecordedChild {
    async fn wait(&mut self) -> String {
        loop {
            // Only one child, so that a test knows which one ends.
            let next = if self.1 == "kubelet" { self.0.crashes.lock().unwrap().pop_front() } else { None };
            match next {
                Some(why) => return why,
                None => self.0.crash.notified().await,
            }
        }
    }

    async fn stop(&mut self, _: Duration) {
        self.0.note(format!("stop {}", self.1));
    }
}

struct RecordedService(&'static str);

#[async_trait]
impl Service for RecordedService {
    fn name(&self) -> &'static str {
        self.0
    }

    async fn program(&self, configuration: &KubeletConfiguration) -> Result<Program, DepError> {
        let argv = vec![self.0.to_owned(), configuration.cgroup_root.clone()];
        Ok(Program { name: self.0.to_owned(), argv, environment: Vec::new() })
    }

    async fn ready(&self) -> Result<(), DepError> {
        Ok(())
    }
}

struct RecordedClock(Arc<World>, tokio::time::Instant);

#[async_trait]
impl Clock for RecordedClock {
    fn monotonic(&self) -> Duration {
        // A wall clock would add the offset here; a monotonic clock ignores it.
        let _ = self.0.wall_offset.load(Ordering::SeqCst);
        self.1.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Objects that share a world, and the sender of orders.
pub fn deps(world: &Arc<World>) -> (KubeletDeps, mpsc::UnboundedSender<Order>) {
    let (orders, receiver) = mpsc::unbounded_channel();
    let one = Arc::new(Recorded(world.clone()));
    let deps = KubeletDeps {
        node_task: "node.n.1".to_owned(),
        executor: Arc::new(Orders(world.clone(), AsyncMutex::new(receiver))),
        api: one.clone(),
        artifacts: one.clone(),
        mounter: one.clone(),
        cgroups: one.clone(),
        ports: one.clone(),
        names: one.clone(),
        launcher: one,
        services: ["containerd", "kubelet", "kube-proxy"]
            .into_iter()
            .map(|name| Arc::new(RecordedService(name)) as Arc<dyn Service>)
            .collect(),
        clock: Arc::new(RecordedClock(world.clone(), tokio::time::Instant::now())),
    };
    (deps, orders)
}
