//! What SSE readers are shown.

use super::{EventSpec, Frame, Shown, Vocabulary};
use crate::domain::{PresenceChange, SessionId};

pub(super) struct Sse;

impl Vocabulary for Sse {
    fn name(&self) -> &'static str {
        "sse"
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
