//! Reads a payload field by field, so that every refusal names the field.

use std::str::FromStr;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::ids::InvalidId;
use crate::domain::{Error, MessageId};

/// Whether an object has this field; one that is null is none, as for [`Fields`].
pub(super) fn names(object: &Map<String, Value>, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

/// A JSON object whose fields are taken out by name.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The first argument of an event, which has to be an object.
    pub(super) fn of(args: &[&RawValue]) -> Result<Self, Error> {
        let first = args.first().ok_or_else(|| Error::invalid("the payload is missing"))?;
        Self::parse(first.get())
    }

    /// The same, where a bare string stands for an object that has only this field.
    pub(super) fn of_either(args: &[&RawValue], name: &str) -> Result<Self, Error> {
        let bare = args.first().and_then(|first| serde_json::from_str(first.get()).ok());
        match bare {
            Some(text) => Ok(Self([(name.to_owned(), Value::String(text))].into_iter().collect())),
            None => Self::of(args),
        }
    }

    fn parse(json: &str) -> Result<Self, Error> {
        serde_json::from_str(json)
            .map(Self)
            .map_err(|_| Error::invalid("the payload must be a JSON object"))
    }

    /// A field that may be missing or null.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => {
                Err(Error::invalid(format!("{name} must not contain NUL")))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(format!("{name} must be a string"))),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String, Error> {
        self.optional_text(name)?.ok_or_else(|| Error::invalid(format!("{name} is missing")))
    }

    /// A text of at least one and at most so many bytes.
    pub(super) fn optional_short_text(
        &mut self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<String>, Error> {
        let text = self.optional_text(name)?;
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > bytes_max) {
            return Err(Error::invalid(format!("{name} must have 1 to {bytes_max} bytes")));
        }
        Ok(text)
    }

    /// A message's id. One that is no id of ours is one that does not exist.
    pub(super) fn message(&mut self, name: &str) -> Result<MessageId, Error> {
        self.optional_message(name)?.ok_or_else(|| Error::invalid(format!("{name} is missing")))
    }

    pub(super) fn optional_message(&mut self, name: &str) -> Result<Option<MessageId>, Error> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Error::not_found("message"))
    }

    /// A string that an id is made of.
    pub(super) fn parsed<T>(&mut self, name: &str) -> Result<T, Error>
    where
        T: FromStr<Err = InvalidId>,
    {
        self.optional_parsed(name)?.ok_or_else(|| Error::invalid(format!("{name} is missing")))
    }

    pub(super) fn optional_parsed<T>(&mut self, name: &str) -> Result<Option<T>, Error>
    where
        T: FromStr<Err = InvalidId>,
    {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        let refused = |error: InvalidId| Error::invalid(format!("{name} must be {}", error.rule()));
        text.parse().map(Some).map_err(refused)
    }

    /// A number within a range.
    pub(super) fn optional_number(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f64>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_f64().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "{name} must be a number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// A whole number within a range.
    pub(super) fn optional_integer(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "{name} must be a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Error> {
        let value = self.value(name).ok_or_else(|| Error::invalid(format!("{name} is missing")))?;
        value.as_bool().ok_or_else(|| Error::invalid(format!("{name} must be true or false")))
    }

    /// An object within the object.
    pub(super) fn optional_object(&mut self, name: &str) -> Result<Option<Self>, Error> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self(map))),
            Some(_) => Err(Error::invalid(format!("{name} must be an object"))),
        }
    }

    /// What the object holds, name by name.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter()
    }

    /// How many fields are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
