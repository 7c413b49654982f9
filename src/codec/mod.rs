//! How an event and a signal are written where nodes of different versions read them: in the
//! log, in the outbox and on the channel between nodes.
//!
//! JSON with a version. A reader passes over fields it does not know, so a field may be added
//! within a version as long as older nodes may ignore it, and so may a kind and what is beside an
//! answer; anything else is a new version. What is in an unknown version or of an unknown kind is never guessed: an event
//! reads as [`EventKind::Unknown`], since it holds its place in a log all the same, and a signal
//! is refused. It must not know where the bytes are kept, nor what clients are shown: that is a
//! dialect's.

mod beside;
mod message;
mod signal;
mod wire;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{Event, EventId, EventKind, Signal, Timestamp};

/// The version this build writes, and the only one it reads.
const VERSION: u64 = 1;

/// The bytes are not what this build can read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Another version wrote the signal.
    #[error("written in version {0}, which this node does not read")]
    Version(u64),
    /// They are no JSON of this version, or of a kind that this version does not have.
    #[error("not an event or signal of version {VERSION}")]
    Malformed(#[source] serde_json::Error),
    /// The named field holds what it must not, such as an id of the wrong shape.
    #[error("\"{0}\" holds no valid value")]
    Value(&'static str),
}

/// What tells a version, in all versions.
#[derive(Deserialize)]
struct Head {
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct EventWire<'a> {
    v: u64,
    id: String,
    at: i64,
    #[serde(borrow)]
    event: wire::Kind<'a>,
}

/// What can be told of an event that this build does not know.
#[derive(Deserialize)]
struct Stranger {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    at: Value,
    #[serde(default)]
    event: Value,
}

#[derive(Serialize, Deserialize)]
struct SignalWire<'a> {
    v: u64,
    #[serde(borrow)]
    signal: signal::Signal<'a>,
}

/// Writes an event. [`decode_event`] gives back its equal, except that a retry delay is kept in
/// whole milliseconds. An event that was not understood is not to be written again, since what it
/// said would be lost.
pub fn encode_event(event: &Event) -> Vec<u8> {
    debug_assert_ne!(event.kind, EventKind::Unknown, "it is only read");
    write(&EventWire {
        v: VERSION,
        id: event.id.to_string(),
        at: event.at.as_millis(),
        event: wire::Kind::from(&event.kind),
    })
}

/// Reads an event. One in another version or of a kind that this build does not know is
/// [`EventKind::Unknown`], with its id and time where these can be read, else a new id and the
/// present.
///
/// # Errors
/// [`CodecError`] where no build can have written `bytes`, or this one's version has another value
/// where it stands.
pub fn decode_event(bytes: &[u8]) -> Result<Event, CodecError> {
    let head: Head = serde_json::from_slice(bytes).map_err(CodecError::Malformed)?;
    if head.v != VERSION {
        return stranger(bytes).map(unknown);
    }
    let wire: EventWire<'_> = match serde_json::from_slice(bytes) {
        Ok(wire) => wire,
        Err(error) => {
            return match stranger(bytes)? {
                stranger if is_unknown_kind(&stranger.event) => Ok(unknown(stranger)),
                _ => Err(CodecError::Malformed(error)),
            };
        }
    };
    Ok(Event {
        id: wire.id.parse::<EventId>().map_err(|_| CodecError::Value("id"))?,
        at: Timestamp::from_millis(wire.at),
        kind: wire.event.try_into()?,
    })
}

fn stranger(bytes: &[u8]) -> Result<Stranger, CodecError> {
    serde_json::from_slice(bytes).map_err(CodecError::Malformed)
}

/// Whether an event is of a kind that this build does not know, rather than a broken one of those
/// that it does.
fn is_unknown_kind(event: &Value) -> bool {
    let name = match event {
        // A kind that has nothing to say but its name.
        Value::String(name) => name,
        Value::Object(kind) if kind.len() == 1 => kind.keys().next().expect("it has one"),
        _ => return false,
    };
    !wire::KINDS.contains(&name.as_str())
}

fn unknown(stranger: Stranger) -> Event {
    let id = stranger.id.as_str().and_then(|id| id.parse::<EventId>().ok());
    let at = stranger.at.as_i64().map(Timestamp::from_millis);
    let new = Event::new(EventKind::Unknown);
    Event { id: id.unwrap_or(new.id), at: at.unwrap_or(new.at), kind: new.kind }
}

/// Writes a signal. [`decode_signal`] gives back its equal.
pub fn encode_signal(signal: &Signal) -> Vec<u8> {
    write(&SignalWire { v: VERSION, signal: signal::Signal::from(signal) })
}

/// Reads a signal.
///
/// # Errors
/// [`CodecError`] where this build cannot have written `bytes`.
pub fn decode_signal(bytes: &[u8]) -> Result<Signal, CodecError> {
    read::<SignalWire<'_>>(bytes)?.signal.try_into()
}

fn write<T: Serialize>(wire: &T) -> Vec<u8> {
    serde_json::to_vec(wire).expect("strings, integers and maps with string keys are always JSON")
}

/// The version first, since another version's shape would only look malformed.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let head: Head = serde_json::from_slice(bytes).map_err(CodecError::Malformed)?;
    if head.v != VERSION {
        return Err(CodecError::Version(head.v));
    }
    serde_json::from_slice(bytes).map_err(CodecError::Malformed)
}
