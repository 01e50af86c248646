//! Draws events as spinners and bars on a terminal.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use kmctl_core::progress::{Draw, Event, Outcome, StepId, label, told};

/// Spinners on standard error, one per running step. Finished steps become lines above them.
pub struct Bars {
    all: MultiProgress,
    /// With the scope and the label of the step.
    open: Mutex<BTreeMap<StepId, (ProgressBar, String, String)>>,
}

impl Default for Bars {
    fn default() -> Self {
        Bars { all: MultiProgress::new(), open: Mutex::default() }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants below. If one were invalid, a default would still be better than no progress.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Bars {
    fn line(&self, text: &str) {
        // A closed terminal is no reason to stop working.
        let _ = self.all.println(text);
    }
}

impl Draw for Bars {
    fn draw(&self, event: &Event) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { step, scope, text } => {
                let bar = self.all.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix} {elapsed:.dim} {wide_msg:.dim}"));
                let label = label(scope, text);
                bar.set_prefix(label.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                open.insert(*step, (bar, scope.clone(), label));
            }
            Event::At { step, text } => {
                if let Some((bar, ..)) = open.get(step) {
                    bar.set_message(text.clone());
                }
            }
            Event::Bytes { step, done, total } => {
                if let Some((bar, ..)) = open.get(step) {
                    if bar.length() != Some(*total) {
                        bar.set_length(*total);
                        bar.set_style(style("{spinner} {prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec:.dim}"));
                    }
                    bar.set_position(*done);
                }
            }
            Event::Finished { step, outcome } => {
                let Some((bar, scope, label)) = open.remove(step) else { return };
                bar.finish_and_clear();
                self.all.remove(&bar);
                let sign = match outcome {
                    Outcome::Done(_) => console::style("✓").green(),
                    Outcome::Unchanged(_) => console::style("=").dim(),
                    Outcome::Failed(_) => console::style("✗").red(),
                };
                self.line(&format!("{} {}", sign.for_stderr(), outcome.line(&scope, &label)));
            }
            Event::Note { scope, text } => self.line(&format!("· {}", label(scope, text))),
            Event::Message { text } => self.all.suspend(|| eprint!("{text}")),
            Event::Error { error, causes, hint, .. } => {
                self.all.suspend(|| eprint!("{}", told(error, causes, hint.as_deref())));
            }
        }
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        self.all.suspend(print);
    }
}
