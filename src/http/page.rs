//! What is asked of lists: how many of a page, and from where on.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::chat::Chat;

/// What lists and searches are bounded by. `chat` holds to it; here it is read and described.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    page_max: u32,
    search_chars_max: usize,
}

/// Marks, in the schema of a parameter, which of [`Bounds`] it has.
const BOUND: &str = "x-bound";

impl Bounds {
    pub(super) fn of(chat: &Chat) -> Self {
        Self { page_max: chat.page_max(), search_chars_max: chat.search_chars_max() }
    }

    /// Puts the bound into the schema that is marked for it.
    pub(super) fn say(self, schema: &mut Value) {
        let Some(schema) = schema.as_object_mut() else { return };
        match schema.remove(BOUND).as_ref().and_then(Value::as_str) {
            Some("page") => {
                schema.insert("maximum".to_owned(), self.page_max.into());
                let default = schema.get("default").and_then(Value::as_u64).unwrap_or_default();
                let default = default.min(self.page_max.into());
                schema.insert("default".to_owned(), default.into());
            }
            Some("search") => {
                schema.insert("maxLength".to_owned(), self.search_chars_max.into());
            }
            _ => {}
        }
    }
}

/// How many of a page, as it is asked for.
#[derive(Default)]
pub(super) struct Limit<const DEFAULT: u32>(Option<u32>);

impl<const DEFAULT: u32> Limit<DEFAULT> {
    /// As many as are asked for, which may be too many; else the default, or what a page holds.
    pub(super) fn of(&self, chat: &Chat) -> u32 {
        self.0.unwrap_or(DEFAULT.min(chat.page_max()))
    }
}

impl<'de, const DEFAULT: u32> Deserialize<'de> for Limit<DEFAULT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What is no number counts as 0, and what is too large for one as the largest: the bounds
        // refuse both, and say what they are.
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = if is_number { text.parse().unwrap_or(u32::MAX) } else { 0 };
        Ok(Self(Some(limit)))
    }
}

impl<const DEFAULT: u32> JsonSchema for Limit<DEFAULT> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Limit{DEFAULT}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer", "minimum": 1, BOUND: "page", "default": DEFAULT,
            "description": "How many at most.",
        })
    }
}

/// The largest offset: no session has as many messages.
const OFFSET_MAX: u64 = 1_000_000_000;

/// How many to leave out.
#[derive(Default)]
pub(super) struct Offset(pub(super) u64);

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let offset = whole_number(&String::deserialize(deserializer)?);
        let rule = || D::Error::custom(format!("must be a whole number from 0 to {OFFSET_MAX}"));
        offset.filter(|offset| *offset <= OFFSET_MAX).map(Self).ok_or_else(rule)
    }
}

impl JsonSchema for Offset {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Offset".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer", "minimum": 0, "maximum": OFFSET_MAX, "default": 0,
            "description": "How many to leave out.",
        })
    }
}

/// Digits only: `str::parse` takes `+1` too.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
