//! How long to wait before a retry. Pure: the caller counts the attempts and supplies the time.
//!
//! There is no jitter, so that decisions remain a function of their inputs. A failure that affects every process at
//! once (an unreachable API server) is noticed by each client at a different time.
use std::time::Duration;

/// Waits that grow from the first one by a factor, up to a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    factor: u32,
    longest: Duration,
}

impl Backoff {
    /// Waits that start with `first`. Each is `factor` times as long as the previous one, up to `longest`.
    pub const fn new(first: Duration, factor: u32, longest: Duration) -> Backoff {
        Backoff { first, factor, longest }
    }

    /// Waits that double, starting with `first`, up to `longest`.
    pub const fn doubling(first: Duration, longest: Duration) -> Backoff {
        Backoff::new(first, 2, longest)
    }

    /// The wait after this many consecutive waits.
    pub fn wait(&self, waits: u32) -> Duration {
        self.first.saturating_mul(self.factor.saturating_pow(waits)).min(self.longest)
    }
}

/// Counts consecutive waits.
#[derive(Clone, Debug)]
pub struct Retries {
    backoff: Backoff,
    waits: u32,
}

impl Retries {
    /// No waits so far.
    pub const fn new(backoff: Backoff) -> Retries {
        Retries { backoff, waits: 0 }
    }

    /// How long to wait this time; counts the wait.
    pub fn wait(&mut self) -> Duration {
        let wait = self.backoff.wait(self.waits);
        self.waits = self.waits.saturating_add(1);
        wait
    }

    /// Call after a success: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.waits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_begin_anew_when_it_went_well() {
        let backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(30));
        let waits = [0, 1, 3, 8, 9, 64, u32::MAX].map(|waits| backoff.wait(waits).as_millis());
        assert_eq!(waits, [100, 200, 800, 25_600, 30_000, 30_000, 30_000]);
        let mut retries = Retries::new(Backoff::new(Duration::from_secs(1), 4, Duration::from_secs(20)));
        let waits: Vec<u64> = (0..5).map(|_| retries.wait().as_secs()).collect();
        assert_eq!(waits, [1, 4, 16, 20, 20]);
        retries.reset();
        assert_eq!(retries.wait().as_secs(), 1);
    }
}
