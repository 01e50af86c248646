//! A step that an entry's state does not allow.
use std::fmt;

/// A refused transition. The entry is as it was.
///
/// A value and not an assertion inside the part: some steps are refused in normal operation, because an answer arrives
/// after its node was given up, and only the rule that takes the step can tell those from mistakes. The rule has to
/// handle it: `Scheduler::legal` reports the mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Illegal {
    /// The states in words.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot follow {}", self.to, self.from)
    }
}
