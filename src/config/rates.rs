//! How often users may do what, as it is written: `message:send=30/60s,session:join=0`.

use std::time::Duration;

use super::parse::{self, Expected};
use super::reader::quoted;
use crate::domain::{Action, Budget, Rate};

/// More than anybody spends.
const TOKENS_MAX: u64 = 1_000_000_000_000_000;

/// The time that a rate is about: from a second to a day.
pub(super) fn rate_window(text: &str) -> Result<Duration, Expected> {
    let window = parse::duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60)).contains(&window) {
        Ok(window)
    } else {
        Err("a duration from 1s to 24h".to_owned())
    }
}

/// `message:send=30/60s,session:join=0`: how often which action.
pub(super) fn rates(text: &str) -> Result<Vec<(Action, Rate)>, Expected> {
    let mut rates: Vec<(Action, Rate)> = Vec::new();
    for entry in parse::list(text)? {
        let (action, rate) = rate(&entry)?;
        if rates.iter().any(|(known, _)| *known == action) {
            return Err(format!("each name once: {} stands twice", quoted(action.name())));
        }
        rates.push((action, rate));
    }
    Ok(rates)
}

/// `100000/1h`: how many tokens in how long; `none`: as many as there are.
pub(super) fn budget(text: &str) -> Result<Option<Budget>, Expected> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let expected = || {
        "tokens/window such as 100000/1h (at least 1 token, window 1s to 30d), or none".to_owned()
    };
    let (tokens, window) = text.split_once('/').ok_or_else(expected)?;
    let tokens: u64 = tokens.trim_end().parse().map_err(|_| expected())?;
    let window = parse::duration(window.trim_start()).map_err(|_| expected())?;
    let windows = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
    if !(1..=TOKENS_MAX).contains(&tokens) || !windows.contains(&window) {
        return Err(expected());
    }
    Ok(Some(Budget { tokens, window }))
}

fn rate(entry: &str) -> Result<(Action, Rate), Expected> {
    let expected = || {
        format!(
            "name=count/window such as message:send=30/60s (window 1s to 24h), or name=0 for no \
             limit, not {}",
            quoted(entry)
        )
    };
    let (name, rate) = entry.split_once('=').ok_or_else(expected)?;
    let (name, rate) = (name.trim(), rate.trim());
    let action = Action::named(name).ok_or_else(|| {
        let names: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
        format!("names of {}, not {}", names.join(", "), quoted(name))
    })?;
    if rate == "0" {
        return Ok((action, Rate::per_minute(0)));
    }
    let (count, window) = rate.split_once('/').ok_or_else(expected)?;
    let count = parse::count(count.trim_end()).map_err(|_| expected())?;
    let window = rate_window(window.trim_start()).map_err(|_| expected())?;
    Ok((action, Rate { count, window }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_given_by_name() {
        let minute = |action, count| (action, Rate::per_minute(count));
        for (text, expected) in [
            ("message:send=30/60s", vec![minute(Action::Send, 30)]),
            (
                " read=0 , message:edit = 1 / 1m,",
                vec![minute(Action::Read, 0), minute(Action::Edit, 1)],
            ),
            (
                "session:join=5/1000",
                vec![(Action::Join, Rate { count: 5, window: Duration::from_secs(1) })],
            ),
        ] {
            assert_eq!(rates(text), Ok(expected), "{text}");
        }
        for (bad, says) in [
            ("message:send", "not \"message:send\""),
            ("read=1/1m,message:send=30", "not \"message:send=30\""),
            ("message:send=x/60s", "not \"message:send=x/60s\""),
            ("message:send=-1/60s", "not \"message:send=-1/60s\""),
            ("message:send=1/0", "not \"message:send=1/0\""),
            ("message:send=1/25h", "not \"message:send=1/25h\""),
            ("message:sent=1/1s", "not \"message:sent\""),
            ("=1/1s", "not \"\""),
            ("read=1/1s,read=2/1s", "\"read\" stands twice"),
        ] {
            let error = rates(bad).unwrap_err();
            assert!(error.ends_with(says), "{bad}: {error}");
        }
        for action in Action::ALL {
            assert!(rates(&format!("{}=1/1s", action.name())).is_ok(), "{action:?}");
        }
    }

    #[test]
    fn a_budget_is_so_many_tokens_in_a_window() {
        let some =
            |tokens, seconds| Ok(Some(Budget { tokens, window: Duration::from_secs(seconds) }));
        for (text, expected) in [
            ("100000/1h", some(100_000, 3_600)),
            ("1 / 1000", some(1, 1)),
            ("5000000000/30d", some(5_000_000_000, 30 * 24 * 3_600)),
            ("none", Ok(None)),
            ("None", Ok(None)),
        ] {
            assert_eq!(budget(text), expected, "{text}");
        }
        for bad in [
            "100000",
            "/1h",
            "0/1h",
            "-1/1h",
            "1.5/1h",
            "1/",
            "1/999",
            "1/31d",
            "x/1h",
            "1/1h/1h",
            "0",
            "1000000000000001/1h",
            "99999999999999999999/1h",
        ] {
            assert!(budget(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_name_is_documented() {
        let documented = include_str!("../../docs/CONFIGURATION.md");
        let table = documented.split("## What users may do").nth(1).unwrap();
        let table = table.split("`RATE_LIMITS`").next().unwrap();
        for action in Action::ALL {
            let name = format!("`{}`", action.name());
            assert!(table.contains(&name), "{name} is not in docs/CONFIGURATION.md");
        }
    }
}
