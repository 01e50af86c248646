//! Time of this machine.
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::super::deps::Clock;

/// The machine's monotonic clock.
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// Counts from now.
    pub fn new() -> Self {
        RealClock { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
