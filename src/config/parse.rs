//! Text to value: leaves without state. An error says what would be right, and never repeats the
//! text, which may be a secret; the reader adds it where it is none.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use super::DatabaseKind;

/// What a value should have been.
pub(super) type Expected = String;

pub(super) fn text(text: &str) -> Result<String, Expected> {
    Ok(text.to_owned())
}

pub(super) fn secret(text: &str) -> Result<SecretString, Expected> {
    Ok(text.into())
}

/// A key for HMAC: RFC 7518 § 3.2 wants as many bytes as SHA-256 gives.
pub(super) fn key(text: &str) -> Result<SecretString, Expected> {
    if text.len() < 32 {
        return Err(format!("at least 32 bytes, these are {}", text.len()));
    }
    secret(text)
}

pub(super) fn bool(text: &str) -> Result<bool, Expected> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

pub(super) fn port(text: &str) -> Result<u16, Expected> {
    text.parse().map_err(|_| "a port, 0 to 65535".to_owned())
}

pub(super) fn number(text: &str) -> Result<usize, Expected> {
    text.parse::<u32>()
        .map(|n| n as usize)
        .map_err(|_| format!("a whole number, 0 to {}", u32::MAX))
}

/// A number that a counter of 32 bits holds.
pub(super) fn count(text: &str) -> Result<u32, Expected> {
    text.parse().map_err(|_| format!("a whole number, 0 to {}", u32::MAX))
}

pub(super) fn positive(text: &str) -> Result<NonZeroUsize, Expected> {
    number(text)
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| format!("a whole number, 1 to {}", u32::MAX))
}

/// How often something is tried again.
pub(super) fn retries(text: &str) -> Result<u32, Expected> {
    count(text).ok().filter(|n| *n <= 10).ok_or_else(|| "a whole number, 0 to 10".to_owned())
}

/// `64KiB`, `1MiB`, `65536`: at least 1 KiB, at most 1 GiB.
pub(super) fn bytes(text: &str) -> Result<usize, Expected> {
    let expected = || "a size such as 64KiB or 1MiB, 1KiB to 1GiB".to_owned();
    let (number, unit) = split_unit(text).ok_or_else(expected)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(expected()),
    };
    number
        .checked_mul(unit)
        .filter(|bytes| (1 << 10..=1 << 30).contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(expected)
}

/// `250ms`, `30s`, `5m`, `24h`, `7d`; a bare number is milliseconds. At most 365 days.
pub(super) fn duration(text: &str) -> Result<Duration, Expected> {
    let expected = || {
        "a duration such as 250ms, 30s, 5m, 24h or 7d (a bare number is milliseconds)".to_owned()
    };
    let (number, unit) = split_unit(text).ok_or_else(expected)?;
    let millis = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => DAY_MS,
        _ => return Err(expected()),
    };
    match number.checked_mul(millis) {
        Some(millis) if millis <= 365 * DAY_MS => Ok(Duration::from_millis(millis)),
        _ => Err("a duration of at most 365d".to_owned()),
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A [`duration`] that is not zero.
pub(super) fn interval(text: &str) -> Result<Duration, Expected> {
    duration(text)
        .and_then(|d| if d.is_zero() { Err("a duration above zero".to_owned()) } else { Ok(d) })
}

/// `30s` as 30 and `s`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

pub(super) fn list(text: &str) -> Result<Vec<String>, Expected> {
    Ok(text.split(',').map(str::trim).filter(|i| !i.is_empty()).map(str::to_owned).collect())
}

/// As many polls of one connection as a byte counts.
pub(super) fn polls(text: &str) -> Result<u8, Expected> {
    let polls = text.parse().ok().filter(|polls| *polls > 0);
    polls.ok_or_else(|| format!("a whole number, 1 to {}", u8::MAX))
}

/// How many there are in a page.
pub(super) fn page(text: &str) -> Result<u32, Expected> {
    let page = count(text).ok().filter(|page| (1..=1000).contains(page));
    page.ok_or_else(|| "a whole number, 1 to 1000".to_owned())
}

/// Addresses and networks: `10.0.0.0/8`, `::1`.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, Expected> {
    let network = |text: &String| {
        let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse::<IpNet>().ok().or_else(address);
        network
            .ok_or_else(|| "addresses or networks such as 10.0.0.0/8, comma-separated".to_owned())
    };
    list(text)?.iter().map(network).collect()
}

/// Where keys are fetched from. It may have a query; a user it may not.
pub(super) fn key_set_url(text: &str) -> Result<String, Expected> {
    let uri: Option<http::Uri> = text.parse().ok();
    let is_fine = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
    });
    let expected = || "http:// or https:// and a host, without user".to_owned();
    is_fine.then(|| text.to_owned()).ok_or_else(expected)
}

/// A minute is as often as an unknown key may have them fetched, too.
pub(super) fn key_set_refresh(text: &str) -> Result<Duration, Expected> {
    let day = Duration::from_secs(24 * 60 * 60);
    let every = duration(text)?;
    let is_fine = (Duration::from_secs(60)..=day).contains(&every);
    is_fine.then_some(every).ok_or_else(|| "1m to 24h".to_owned())
}

/// Who disconnected is thought there no longer than a minute.
pub(super) fn presence_grace(text: &str) -> Result<Duration, Expected> {
    let grace = duration(text)?;
    if grace > Duration::from_secs(60) { Err("at most 60s".to_owned()) } else { Ok(grace) }
}

/// Who was in a session is remembered for an hour.
pub(super) fn recovery_window(text: &str) -> Result<Duration, Expected> {
    let window = duration(text)?;
    let hour = Duration::from_secs(60 * 60);
    if window > hour { Err("at most 1h".to_owned()) } else { Ok(window) }
}

/// One of the words of a token's `scope` (RFC 6749 § 3.3).
pub(super) fn scope(text: &str) -> Result<String, Expected> {
    if text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
        Ok(text.to_owned())
    } else {
        Err("one scope: ASCII without spaces, quotes and backslashes".to_owned())
    }
}

/// An address, with or without brackets, or a name.
pub(super) fn host(text: &str) -> Result<String, Expected> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let is_name = !bare.is_empty()
        && bare.len() <= 253
        && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        // What looks like an IPv4 address but is none would be looked up as a name.
        && !bare.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if bare.parse::<IpAddr>().is_ok() || is_name {
        Ok(bare.to_owned())
    } else {
        Err("an address such as 127.0.0.1, 0.0.0.0 or ::, or a host name, without a port"
            .to_owned())
    }
}

/// Browser origins as browsers send them: `scheme://host[:port]` in lower case.
pub(super) fn origins(text: &str) -> Result<Vec<String>, Expected> {
    list(text)?.iter().map(|item| origin(item)).collect()
}

fn origin(text: &str) -> Result<String, Expected> {
    if text == "*" {
        return Err("origins by name: * is impossible where credentials are allowed".to_owned());
    }
    let expected = || "origins such as https://chat.example.org, comma-separated".to_owned();
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(expected)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let scheme_is_fine = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let parsed: http::uri::Authority = authority.parse().map_err(|_| expected())?;
    if !scheme_is_fine || parsed.host().is_empty() || authority.contains(['@', '*']) {
        return Err(expected());
    }
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority
        .strip_suffix(default_port)
        .filter(|_| !default_port.is_empty())
        .unwrap_or(authority);
    Ok(format!("{scheme}://{authority}"))
}

pub(super) fn redis_url(text: &str) -> Result<SecretString, Expected> {
    let schemes =
        ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
    match text.split_once("://") {
        Some((scheme, rest)) if schemes.contains(&scheme) && !rest.is_empty() => secret(text),
        _ => {
            Err("redis://, rediss://, redis-cluster:// or redis-sentinel://, then host:port"
                .to_owned())
        }
    }
}

pub(super) fn database_url(text: &str) -> Result<(String, DatabaseKind), Expected> {
    let kind = match text.split_once(':') {
        Some(("sqlite", rest)) if !rest.trim_start_matches('/').is_empty() => DatabaseKind::Sqlite,
        Some(("postgres" | "postgresql", rest)) if rest.len() > 2 && rest.starts_with("//") => {
            DatabaseKind::Postgres
        }
        _ => {
            return Err(
                "sqlite://path/to/file or postgres://user:password@host/database".to_owned()
            );
        }
    };
    Ok((text.to_owned(), kind))
}

/// `http://` or `https://`, without credentials, query or trailing slash.
pub(super) fn base_url(text: &str) -> Result<String, Expected> {
    let expected = || "http:// or https:// and a host, without user, query or fragment".to_owned();
    let uri: http::Uri = text.parse().map_err(|_| expected())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().unwrap_or_default();
    let has_user = uri.authority().is_some_and(|a| a.as_str().contains('@'));
    if !is_http || host.is_empty() || has_user || uri.query().is_some() || text.contains('#') {
        return Err(expected());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// `tracing`'s directives.
pub(super) fn log_filter(text: &str) -> Result<String, Expected> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a level such as info, or target=level, comma-separated".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_a_bare_number_is_milliseconds() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("250ms", 250),
            ("60000", 60_000),
            ("7d", 604_800_000),
            ("0", 0),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1w",
            "10 years",
            "366d",
            "99999999999999999999",
            "1s1s",
            "５s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(interval("0").is_err());
        assert!(interval("0ms").is_err());
        assert!(interval("1").is_ok());
    }

    #[test]
    fn sizes_are_powers_of_1024_and_bounded() {
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1 mib"), Ok(1_048_576));
        assert_eq!(bytes("65536"), Ok(65_536));
        for bad in ["", "0", "1023", "2GiB", "1.5MiB", "64Kx", "999999999999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name() {
        assert_eq!(host("[::1]"), Ok("::1".to_owned()));
        for good in ["127.0.0.1", "::", "0.0.0.0", "localhost", "chat-1.example.org"] {
            assert_eq!(host(good), Ok(good.to_owned()));
        }
        for bad in ["", "127.0.0.1:3000", "http://x", "a b", "999.1.1.1", "[", "::g"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        let got =
            origins("https://Chat.Example.org:443/, http://localhost:3000,capacitor://localhost");
        let want = ["https://chat.example.org", "http://localhost:3000", "capacitor://localhost"];
        assert_eq!(got, Ok(want.map(str::to_owned).to_vec()));
        assert_eq!(origins("http://[::1]:80"), Ok(vec!["http://[::1]".to_owned()]));
        for bad in [
            "*",
            "example.org",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://*.a.org",
            "null",
        ] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_is_sqlite_or_postgres() {
        let kind = |text| database_url(text).map(|(_, kind)| kind);
        assert_eq!(kind("sqlite://data/tokencast.db"), Ok(DatabaseKind::Sqlite));
        assert_eq!(kind("sqlite::memory:"), Ok(DatabaseKind::Sqlite));
        assert_eq!(kind("postgres://u:p@h/d"), Ok(DatabaseKind::Postgres));
        assert_eq!(kind("postgresql://h/d"), Ok(DatabaseKind::Postgres));
        for bad in ["", "sqlite://", "mysql://h/d", "postgres:", "postgres://", "data/x.db"] {
            assert!(kind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redis_is_one_of_four_schemes() {
        for good in ["redis://h:6379", "rediss://h", "redis-cluster://h:1", "redis-sentinel://h:1"]
        {
            assert!(redis_url(good).is_ok(), "{good}");
        }
        for bad in ["", "h:6379", "redis://", "http://h", "redis:h"] {
            assert!(redis_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_url_has_no_user_query_or_trailing_slash() {
        assert_eq!(base_url("http://h:1/v1/"), Ok("http://h:1/v1".to_owned()));
        for bad in [
            "",
            "h/v1",
            "ftp://h",
            "https://k@h/v1",
            "https://h/v1?a=b",
            "https://h/#x",
            "https:///v1",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_is_one_word() {
        assert_eq!(scope("tokencast:admin"), Ok("tokencast:admin".to_owned()));
        for bad in ["a b", "a\"", "a\\b", "é", "a\t"] {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }
}
