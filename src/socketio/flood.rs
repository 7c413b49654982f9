//! How many events one socket may send, whatever they are.

use std::time::{Duration, Instant};

/// Over what time the events of a socket are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Lets a number of events through at once, and again as a second passes (the generic cell rate
/// algorithm). What is refused does not count.
#[derive(Debug)]
pub(super) struct Flood {
    /// The share of the second that an event takes; `None`: no limit.
    share: Option<Duration>,
    /// When what was let through will have been paid for.
    paid_at: Option<Instant>,
}

impl Flood {
    /// At most so many events a second; 0: no limit.
    pub(super) fn new(events_max: u32) -> Self {
        Self { share: (events_max > 0).then(|| WINDOW / events_max), paid_at: None }
    }

    /// An event came.
    ///
    /// # Errors
    /// One too many; when the next is let through.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(share) = self.share else { return Ok(()) };
        let paid_at = self.paid_at.map_or(now, |at| at.max(now)) + share;
        let ahead = paid_at.saturating_duration_since(now);
        if ahead > WINDOW {
            return Err(ahead - WINDOW);
        }
        self.paid_at = Some(paid_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(flood: &mut Flood, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| flood.take(now).is_ok()).count()
    }

    #[test]
    fn as_many_as_it_takes_at_once_and_then_as_time_passes() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut flood = Flood::new(50);
        assert_eq!(taken(&mut flood, start, 200), 50);
        assert_eq!(flood.take(after(5)), Err(Duration::from_millis(15)));
        assert_eq!(taken(&mut flood, after(20), 200), 1, "refused ones do not count");
        assert_eq!(taken(&mut flood, after(520), 200), 25);
        assert_eq!(taken(&mut flood, after(60_000), 200), 50, "no more for having waited long");
    }

    #[test]
    fn it_may_try_again_when_it_is_told() {
        let mut flood = Flood::new(3);
        let mut now = Instant::now();
        assert_eq!(taken(&mut flood, now, 10), 3);
        for _ in 0..10 {
            now += flood.take(now).unwrap_err();
            assert_eq!(flood.take(now), Ok(()));
        }
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_lets_no_more_through() {
        let start = Instant::now() + Duration::from_secs(9);
        let mut flood = Flood::new(2);
        assert_eq!(taken(&mut flood, start, 5), 2);
        assert_eq!(taken(&mut flood, start - Duration::from_secs(9), 5), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(taken(&mut Flood::new(0), Instant::now(), 10_000), 10_000);
    }
}
