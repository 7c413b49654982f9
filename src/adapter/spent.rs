//! How many tokens users have spent, as one node counts it: in fixed windows of the clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::{Budget, Timestamp, UserId};

/// The most users that are counted. Beyond it those of windows that are over go, and then any:
/// they may spend too much rather than memory being without a bound.
const COUNTED_MAX: usize = 100_000;

/// Counts.
#[derive(Default)]
pub(super) struct Spent {
    counts: Mutex<HashMap<(UserId, u64), Count>>,
}

/// What was spent in a window that ends at a time, in ms since 1970.
struct Count {
    ends_at: u64,
    tokens: u64,
}

impl Spent {
    /// Spends, or with 0 only asks; where nothing is left it says when the window ends.
    pub(super) fn spend(&self, user: &UserId, tokens: u64, budget: Budget) -> Result<(), Duration> {
        let now = u64::try_from(Timestamp::now().as_millis()).unwrap_or(0);
        self.spend_at(now, user, tokens, budget)
    }

    fn spend_at(
        &self,
        now: u64,
        user: &UserId,
        tokens: u64,
        budget: Budget,
    ) -> Result<(), Duration> {
        let window = window_ms(budget);
        let left = window - now % window;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.clone(), window);
        let before = counts.get(&key).filter(|count| count.ends_at > now);
        let spent = before.map_or(0, |count| count.tokens).saturating_add(tokens);
        if tokens > 0 {
            make_room(&mut counts, now);
            counts.insert(key, Count { ends_at: now + left, tokens: spent });
        }
        if spent >= budget.tokens { Err(Duration::from_millis(left)) } else { Ok(()) }
    }
}

/// A budget's window in whole ms, and at least one.
pub(super) fn window_ms(budget: Budget) -> u64 {
    u64::try_from(budget.window.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}

fn make_room(counts: &mut HashMap<(UserId, u64), Count>, now: u64) {
    if counts.len() < COUNTED_MAX {
        return;
    }
    counts.retain(|_, count| count.ends_at > now);
    let mut over = counts.len().saturating_sub(COUNTED_MAX / 10 * 9);
    counts.retain(|_, _| {
        let kept = over == 0;
        over = over.saturating_sub(1);
        kept
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { tokens: 10, window: Duration::from_secs(60) };

    #[test]
    fn tokens_are_spent_in_windows_of_the_clock() {
        let (spent, ada) = (Spent::default(), UserId::new("ada").unwrap());
        let at = |now, tokens| spent.spend_at(now, &ada, tokens, BUDGET);
        assert_eq!(at(119_000, 9), Ok(()));
        assert_eq!(at(119_500, 0), Ok(()), "asking costs nothing");
        assert_eq!(at(119_500, 1), Err(Duration::from_millis(500)));
        assert_eq!(at(119_999, 0), Err(Duration::from_millis(1)));
        let bob = UserId::new("bob").unwrap();
        assert_eq!(spent.spend_at(119_999, &bob, 0, BUDGET), Ok(()));
        assert_eq!(at(120_000, 0), Ok(()), "the next window");
        assert_eq!(at(120_000, 9), Ok(()), "is as large");
        assert_eq!(at(120_001, 100), Err(Duration::from_millis(59_999)));
        assert_eq!(at(120_002, u64::MAX), Err(Duration::from_millis(59_998)), "no overflow");
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let spent = Spent::default();
        for n in 0..COUNTED_MAX + 10 {
            let user = UserId::new(n.to_string()).unwrap();
            assert_eq!(spent.spend_at(0, &user, 1, BUDGET), Ok(()));
        }
        assert!(spent.counts.lock().unwrap().len() <= COUNTED_MAX);
    }
}
