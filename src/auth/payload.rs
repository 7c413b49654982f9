//! What tokens carry: read from any that is right, and written into our own.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Claims, TokenKind};
use crate::domain::{SessionId, Timestamp, UserId};

/// The end of the year 9999, in seconds: what RFC 3339 can still write.
const LAST_SECOND: u64 = 253_402_300_799;

/// The `type` of stream tokens.
pub(super) const SSE: &str = "sse";

/// The claims that are used. Their types are looked at one by one; a claim that stands twice is
/// refused by serde.
#[derive(Deserialize)]
pub(super) struct Payload {
    sub: Value,
    exp: Value,
    #[serde(default)]
    pub(super) iss: Value,
    #[serde(default)]
    pub(super) iat: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    username: Value,
    #[serde(default)]
    email: Value,
    #[serde(default, rename = "type")]
    pub(super) kind: Value,
    #[serde(default, rename = "sessionId")]
    pub(super) session: Value,
    #[serde(default)]
    scope: Value,
}

impl Payload {
    /// `None` where a claim that decides something has the wrong type; those for show are dropped.
    pub(super) fn read(self) -> Option<Claims> {
        let exp = self.exp.as_u64().or_else(|| self.exp.as_f64().map(|exp| exp.round() as u64))?;
        let kind = match self.kind {
            Value::Null => TokenKind::Normal,
            Value::String(kind) if kind == SSE => TokenKind::Sse,
            Value::String(_) => TokenKind::Normal,
            _ => return None,
        };
        let session = match self.session {
            Value::Null => None,
            Value::String(id) => Some(SessionId::new(id).ok()?),
            _ => return None,
        };
        Some(Claims {
            user: UserId::new(self.sub.as_str()?).ok()?,
            name: text(self.name).or_else(|| text(self.username)),
            email: text(self.email),
            kind,
            session,
            scope: text(self.scope).unwrap_or_default(),
            expires_at: Timestamp::from_millis(exp.min(LAST_SECOND) as i64 * 1000),
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// The claims of a token made here.
#[derive(Serialize)]
pub(super) struct Issued<'a> {
    pub(super) sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'a str>,
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aud: Option<&'a str>,
    pub(super) iat: u64,
    pub(super) exp: u64,
}
