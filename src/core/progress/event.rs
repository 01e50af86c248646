//! What work tells about itself, without knowing who draws it.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tells the steps of one run apart.
pub type StepId = u64;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was changed or found out; with what.
    Done(String),
    /// There was nothing to do.
    Unchanged(String),
    /// It failed; the reason follows in the error.
    Failed(String),
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step began.
    Started {
        /// The step.
        step: StepId,
        /// Host or part it is about; may be empty.
        scope: String,
        /// What is being done.
        text: String,
    },
    /// A step tells what it is at.
    At {
        /// The step.
        step: StepId,
        /// What it is at.
        text: String,
    },
    /// A step has moved bytes.
    Bytes {
        /// The step.
        step: StepId,
        /// So far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// A step ended.
    Finished {
        /// The step.
        step: StepId,
        /// How.
        outcome: Outcome,
    },
    /// Something worth a line of its own.
    Note {
        /// Host or part it is about; may be empty.
        scope: String,
        /// What.
        text: String,
    },
    /// Something said to the operator, of any length.
    Message {
        /// What.
        text: String,
    },
    /// The command failed.
    Error {
        /// The exit code.
        code: u8,
        /// What failed.
        error: String,
        /// Why, the outermost cause first.
        causes: Vec<String>,
        /// What can be done.
        hint: Option<String>,
    },
}

/// Shows events to the operator.
pub trait Draw: Send + Sync {
    /// Shows one event. Must not block for long.
    fn draw(&self, event: &Event);

    /// Runs `print`, which writes to the terminal itself, without tearing what is drawn.
    fn suspend(&self, print: &mut dyn FnMut());
}

/// An error as people read it: `error:`, `caused by:`, a blank line and `hint:`, ending in a line break.
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

/// Draws to another, but never waits for it while that is suspended: an operator may think long about a question, and
/// meanwhile the rest of the work, and Ctrl-C, must go on.
struct Patient<D> {
    draw: D,
    /// What was told meanwhile; some while suspended.
    waiting: Mutex<Option<Vec<Event>>>,
}

impl<D: Draw> Draw for Patient<D> {
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
                // The end of the run is told under an open question.
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
    /// Reports to `draw`. What is told while the terminal is somebody else's is drawn afterwards.
    pub fn new(draw: impl Draw + 'static) -> Self {
        Progress { draw: Arc::new(Patient { draw, waiting: Mutex::default() }), next: Arc::default() }
    }

    /// Reports to nobody.
    pub fn silent() -> Self {
        Progress::new(Silent)
    }

    /// Begins a step. `scope` is the host or part it is about.
    pub fn step(&self, scope: &str, text: &str) -> Step {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.draw.draw(&Event::Started { step: id, scope: scope.to_owned(), text: text.to_owned() });
        Step { id, draw: self.draw.clone(), open: true, told: Mutex::default() }
    }

    /// Says something that is no step.
    pub fn note(&self, scope: &str, text: &str) {
        self.draw.draw(&Event::Note { scope: scope.to_owned(), text: text.to_owned() });
    }

    /// Says something of any length to the operator.
    pub fn message(&self, text: &str) {
        self.draw.draw(&Event::Message { text: text.to_owned() });
    }

    /// Tells how the command failed.
    pub fn error(&self, code: u8, error: String, causes: Vec<String>, hint: Option<String>) {
        self.draw.draw(&Event::Error { code, error, causes, hint });
    }

    /// Runs `print`, which writes to the terminal itself, without tearing what is drawn.
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

/// A step under way. Dropped without an outcome it counts as interrupted.
pub struct Step {
    id: StepId,
    draw: Arc<dyn Draw>,
    open: bool,
    /// When bytes were last told.
    told: Mutex<Option<Instant>>,
}

/// How often a step tells bytes: for the eye, and few enough lines for programs.
const BYTES: Duration = Duration::from_millis(100);

impl Step {
    /// Tells what the step is at.
    pub fn at(&self, text: &str) {
        self.draw.draw(&Event::At { step: self.id, text: text.to_owned() });
    }

    /// Tells how many bytes have moved.
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

    /// The step has done its work.
    pub fn done(self, text: &str) {
        self.finish(Outcome::Done(text.to_owned()));
    }

    /// The step had nothing to do.
    pub fn unchanged(self, text: &str) {
        self.finish(Outcome::Unchanged(text.to_owned()));
    }

    /// The step failed.
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
            let outcome = Outcome::Failed("not finished".to_owned());
            self.draw.draw(&Event::Finished { step: self.id, outcome });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Sends what it is to draw.
    struct Sending(Mutex<Sender<String>>);

    impl Draw for Sending {
        fn draw(&self, event: &Event) {
            if let Event::Note { text, .. } = event {
                self.0.lock().unwrap().send(text.clone()).unwrap();
            }
        }

        fn suspend(&self, print: &mut dyn FnMut()) {
            // As the real ones do: nothing is drawn meanwhile.
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
                // Another who wants the terminal gets it, too.
                assert_eq!(scope.spawn(|| progress.suspend(|| 1)).join().unwrap(), Some(1));
            });
            2
        });
        assert_eq!(answer, Some(2));
        progress.note("", "after");
        assert_eq!(drawn.try_iter().collect::<Vec<_>>(), ["before", "over", "during", "after"]);
    }

    /// Keeps the bytes that it is to draw.
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
