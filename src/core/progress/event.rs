//! Events that work reports about itself, independent of how they are drawn.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Identifies a step within one run.
pub type StepId = u64;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was changed or found out. The text replaces that of the step, unless it is empty: `Installed km`.
    Done(String),
    /// There was nothing to do.
    Unchanged(String),
    /// It failed; the reason is in the error that follows.
    Failed(String),
}

impl Outcome {
    /// What is printed of a step with this scope and label.
    pub fn line(&self, scope: &str, step: &str) -> String {
        match self {
            Outcome::Done(text) | Outcome::Unchanged(text) | Outcome::Failed(text) if text.is_empty() => {
                step.to_owned()
            }
            Outcome::Done(text) => label(scope, text),
            Outcome::Unchanged(text) | Outcome::Failed(text) => format!("{step}: {text}"),
        }
    }
}

/// A text with the host or part that it concerns.
pub fn label(scope: &str, text: &str) -> String {
    if scope.is_empty() { text.to_owned() } else { format!("{scope}: {text}") }
}

/// An event of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step started.
    Started {
        step: StepId,
        /// Host or part that it concerns; may be empty.
        scope: String,
        /// What is being done.
        text: String,
    },
    /// A step reports what it is currently doing.
    At {
        step: StepId,
        /// The current activity.
        text: String,
    },
    /// A step has transferred bytes.
    Bytes {
        step: StepId,
        /// Bytes so far.
        done: u64,
        /// Bytes in total.
        total: u64,
    },
    /// A step finished.
    Finished {
        step: StepId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Something that deserves its own line.
    Note {
        /// Host or part that it concerns; may be empty.
        scope: String,
        text: String,
    },
    /// Text of any length for the operator.
    Message {
        /// May have several lines; printed as is.
        text: String,
    },
    /// The command failed.
    Error {
        /// The exit code.
        code: u8,
        error: String,
        /// Its causes, the outermost first.
        causes: Vec<String>,
        /// What the operator can do about it.
        hint: Option<String>,
    },
}

/// Shows events to the operator.
pub trait Draw: Send + Sync {
    /// Shows one event. Must not block for long.
    fn draw(&self, event: &Event);

    /// Runs `print`, which writes to the terminal itself, while nothing else is drawn.
    fn suspend(&self, print: &mut dyn FnMut());
}

/// An error for humans: `error:`, `caused by:`, a blank line and `hint:`, ending with a newline.
pub fn told(error: &str, causes: &[String], hint: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    for cause in causes {
        text.push_str(&format!("caused by: {cause}\n"));
    }
    if let Some(hint) = hint {
        text.push_str(&format!("\nhint: {hint}\n"));
    }
    text
}

/// Draws nothing but errors.
pub struct Silent;

impl Draw for Silent {
    fn draw(&self, event: &Event) {
        if let Event::Error { error, causes, hint, .. } = event {
            eprint!("{}", told(error, causes, hint.as_deref()));
        }
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        print();
    }
}

/// Draws to `draw`, but does not wait for it while it is suspended: an operator may take long to answer a prompt, and
/// meanwhile the rest of the work, and Ctrl-C, must not block.
struct DeferredRenderer<D> {
    draw: D,
    /// Events reported while suspended; `Some` only while suspended.
    waiting: Mutex<Option<Vec<Event>>>,
}

impl<D: Draw> Draw for DeferredRenderer<D> {
    fn draw(&self, event: &Event) {
        match self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(waiting) => waiting.push(event.clone()),
            None => self.draw.draw(event),
        }
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_some() {
                // The end of the run is reported while a prompt is open.
                drop(waiting);
                return print();
            }
            *waiting = Some(Vec::new());
        }
        self.draw.suspend(print);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for event in waiting.take().unwrap_or_default() {
            self.draw.draw(&event);
        }
    }
}

/// A handle for reporting; cheap to clone.
#[derive(Clone)]
pub struct Progress {
    draw: Arc<dyn Draw>,
    next: Arc<AtomicU64>,
}

impl Progress {
    /// Reports to `draw`. Events reported while the terminal is suspended are drawn afterwards.
    pub fn new(draw: impl Draw + 'static) -> Self {
        Progress { draw: Arc::new(DeferredRenderer { draw, waiting: Mutex::default() }), next: Arc::default() }
    }

    /// Reports nothing but errors.
    pub fn silent() -> Self {
        Progress::new(Silent)
    }

    /// Starts a step. `scope` is the host or part that it concerns.
    pub fn step(&self, scope: &str, text: &str) -> Step {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.draw.draw(&Event::Started { step: id, scope: scope.to_owned(), text: text.to_owned() });
        Step { id, draw: self.draw.clone(), open: true, told: Mutex::default() }
    }

    /// Reports something that is not a step.
    pub fn note(&self, scope: &str, text: &str) {
        self.draw.draw(&Event::Note { scope: scope.to_owned(), text: text.to_owned() });
    }

    /// Prints a text of any length for the operator.
    pub fn message(&self, text: &str) {
        self.draw.draw(&Event::Message { text: text.to_owned() });
    }

    /// Reports how the command failed.
    pub fn error(&self, code: u8, error: String, causes: Vec<String>, hint: Option<String>) {
        self.draw.draw(&Event::Error { code, error, causes, hint });
    }

    /// Runs `print`, which writes to the terminal itself, while nothing else is drawn.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> Option<T> {
        let (mut print, mut result) = (Some(print), None);
        self.draw.suspend(&mut || {
            if let Some(print) = print.take() {
                result = Some(print());
            }
        });
        result
    }
}

/// A running step. If it is dropped without an outcome, it counts as interrupted.
pub struct Step {
    id: StepId,
    draw: Arc<dyn Draw>,
    open: bool,
    /// When bytes were last reported.
    told: Mutex<Option<Instant>>,
}

/// Minimum interval between reports of bytes: smooth for the eye, and few enough lines for other programs.
const BYTES: Duration = Duration::from_millis(100);

impl Step {
    /// Reports what the step is currently doing.
    pub fn at(&self, text: &str) {
        self.draw.draw(&Event::At { step: self.id, text: text.to_owned() });
    }

    /// Reports how many bytes have been transferred.
    pub fn bytes(&self, done: u64, total: u64) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if done < total && told.is_some_and(|told| told.elapsed() < BYTES) {
                return;
            }
            *told = Some(Instant::now());
        }
        self.draw.draw(&Event::Bytes { step: self.id, done, total });
    }

    /// Finishes the step after it did its work. `text` is the whole line, in the past tense.
    pub fn done(self, text: &str) {
        self.finish(Outcome::Done(text.to_owned()));
    }

    /// Finishes the step if it had nothing to do.
    pub fn unchanged(self, text: &str) {
        self.finish(Outcome::Unchanged(text.to_owned()));
    }

    /// Finishes the step with a failure.
    pub fn failed(self, text: &str) {
        self.finish(Outcome::Failed(text.to_owned()));
    }

    fn finish(mut self, outcome: Outcome) {
        self.open = false;
        self.draw.draw(&Event::Finished { step: self.id, outcome });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.open {
            let outcome = Outcome::Failed("interrupted".to_owned());
            self.draw.draw(&Event::Finished { step: self.id, outcome });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Sends the notes that it draws to a channel.
    struct Sending(Mutex<Sender<String>>);

    impl Draw for Sending {
        fn draw(&self, event: &Event) {
            if let Event::Note { text, .. } = event {
                self.0.lock().unwrap().send(text.clone()).unwrap();
            }
        }

        fn suspend(&self, print: &mut dyn FnMut()) {
            // Like the real implementations: nothing is drawn meanwhile.
            let sender = self.0.lock().unwrap();
            print();
            sender.send("over".to_owned()).unwrap();
        }
    }

    #[test]
    fn what_is_told_during_a_question_waits_but_its_teller_does_not() {
        let (sender, drawn) = channel();
        let progress = Progress::new(Sending(Mutex::new(sender)));
        progress.note("", "before");
        let answer = progress.suspend(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| progress.note("", "during")).join().unwrap();
                // Another caller that suspends is not blocked, either.
                assert_eq!(scope.spawn(|| progress.suspend(|| 1)).join().unwrap(), Some(1));
            });
            2
        });
        assert_eq!(answer, Some(2));
        progress.note("", "after");
        assert_eq!(drawn.try_iter().collect::<Vec<_>>(), ["before", "over", "during", "after"]);
    }

    /// Keeps the byte counts that it draws.
    #[derive(Clone, Default)]
    struct Keeping(Arc<Mutex<Vec<u64>>>);

    impl Draw for Keeping {
        fn draw(&self, event: &Event) {
            if let Event::Bytes { done, .. } = event {
                self.0.lock().unwrap().push(*done);
            }
        }

        fn suspend(&self, print: &mut dyn FnMut()) {
            print();
        }
    }

    #[test]
    fn of_many_pieces_the_first_and_the_last_are_told_and_few_between() {
        let kept = Keeping::default();
        let step = Progress::new(kept.clone()).step("cp1", "send");
        (1..=10_000).for_each(|piece| step.bytes(piece, 10_000));
        let told = kept.0.lock().unwrap().clone();
        assert_eq!((told.first(), told.last()), (Some(&1), Some(&10_000)));
        assert!(told.len() < 1000, "{} lines", told.len());
    }
}
