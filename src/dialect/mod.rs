//! Vocabularies: how one family of frontends asks ([`Dialect::decode`]) and what it hears
//! ([`Vocabulary::encode`]).
//!
//! Pure: a dialect knows JSON and the domain, no transport, no runtime and no other dialect. A
//! new one is one file and one line in [`Dialects::new`].

mod acks;
mod conversation;
mod fields;
mod ids;
pub mod offset;
pub mod payload;
mod persona;
mod session;
mod spec;
mod sse;
mod stage;
mod subscribe;
#[cfg(test)]
mod suite;
pub mod wire;

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

pub use self::ids::Ids;
pub use self::spec::{CommandSpec, EventSpec, SchemaOf};
use crate::domain::{
    AgentId, Command, Cursor, Error, Event, GenerationId, MessageId, PresenceChange, Reply,
    SessionId, Signal,
};

/// An event on its way to a client: the same bytes for every reader of the dialect.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The event's name. Plain ASCII that JSON does not escape; empty for an event without a name,
    /// which only SSE has.
    pub event: &'static str,
    /// Its one argument.
    pub payload: Arc<RawValue>,
    /// Where a reader stands that has it, as its transport tells that: an SSE event's id, or the
    /// [`offset`] of a socket that is in this session only. `None`: it changes no place.
    pub cursor: Option<Arc<str>>,
}

impl Frame {
    /// An event with one argument.
    pub fn new<T: Serialize>(event: &'static str, payload: &T) -> Self {
        Self { event, payload: raw(payload).into(), cursor: None }
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
    /// The ordinal of the stored answer, where that is what it is of; 0 while it is written.
    pub ordinal: u64,
    /// Where a reader stands that has it, where that is known.
    pub cursor: Option<&'a Cursor>,
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
        /// Where a reader stands that has it; `None` while the log does not have the event.
        cursor: Option<&'a Cursor>,
    },
    /// To a reader that has just joined: this answer is being written. What there is of its text
    /// follows, from the start or, where the reader has a part of it, from there.
    Running {
        /// Which.
        generation: GenerationId,
        /// The answer's id.
        message: MessageId,
        /// Who answers.
        agent: &'a AgentId,
        /// Where the reader stands that was told so.
        cursor: &'a Cursor,
    },
    /// New text.
    Text(TextShown<'a>),
    /// A passing signal.
    Signal(&'a Signal),
}

impl Shown<'_> {
    /// The answer that it is about.
    pub fn generation(&self) -> Option<GenerationId> {
        match self {
            Self::Event { event, .. } => event.kind.generation(),
            Self::Running { generation, .. } => Some(*generation),
            Self::Text(text) => Some(text.generation),
            Self::Signal(_) => None,
        }
    }

    /// Where a reader stands that has it, where it changes that.
    fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::Event { cursor, .. } => *cursor,
            Self::Running { cursor, .. } => Some(cursor),
            Self::Text(text) => text.cursor,
            Self::Signal(_) => None,
        }
    }

    /// The message that it brings, whole or bit by bit.
    pub fn brings(&self) -> Option<MessageId> {
        match self {
            Self::Event { event, .. } => event.kind.brings(),
            Self::Text(text) => Some(text.message),
            Self::Running { message, .. } => Some(*message),
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

/// How a session is shown: all that the hub has to know of a dialect, and all there is of SSE.
pub trait Vocabulary: Send + Sync {
    /// Its name in the handshake and in metrics.
    fn name(&self) -> &'static str;

    /// The events it sends.
    fn shown(&self) -> &'static [EventSpec];

    /// The events that show this to a reader, in order; none where this dialect has no word for
    /// it.
    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame>;

    /// Whether its frontends forget the text of a running answer when they have joined, also where
    /// they were in the session already: whoever joins again is shown it again then, from its
    /// start, after what says so.
    fn forgets_on_join(&self) -> bool {
        false
    }

    /// Says that somebody came or went. `None` where this dialect has no word for it.
    fn presence(&self, _change: &PresenceChange) -> Option<Frame> {
        None
    }

    /// Says that the reader was shown all messages of a session, but maybe not what changed about
    /// older ones meanwhile, nor those that are too many. `None` where this dialect has no word for
    /// it.
    fn incomplete(&self, _session: &SessionId) -> Option<Frame> {
        None
    }
}

/// One vocabulary of sockets, which also ask.
pub trait Dialect: Vocabulary {
    /// The events it understands.
    fn commands(&self) -> &'static [CommandSpec];

    /// Whether an event is one of this dialect's, as far as its name and the presence of fields
    /// tell; `payload` is its first argument, where that is an object. By the first event that
    /// only one dialect claims, a socket's dialect is settled.
    fn claims(&self, event: &str, _payload: &serde_json::Map<String, serde_json::Value>) -> bool {
        self.commands().iter().any(|command| command.name == event)
    }

    /// Understands an event.
    ///
    /// # Errors
    /// `INVALID` where it does not know the event, or the payload has the wrong shape, size or
    /// values; the message names the field.
    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error>;

    /// Says that the reader may not see a session any more, and has been taken out of it.
    fn revoked(&self, session: &SessionId) -> Frame;

    /// A command's answer.
    fn answer(&self, reply: &Reply) -> Answer;

    /// The first event on a new connection, where the dialect has one.
    fn greet(&self, _greeting: Greeting<'_>) -> Option<Frame> {
        None
    }

    /// The error event for a command that carried no acknowledgement.
    fn error(&self, refusal: &Refusal<'_>) -> Frame;

    /// Says that the node is about to close the connection, where the dialect has a word for it.
    fn shutdown(&self, _reconnect_in: std::time::Duration) -> Option<Frame> {
        None
    }

    /// Says that the connection is about to be closed for its age, where the dialect has a word
    /// for it.
    fn timeout(&self) -> Option<Frame> {
        None
    }
}

/// All vocabularies, by name and by index. The order is fixed for the life of the process.
#[derive(Clone)]
pub struct Dialects {
    sockets: Arc<[Arc<dyn Dialect>]>,
    sse: Arc<dyn Vocabulary>,
    has_offsets: bool,
}

/// A vocabulary's place in [`Dialects`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialectIndex(usize);

impl Dialects {
    /// Every dialect there is. `cumulative`: each chunk carries the whole text so far, where the
    /// dialect has a place for it (`STREAM_CHUNK_CONTENT`). Their order is part of [`offset`]s: a
    /// new one comes last.
    pub fn new(cumulative: bool) -> Self {
        Self::from(vec![
            Arc::new(session::SessionDialect { cumulative }) as Arc<dyn Dialect>,
            Arc::new(subscribe::SubscribeDialect),
            Arc::new(conversation::ConversationDialect),
            Arc::new(persona::PersonaDialect),
        ])
    }

    /// The same, whose events carry no offset: connections are not recovered.
    pub fn without_offsets(self) -> Self {
        Self { has_offsets: false, ..self }
    }

    /// Whether events carry offsets.
    pub fn has_offsets(&self) -> bool {
        self.has_offsets
    }

    /// The events that show this to a reader with this index, in order, each with the cursor of
    /// whoever has it. Of several that say one event, those but the last say of which part they
    /// are the end, so that nobody is shown a part twice.
    pub fn encode(&self, index: DialectIndex, session: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        let mut frames = self.vocabulary(index).encode(session, shown);
        let Some(cursor) = shown.cursor().filter(|_| self.has_offsets) else { return frames };
        if index == self.sse() {
            return frames;
        }
        let last = frames.len().saturating_sub(1);
        for (at, frame) in frames.iter_mut().enumerate() {
            let part = if at < last { u8::try_from(at + 1).unwrap_or(u8::MAX) } else { 0 };
            let offset = match part {
                0 => offset::of(index, session, cursor),
                part => offset::of(index, session, &Cursor { part, ..cursor.clone() }),
            };
            frame.cursor = Some(offset.into());
        }
        frames
    }

    /// [`Vocabulary::incomplete`], to a reader that stands at `cursor` then.
    pub fn incomplete(
        &self,
        index: DialectIndex,
        session: &SessionId,
        cursor: &Cursor,
    ) -> Option<Frame> {
        let mut frame = self.vocabulary(index).incomplete(session)?;
        if self.has_offsets && index != self.sse() {
            frame.cursor = Some(offset::of(index, session, cursor).into());
        }
        Some(frame)
    }

    /// How many vocabularies there are, that of SSE included; slots are below it.
    pub fn slots(&self) -> usize {
        self.sockets.len() + 1
    }

    /// The dialect of this name, where sockets speak it.
    pub fn by_name(&self, name: &str) -> Option<DialectIndex> {
        self.sockets.iter().position(|dialect| dialect.name() == name).map(DialectIndex)
    }

    /// The first and native one: that of sockets that have not settled on another.
    pub fn native(&self) -> DialectIndex {
        DialectIndex(0)
    }

    /// What SSE readers are shown.
    pub fn sse(&self) -> DialectIndex {
        DialectIndex(self.sockets.len())
    }

    /// The dialect at an index.
    ///
    /// # Panics
    /// For that of SSE, which no socket speaks.
    pub fn get(&self, index: DialectIndex) -> &dyn Dialect {
        &*self.sockets[index.0]
    }

    /// How a reader with this index is shown things.
    pub fn vocabulary(&self, index: DialectIndex) -> &dyn Vocabulary {
        match self.sockets.get(index.0) {
            Some(dialect) => &**dialect,
            None => &*self.sse,
        }
    }

    /// All that sockets speak, in their order.
    pub fn sockets(&self) -> impl Iterator<Item = &dyn Dialect> {
        self.sockets.iter().map(|dialect| &**dialect)
    }

    /// The dialect that a socket speaks whose first understood event this is: the only one that
    /// claims it; where several do, `default` if it is among them, else the first. `None` where
    /// none does.
    pub fn settle(
        &self,
        event: &str,
        args: &[&RawValue],
        default: DialectIndex,
    ) -> Option<DialectIndex> {
        let payload = args.first().and_then(|first| serde_json::from_str(first.get()).ok());
        let payload = payload.unwrap_or_default();
        let mut claimed = (0..self.sockets.len())
            .map(DialectIndex)
            .filter(|index| self.get(*index).claims(event, &payload));
        let first = claimed.next()?;
        Some(if claimed.any(|index| index == default) { default } else { first })
    }

    /// The events that any of them understands, each once.
    pub fn commands(&self) -> Vec<&'static str> {
        let all = self.sockets().flat_map(|dialect| dialect.commands());
        once(all.map(|command| command.name))
    }

    /// The events that any dialect of sockets sends, each once.
    pub fn shown(&self) -> Vec<&'static str> {
        let all = self.sockets().flat_map(|dialect| dialect.shown());
        once(all.map(|event| event.name))
    }
}

fn once(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl From<Vec<Arc<dyn Dialect>>> for Dialects {
    /// These, in this order.
    fn from(all: Vec<Arc<dyn Dialect>>) -> Self {
        Self { sockets: all.into(), sse: Arc::new(sse::Sse), has_offsets: true }
    }
}

impl DialectIndex {
    /// Its place, for arrays with one slot for each vocabulary.
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
