//! Percentiles of what was measured.

use serde::Serialize;

/// Where the values of a sample lie, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// 90 % are not above it.
    pub p90: f64,
    /// 99 % are not above it.
    pub p99: f64,
    /// 99.9 % are not above it.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `sample`, in milliseconds; all zero where it is empty.
    pub fn of(mut sample: Vec<f64>) -> Self {
        sample.sort_by(f64::total_cmp);
        let at = |share: f64| {
            // Nearest rank: the smallest value that `share` of the sample does not exceed.
            let rank = (share * sample.len() as f64).ceil() as usize;
            sample.get(rank.saturating_sub(1)).copied().map_or(0.0, rounded)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// To a thousandth: clocks are no better.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The median of a few figures; 0 where there is none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        len if len % 2 == 0 => rounded((figures[middle - 1] + figures[middle]) / 2.0),
        _ => figures[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rank_is_meant() {
        let spread = Spread::of((1..=1000).rev().map(f64::from).collect());
        let Spread { p50, p90, p99, p999, max } = spread;
        assert_eq!([p50, p90, p99, p999, max], [500.0, 900.0, 990.0, 999.0, 1000.0]);
        assert_eq!(Spread::of(vec![7.0]).p50, 7.0);
        assert_eq!(Spread::of(Vec::new()).max, 0.0);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
