//! Events as lines, for pipes, logs and `-v`.
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::event::{Draw, Event, Outcome, StepId, label, told};
use crate::text::duration;

/// Longest time without output about a running step.
const PATIENCE: Duration = Duration::from_secs(5);

struct Open {
    scope: String,
    label: String,
    at: String,
    began: Instant,
    said: Instant,
}

struct Lines<W> {
    out: W,
    open: BTreeMap<StepId, Open>,
}

/// Draws a line when a step starts, finishes, or has printed nothing for five seconds.
pub struct Plain<W: Write + Send + 'static>(Arc<Mutex<Lines<W>>>);

impl<W: Write + Send + 'static> Plain<W> {
    /// Draws to `out`.
    pub fn new(out: W) -> Self {
        let lines = Arc::new(Mutex::new(Lines { out, open: BTreeMap::new() }));
        let watched = Arc::downgrade(&lines);
        // The thread exits at its first check after the last handle is dropped.
        std::thread::spawn(move || watch(&watched));
        Plain(lines)
    }
}

fn watch<W: Write + Send>(lines: &Weak<Mutex<Lines<W>>>) {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let Some(lines) = lines.upgrade() else { return };
        lines.lock().unwrap_or_else(PoisonError::into_inner).remind(Instant::now());
    }
}

impl<W: Write> Lines<W> {
    fn print(&mut self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    fn write(&mut self, text: &str) {
        // Continue to work if standard error is closed.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    fn remind(&mut self, now: Instant) {
        let mut due = Vec::new();
        for open in self.open.values_mut() {
            if now.duration_since(open.said) >= PATIENCE {
                open.said = now;
                let at = if open.at.is_empty() { String::new() } else { format!(": {}", open.at) };
                due.push(format!("  {} … {}{at}", open.label, duration(now.duration_since(open.began))));
            }
        }
        for line in due {
            self.print(&line);
        }
    }

    fn event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Started { step, scope, text } => {
                let label = label(scope, text);
                self.print(&format!("  {label} …"));
                let open = Open { scope: scope.clone(), label, at: String::new(), began: now, said: now };
                self.open.insert(*step, open);
            }
            Event::At { step, text } => {
                if let Some(open) = self.open.get_mut(step) {
                    open.at.clone_from(text);
                }
            }
            Event::Bytes { step, done, total } => {
                if let Some(open) = self.open.get_mut(step) {
                    open.at = format!("{} of {} MiB", done >> 20, total >> 20);
                }
            }
            Event::Finished { step, outcome } => {
                let (scope, label) = self.open.remove(step).map(|open| (open.scope, open.label)).unwrap_or_default();
                let sign = match outcome {
                    Outcome::Done(_) => "✓",
                    Outcome::Unchanged(_) => "=",
                    Outcome::Failed(_) => "✗",
                };
                self.print(&format!("{sign} {}", outcome.line(&scope, &label)));
            }
            Event::Note { scope, text } => self.print(&format!("· {}", label(scope, text))),
            Event::Message { text } => self.write(text),
            Event::Error { error, causes, hint, .. } => self.write(&told(error, causes, hint.as_deref())),
        }
    }
}

impl<W: Write + Send + 'static> Draw for Plain<W> {
    fn draw(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).event(event, Instant::now());
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        let _held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        print();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines<Vec<u8>> {
        Lines { out: Vec::new(), open: BTreeMap::new() }
    }

    fn started(step: StepId) -> Event {
        Event::Started { step, scope: "cp1".to_owned(), text: "Uploading binaries".to_owned() }
    }

    #[test]
    fn every_outcome_has_a_sign_of_its_own() {
        let (mut lines, now) = (lines(), Instant::now());
        for (step, outcome) in [
            Outcome::Done("Uploaded 3 binaries".to_owned()),
            Outcome::Done(String::new()),
            Outcome::Unchanged(String::new()),
            Outcome::Failed("no space".to_owned()),
        ]
        .into_iter()
        .enumerate()
        {
            lines.event(&started(step as StepId), now);
            lines.event(&Event::Finished { step: step as StepId, outcome }, now);
        }
        let expected = "  cp1: Uploading binaries …\n✓ cp1: Uploaded 3 binaries\n\
                        \x20 cp1: Uploading binaries …\n✓ cp1: Uploading binaries\n\
                        \x20 cp1: Uploading binaries …\n= cp1: Uploading binaries\n\
                        \x20 cp1: Uploading binaries …\n✗ cp1: Uploading binaries: no space\n";
        assert_eq!(String::from_utf8(lines.out).unwrap(), expected);
    }

    #[test]
    fn a_step_speaks_up_after_five_seconds_of_silence_and_not_before() {
        let (mut lines, now) = (lines(), Instant::now());
        lines.event(&started(1), now);
        lines.event(&Event::Bytes { step: 1, done: 7 << 20, total: 20 << 20 }, now);
        lines.out.clear();
        lines.remind(now + Duration::from_secs(4));
        assert!(lines.out.is_empty());
        lines.remind(now + Duration::from_secs(5));
        lines.remind(now + Duration::from_secs(9));
        assert_eq!(String::from_utf8(lines.out).unwrap(), "  cp1: Uploading binaries … 5s: 7 of 20 MiB\n");
    }
}
