//! How the domain's values stand in columns, and are read back. What a column should not hold is
//! an error, never a guess.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::domain::{
    Author, Error, ErrorCode, GenerationConfig, Membership, Status, Usage, Visibility,
};

/// A JSON object.
pub(super) type Object = serde_json::Map<String, serde_json::Value>;

/// A column held what it should not.
pub(super) fn unreadable(what: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(what.to_string().into())
}

/// Refuses text that one of the databases cannot hold (PostgreSQL has no U+0000), so that both
/// take the same.
pub(super) fn storable(text: &str) -> sqlx::Result<&str> {
    if text.contains('\0') {
        return Err(sqlx::Error::Encode("text with the character U+0000 cannot be stored".into()));
    }
    Ok(text)
}

/// As [`storable`], for all text in an object, its names among it.
pub(super) fn storable_object(object: &Object) -> sqlx::Result<()> {
    fn value_storable(value: &serde_json::Value) -> sqlx::Result<()> {
        match value {
            serde_json::Value::String(text) => storable(text).map(drop),
            serde_json::Value::Array(values) => values.iter().try_for_each(value_storable),
            serde_json::Value::Object(object) => storable_object(object),
            _ => Ok(()),
        }
    }
    object.iter().try_for_each(|(name, value)| {
        storable(name)?;
        value_storable(value)
    })
}

/// A number as its column holds it. One beyond 2⁶³ − 1 is none that was counted: it becomes that,
/// rather than keeping an answer from being stored.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An age in milliseconds. Nothing is older than a century, with which both databases can still
/// reckon.
pub(super) fn millis(age: Duration) -> i64 {
    const MOST: i64 = 100 * 365 * 24 * 60 * 60 * 1_000;
    i64::try_from(age.as_millis()).map_or(MOST, |age| age.min(MOST))
}

/// A number as a column holds it, in the type that it has.
pub(super) fn unsigned<T: TryFrom<i64>>(number: i64) -> sqlx::Result<T> {
    T::try_from(number).map_err(|_| unreadable(format_args!("{number} is out of range")))
}

/// An id as a column holds it.
pub(super) fn id<T: std::str::FromStr>(text: &str) -> sqlx::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// An id that may be missing.
pub(super) fn id_if_any<T: std::str::FromStr>(text: Option<String>) -> sqlx::Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.as_deref().map(id).transpose()
}

/// Gives an enum the words that its column holds.
macro_rules! words {
    ($to:ident, $from:ident, $type:ty, $($value:path => $word:literal),+) => {
        pub(super) fn $to(value: $type) -> &'static str {
            match value {
                $($value => $word),+
            }
        }

        pub(super) fn $from(word: &str) -> sqlx::Result<$type> {
            match word {
                $($word => Ok($value),)+
                _ => Err(unreadable(format_args!("\"{word}\" is no {}", stringify!($type)))),
            }
        }
    };
}

words!(author_word, author, Author,
    Author::User => "user", Author::Assistant => "assistant", Author::System => "system");
words!(status_word, status, Status,
    Status::Pending => "pending", Status::Streaming => "streaming",
    Status::Completed => "completed", Status::Stopped => "stopped", Status::Failed => "failed");
words!(visibility_word, visibility, Visibility,
    Visibility::Private => "private", Visibility::Open => "open");
words!(membership_word, membership, Membership,
    Membership::Owner => "owner", Membership::Member => "member");

/// What a request changed about its agent's settings.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigColumn {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
}

impl From<&GenerationConfig> for ConfigColumn {
    fn from(config: &GenerationConfig) -> Self {
        let GenerationConfig { temperature, max_tokens, model } = config.clone();
        Self { temperature, max_tokens, model }
    }
}

impl From<ConfigColumn> for GenerationConfig {
    fn from(column: ConfigColumn) -> Self {
        let ConfigColumn { temperature, max_tokens, model } = column;
        Self { temperature, max_tokens, model }
    }
}

/// What a generation cost.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageColumn {
    input_tokens: u64,
    output_tokens: u64,
    /// Absent where it is 0, and in rows of versions that did not know it.
    #[serde(default, skip_serializing_if = "is_zero")]
    cached_tokens: u64,
}

impl UsageColumn {
    pub(super) fn json(usage: Usage) -> Json<Self> {
        let Usage { input_tokens, output_tokens, cached_tokens } = usage;
        Json(Self { input_tokens, output_tokens, cached_tokens })
    }
}

impl From<UsageColumn> for Usage {
    fn from(column: UsageColumn) -> Self {
        let UsageColumn { input_tokens, output_tokens, cached_tokens } = column;
        Self { input_tokens, output_tokens, cached_tokens }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What broke a generation off, to be stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorColumn<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u128>,
}

impl<'a> ErrorColumn<'a> {
    pub(super) fn json(error: &'a Error) -> Json<Self> {
        Json(Self {
            code: error.code.as_str(),
            message: &error.message,
            retry_after_ms: error.retry_after.as_ref().map(Duration::as_millis),
        })
    }
}

/// What an [`ErrorColumn`] is read as.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeptError {
    code: String,
    message: String,
    retry_after_ms: Option<u64>,
}

impl KeptError {
    pub(super) fn read(self) -> sqlx::Result<Error> {
        let Self { code, message, retry_after_ms } = self;
        let known = ErrorCode::from_word(&code);
        let code = known.ok_or_else(|| unreadable(format_args!("\"{code}\" is no error")))?;
        Ok(Error { code, message, retry_after: retry_after_ms.map(Duration::from_millis) })
    }
}
