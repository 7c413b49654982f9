//! A dialect that tells each frame's cursor, a client that puts together what it is told, and a
//! conversation to be told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokencast::adapter::Log;
use tokencast::dialect::{
    Answer, CommandSpec, Dialect, Dialects, EventSpec, Frame, Greeting, Refusal, Shown, Vocabulary,
};
use tokencast::domain::{
    AgentId, Author, Chunk, Command, Cursor, Error, ErrorCode, Event, EventKind, GenerationId,
    Message, MessageId, PresenceChange, Reply, SessionId, StopReason, Timestamp, Usage, UserId,
};

use tokencast::hub::Stored;

use super::message;

pub struct Told;

/// The only dialect, `told`.
pub fn dialects() -> Dialects {
    Dialects::from(vec![Arc::new(Told) as Arc<dyn Dialect>])
}

impl Vocabulary for Told {
    fn name(&self) -> &'static str {
        "told"
    }
    fn shown(&self) -> &'static [EventSpec] {
        &[]
    }
    fn encode(&self, _: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        let told = |cursor: Option<&Cursor>| cursor.map(Cursor::to_string);
        let (word, body) = match shown {
            Shown::Running { generation, .. } => {
                ("running", json!({ "about": generation.to_string() }))
            }
            Shown::Text(text) => {
                let about = text.generation.to_string();
                let body = json!({ "about": about, "offset": text.utf16_offset,
                    "delta": text.delta, "cursor": told(text.cursor) });
                assert!(text.so_far.ends_with(text.delta));
                ("text", body)
            }
            Shown::Event { event, cursor, .. } => {
                let (word, about) = word(&event.kind);
                (word, json!({ "about": about, "cursor": told(cursor) }))
            }
            Shown::Signal(_) => ("signal", json!({})),
        };
        vec![Frame::new(word, &body)]
    }
    fn presence(&self, _: &PresenceChange) -> Option<Frame> {
        None
    }
}

fn word(kind: &EventKind) -> (&'static str, String) {
    let generation = kind.generation().map(|generation| generation.to_string());
    let word = match kind {
        EventKind::MessageNew(message) => return ("new", message.id.to_string()),
        EventKind::GenerationStarted { .. } => "start",
        EventKind::GenerationResumed { .. } => "resumed",
        EventKind::GenerationReset { .. } => "reset",
        EventKind::GenerationCompleted { .. } => "completed",
        EventKind::GenerationStopped { .. } => "stopped",
        EventKind::GenerationFailed { .. } => "failed",
        _ => "other",
    };
    (word, generation.unwrap_or_default())
}

impl Dialect for Told {
    fn commands(&self) -> &'static [CommandSpec] {
        &[]
    }
    fn decode(&self, _: &str, _: &[&RawValue]) -> Result<Command, Error> {
        Err(Error::invalid("it has no commands"))
    }
    fn revoked(&self, _: &SessionId) -> Frame {
        Frame::new("out", &json!({}))
    }
    fn answer(&self, _: &Reply) -> Answer {
        Answer { ack: RawValue::from_string("{}".to_owned()).unwrap(), frames: Vec::new() }
    }
    fn greet(&self, _: Greeting<'_>) -> Option<Frame> {
        None
    }
    fn error(&self, _: &Refusal<'_>) -> Frame {
        Frame::new("error", &json!({}))
    }
    fn shutdown(&self, _: Duration) -> Option<Frame> {
        None
    }
    fn timeout(&self) -> Option<Frame> {
        None
    }
}

/// What a client has that was told all this. Two that were told the same are equal, however the
/// text came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Events in order; an end with the whole text.
    pub events: Vec<String>,
    pub texts: BTreeMap<String, String>,
}

impl Client {
    pub fn hear(&mut self, frames: &[(String, Value)]) {
        for (word, body) in frames {
            let about = body["about"].as_str().unwrap().to_owned();
            match word.as_str() {
                "text" => {
                    let text = self.texts.entry(about).or_default();
                    let units = text.encode_utf16().count() as u64;
                    assert_eq!(body["offset"], units, "a gap or an overlap: {body}");
                    text.push_str(body["delta"].as_str().unwrap());
                }
                "running" => {}
                "start" | "reset" => {
                    self.texts.insert(about.clone(), String::new());
                    self.events.push(format!("{word} {about}"));
                }
                "completed" | "stopped" | "failed" => {
                    let text = self.texts.remove(&about).unwrap_or_default();
                    self.events.push(format!("{word} {about}: {text}"));
                }
                word => self.events.push(format!("{word} {about}")),
            }
        }
    }

    pub fn of(frames: &[(String, Value)]) -> Self {
        let mut client = Self::default();
        client.hear(frames);
        client
    }
}

/// The cursor of a frame.
pub fn cursor(frame: &(String, Value)) -> Option<Cursor> {
    frame.1["cursor"].as_str().map(|cursor| cursor.parse().unwrap())
}

/// One answer as it is written.
pub struct Written {
    pub generation: GenerationId,
    pub message: MessageId,
    pub attempt: u32,
    pub text: String,
    seq: u64,
}

/// A conversation, and what a client has that was told all of it.
pub struct Talk {
    pub session: SessionId,
    pub answers: Vec<Written>,
    pub ordinal: u64,
    pub heard: Client,
    /// The ends of answers, as the store has them.
    pub stored: Vec<Arc<Event>>,
    /// All messages, as the store has them.
    pub kept: Vec<Stored>,
}

impl Talk {
    pub fn new(session: &SessionId) -> Self {
        Self {
            session: session.clone(),
            answers: Vec::new(),
            ordinal: 0,
            heard: Client::default(),
            stored: Vec::new(),
            kept: Vec::new(),
        }
    }

    async fn append(&mut self, log: &dyn Log, kind: EventKind) {
        log.append_event(&self.session, Arc::new(Event::new(kind.clone()))).await.unwrap();
        let (word, about) = word(&kind);
        self.heard.hear(&[(word.to_owned(), json!({ "about": about }))]);
    }

    fn next(&mut self, id: MessageId, author: Author, content: &str) -> Message {
        self.ordinal += 1;
        Message { ordinal: self.ordinal, ..message(&self.session, id, author, content) }
    }

    pub async fn say(&mut self, log: &dyn Log) {
        let event = self.send();
        self.deliver(log, event).await;
    }

    /// Stores a message. The log does not have it yet.
    pub fn send(&mut self) -> Arc<Event> {
        let new = self.next(MessageId::new(), Author::User, "hi");
        let kind = EventKind::MessageNew(Arc::new(new));
        self.kept.push(Stored { event: Arc::new(Event::new(kind.clone())), attempt: 0 });
        Arc::new(Event::new(kind))
    }

    /// Starts an answer; its place among `answers`.
    pub async fn start(&mut self, log: &dyn Log) -> usize {
        let (generation, message) = (GenerationId::new(), MessageId::new());
        let new = Written { generation, message, attempt: 1, text: String::new(), seq: 0 };
        self.answers.push(new);
        let agent = AgentId::new("assistant").unwrap();
        self.append(log, EventKind::GenerationStarted { generation, message, agent, attempt: 1 })
            .await;
        self.answers.len() - 1
    }

    pub fn chunk(&mut self, at: usize, delta: &str) -> Chunk {
        let answer = &mut self.answers[at];
        answer.seq += 1;
        let chunk = Chunk {
            generation: answer.generation,
            attempt: answer.attempt,
            seq: answer.seq,
            offset: answer.text.len() as u64,
            tokens: answer.seq,
            read_at_ms: Timestamp::now().as_millis(),
            delta: delta.into(),
        };
        answer.text.push_str(delta);
        let text = self.heard.texts.entry(answer.generation.to_string()).or_default();
        text.push_str(delta);
        chunk
    }

    pub async fn grow(&mut self, log: &dyn Log, at: usize, delta: &str) {
        let chunk = self.chunk(at, delta);
        log.append_chunk(&self.session, chunk).await.unwrap();
    }

    pub async fn reset(&mut self, log: &dyn Log, at: usize) {
        let answer = &mut self.answers[at];
        answer.attempt += 1;
        answer.text.clear();
        let Written { generation, message, attempt, .. } = *answer;
        let agent = AgentId::new("assistant").unwrap();
        let reason = "again".to_owned();
        let kind = EventKind::GenerationReset { generation, message, agent, attempt, reason };
        self.append(log, kind).await;
    }

    pub async fn resume(&mut self, log: &dyn Log, at: usize) {
        self.take_over(log, at).await;
        self.write_again(log, at).await;
    }

    /// Another attempt goes on from `offset`: what was said beyond it is void.
    pub async fn take_over_from(&mut self, log: &dyn Log, at: usize, offset: usize) {
        self.answers[at].text.truncate(offset);
        self.take_over(log, at).await;
        let Written { generation, ref text, .. } = self.answers[at];
        self.heard.texts.insert(generation.to_string(), text.clone());
    }

    /// Another attempt goes on with all of the text, which it has not written again yet.
    pub async fn take_over(&mut self, log: &dyn Log, at: usize) {
        let answer = &mut self.answers[at];
        answer.attempt += 1;
        let Written { generation, message, attempt, .. } = *answer;
        let offset = answer.text.len() as u64;
        let utf16_offset = answer.text.encode_utf16().count() as u64;
        let agent = AgentId::new("assistant").unwrap();
        let kind = EventKind::GenerationResumed {
            generation,
            message,
            agent,
            attempt,
            offset,
            utf16_offset,
        };
        self.append(log, kind).await;
    }

    /// The new attempt's text begins with the old one's.
    pub async fn write_again(&mut self, log: &dyn Log, at: usize) {
        let Written { generation, attempt, seq, ref text, .. } = self.answers[at];
        if !text.is_empty() {
            let chunk = Chunk {
                generation,
                attempt,
                seq,
                offset: 0,
                tokens: 1,
                read_at_ms: 0,
                delta: text.as_str().into(),
            };
            log.append_chunk(&self.session, chunk).await.unwrap();
        }
    }

    /// Stores an answer's end. The log does not have it yet.
    pub fn finish(&mut self, at: usize, how: usize) -> Arc<Event> {
        let Written { generation, message: id, ref text, .. } = self.answers[at];
        let text = text.clone();
        let message = Arc::new(self.next(id, Author::Assistant, &text));
        let kind = match how % 3 {
            0 => EventKind::GenerationCompleted {
                generation,
                message,
                reason: StopReason::EndTurn,
                usage: Usage { input_tokens: 1, output_tokens: 1, cached_tokens: 0 },
            },
            1 => EventKind::GenerationStopped {
                generation,
                message,
                by: UserId::new("ada").unwrap(),
            },
            _ => EventKind::GenerationFailed {
                generation,
                message,
                error: Error::new(ErrorCode::Internal, "broke off"),
            },
        };
        let event = Arc::new(Event::new(kind));
        self.stored.push(event.clone());
        let attempt = self.answers[at].attempt;
        self.kept.push(Stored { event: event.clone(), attempt });
        event
    }

    pub async fn deliver(&mut self, log: &dyn Log, event: Arc<Event>) {
        log.append_event(&self.session, event.clone()).await.unwrap();
        let (word, about) = word(&event.kind);
        self.heard.hear(&[(word.to_owned(), json!({ "about": about }))]);
    }

    pub async fn end(&mut self, log: &dyn Log, at: usize, how: usize) {
        let event = self.finish(at, how);
        self.deliver(log, event).await;
    }
}
