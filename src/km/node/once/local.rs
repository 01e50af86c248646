//! `km runonce`: a run that kmctl starts on a machine directly. It reads from standard input what to run, and prints
//! what happens to standard output, one line each. If the output has no reader any more, kmctl is gone and the run
//! ends.
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::super::decide::{Order, Report, TaskState};
use super::super::deps::{DepError, Executor};
use super::super::session::place;
use super::pods::Ends;
use super::session::{Prepared, prepare};
use super::voice::{LineVoice, OutputChannel};
use kmctl_core::protocol::launch::FORMAT;
use kmctl_core::protocol::runonce::{FromNode, HostRun, HostTask, PodState};

/// Limit of the input in bytes: a file with everything that its pods refer to.
const INPUT_LIMIT: u64 = 64 << 20;

/// How long pods and their resources may take to stop.
const GRACE: Duration = Duration::from_secs(20);

/// Interval of the keep-alive lines, which detect a reader that is gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Task of the run itself.
const NODE_TASK: &str = "run";

/// Runs what `input` describes, until its pods have ended, the output has no reader any more, or `stop` is cancelled.
pub async fn run(mut input: impl AsyncRead + Unpin, stop: CancellationToken) -> Result<(), DepError> {
    let mut text = Vec::new();
    (&mut input)
        .take(INPUT_LIMIT)
        .read_to_end(&mut text)
        .await
        .map_err(DepError::io("read the pods from standard input"))?;
    // The parse error is omitted: it may contain a part of the input.
    let HostRun { launch, tasks, pods } = serde_json::from_slice(&text).map_err(|_| {
        DepError::Refused("standard input has no pods; this command is started by kmctl runonce".to_owned())
    })?;
    if launch.format != FORMAT {
        return Err(DepError::Refused(format!("unsupported format {}; supported: {FORMAT}", launch.format)));
    }
    // In the form of an executor id, from whose last eight digits short names are derived.
    let place = place(launch.run.replacen('-', ".", 1), NODE_TASK.to_owned(), String::new(), PathBuf::from("/"));
    let (voice, ends) = (Arc::new(LineVoice { gone: stop.clone() }), Ends::default());
    let _alive = AbortOnDropHandle::new(tokio::spawn({
        let voice = voice.clone();
        async move {
            loop {
                voice.say(FromNode::Alive { pid: std::process::id() }).await;
                tokio::time::sleep(SIGN_OF_LIFE).await;
            }
        }
    }));
    let prepared: Prepared = prepare(&launch, &place, voice.clone(), ends.clone())?;
    prepared.pods.give(pods);
    let executor = Arc::new(LocalExecutor::new(tasks, voice, ends));
    let ended = executor.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        ended.push(Order::Kill { task_id: NODE_TASK.to_owned(), grace: Some(GRACE) });
    });
    prepared.run(executor).await
}

/// An [`Executor`] without Mesos: launches every pod at once, and ends when all of them have ended.
struct LocalExecutor {
    orders: Mutex<VecDeque<Order>>,
    more: Notify,
    voice: Arc<dyn OutputChannel>,
    ends: Ends,
    running: Mutex<BTreeSet<String>>,
    says: tokio::sync::mpsc::UnboundedSender<Said>,
}

enum Said {
    This(FromNode),
    Flush(tokio::sync::oneshot::Sender<()>),
}

impl LocalExecutor {
    fn new(tasks: Vec<HostTask>, voice: Arc<dyn OutputChannel>, ends: Ends) -> Self {
        let running = tasks.iter().map(|task| task.pod.uid.clone()).collect();
        let orders = tasks
            .into_iter()
            .map(|HostTask { pod, grant }| Order::LaunchPod { task_id: pod.uid.clone(), pod, grant })
            .collect();
        let (says, mut queue) = tokio::sync::mpsc::unbounded_channel();
        let mouth = voice.clone();
        tokio::spawn(async move {
            while let Some(next) = queue.recv().await {
                match next {
                    Said::This(what) => mouth.say(what).await,
                    Said::Flush(done) => drop(done.send(())),
                }
            }
        });
        LocalExecutor {
            orders: Mutex::new(orders),
            more: Notify::new(),
            voice,
            ends,
            running: Mutex::new(running),
            says,
        }
    }

    fn push(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.more.notify_one();
    }
}

#[async_trait]
impl Executor for LocalExecutor {
    async fn next(&self) -> Option<Order> {
        loop {
            let more = self.more.notified();
            if let Some(order) = self.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return Some(order);
            }
            more.await;
        }
    }

    fn report(&self, report: Report) {
        let Report { task_id, state, message } = report;
        if task_id == NODE_TASK {
            if state == TaskState::Failed {
                let _ = self.says.send(Said::This(FromNode::Note { text: message }));
            }
            return;
        }
        let exit_code = self.ends.of(&task_id);
        let state = match (state, exit_code) {
            (TaskState::Starting, _) => PodState::Starting,
            (TaskState::Running, _) => PodState::Running,
            (TaskState::Killing, _) => return,
            (TaskState::Finished | TaskState::Failed, Some(_)) => PodState::Ended,
            (TaskState::Finished | TaskState::Failed | TaskState::Killed, _) => PodState::Stopped,
        };
        let said = FromNode::State { uid: task_id.clone(), state, message, exit_code };
        let _ = self.says.send(Said::This(said));
        if matches!(state, PodState::Ended | PodState::Stopped) {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.remove(&task_id);
            if running.is_empty() {
                self.push(Order::Kill { task_id: NODE_TASK.to_owned(), grace: Some(GRACE) });
            }
        }
    }

    async fn flush(&self) {
        let (done, flushed) = tokio::sync::oneshot::channel();
        if self.says.send(Said::Flush(done)).is_ok() {
            let _ = flushed.await;
        }
        let _ = self.voice.wait_acked(Duration::ZERO).await;
    }
}
