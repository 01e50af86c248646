//! `km runonce`: a run that kmctl starts on a machine itself. What to run comes as one line on standard input, and the
//! end of the input, however it comes about, is the end of the run; what happens goes to standard output, a line each.
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::decide::{Order, Report, TaskState};
use super::super::deps::{DepError, Executor};
use super::super::launch::FORMAT;
use super::super::session::place;
use super::pods::Ends;
use super::session::{Prepared, prepare};
use super::voice::{LineVoice, Voice};
use crate::runonce::wire::{FromNode, HostRun, HostTask, PodState};

/// Longest line of input: a file with everything that its pods refer to.
const INPUT_LIMIT: u64 = 64 << 20;

/// How long pods and what belongs to them may take to end.
const GRACE: Duration = Duration::from_secs(30);

/// Task of the run itself.
const NODE_TASK: &str = "run";

/// Runs what standard input describes, until its pods have ended, the input ends, or `stop` is cancelled.
pub async fn run(input: impl AsyncRead + Unpin + Send + 'static, stop: CancellationToken) -> Result<(), DepError> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let what = "read what to run";
    (&mut input).take(INPUT_LIMIT).read_until(b'\n', &mut line).await.map_err(DepError::io(what))?;
    // Not the error: it may show a part of what was sent.
    let HostRun { launch, tasks, pods } = serde_json::from_slice(&line)
        .map_err(|_| DepError::Refused("standard input does not say what to run; kmctl runonce starts this".to_owned()))?;
    if launch.format != FORMAT {
        return Err(DepError::Refused(format!("format {} is not known here, {FORMAT} is", launch.format)));
    }
    // The executor's id of a run that has none: unique, and ends in the eight digits that short names are made of.
    let place = place(launch.run.replacen('-', ".", 1), NODE_TASK.to_owned(), String::new(), PathBuf::from("/"));
    let (voice, ends) = (Arc::new(LineVoice), Ends::default());
    let prepared: Prepared = prepare(&launch, &place, voice.clone(), ends.clone())?;
    prepared.pods.give(pods);
    let executor = Arc::new(LocalExecutor::new(tasks, voice, ends));
    let ended = executor.clone();
    tokio::spawn(async move {
        let mut rest = Vec::new();
        tokio::select! {
            _ = input.read_to_end(&mut rest) => {}
            () = stop.cancelled() => {}
        }
        ended.push(Order::Kill { task_id: NODE_TASK.to_owned(), grace: Some(GRACE) });
    });
    prepared.run(executor).await
}

/// An [`Executor`] without Mesos: launches every pod at once, and ends when all of them have.
struct LocalExecutor {
    orders: Mutex<VecDeque<Order>>,
    more: Notify,
    voice: Arc<dyn Voice>,
    ends: Ends,
    running: Mutex<BTreeSet<String>>,
    says: tokio::sync::mpsc::UnboundedSender<Said>,
}

enum Said {
    This(FromNode),
    Flush(tokio::sync::oneshot::Sender<()>),
}

impl LocalExecutor {
    fn new(tasks: Vec<HostTask>, voice: Arc<dyn Voice>, ends: Ends) -> Self {
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
            (TaskState::Running | TaskState::Killing, _) => PodState::Running,
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
        let _ = self.voice.heard_all(Duration::ZERO).await;
    }
}
