//! A moment, in milliseconds, as the contract writes it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// The beginning of the year 0, and the end of the year 9999: RFC 3339 has no others.
const FIRST_MILLIS: i64 = -62_167_219_200_000;
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// A moment in UTC, in milliseconds since 1970. Displays as RFC 3339 with milliseconds
/// (`2026-01-02T03:04:05.678Z`); one outside of the years 0 to 9999 as the first or last moment of
/// those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This node's clock. Only for what is shown or measured: leases use the database's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How much later `self` is than `earlier`; zero where it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let millis = i128::from(self.0.clamp(FIRST_MILLIS, LAST_MILLIS));
        let text = OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000)
            .ok()
            .and_then(|at| at.format(format).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp::from_millis(1_767_323_045_678).to_string(),
            "2026-01-02T03:04:05.678Z"
        );
    }

    /// Another node may say any number; showing it must not fail.
    #[test]
    fn what_no_calendar_has_reads_as_the_nearest_moment_that_one_has() {
        let text = |millis| Timestamp::from_millis(millis).to_string();
        for (edge, beyond, shown) in [
            (FIRST_MILLIS, FIRST_MILLIS - 1, "0000-01-01T00:00:00.000Z"),
            (FIRST_MILLIS, i64::MIN, "0000-01-01T00:00:00.000Z"),
            (LAST_MILLIS, LAST_MILLIS + 1, "9999-12-31T23:59:59.999Z"),
            (LAST_MILLIS, i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!((text(edge), text(beyond)), (shown.to_owned(), shown.to_owned()));
        }
    }
}
