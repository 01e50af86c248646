//! A value that is written to the API once, and again after a failure.
use std::time::Duration;

use kmctl_core::backoff::Backoff;
use kmctl_core::model::time::Time;

/// Pause after a failed write. A failed request may have taken ten seconds by itself.
const AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60));

/// The last value written. For values that are not read back: only a failure reveals that one was not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    /// None after a failure.
    sent: Option<T>,
    failures: u32,
    /// After a failure.
    not_before: Time,
}

impl<T> Default for Written<T> {
    fn default() -> Written<T> {
        Written { sent: None, failures: 0, not_before: Time::default() }
    }
}

impl<T: PartialEq> Written<T> {
    /// True if the value has to be written now.
    pub fn write(&mut self, value: T, now: Time) -> bool {
        if self.sent.as_ref() == Some(&value) || now < self.not_before {
            return false;
        }
        if self.sent.replace(value).is_some() {
            // The value before was stored.
            self.failures = 0;
        }
        true
    }

    /// The last write failed.
    pub fn failed(&mut self, now: Time) {
        self.sent = None;
        self.not_before = now + AGAIN.wait(self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_once_and_after_failures_with_growing_pauses() {
        let mut written = Written::default();
        let mut now = Time(0);
        assert!(written.write(1, now) && !written.write(1, now));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            written.failed(now);
            let since = now;
            while !written.write(1, now) {
                now = now + Duration::from_secs(1);
            }
            pauses.push(now.since(since).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(written.write(2, now), "the last write of 1 did not fail");
        written.failed(now);
        assert!(!written.write(3, now), "a new value waits too");
        assert!(written.write(3, now + Duration::from_secs(1)));
    }
}
