//! How lenient providers' JSON is read, and the errors that they send after HTTP 200.
//!
//! It must not know any provider's events, and keeps nothing of an error but its type or code.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ProviderError, upstream};

/// The object in an event's data; `None` for an event without data.
///
/// # Errors
/// [`ProviderError::Protocol`] for anything else.
pub(super) fn object<'a, T: Deserialize<'a>>(data: &'a str) -> Result<Option<T>, ProviderError> {
    let data = data.trim();
    if data.is_empty() {
        return Ok(None);
    }
    if !data.starts_with('{') {
        return Err(ProviderError::Protocol("an event that is not a JSON object"));
    }
    let object = serde_json::from_str(data);
    object.map(Some).map_err(|_| ProviderError::Protocol("an event that is not JSON"))
}

/// A value where it has the type asked for, else `None`.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = <&'de RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// The error whose body is `error`, an object with a `type` and a `code` as a rule.
pub(super) fn reported(error: &str) -> ProviderError {
    let Reported { r#type, code } = serde_json::from_str(error).unwrap_or_default();
    let code = match code {
        Some(serde_json::Value::String(code)) => code,
        Some(serde_json::Value::Number(code)) => code.to_string(),
        _ => String::new(),
    };
    // The event's own type, where the error is not an object of its own.
    let kind = r#type.as_deref().filter(|kind| *kind != "error").unwrap_or_default();
    if is_overload(kind) || is_overload(&code) {
        return ProviderError::Overloaded { retry_after: None };
    }
    let word = upstream::word(kind).or_else(|| upstream::word(&code));
    ProviderError::Reported(word.unwrap_or_else(|| "error".to_owned()))
}

#[derive(Default, Deserialize)]
struct Reported<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    code: Option<serde_json::Value>,
}

fn is_overload(word: &str) -> bool {
    const WORDS: [&str; 5] = ["overload", "rate_limit", "ratelimit", "unavailable", "slow_down"];
    let word = word.to_ascii_lowercase();
    matches!(word.as_str(), "429" | "503" | "529") || WORDS.iter().any(|w| word.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_and_never_quoted() {
        for error in [
            r#"{"message":"m","type":"overloaded_error"}"#,
            r#"{"message":"m","type":"rate_limit_error"}"#,
            r#"{"message":"m","type":"requests","code":"rate_limit_exceeded"}"#,
            r#"{"message":"m","type":"None","code":"429"}"#,
            r#"{"object":"error","message":"m","type":"ServiceUnavailableError","code":503}"#,
            r#"{"type":"error","code":"server_is_overloaded"}"#,
        ] {
            let error = (reported(error), error);
            assert!(
                matches!(error, (ProviderError::Overloaded { retry_after: None }, _)),
                "{error:?}"
            );
        }
        for (error, word) in [
            (r#"{"message":"m","type":"server_error","code":null}"#, "server_error"),
            (r#"{"object":"error","message":"m","type":"BadRequestError"}"#, "BadRequestError"),
            (r#"{"message":"secret","type":"a secret prompt","code":500}"#, "500"),
            (r#"{"message":"secret","type":"a secret prompt"}"#, "error"),
            (r#"{"type":"error","code":"invalid_prompt"}"#, "invalid_prompt"),
            (r#""a secret prompt""#, "error"),
        ] {
            let error = (reported(error), error);
            assert!(matches!(&error, (ProviderError::Reported(w), _) if w == word), "{error:?}");
        }
    }

    #[test]
    fn only_objects_are_understood() {
        #[derive(Deserialize)]
        struct Any {}
        assert!(object::<Any>("  ").unwrap().is_none());
        assert!(object::<Any>(" {\"a\":1} ").unwrap().is_some());
        for data in ["nonsense", "[1]", "{\"choices\":", "\"x\"", "{} {}"] {
            assert!(matches!(object::<Any>(data), Err(ProviderError::Protocol(_))), "{data}");
        }
    }
}
