//! The dialect `persona`.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{Answer, CommandSpec, Dialect, EventSpec, Frame, Greeting, Refusal, Shown, Vocabulary};
use crate::domain::{Command, Error, PresenceChange, Reply, SessionId};

pub(super) struct PersonaDialect;

impl Vocabulary for PersonaDialect {
    fn name(&self) -> &'static str {
        "persona"
    }

    fn shown(&self) -> &'static [EventSpec] {
        &[]
    }

    fn encode(&self, _session: &SessionId, _shown: Shown<'_>) -> Vec<Frame> {
        todo!()
    }

    fn presence(&self, _change: &PresenceChange) -> Option<Frame> {
        None
    }
}

impl Dialect for PersonaDialect {
    fn commands(&self) -> &'static [CommandSpec] {
        &[]
    }

    fn decode(&self, _event: &str, _args: &[&RawValue]) -> Result<Command, Error> {
        todo!()
    }

    fn revoked(&self, _session: &SessionId) -> Frame {
        todo!()
    }

    fn answer(&self, _reply: &Reply) -> Answer {
        todo!()
    }

    fn greet(&self, _greeting: Greeting<'_>) -> Option<Frame> {
        None
    }

    fn error(&self, _refusal: &Refusal<'_>) -> Frame {
        todo!()
    }

    fn shutdown(&self, _reconnect_in: Duration) -> Option<Frame> {
        None
    }

    fn timeout(&self) -> Option<Frame> {
        None
    }
}
