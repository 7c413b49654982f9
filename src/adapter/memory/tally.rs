//! What is counted of running generations.

use async_trait::async_trait;

use super::super::{AdapterError, Tallies, Tally};
use super::{Memory, SessionState, TEXTS_MAX};
use crate::domain::{GenerationId, SessionId};

#[async_trait]
impl Tallies for Memory {
    async fn tally(
        &self,
        session: &SessionId,
        generation: GenerationId,
        tally: Tally,
    ) -> Result<(), AdapterError> {
        let mut state = self.state();
        let counted = state.touch(session, self.ttl).tally(generation);
        *counted = Tally { sent_bytes: counted.sent_bytes, ..tally };
        Ok(())
    }

    async fn add_sent(
        &self,
        session: &SessionId,
        generation: GenerationId,
        bytes: u64,
    ) -> Result<(), AdapterError> {
        let mut state = self.state();
        let counted = state.touch(session, self.ttl).tally(generation);
        counted.sent_bytes = counted.sent_bytes.saturating_add(bytes);
        Ok(())
    }

    async fn tallied(
        &self,
        session: &SessionId,
        generation: GenerationId,
    ) -> Result<Option<Tally>, AdapterError> {
        let state = self.state();
        Ok(state.sessions.get(session).and_then(|log| log.tallies.get(&generation)).copied())
    }
}

impl SessionState {
    /// What is counted of a generation, which may be forgotten again where it is the oldest.
    fn tally(&mut self, generation: GenerationId) -> &mut Tally {
        while self.tallies.len() >= TEXTS_MAX && !self.tallies.contains_key(&generation) {
            self.tallies.pop_first();
        }
        self.tallies.entry(generation).or_default()
    }
}
