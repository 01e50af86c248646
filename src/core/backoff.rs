//! How long to wait before something is tried again. Pure: who waits counts the attempts, and hands the time in.
//!
//! Without jitter, so that what decides stays a function of its inputs. What fails at the same time everywhere (an API
//! server that is away) is noticed at a time of its own by each who asks.
use std::time::Duration;

/// Waits that grow from the first one by a factor, up to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    factor: u32,
    longest: Duration,
}

impl Backoff {
    /// Waits that begin with `first`; each is `factor` times as long as the one before, and none longer than `longest`.
    pub const fn new(first: Duration, factor: u32, longest: Duration) -> Backoff {
        Backoff { first, factor, longest }
    }

    /// Waits that double.
    pub const fn doubling(first: Duration, longest: Duration) -> Backoff {
        Backoff::new(first, 2, longest)
    }

    /// The wait that follows this many waits in a row.
    pub fn wait(&self, waits: u32) -> Duration {
        self.first.saturating_mul(self.factor.saturating_pow(waits)).min(self.longest)
    }
}

/// Waits in a row.
#[derive(Clone, Debug)]
pub struct Retries {
    backoff: Backoff,
    waits: u32,
}

impl Retries {
    /// None so far.
    pub const fn new(backoff: Backoff) -> Retries {
        Retries { backoff, waits: 0 }
    }

    /// How long to wait this time.
    pub fn wait(&mut self) -> Duration {
        let wait = self.backoff.wait(self.waits);
        self.waits = self.waits.saturating_add(1);
        wait
    }

    /// It went well: the next wait is the first again.
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
