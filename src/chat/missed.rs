//! What readers are owed that the log does not have any more, from the store: page by page.

use std::sync::Arc;

use super::failure::stored;
use super::{Chat, Visit};
use crate::domain::{Access, Error, Event, EventId, EventKind, Message, Outcome, SessionId};
use crate::hub::{FromStore, Stored};
use crate::store::{Answered, FOUND_MAX, Kept};

/// The most messages of a page, where clients may be given as many.
const PAGE_MAX: u32 = 100;
/// About the most bytes that these have, but for a single one that is longer.
const PAGE_BYTES_MAX: usize = 128 * 1024;
/// The most messages that a client is given which comes back after long; of older ones it is told
/// that there may be more. About as many as a log holds.
const MISSED_MAX: u64 = 500;
/// The most answers that a reader of answers is given when it comes back.
const ANSWERS_MAX: u32 = 100;
/// About the most bytes that these have, but for a single one that is longer.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// What a reader is shown of a session's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// All of them.
    Messages,
    /// Those that generations have ended with.
    Answers,
}

impl Chat {
    /// Brings a reader that fell behind what its log holds the next page of what is stored; with
    /// the last one it goes on live. Changes nothing for a reader that did not fall behind.
    ///
    /// # Errors
    /// Where that cannot be had now: to be tried again, nothing is lost meanwhile.
    ///
    /// # Cancel safety
    /// Dropped, it may be called again.
    pub async fn go_on_from_store(
        &self,
        visit: &Visit,
        session: &SessionId,
        wants: Wants,
    ) -> Result<(), Error> {
        let (shared, reader) = (&self.shared, visit.reader.id());
        // The reader's place first, then what is stored: nothing falls between the two.
        let Some(after) = shared.hub.skip_ahead(session, reader) else { return Ok(()) };
        let access = shared.see(&visit.caller, session).await?;
        let from_store = self.missed_after(&access, after, wants).await?;
        shared.hub.supply(session, reader, from_store);
        Ok(())
    }

    /// What a client has missed that comes back, and whose place the log does not hold any more:
    /// the first page of it.
    pub(super) async fn missed_since(
        &self,
        access: &Access,
        after: u64,
    ) -> Result<FromStore, Error> {
        let newest = access.session.last_ordinal.saturating_sub(MISSED_MAX);
        self.missed_after(access, after.max(newest), Wants::Messages).await
    }

    /// The newest answers that a reader lacks whose place the log does not hold any more.
    pub(super) async fn answers_since(
        &self,
        access: &Access,
        after: u64,
    ) -> Result<FromStore, Error> {
        if access.session.last_ordinal <= after {
            return Ok(FromStore::default());
        }
        let answered = self.shared.store.answers_after(&access.session.id, after, ANSWERS_MAX);
        let mut answered = answered.await.map_err(stored)?;
        let messages = answered.iter().rev().map(|answered| &answered.message);
        let fits = fitting(messages, ANSWERS_BYTES_MAX);
        answered.drain(..answered.len() - fits);
        let upto = access.session.last_ordinal;
        Ok(given(answered.into_iter().map(Kept::Answer).collect(), false, upto))
    }

    /// A page of what came after `after`.
    async fn missed_after(
        &self,
        access: &Access,
        after: u64,
        wants: Wants,
    ) -> Result<FromStore, Error> {
        let last = access.session.last_ordinal;
        if last <= after {
            return Ok(FromStore::default());
        }
        let (session, answers_only) = (&access.session.id, wants == Wants::Answers);
        let page_max = PAGE_MAX.min(self.shared.options.page_max);
        let page = self.shared.store.messages_after(session, after, page_max, answers_only);
        let mut page = page.await.map_err(stored)?;
        let fits = fitting(page.iter().map(Kept::message), PAGE_BYTES_MAX);
        let is_cut = fits < page.len() || page.len() == page_max as usize;
        page.truncate(fits);
        let brought = page.last().map_or(after, |kept| kept.message().ordinal);
        // All of those that were looked at which are not in the page are not to be shown.
        let seen = last.min(after + u64::from(FOUND_MAX));
        let upto = if is_cut { brought } else { brought.max(seen) };
        Ok(given(page, upto < last, upto))
    }
}

/// How many of the first messages have so many bytes, but for a single one that is longer.
fn fitting<'a>(messages: impl Iterator<Item = &'a Message>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for message in messages {
        bytes += message.content.len();
        if bytes > bytes_max && count > 0 {
            break;
        }
        count += 1;
    }
    count
}

/// What the hub shows of them before anything live, and then no more: what was stored while the
/// store was read is among them, and the log is still to bring it.
fn given(page: Vec<Kept>, has_more: bool, upto: u64) -> FromStore {
    FromStore {
        known: page.iter().map(|kept| kept.message().id).collect(),
        missed: page.into_iter().map(shown).collect(),
        has_more,
        upto,
    }
}

fn shown(kept: Kept) -> Stored {
    let (at, attempt, kind) = match kept {
        Kept::Said(message) => (message.created_at, 0, EventKind::MessageNew(Arc::new(message))),
        Kept::Answer(answered) => {
            let (at, attempt) = (answered.message.created_at, answered.attempt);
            (at, attempt, end(answered))
        }
    };
    Stored { event: Arc::new(Event { id: EventId::new(), at, kind }), attempt }
}

fn end(answered: Answered) -> EventKind {
    let Answered { generation, outcome, usage, message, .. } = answered;
    let message = Arc::new(message);
    match outcome {
        Outcome::Completed { reason } => {
            EventKind::GenerationCompleted { generation, message, reason, usage }
        }
        Outcome::Stopped { by } => EventKind::GenerationStopped { generation, message, by },
        Outcome::Failed { error } => EventKind::GenerationFailed { generation, message, error },
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::message;
    use super::*;

    #[test]
    fn as_many_are_given_as_fit() {
        let fit = |sizes: &[usize]| {
            let messages: Vec<_> =
                (1..).zip(sizes).map(|(ordinal, size)| message(ordinal, *size)).collect();
            fitting(messages.iter(), PAGE_BYTES_MAX)
        };
        let half = PAGE_BYTES_MAX / 2;
        assert_eq!(fit(&[half, half, half]), 2);
        assert_eq!(fit(&[half, half]), 2);
        assert_eq!(fit(&[half * 3, 1]), 1, "never none of some");
        assert_eq!(fit(&[half, half + 1]), 1);
        assert_eq!(fit(&[]), 0);
    }
}
