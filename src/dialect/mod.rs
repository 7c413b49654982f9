//! Vocabularies: how one family of frontends asks ([`Dialect::decode`]) and what it hears
//! ([`Dialect::encode`]).
//!
//! Pure: a dialect knows JSON and the domain, no transport, no runtime and no other dialect. A
//! new one is one file and one line in [`Dialects::new`].

mod fields;
mod ids;
pub mod payload;
mod session;
pub mod wire;

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

pub use self::ids::Ids;
use crate::domain::{
    Command, Error, Event, GenerationId, MessageId, PresenceChange, Reply, SessionId, Signal,
};

/// An event on its way to a client: the same bytes for every reader of the dialect.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The event's name. Plain ASCII that JSON does not escape.
    pub event: &'static str,
    /// Its one argument.
    pub payload: Arc<RawValue>,
}

impl Frame {
    /// An event with one argument.
    pub fn new<T: Serialize>(event: &'static str, payload: &T) -> Self {
        Self { event, payload: raw(payload).into() }
    }

    /// The bytes it takes as a Socket.IO packet of a namespace with this name,
    /// `2/chat,["event",payload]`, behind Engine.IO's own type byte.
    pub fn packet_bytes(&self, namespace: &str) -> u64 {
        let fixed = r#"42,["",]"#.len();
        (fixed + namespace.len() + self.event.len() + self.payload.get().len()) as u64
    }
}

/// Text to be shown: `delta` stands at `utf16_offset` of the answer.
#[derive(Debug, Clone, Copy)]
pub struct TextShown<'a> {
    /// Whose.
    pub generation: GenerationId,
    /// The answer's id.
    pub message: MessageId,
    /// Counts the chunks as they were made; that of the last one in `delta`.
    pub seq: u64,
    /// Where `delta` starts, in UTF-16 code units.
    pub utf16_offset: u64,
    /// The new text.
    pub delta: &'a str,
    /// The whole text up to the end of `delta`.
    pub so_far: &'a str,
    /// Tokens up to the end of `delta`.
    pub tokens: u64,
}

/// What a reader is shown.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// An event of the log. `seq` is the next chunk's of the generation that it is about.
    Event {
        /// The event.
        event: &'a Event,
        /// See above.
        seq: u64,
    },
    /// New text.
    Text(TextShown<'a>),
    /// A passing signal.
    Signal(&'a Signal),
}

impl Shown<'_> {
    /// The message that it brings, whole or bit by bit.
    pub fn brings(&self) -> Option<MessageId> {
        match self {
            Self::Event { event, .. } => event.kind.brings(),
            Self::Text(text) => Some(text.message),
            Self::Signal(_) => None,
        }
    }
}

/// Who a socket is, for its greeting.
#[derive(Debug, Clone, Copy)]
pub struct Greeting<'a> {
    /// The user.
    pub user: &'a str,
    /// Its own transport id. Never shown to anybody else.
    pub socket: &'a str,
    /// The node it is on.
    pub node: &'a str,
    /// The node's clock.
    pub now: crate::domain::Timestamp,
    /// Whether Socket.IO recovered its state.
    pub recovered: bool,
}

/// Why a command was not carried out, as its client is told.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// What the client called it.
    pub event: &'a str,
    /// Why.
    pub error: &'a Error,
    /// What it was about.
    pub ids: &'a Ids,
}

/// A command's answer in a dialect's words.
#[derive(Debug)]
pub struct Answer {
    /// For the acknowledgement, where the client asked for one.
    pub ack: Box<RawValue>,
    /// Sent after the acknowledgement, before anything that is live.
    pub frames: Vec<Frame>,
}

/// One vocabulary.
pub trait Dialect: Send + Sync {
    /// Its name in the handshake and in metrics.
    fn name(&self) -> &'static str;

    /// The events it understands.
    fn commands(&self) -> &'static [&'static str];

    /// The events it sends.
    fn shown(&self) -> &'static [&'static str];

    /// Understands an event.
    ///
    /// # Errors
    /// `INVALID` where it does not know the event, or the payload has the wrong shape, size or
    /// values; the message names the field.
    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error>;

    /// The events that show this to a reader, in order; none where this dialect has no word for
    /// it.
    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame>;

    /// Says that somebody came or went. `None` where this dialect has no word for it.
    fn presence(&self, change: &PresenceChange) -> Option<Frame>;

    /// Says that the reader may not see a session any more, and has been taken out of it.
    fn revoked(&self, session: &SessionId) -> Frame;

    /// A command's answer.
    fn answer(&self, reply: &Reply) -> Answer;

    /// The first event on a new connection, where the dialect has one.
    fn greet(&self, greeting: Greeting<'_>) -> Option<Frame>;

    /// The error event for a command that carried no acknowledgement.
    fn error(&self, refusal: &Refusal<'_>) -> Frame;

    /// Says that the node is about to close the connection.
    fn shutdown(&self, reconnect_in: std::time::Duration) -> Frame;

    /// Says that the connection is about to be closed for its age.
    fn timeout(&self) -> Frame;
}

/// All dialects, by name and by index. The order is fixed for the life of the process.
#[derive(Clone)]
pub struct Dialects {
    all: Arc<[Arc<dyn Dialect>]>,
}

/// A dialect's place in [`Dialects`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialectIndex(usize);

impl Dialects {
    /// Every dialect there is. `cumulative`: each chunk carries the whole text so far, where the
    /// dialect has a place for it (`STREAM_CHUNK_CONTENT`).
    pub fn new(cumulative: bool) -> Self {
        Self { all: Arc::new([Arc::new(session::SessionDialect { cumulative })]) }
    }

    /// How many there are; indices are below it.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Never: there is always one.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The dialect of this name.
    pub fn by_name(&self, name: &str) -> Option<DialectIndex> {
        self.all.iter().position(|dialect| dialect.name() == name).map(DialectIndex)
    }

    /// The dialect at an index.
    pub fn get(&self, index: DialectIndex) -> &dyn Dialect {
        &*self.all[index.0]
    }

    /// The events that any of them understands.
    pub fn commands(&self) -> Vec<&'static str> {
        self.all.iter().flat_map(|dialect| dialect.commands()).copied().collect()
    }

    /// The events that any of them sends.
    pub fn shown(&self) -> Vec<&'static str> {
        self.all.iter().flat_map(|dialect| dialect.shown()).copied().collect()
    }
}

impl From<Vec<Arc<dyn Dialect>>> for Dialects {
    /// These, in this order.
    fn from(all: Vec<Arc<dyn Dialect>>) -> Self {
        Self { all: all.into() }
    }
}

impl DialectIndex {
    /// Its place, for arrays with one slot for each dialect.
    pub fn slot(self) -> usize {
        self.0
    }
}

/// JSON text of a value that cannot fail to be written: every key is a string.
pub(crate) fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("wire types have string keys and no failing serializers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_as_long_as_socketioxide_writes_it() {
        let frame = Frame::new("stream:chunk", &serde_json::json!({ "delta": "é" }));
        let written = format!(r#"42/chat,["stream:chunk",{}]"#, frame.payload.get());
        assert_eq!(frame.packet_bytes("/chat"), written.len() as u64);
    }

    #[test]
    fn a_dialect_is_found_by_its_name_and_an_event_by_its_word() {
        let dialects = Dialects::new(false);
        let session = dialects.by_name("session").expect("there is one");
        assert_eq!(dialects.get(session).name(), "session");
        assert!(dialects.by_name("nonsense").is_none());
        assert!(dialects.commands().contains(&"stream:request"));
    }
}
