//! Readers that ask nothing and only hear a session, as those of SSE do.

use std::sync::Arc;

use super::failure::stored;
use super::{Caller, Chat, Visit, Waiting};
use crate::domain::{Access, Action, Cursor, Error, Event, EventId, EventKind, Outcome, SessionId};
use crate::hub::{End, FromStore, Start};
use crate::store::Answered;

/// The most answers that a reader is given from the store.
const ENDED_MAX: u32 = 100;
/// About the most bytes that these have, but for a single one that is longer.
const ENDED_BYTES_MAX: usize = 1024 * 1024;

impl Chat {
    /// Has a reader that asks nothing hear a session: from now on, or exactly after `after`. What
    /// ended since, and the log has no more, is had from the store: the newest hundred answers. A
    /// session that does not exist is made, where that is allowed. To be followed by
    /// [`Chat::go_live`].
    ///
    /// # Errors
    /// What the client is to be told; the reader has not joined then.
    ///
    /// # Cancel safety
    /// Dropped, the reader may have joined: [`Chat::depart`].
    pub async fn watch(
        &self,
        visit: &mut Visit,
        session: SessionId,
        after: Option<Cursor>,
    ) -> Result<Waiting, Error> {
        let shared = &self.shared;
        shared.count(&visit.caller, Action::OpenStream).await?;
        self.make_room(visit, &session)?;
        let mut turn = shared.turns.take().await;
        let access = shared.access(&visit.caller, &session).await?;
        let start = after.as_ref().map_or(Start::Now(&[]), Start::After);
        // The reader's place first, then what is stored: nothing falls between the two.
        let (access, entered) = self.take_place(&mut turn, visit, access, start).await?;
        let cursor = after.filter(|_| !entered.is_whole);
        let from_store = match self.ended_since(&access, cursor.as_ref()).await {
            Ok(from_store) => from_store,
            Err(error) => {
                self.leave(visit, &session).await;
                return Err(error);
            }
        };
        drop(turn);
        shared.arrive(&visit.caller, &session, visit.reader.id()).await;
        Ok(Waiting { session, from_store, at: entered.at })
    }

    /// What the store has that a reader lacks whose cursor the log does not reach.
    pub(super) async fn ended_since(
        &self,
        access: &Access,
        cursor: Option<&Cursor>,
    ) -> Result<FromStore, Error> {
        let is_short = |cursor: &&Cursor| access.session.last_ordinal > cursor.ordinal;
        let Some(cursor) = cursor.filter(is_short) else { return Ok(FromStore::default()) };
        // An answer that the cursor has only a part of has a higher ordinal: the cursor would
        // name it no more, had the log told its end by then.
        let answered =
            self.shared.store.answers_after(&access.session.id, cursor.ordinal, ENDED_MAX).await;
        answered.map(|answered| of(cap(answered))).map_err(stored)
    }

    /// Counts a request for a stream token, which may be bound to a session that the caller may
    /// see, or make. None is made.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn may_watch(
        &self,
        caller: &Caller,
        session: Option<&SessionId>,
    ) -> Result<(), Error> {
        self.shared.count(caller, Action::InitStream).await?;
        match session {
            Some(session) => self.shared.may_access(caller, session).await,
            None => Ok(()),
        }
    }
}

/// The newest of them, as many as have [`ENDED_BYTES_MAX`].
fn cap(mut answered: Vec<Answered>) -> Vec<Answered> {
    let mut bytes = 0;
    let fits = |answered: &&Answered| {
        bytes += answered.message.content.len();
        bytes <= ENDED_BYTES_MAX
    };
    let kept = answered.iter().rev().take_while(fits).count().max(1);
    answered.drain(..answered.len().saturating_sub(kept));
    answered
}

/// What the hub shows of them before anything live, and then no more: an answer that ended while
/// the store was read is among them, and its end is still to come.
fn of(answered: Vec<Answered>) -> FromStore {
    FromStore {
        known: answered.iter().map(|answered| answered.message.id).collect(),
        ended: answered.into_iter().map(end).collect(),
        upto: 0,
    }
}

fn end(answered: Answered) -> End {
    let Answered { generation, outcome, usage, attempt, message } = answered;
    let (at, message) = (message.created_at, Arc::new(message));
    let kind = match outcome {
        Outcome::Completed { reason } => {
            EventKind::GenerationCompleted { generation, message, reason, usage }
        }
        Outcome::Stopped { by } => EventKind::GenerationStopped { generation, message, by },
        Outcome::Failed { error } => EventKind::GenerationFailed { generation, message, error },
    };
    End { event: Arc::new(Event { id: EventId::new(), at, kind }), attempt }
}

#[cfg(test)]
mod tests {
    use super::super::samples::message;
    use super::*;
    use crate::domain::{GenerationId, StopReason, Usage};

    fn kept(sizes: &[usize]) -> Vec<u64> {
        let answered = (1..).zip(sizes).map(|(ordinal, size)| Answered {
            generation: GenerationId::new(),
            outcome: Outcome::Completed { reason: StopReason::EndTurn },
            usage: Usage::default(),
            attempt: 1,
            message: message(ordinal, *size),
        });
        cap(answered.collect()).into_iter().map(|answered| answered.message.ordinal).collect()
    }

    #[test]
    fn the_newest_answers_are_given_as_many_as_fit() {
        let half = ENDED_BYTES_MAX / 2;
        assert_eq!(kept(&[half, half, half]), [2, 3]);
        assert_eq!(kept(&[half, half]), [1, 2]);
        assert_eq!(kept(&[1, half * 3]), [2], "never none of some");
        assert_eq!(kept(&[]), [0; 0]);
    }
}
