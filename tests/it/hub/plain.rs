//! A dialect that has a word for everything, also for what nobody may be shown, and counts how
//! often it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tokencast::dialect::{
    Answer, CommandSpec, Dialect, Dialects, EventSpec, Frame, Greeting, Refusal, Shown, Vocabulary,
};
use tokencast::domain::{
    Command, Error, EventKind, PresenceChange, Reply, SessionId, Signal, Timestamp,
};

pub struct Plain {
    name: &'static str,
    pub encoded: AtomicUsize,
}

/// Two dialects, `plain` and `other`.
pub fn two() -> (Dialects, [Arc<Plain>; 2]) {
    let two = ["plain", "other"].map(|name| Arc::new(Plain { name, encoded: AtomicUsize::new(0) }));
    let all: Vec<Arc<dyn Dialect>> = vec![two[0].clone(), two[1].clone()];
    (Dialects::from(all), two)
}

impl Vocabulary for Plain {
    fn name(&self) -> &'static str {
        self.name
    }
    fn shown(&self) -> &'static [EventSpec] {
        &[]
    }
    fn encode(&self, _: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        self.encoded.fetch_add(1, Ordering::SeqCst);
        let word = match shown {
            Shown::Text(_) => "text",
            Shown::Running { .. } => "running",
            Shown::Event { event, .. } => match event.kind {
                EventKind::MessageNew(_) => "new",
                EventKind::MessageEdited(_) => "edited",
                EventKind::MessageDeleted { .. } => "deleted",
                EventKind::MessageSeen { .. } => "seen",
                EventKind::ReactionChanged { .. } => "reaction",
                EventKind::AccessRevoked(_) => "revoked!",
                EventKind::Unknown => "unknown!",
                _ => "generation",
            },
            Shown::Signal(signal) => match signal {
                Signal::UserJoined { .. } => "joined",
                Signal::UserLeft { .. } => "left",
                Signal::TypingStarted { .. } => "typing",
                Signal::TypingStopped { .. } => "stopped",
            },
        };
        let user = match shown {
            Shown::Signal(signal) => Some(signal.user().to_string()),
            _ => None,
        };
        vec![Frame::new(word, &json!({ "user": user }))]
    }
    fn presence(&self, change: &PresenceChange) -> Option<Frame> {
        self.encoded.fetch_add(1, Ordering::SeqCst);
        let body = json!({ "user": change.user.to_string(), "online": change.online });
        Some(Frame::new("presence", &body))
    }
}

impl Dialect for Plain {
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
        Frame::new("error", &json!({ "at": Timestamp::now().to_string() }))
    }
    fn shutdown(&self, _: Duration) -> Option<Frame> {
        Some(Frame::new("shutdown", &json!({})))
    }
    fn timeout(&self) -> Option<Frame> {
        Some(Frame::new("timeout", &json!({})))
    }
}
