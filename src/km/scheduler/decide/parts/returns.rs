//! Offers that could not be returned to Mesos. The master counts them as ours until they are declined, and neither
//! offers them again nor to other frameworks.
use std::collections::BTreeMap;
use std::time::Duration;

use kmctl_core::backoff::Backoff;
use kmctl_core::model::time::Time;
use mesos::types::OfferId;

/// The longest pause before they are declined again.
const LONGEST: Duration = Duration::from_secs(30);

const AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), LONGEST);

/// Offers to decline again, together.
#[derive(Clone, Debug, Default)]
pub struct FailedReturns {
    /// Refuse seconds by offer.
    offers: BTreeMap<String, u32>,
    failures: u32,
    last_failure: Time,
    due: Time,
}

impl FailedReturns {
    /// A call that returns offers failed. It may have arrived nevertheless: a second DECLINE of an offer has no effect.
    pub fn note(&mut self, offers: Vec<OfferId>, seconds: u32, now: Time) {
        // Only failures are reported. After a pause longer than any of ours, the last DECLINE was a success.
        if now.since(self.last_failure) > LONGEST * 2 {
            self.failures = 0;
        }
        self.offers.extend(offers.into_iter().map(|offer| (offer.value, seconds)));
        (self.last_failure, self.due) = (now, now + AGAIN.wait(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// Mesos took an offer back.
    pub fn rescind(&mut self, offer: &str) {
        self.offers.remove(offer);
    }

    /// All offers are void: they are valid only on their own stream.
    pub fn void(&mut self) {
        *self = FailedReturns::default();
    }

    /// Takes the offers to decline now, by refuse seconds.
    pub fn take(&mut self, now: Time) -> BTreeMap<u32, Vec<OfferId>> {
        let mut taken: BTreeMap<u32, Vec<OfferId>> = BTreeMap::new();
        if now >= self.due {
            for (offer, seconds) in std::mem::take(&mut self.offers) {
                taken.entry(seconds).or_default().push(offer.into());
            }
        }
        taken
    }
}
