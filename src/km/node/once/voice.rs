//! Sends a node's messages to kmctl. A message between executor and framework may get lost. So pieces of output are
//! numbered and repeated until acknowledged, and the number of unacknowledged pieces is limited.
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use kmctl_core::protocol::runonce::FromNode;
use mesos::types::Bytes;

/// Maximum number of unacknowledged pieces: enough to fill a round trip, few enough to repeat.
const WINDOW: usize = 32;

/// Without an acknowledgement for this long, the unacknowledged pieces are sent again.
const REPEAT: Duration = Duration::from_secs(2);

/// The channel to kmctl.
#[async_trait]
pub trait OutputChannel: Send + Sync {
    /// Sends a message. Output waits while too many pieces are unacknowledged.
    async fn say(&self, what: FromNode);
    /// Returns true when all output is acknowledged, or false after `limit`.
    async fn wait_acked(&self, limit: Duration) -> bool;
}

/// Messages between a Mesos executor and its framework.
pub struct MessageVoice {
    state: Mutex<State>,
    changed: Notify,
    send: Box<dyn Fn(Bytes) + Send + Sync>,
}

struct State {
    next: u64,
    under_way: VecDeque<(u64, Bytes)>,
    last_word: Instant,
}

impl MessageVoice {
    /// Sends with `send`.
    pub fn new(send: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        let state = State { next: 1, under_way: VecDeque::new(), last_word: Instant::now() };
        MessageVoice { state: Mutex::new(state), changed: Notify::new(), send: Box::new(send) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kmctl has received everything up to this number.
    pub fn heard(&self, sequence: u64) {
        let mut state = self.state();
        while state.under_way.front().is_some_and(|(number, _)| *number <= sequence) {
            state.under_way.pop_front();
        }
        state.last_word = Instant::now();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Repeats unacknowledged pieces. Runs until dropped.
    pub async fn repeat(&self) {
        loop {
            tokio::time::sleep(REPEAT / 4).await;
            let again: Vec<Bytes> = {
                let mut state = self.state();
                if state.under_way.is_empty() || state.last_word.elapsed() < REPEAT {
                    continue;
                }
                state.last_word = Instant::now();
                state.under_way.iter().map(|(_, bytes)| bytes.clone()).collect()
            };
            again.into_iter().for_each(&self.send);
        }
    }

    /// Waits until `fine` accepts the number of unacknowledged pieces.
    async fn until(&self, fine: impl Fn(usize) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that no change in between is missed.
            changed.as_mut().enable();
            if fine(self.state().under_way.len()) {
                return;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl OutputChannel for MessageVoice {
    async fn say(&self, mut what: FromNode) {
        if !matches!(what, FromNode::Output { .. }) {
            return (self.send)(encode(&what));
        }
        self.until(|under_way| under_way < WINDOW).await;
        let bytes = {
            let mut state = self.state();
            if let FromNode::Output { sequence, .. } = &mut what {
                *sequence = state.next;
            }
            let bytes = encode(&what);
            if state.under_way.is_empty() {
                state.last_word = Instant::now();
            }
            let number = state.next;
            state.next += 1;
            state.under_way.push_back((number, bytes.clone()));
            bytes
        };
        (self.send)(bytes);
    }

    async fn wait_acked(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.until(|under_way| under_way == 0)).await.is_ok()
    }
}

/// Lines of JSON on standard output, which is lossless.
pub struct LineVoice {
    /// Cancelled when the output has no reader any more: the process that started the run is gone.
    pub gone: CancellationToken,
}

#[async_trait]
impl OutputChannel for LineVoice {
    async fn say(&self, what: FromNode) {
        let mut line = encode(&what).0;
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            self.gone.cancel();
        }
    }

    async fn wait_acked(&self, _: Duration) -> bool {
        true
    }
}

fn encode(what: &FromNode) -> Bytes {
    Bytes(serde_json::to_vec(what).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn output(text: &str) -> FromNode {
        let data = Bytes(text.as_bytes().to_vec());
        FromNode::Output { sequence: 0, uid: "u".into(), container: "a".into(), error: false, data }
    }

    /// The receiver: accepts pieces in order, as kmctl does.
    #[derive(Default)]
    struct Ear {
        next: u64,
        text: String,
    }

    #[tokio::test(start_paused = true)]
    async fn every_piece_arrives_once_and_in_order_though_every_third_message_is_lost() {
        let (messages, mut arriving) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let count = AtomicUsize::new(0);
        let voice = Arc::new(MessageVoice::new(move |bytes| {
            if count.fetch_add(1, Ordering::SeqCst) % 3 != 1 {
                let _ = messages.send(bytes);
            }
        }));
        let repeating = tokio::spawn({
            let voice = voice.clone();
            async move { voice.repeat().await }
        });
        let listening = tokio::spawn({
            let voice = voice.clone();
            async move {
                let mut ear = Ear { next: 1, text: String::new() };
                while ear.next <= 100 {
                    let bytes = arriving.recv().await.unwrap();
                    let FromNode::Output { sequence, data, .. } = serde_json::from_slice(&bytes.0).unwrap() else {
                        panic!()
                    };
                    if sequence == ear.next {
                        ear.next += 1;
                        ear.text.push_str(&String::from_utf8(data.0).unwrap());
                    }
                    // Every fourth answer is lost as well.
                    if sequence % 4 != 0 {
                        voice.heard(ear.next - 1);
                    }
                }
                voice.heard(100);
                ear.text
            }
        });
        let mut expected = String::new();
        for number in 0..100 {
            expected.push_str(&format!("{number} "));
            voice.say(output(&format!("{number} "))).await;
        }
        assert!(voice.wait_acked(Duration::from_secs(60)).await);
        assert_eq!(listening.await.unwrap(), expected);
        repeating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn output_waits_while_nobody_hears_and_an_end_does_not_wait_for_ever() {
        let voice = MessageVoice::new(|_| {});
        for _ in 0..WINDOW {
            voice.say(output("x")).await;
        }
        assert!(tokio::time::timeout(Duration::from_secs(60), voice.say(output("y"))).await.is_err());
        assert!(!voice.wait_acked(Duration::from_secs(5)).await);
        voice.say(FromNode::Note { text: "notes do not wait".into() }).await;
    }
}
