//! What was reported to a pod's owner, and when the next report is due.
use std::time::Duration;

use kmctl_core::model::time::Time;

/// The same text is repeated after this time, so that it does not disappear from `kubectl describe`.
const AGAIN: Duration = Duration::from_secs(1800);

/// Pause before a changed text is reported, doubled with every change.
const CHANGED: Duration = Duration::from_secs(10);

/// Longest pause before a changed text.
const CHANGED_AT_MOST: Duration = Duration::from_secs(300);

/// The last report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained(Option<Last>);

#[derive(Clone, Debug, PartialEq)]
struct Last {
    text: String,
    at: Time,
    /// When the text was last checked.
    checked: Time,
    /// How often the text has changed.
    changes: u32,
}

impl Explained {
    /// Whether it is time to check what there is to report.
    pub fn is_due(&self, now: Time) -> bool {
        self.0.as_ref().is_none_or(|last| now.since(last.checked) >= last.pause())
    }

    /// True if this text has to be reported now.
    pub fn report(&mut self, text: &str, now: Time) -> bool {
        let changes = match &mut self.0 {
            Some(last) if last.text == text && now.since(last.at) < AGAIN => {
                last.checked = now;
                return false;
            }
            Some(last) => last.changes + u32::from(last.text != text),
            None => 0,
        };
        self.0 = Some(Last { text: text.to_owned(), at: now, checked: now, changes });
        true
    }
}

impl Last {
    /// Time during which no other text is reported.
    fn pause(&self) -> Duration {
        CHANGED.saturating_mul(2_u32.saturating_pow(self.changes)).min(CHANGED_AT_MOST)
    }
}
