//! What clients may say of a message, checked once for sockets and REST. Each function is given
//! the value of one field (`None` where the payload has none; `null` counts as none), and each
//! refusal names the field.
//!
//! How many characters and attachments a message may have is the operator's to say: `chat` checks
//! that.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, EMOJI_BYTES_MAX};
use crate::domain::{Error, NewAttachment};

/// The most characters of an attachment's `fileName`.
const FILE_NAME_CHARS_MAX: usize = 255;
/// The most characters of an attachment's `fileUrl`.
const FILE_URL_CHARS_MAX: usize = 2048;
/// The most characters of an attachment's `mimeType`.
const MIME_TYPE_CHARS_MAX: usize = 127;
/// The largest `fileSize`: the largest whole number that every JavaScript can tell from the next.
const FILE_SIZE_MAX: u64 = (1 << 53) - 1;
/// The most bytes of an attachment's `metadata`, as JSON.
const METADATA_BYTES_MAX: usize = 4096;
/// How deep objects and arrays in an attachment's `metadata` may nest.
const METADATA_DEPTH_MAX: usize = 16;

/// A file to be named with a message. The file itself is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "NewAttachment")]
#[schemars(extend("examples" = [{
    "fileName": "plan.pdf",
    "fileUrl": "https://files.example/plan.pdf",
    "mimeType": "application/pdf",
    "fileSize": 48_213
}]))]
pub struct AttachmentBody {
    /// What it is called.
    #[schemars(length(min = 1, max = FILE_NAME_CHARS_MAX), regex(pattern = NO_CONTROLS))]
    file_name: String,
    /// Where it is: `http:`, `https:`, or relative to the frontend.
    #[schemars(length(min = 1, max = FILE_URL_CHARS_MAX), regex(pattern = URL))]
    file_url: String,
    /// What it is.
    #[schemars(length(min = 1, max = MIME_TYPE_CHARS_MAX), regex(pattern = NO_CONTROLS))]
    mime_type: String,
    /// Its size in bytes.
    #[schemars(range(max = FILE_SIZE_MAX))]
    file_size: u64,
    /// What the frontend keeps beside it: at most 4 KiB.
    metadata: Option<Map<String, Value>>,
}

/// A session's id, as a pattern.
pub const SESSION_ID: &str = "^[A-Za-z0-9._:-]{1,128}$";
/// An agent's id, as a pattern.
pub const AGENT_ID: &str = "^[A-Za-z0-9._-]{1,64}$";
/// Texts without NUL, as a pattern.
pub const NO_NUL: &str = r"^[^\u0000]*$";
/// Texts without control characters, as a pattern.
pub const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// [`is_harmless_url`] as a pattern, but for the case of the schemes.
const URL: &str = r"^(https?:[^\u0000-\u0020\u007f-\u00a0]*|[^\u0000-\u0020\u007f-\u00a0:/?#]*([/?#][^\u0000-\u0020\u007f-\u00a0]*)?)$";

impl AttachmentBody {
    /// The attachment, where every field is within its limits.
    ///
    /// # Errors
    /// `INVALID`, naming the field.
    pub fn check(self) -> Result<NewAttachment, Error> {
        let text = |name: &str, text: String, max: usize| {
            let chars = text.chars().take(max + 1).count();
            if (1..=max).contains(&chars) && !text.contains(char::is_control) {
                return Ok(text);
            }
            Err(Error::invalid(format!(
                "{name} must have 1 to {max} characters, none of them a control character"
            )))
        };
        let file_url = text("fileUrl", self.file_url, FILE_URL_CHARS_MAX)?;
        if !is_harmless_url(&file_url) {
            let message = "fileUrl must be an http or https URL, or a relative one";
            return Err(Error::invalid(message));
        }
        if self.file_size > FILE_SIZE_MAX {
            return Err(Error::invalid(format!("fileSize must be at most {FILE_SIZE_MAX}")));
        }
        Ok(NewAttachment {
            file_name: text("fileName", self.file_name, FILE_NAME_CHARS_MAX)?,
            file_url,
            mime_type: text("mimeType", self.mime_type, MIME_TYPE_CHARS_MAX)?,
            file_size: self.file_size,
            metadata: metadata(self.metadata.unwrap_or_default())?,
        })
    }
}

/// A message's text: at least one character, no NUL, which databases do not store.
///
/// # Errors
/// `INVALID`.
pub fn content(value: Option<Value>) -> Result<String, Error> {
    let text = text("content", value)?.ok_or_else(|| Error::invalid("content is missing"))?;
    if text.is_empty() {
        return Err(Error::invalid("content must have at least 1 character"));
    }
    Ok(text)
}

/// The files named with a message; none where there is no value.
///
/// # Errors
/// `INVALID`.
pub fn attachments(value: Option<Value>) -> Result<Vec<NewAttachment>, Error> {
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(Error::invalid("attachments must be an array")),
    };
    let mut files = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        if !item.is_object() {
            return Err(Error::invalid(format!("attachments[{at}] must be an object")));
        }
        let body: AttachmentBody = serde_path_to_error::deserialize(item)
            .map_err(|error| Error::invalid(format!("attachments[{at}]: {}", unquoted(&error))))?;
        let named = |error: Error| Error::invalid(format!("attachments[{at}].{}", error.message));
        files.push(body.check().map_err(named)?);
    }
    Ok(files)
}

/// What is wrong, and where, without the value: it may be as long as a payload.
fn unquoted(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, fault) = (error.path(), error.inner().to_string());
    match fault.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{path}: expected {expected}"),
        None => fault,
    }
}

/// An emoji: 1 to [`EMOJI_BYTES_MAX`] bytes without white space and control characters.
///
/// # Errors
/// `INVALID`.
pub fn emoji(value: Option<Value>) -> Result<String, Error> {
    let text = text("emoji", value)?.ok_or_else(|| Error::invalid("emoji is missing"))?;
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if (1..=EMOJI_BYTES_MAX).contains(&text.len()) && !text.contains(odd) {
        return Ok(text);
    }
    Err(Error::invalid(format!("emoji must have 1 to {EMOJI_BYTES_MAX} bytes without white space")))
}

/// The client's own id for a message: 1 to [`CLIENT_MESSAGE_ID_BYTES_MAX`] bytes, no NUL.
///
/// # Errors
/// `INVALID`.
pub fn client_message_id(value: Option<Value>) -> Result<Option<String>, Error> {
    let Some(text) = text("clientMessageId", value)? else { return Ok(None) };
    if (1..=CLIENT_MESSAGE_ID_BYTES_MAX).contains(&text.len()) {
        return Ok(Some(text));
    }
    let message = format!("clientMessageId must have 1 to {CLIENT_MESSAGE_ID_BYTES_MAX} bytes");
    Err(Error::invalid(message))
}

fn text(name: &str, value: Option<Value>) -> Result<Option<String>, Error> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.contains('\0') => {
            Err(Error::invalid(format!("{name} must not contain NUL")))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(format!("{name} must be a string"))),
    }
}

/// Whether a frontend that makes a link of it runs nobody's script: a scheme, which browsers find
/// through white space, is `http` or `https`, or there is none.
fn is_harmless_url(url: &str) -> bool {
    if url.contains(char::is_whitespace) {
        return false;
    }
    let scheme = match url.find([':', '/', '?', '#']) {
        Some(at) if url[at..].starts_with(':') => &url[..at],
        _ => return true,
    };
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

fn metadata(map: Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let map = Value::Object(map);
    if map.to_string().len() > METADATA_BYTES_MAX {
        return Err(Error::invalid(format!(
            "metadata must have at most {METADATA_BYTES_MAX} bytes"
        )));
    }
    if !is_storable(&map, METADATA_DEPTH_MAX) {
        let message =
            format!("metadata must not contain NUL, nor nest deeper than {METADATA_DEPTH_MAX}");
        return Err(Error::invalid(message));
    }
    match map {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// PostgreSQL's `jsonb` has no NUL.
fn is_storable(value: &Value, depth: usize) -> bool {
    match value {
        Value::String(text) => !text.contains('\0'),
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_storable(item, depth - 1)),
        Value::Object(map) => {
            depth > 0
                && map.iter().all(|(key, item)| !key.contains('\0') && is_storable(item, depth - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(field: &str, value: Value) -> Value {
        let mut file = json!({
            "fileName": "a.png", "fileUrl": "https://x.example/a", "mimeType": "image/png",
            "fileSize": 1,
        });
        file[field] = value;
        json!([file])
    }

    fn refused(field: &str, value: Value) -> String {
        attachments(Some(file(field, value))).unwrap_err().message
    }

    #[test]
    fn an_attachment_is_taken_up_to_its_limits() {
        for (field, value) in [
            ("fileName", json!("ä".repeat(255))),
            ("fileUrl", json!("x".repeat(2048))),
            ("mimeType", json!("x".repeat(127))),
            ("fileSize", json!(9_007_199_254_740_991_u64)),
            ("fileSize", json!(0)),
            ("metadata", json!({ "a": "x".repeat(4096 - 8) })),
            ("metadata", Value::Null),
        ] {
            assert_eq!(attachments(Some(file(field, value))).map(|files| files.len()), Ok(1));
        }
        assert_eq!(attachments(None), Ok(Vec::new()));
        assert_eq!(attachments(Some(Value::Null)), Ok(Vec::new()));
    }

    #[test]
    fn beyond_its_limits_it_is_refused_and_the_field_is_named() {
        for (field, value) in [
            ("fileName", json!("")),
            ("fileName", json!("ä".repeat(256))),
            ("fileName", json!("a\nb")),
            ("fileName", json!(1)),
            ("fileUrl", json!("x".repeat(2049))),
            ("mimeType", json!("x".repeat(128))),
            ("fileSize", json!(9_007_199_254_740_992_u64)),
            ("fileSize", json!(-1)),
            ("fileSize", json!(0.5)),
            ("metadata", json!([])),
            ("metadata", json!({ "a": "x".repeat(4096 - 7) })),
            ("metadata", json!({ "a": ["\0"] })),
            ("metadata", json!({ "\0": 1 })),
        ] {
            let message = refused(field, value);
            assert!(message.starts_with("attachments[0]"), "{message}");
            assert!(message.contains(field), "{message}");
        }
        let message = refused("fileSize", json!("secret"));
        assert!(!message.contains("secret"), "it is not said again: {message}");
        assert!(attachments(Some(json!({}))).is_err());
        assert!(attachments(Some(json!([null]))).is_err());
    }

    #[test]
    fn a_url_never_runs_a_script() {
        for good in ["HTTPS://x", "http://x:80/", "/files/a:b", "a.png", "?q=a:b", "#javascript:x"]
        {
            assert!(is_harmless_url(good), "{good}");
        }
        for bad in ["javascript:x", "JavaScript:x", " javascript:x", "java script:x", "data:x", ":"]
        {
            assert!(!is_harmless_url(bad), "{bad}");
        }
    }

    #[test]
    fn texts_are_there_within_their_limits_and_without_nul() {
        assert_eq!(content(Some(json!(" "))), Ok(" ".to_owned()));
        for bad in [None, Some(json!("")), Some(json!("a\0")), Some(json!(1)), Some(Value::Null)] {
            assert!(content(bad.clone()).unwrap_err().message.contains("content"), "{bad:?}");
        }
        assert_eq!(emoji(Some(json!("👩‍👩‍👧‍👦"))), Ok("👩‍👩‍👧‍👦".to_owned()));
        for bad in [json!(""), json!("a b"), json!("\u{7}"), json!("x".repeat(65)), json!(1)] {
            assert!(emoji(Some(bad.clone())).is_err(), "{bad}");
        }
        assert_eq!(client_message_id(None), Ok(None));
        assert_eq!(client_message_id(Some(json!("x"))), Ok(Some("x".to_owned())));
        for bad in [json!(""), json!("x".repeat(129)), json!("\0"), json!({})] {
            assert!(client_message_id(Some(bad.clone())).is_err(), "{bad}");
        }
    }
}
