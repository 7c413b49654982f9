//! The dialect `session`: the native and richest one.

mod answer;
mod asked;
mod beside;
mod connection;
mod decode;
mod encode;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::value::RawValue;

use self::connection::{ConnectedJson, ShutdownJson, TimeoutJson};
use super::wire::ErrorJson;
use super::{
    Answer, CommandSpec, Dialect, EventSpec, Frame, Greeting, Ids, Refusal, Shown, Vocabulary,
};
use crate::domain::{Command, Error, ErrorCode, PresenceChange, Reply, SessionId};

pub(super) struct SessionDialect {
    pub(super) cumulative: bool,
}

impl Vocabulary for SessionDialect {
    fn name(&self) -> &'static str {
        "session"
    }

    fn shown(&self) -> &'static [EventSpec] {
        encode::SHOWN
    }

    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        match shown {
            Shown::Event { event, seq, .. } => encode::event(session, event, seq),
            // The answer to the join names it.
            Shown::Running { .. } => Vec::new(),
            Shown::Text(text) => vec![stream::chunk(session, text, self.cumulative)],
            Shown::Signal(signal) => vec![encode::signal(session, signal)],
        }
    }

    fn presence(&self, change: &PresenceChange) -> Option<Frame> {
        Some(encode::presence(change))
    }

    fn incomplete(&self, session: &SessionId) -> Option<Frame> {
        Some(answer::incomplete(session))
    }
}

impl Dialect for SessionDialect {
    fn commands(&self) -> &'static [CommandSpec] {
        asked::COMMANDS
    }

    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error> {
        decode::command(event, args)
    }

    fn revoked(&self, session: &SessionId) -> Frame {
        let error = Error::new(ErrorCode::NotFound, "You may not see this session any more");
        self.error(&Refusal { event: "session:join", error: &error, ids: &Ids::session(session) })
    }

    fn answer(&self, reply: &Reply) -> Answer {
        answer::answer(reply)
    }

    fn greet(&self, greeting: Greeting<'_>) -> Option<Frame> {
        Some(Frame::new("connection:success", &ConnectedJson::from(greeting)))
    }

    fn error(&self, refusal: &Refusal<'_>) -> Frame {
        Frame::new("error", &ErrorJson::from(refusal))
    }

    fn shutdown(&self, reconnect_in: Duration) -> Option<Frame> {
        let shutdown = ShutdownJson {
            message: "This server is shutting down",
            reconnect_in_ms: u64::try_from(reconnect_in.as_millis()).unwrap_or(u64::MAX),
        };
        Some(Frame::new("server:shutdown", &shutdown))
    }

    fn timeout(&self) -> Option<Frame> {
        let timeout = TimeoutJson { message: "This connection has reached its age" };
        Some(Frame::new("server:timeout", &timeout))
    }
}
