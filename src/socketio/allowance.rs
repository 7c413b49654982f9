//! How many bytes of events a socket may have that are not yet written: little at first, more where
//! it takes them quickly, less where it does not. What waits before a ping delays its answer: a peer
//! that takes 2 KB a second would be taken for dead behind 64 KiB.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a socket may have at first, and at least.
const FIRST: u64 = 16 * 1024;
const LEAST: u64 = 4 * 1024;
/// Half of it taken within this is quickly, and after that slowly.
const QUICKLY: Duration = Duration::from_millis(500);
const SLOWLY: Duration = Duration::from_secs(2);

/// One socket's.
pub(super) struct Allowance {
    most: u64,
    now: AtomicU64,
    refused_at: Mutex<Option<Instant>>,
}

impl Allowance {
    /// At most `most`.
    pub(super) fn new(most: u64) -> Self {
        Self { most, now: AtomicU64::new(FIRST.min(most)), refused_at: Mutex::default() }
    }

    /// In bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// Something was refused, because all of it is outstanding.
    pub(super) fn refused(&self) {
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.get_or_insert_with(Instant::now);
    }

    /// What was refused fits, since half of it or more was taken.
    pub(super) fn drained(&self) {
        let refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(took) = refused_at.map(|at| at.elapsed()) else { return };
        let now = self.bytes();
        if took <= QUICKLY {
            self.now.store((now * 2).min(self.most), Relaxed);
        } else if took >= SLOWLY {
            self.now.store((now / 2).max(LEAST.min(self.most)), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drains(allowance: &Allowance, within: Duration) -> u64 {
        allowance.refused();
        tokio::time::advance(within).await;
        allowance.refused();
        allowance.drained();
        allowance.bytes()
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_how_quickly_it_is_taken() {
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(4));
        let allowance = Allowance::new(64 * 1024);
        assert_eq!(allowance.bytes(), FIRST);
        allowance.drained();
        assert_eq!(allowance.bytes(), FIRST, "nothing was refused");
        assert_eq!(drains(&allowance, quick).await, 2 * FIRST);
        assert_eq!(drains(&allowance, Duration::from_secs(1)).await, 2 * FIRST);
        for expected in [64, 64] {
            assert_eq!(drains(&allowance, quick).await, expected * 1024);
        }
        for expected in [32, 16, 8, 4, 4] {
            assert_eq!(drains(&allowance, slow).await, expected * 1024);
        }
        let small = Allowance::new(2 * 1024);
        assert_eq!(small.bytes(), 2 * 1024);
        assert_eq!(drains(&small, quick).await, 2 * 1024);
        assert_eq!(drains(&small, slow).await, 2 * 1024);
    }
}
