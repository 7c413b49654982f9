//! What a reader is given from the store, because it joins, or because its tail does not hold any
//! more what came after its place.

use std::collections::HashSet;
use std::sync::Arc;

use super::place::Behind;
use super::tail::TailState;
use super::{Hub, ReaderId};
use crate::domain::{Event, MessageId, SessionId};

/// What a reader was given, or is to be given, from the store.
#[derive(Debug, Clone, Default)]
pub struct FromStore {
    /// It has these: what brings them is not offered to it; what changes them is.
    pub known: HashSet<MessageId>,
    /// New messages and ends of answers, in the order of the session, to be offered before anything
    /// else; of an answer its text first, as far as the reader's cursor says that it is missing. At
    /// most a page.
    pub missed: Vec<Stored>,
    /// There is more in the store after these: the reader does not go on before it was given that.
    /// Once it took these, it hears so by [`super::Reader::fell_behind`].
    pub has_more: bool,
    /// The highest ordinal of the messages that it has, or will have with `missed`, where it has
    /// all those up to there that it is to have. 0: it has none from the store.
    pub upto: u64,
}

/// A new message or the end of an answer, from the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// It.
    pub event: Arc<Event>,
    /// The attempt that ended the answer: who has text of another one starts over. 0: not known.
    pub attempt: u32,
}

impl Hub {
    /// Has a member that fell behind what its tail keeps stand at the tail's end. What it is owed
    /// up to there is to be had from the store, after the ordinal that this answers, and to be
    /// given to [`Hub::supply`]; nothing is offered to it before. `None` where it is no member, or
    /// did not fall behind. Repeating it changes nothing but where the tail ends.
    pub fn skip_ahead(&self, session: &SessionId, reader: ReaderId) -> Option<u64> {
        self.shared.watched(session)?.state().skip_ahead(reader)
    }

    /// Offers a member what the store has for it after [`Hub::skip_ahead`]; with the last of that
    /// it goes on from its tail.
    pub fn supply(&self, session: &SessionId, reader: ReaderId, from_store: FromStore) {
        let Some(tail) = self.shared.watched(session) else { return };
        let mut state = tail.state();
        state.members.supply(reader, from_store);
        state.catch_up(&self.shared.dialects, reader);
    }
}

impl TailState {
    /// Where the log has brought no message, it has lost them, never had any, or is about to bring
    /// them. So what a live member's place says of messages has to hold for each that is one: of
    /// those up to `has_upto`, which is what a reader that joins has once it is live. Who has more
    /// than others stands apart.
    pub(super) fn reaches(&mut self, has_upto: u64) {
        let live = self.cursor.ordinal;
        if self.logged == 0 && (self.members.is_empty() || has_upto < live) {
            self.members.stand_apart(live);
            self.cursor.ordinal = has_upto;
        }
    }

    fn skip_ahead(&mut self, reader: ReaderId) -> Option<u64> {
        let behind = Behind::further(self, self.members.lost(reader)?);
        let after = behind.cursor.ordinal;
        self.members.moves_to(reader, behind);
        Some(after)
    }
}
