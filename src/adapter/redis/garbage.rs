//! What arrives or is stored that this version does not understand: it is counted, and told of now
//! and then, without what it was.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::metrics;

/// At most one line in this time, so that whoever writes garbage does not fill the log.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Counts garbage, and bounds how often it is told of.
#[derive(Default)]
pub(super) struct Garbage {
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    /// How much was found since.
    untold: u64,
}

impl Garbage {
    /// Something was found at a `place`, which is a word of this program's and no name or bytes
    /// of what was found.
    pub(super) fn found(&self, place: &'static str) {
        metrics::handles().garbage.increment(1);
        if let Some(pieces) = self.to_tell(Instant::now()) {
            tracing::warn!(place, pieces, "passed over what this version does not understand");
        }
    }

    /// How much is to be told of now, if anything is.
    fn to_tell(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.untold += 1;
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < TOLD_EVERY) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_garbage_is_told_of_seldom_and_none_of_it_goes_uncounted() {
        let (garbage, begin) = (Garbage::default(), Instant::now());
        assert_eq!(garbage.to_tell(begin), Some(1));
        for _ in 0..1_000 {
            assert_eq!(garbage.to_tell(begin + TOLD_EVERY / 2), None);
        }
        assert_eq!(garbage.to_tell(begin + TOLD_EVERY), Some(1_001));
        assert_eq!(garbage.to_tell(begin + TOLD_EVERY), None);
    }
}
