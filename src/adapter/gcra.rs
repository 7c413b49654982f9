//! How often users have asked, as one node counts it: the generic cell rate algorithm. One number
//! for each user and action: when all that was counted will be forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Rate, UserId};

/// The most users and actions that are counted. Beyond it those that have nothing to be forgotten
/// go, and then any: they are allowed too much rather than memory being without a bound.
const COUNTED_MAX: usize = 100_000;

/// Counts.
#[derive(Default)]
pub(super) struct Gcra {
    free_at: Mutex<HashMap<(UserId, &'static str), Instant>>,
}

impl Gcra {
    /// Counts one where it is allowed, else says after how long it will be.
    pub(super) fn count(
        &self,
        user: &UserId,
        action: &'static str,
        rate: Rate,
    ) -> Result<(), Duration> {
        let Some(each) = each(rate) else { return Ok(()) };
        let now = Instant::now();
        let mut counted = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut counted, now);
        let free_at = counted.entry((user.clone(), action)).or_insert(now);
        let owed = free_at.saturating_duration_since(now) + each;
        match owed.checked_sub(each * rate.count) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *free_at = now + owed;
                Ok(())
            }
        }
    }
}

/// How long one takes to be forgotten, in whole microseconds; none where nothing is limited.
pub(super) fn each(rate: Rate) -> Option<Duration> {
    let micros = rate.window.as_micros().checked_div(u128::from(rate.count))?;
    Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).max(1)))
}

fn make_room(counted: &mut HashMap<(UserId, &'static str), Instant>, now: Instant) {
    if counted.len() < COUNTED_MAX {
        return;
    }
    counted.retain(|_, free_at| *free_at > now);
    let mut over = counted.len().saturating_sub(COUNTED_MAX / 10 * 9);
    counted.retain(|_, _| {
        let kept = over == 0;
        over = over.saturating_sub(1);
        kept
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_many_as_allowed_at_once_and_then_one_each_time() {
        let (gcra, user) = (Gcra::default(), UserId::new("ada").unwrap());
        let rate = Rate { count: 3, window: Duration::from_secs(60) };
        for _ in 0..3 {
            assert_eq!(gcra.count(&user, "a", rate), Ok(()));
        }
        for _ in 0..2 {
            assert_eq!(gcra.count(&user, "a", rate), Err(Duration::from_secs(20)));
        }
        assert_eq!(gcra.count(&user, "b", rate), Ok(()), "another action");
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(gcra.count(&user, "a", rate), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(gcra.count(&user, "a", rate), Ok(()));
        assert!(gcra.count(&user, "a", rate).is_err());
        tokio::time::advance(Duration::from_secs(600)).await;
        for _ in 0..3 {
            assert_eq!(gcra.count(&user, "a", rate), Ok(()), "no more than the window is saved up");
        }
        assert!(gcra.count(&user, "a", rate).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_is_bounded() {
        let gcra = Gcra::default();
        let rate = Rate::per_minute(1);
        for n in 0..COUNTED_MAX + 10 {
            let user = UserId::new(n.to_string()).unwrap();
            assert_eq!(gcra.count(&user, "a", rate), Ok(()));
        }
        assert!(gcra.free_at.lock().unwrap().len() <= COUNTED_MAX);
    }
}
