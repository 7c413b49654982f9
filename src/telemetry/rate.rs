//! A rate over the last 10 seconds, from counts and a sample each second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::Gauge;

/// What a rate is over.
const WINDOW: Duration = Duration::from_secs(10);
/// Samples nearer than this are left out: several nodes of one process may sample.
const SAMPLE_MIN: Duration = Duration::from_millis(500);

/// Counts pieces of text of one provider; clones count together.
#[derive(Debug, Clone, Default)]
pub struct TokenMeter(Arc<AtomicU64>);

impl TokenMeter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// Counts of the last [`WINDOW`], one each sample.
struct Rate {
    meter: TokenMeter,
    /// When, and the count then; the oldest first. At most 22.
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn new(meter: TokenMeter) -> Self {
        Self { meter, samples: VecDeque::new() }
    }

    /// Takes a sample: per second, since the oldest of the window. `None` where the last one is
    /// too near.
    fn sample(&mut self, now: Instant) -> Option<f64> {
        if let Some((last, _)) = self.samples.back()
            && now.saturating_duration_since(*last) < SAMPLE_MIN
        {
            return None;
        }
        let count = self.meter.0.load(Ordering::Relaxed);
        // The one at the window's edge stays, as what the rest is compared with.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, count));
        let (since, before) = self.samples.front().copied().unwrap_or((now, count));
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        Some(if elapsed > 0.0 { (count - before) as f64 / elapsed } else { 0.0 })
    }
}

/// One for each provider: there are few, and they are looked up once.
static RATES: Mutex<Vec<(&'static str, Rate, Gauge)>> = Mutex::new(Vec::new());

/// The meter of `provider`, whose rate goes to `gauge`.
pub(super) fn meter(provider: &'static str, gauge: impl FnOnce() -> Gauge) -> TokenMeter {
    let mut rates = RATES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, rate, _)) = rates.iter().find(|(known, ..)| *known == provider) {
        return rate.meter.clone();
    }
    let meter = TokenMeter::default();
    let gauge = gauge();
    gauge.set(0.0);
    rates.push((provider, Rate::new(meter.clone()), gauge));
    meter
}

/// Takes a sample of each and sets its gauge.
pub(super) fn sample_all(now: Instant) {
    for (_, rate, gauge) in RATES.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
        if let Some(per_second) = rate.sample(now) {
            gauge.set(per_second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_last_ten_seconds_and_falls_to_zero() {
        let start = Instant::now();
        let meter = TokenMeter::default();
        let mut rate = Rate::new(meter.clone());
        assert_eq!(rate.sample(start), Some(0.0));
        for second in 1..=20 {
            meter.add(50);
            assert_eq!(rate.sample(start + Duration::from_secs(second)), Some(50.0));
        }
        let mut last = 50.0;
        for second in 21..=30 {
            let now = rate.sample(start + Duration::from_secs(second)).unwrap();
            assert!(now < last, "{second}: {now}");
            last = now;
        }
        assert_eq!(last, 0.0);
        assert!(rate.samples.len() <= 22);
    }

    #[test]
    fn two_nodes_that_sample_do_not_shorten_the_window() {
        let start = Instant::now();
        let meter = TokenMeter::default();
        let mut rate = Rate::new(meter.clone());
        rate.sample(start);
        meter.add(10);
        assert_eq!(rate.sample(start + Duration::from_millis(100)), None);
        assert_eq!(rate.sample(start + Duration::from_secs(1)), Some(10.0));
    }
}
