//! A session's readers on this node: handing frames to those that are live, and remembering where
//! those stand that are not.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::place::{self, Behind};
use super::sent::Sent;
use super::{FromStore, Offer, Reader, ReaderId, SENT_MAX, Stand, Standing};
use crate::dialect::{Dialects, Frame, Shown};
use crate::domain::{
    Cursor, Event, EventKind, GenerationId, MessageId, Revoked, SessionId, TextCursor, UserId,
};

/// What a live member's cursor has that the tail's has not: such a member is shown everything by
/// itself, since its frames are nobody else's.
struct Apart {
    ordinal: u64,
    texts: Vec<TextCursor>,
}

/// Messages that a member is not shown.
#[derive(Debug, Default)]
pub(super) struct Unwanted {
    /// It was given them from the store, before the log had them: what is still to come and brings
    /// these is not for it; what changes them is. At most a page of them.
    known: HashSet<MessageId>,
    /// Stored before it came, or given to it from the store, up to this ordinal: a log that has lost
    /// them is given them again.
    before: u64,
    /// But for the ends of these, which it found running.
    found: Vec<GenerationId>,
    /// It sends them itself; at most [`SENT_MAX`].
    sent: VecDeque<MessageId>,
}

impl Unwanted {
    /// Whether it was given this message, by which it needs nothing that brings it.
    pub(super) fn knows(&self, message: MessageId) -> bool {
        self.known.contains(&message)
    }

    /// Whether an event that passes is not for it. What it sent itself passes once.
    pub(super) fn skips(&mut self, event: &Event) -> bool {
        if let EventKind::MessageNew(message) = &event.kind
            && self.has_sent(message.id)
        {
            return true;
        }
        self.had(place::ordinal(&event.kind), event.kind.generation())
            || event.kind.brings().is_some_and(|message| self.knows(message))
    }

    /// Whether a message of this ordinal was stored before; 0: it is not stored yet.
    fn had(&self, ordinal: u64, generation: Option<GenerationId>) -> bool {
        let is_found = || generation.is_some_and(|of| self.found.contains(&of));
        0 < ordinal && ordinal <= self.before && !is_found()
    }

    /// Whether it sends this message itself.
    pub(super) fn sends(&self, message: MessageId) -> bool {
        self.sent.contains(&message)
    }

    /// Whether it sent this message itself. Passes once.
    pub(super) fn has_sent(&mut self, message: MessageId) -> bool {
        let at = self.sent.iter().position(|sent| *sent == message);
        at.is_some_and(|at| self.sent.remove(at).is_some())
    }

    fn skips_shown(&mut self, shown: Shown<'_>) -> bool {
        match shown {
            Shown::Event { event, .. } => self.skips(event),
            Shown::Text(text) if self.had(text.ordinal, Some(text.generation)) => true,
            shown => shown.brings().is_some_and(|message| self.knows(message)),
        }
    }
}

/// A member that is behind and may be offered something. Given back by [`Members::settle`].
pub(super) struct Owed {
    pub reader: Arc<dyn Reader>,
    pub behind: Behind,
    pub unwanted: Unwanted,
    /// What it took.
    pub sent: Sent,
}

struct Member {
    reader: Arc<dyn Reader>,
    standing: Standing,
    /// `None`: live, it has everything.
    behind: Option<Behind>,
    /// It came as a guest, and guests may not stay: nothing is offered before [`Members::keep`].
    suspended: bool,
    unwanted: Unwanted,
    /// Only while it is live.
    apart: Option<Box<Apart>>,
}

impl Member {
    /// Where it is live, at `place`, it is behind from now on.
    fn stay(&mut self, place: impl FnOnce() -> Behind) {
        let apart = self.apart.take();
        let behind = self.behind.get_or_insert_with(place);
        if let Some(Apart { ordinal, texts }) = apart.map(|apart| *apart) {
            behind.cursor.ordinal = behind.cursor.ordinal.max(ordinal);
            texts.into_iter().for_each(|text| place::put(&mut behind.cursor, text));
            // It had them from the store, before the log brings them.
            behind.has_upto = behind.has_upto.max(ordinal);
            behind.cursor.given = behind.cursor.given.max(ordinal);
        }
    }

    /// Where it is behind, it may be offered what it is owed from now on.
    fn give(&mut self, from_store: FromStore) {
        let FromStore { known, mut missed, has_more, upto } = from_store;
        let given = std::mem::replace(&mut self.unwanted.known, known);
        self.unwanted.before = self.unwanted.before.max(upto);
        let Some(behind) = &mut self.behind else { return };
        missed.retain(|stored| stored.event.kind.brings().is_none_or(|id| !given.contains(&id)));
        behind.missed = missed.into();
        behind.has_more = has_more;
        behind.upto = upto;
        (behind.held, behind.is_lost) = (false, false);
    }
}

/// Whether a reader that has everything has to remember this by itself: text of an answer whose
/// start the tail does not know, or the end of one that the log still has to bring.
fn is_apart(text: &TextCursor, live: &Cursor) -> bool {
    match place::text(live, text.generation) {
        None => !place::is_over(text),
        Some(known) => place::is_over(text) && !place::is_over(known),
    }
}

/// The readers of one session.
#[derive(Default)]
pub(super) struct Members {
    all: Vec<Member>,
    /// Those that stand apart and are owed what was just shown to the others.
    passed: Vec<ReaderId>,
    /// What they were given.
    pub sent: Sent,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a reader, which is not shown messages of ordinals up to `before`; one that is a member
    /// already keeps its place, with its new standing. `false` for such a one.
    pub(super) fn add(
        &mut self,
        reader: Arc<dyn Reader>,
        standing: Standing,
        behind: Behind,
        before: u64,
    ) -> bool {
        if let Some(index) = self.index(reader.id()) {
            self.all[index].standing = standing;
            return false;
        }
        let found = behind.found.iter().map(|found| found.generation).collect();
        self.all.push(Member {
            reader,
            standing,
            behind: Some(behind),
            suspended: false,
            unwanted: Unwanted { before, found, ..Unwanted::default() },
            apart: None,
        });
        true
    }

    /// The live members, that have all messages up to an ordinal, may have more than others now.
    pub(super) fn stand_apart(&mut self, ordinal: u64) {
        for member in self.all.iter_mut().filter(|member| member.behind.is_none()) {
            member.apart.get_or_insert_with(|| Box::new(Apart { ordinal, texts: Vec::new() }));
        }
    }

    /// Where a reader stands; one that is live: where the tail's cursor says `live`.
    pub(super) fn place(&self, reader: ReaderId, live: &Cursor) -> Cursor {
        let member = self.index(reader).map(|index| &self.all[index]);
        match member.and_then(|member| member.behind.as_ref()) {
            Some(behind) => behind.stands(),
            None => live.clone(),
        }
    }

    pub(super) fn remove(&mut self, reader: ReaderId) -> Option<Arc<dyn Reader>> {
        self.index(reader).map(|index| self.all.swap_remove(index).reader)
    }

    /// A reader that has joined, and is offered nothing before [`Members::admit`].
    pub(super) fn held(&self, reader: ReaderId) -> Option<(&Arc<dyn Reader>, &Behind)> {
        let member = &self.all[self.index(reader)?];
        let behind = member.behind.as_ref().filter(|behind| behind.held)?;
        Some((&member.reader, behind))
    }

    /// Where a member stands that waits for what the store has.
    pub(super) fn lost(&self, reader: ReaderId) -> Option<&Behind> {
        self.all[self.index(reader)?].behind.as_ref().filter(|behind| behind.is_lost)
    }

    /// A member that was behind stands there.
    pub(super) fn moves_to(&mut self, reader: ReaderId, behind: Behind) {
        if let Some(index) = self.index(reader) {
            self.all[index].behind = Some(behind);
        }
    }

    /// Removes those whose access was revoked, wherever they stand, and tells each. Who came as a
    /// guest may have become a member since: they are suspended at their place, which for one that
    /// is live is `place`.
    pub(super) fn revoke(
        &mut self,
        session: &SessionId,
        revoked: &Revoked,
        place: impl Fn() -> Behind,
    ) {
        self.all.retain_mut(|member| {
            let (concerned, stays) = match revoked {
                Revoked::User(user) => (member.reader.user() == user, false),
                Revoked::Guests => (member.standing == Standing::Guest, true),
                Revoked::Everyone => (true, false),
            };
            if !concerned {
                return true;
            }
            member.suspended = true;
            member.stay(&place);
            member.reader.revoke(session);
            stays
        });
    }

    pub(super) fn is_suspended(&self, reader: ReaderId) -> bool {
        self.index(reader).is_some_and(|index| self.all[index].suspended)
    }

    /// A suspended reader's user belongs to the session: it goes on. `false` where it is none.
    pub(super) fn keep(&mut self, reader: ReaderId) -> bool {
        let suspended = self.all.iter_mut().find(|m| m.reader.id() == reader && m.suspended);
        let Some(member) = suspended else { return false };
        member.suspended = false;
        member.standing = Standing::Belongs;
        true
    }

    /// The readers that were let through, wherever they stand.
    pub(super) fn admitted(&self) -> impl Iterator<Item = &Arc<dyn Reader>> {
        let is_held = |member: &Member| {
            member.suspended || member.behind.as_ref().is_some_and(|behind| behind.held)
        };
        self.all.iter().filter(move |member| !is_held(member)).map(|member| &member.reader)
    }

    /// Lets a held member be offered what it is owed; from now on it is not shown the messages it
    /// has. `place`: of one that is live.
    pub(super) fn admit(&mut self, reader: ReaderId, from_store: FromStore, place: Behind) {
        let Some(index) = self.index(reader) else { return };
        let member = &mut self.all[index];
        if !from_store.missed.is_empty() {
            member.stay(|| place.clone());
        }
        match &mut member.behind {
            // It joins again, with a page of its own beside the one that it is to be given.
            Some(behind) if behind.is_lost || !behind.missed.is_empty() => {
                member.unwanted.known.extend(from_store.known);
            }
            _ => member.give(from_store),
        }
    }

    /// Offers a member nothing before [`Members::admit`]; one that is live stands at `place`. `None`
    /// for one that waits for the store.
    pub(super) fn hold(&mut self, reader: ReaderId, place: Behind) -> Option<&mut Behind> {
        let index = self.index(reader)?;
        let member = &mut self.all[index];
        let waits = |behind: &Behind| behind.is_lost || !behind.missed.is_empty();
        if member.behind.as_ref().is_some_and(waits) {
            return None;
        }
        member.stay(|| place);
        let behind = member.behind.as_mut()?;
        behind.held = true;
        Some(behind)
    }

    /// Gives a member what it waits for.
    pub(super) fn supply(&mut self, reader: ReaderId, from_store: FromStore) {
        let Some(index) = self.index(reader) else { return };
        let member = &mut self.all[index];
        if member.behind.as_ref().is_some_and(|behind| behind.is_lost) {
            member.give(from_store);
        }
    }

    /// A member is not shown the message of this id when it comes.
    pub(super) fn sends(&mut self, reader: ReaderId, message: MessageId) {
        let Some(index) = self.index(reader) else { return };
        let sent = &mut self.all[index].unwanted.sent;
        if sent.len() == SENT_MAX {
            sent.pop_front();
        }
        sent.push_back(message);
    }

    /// Takes a reader's place, where it is behind and may be offered something.
    pub(super) fn owed(&mut self, reader: ReaderId) -> Option<Owed> {
        let index = self.index(reader)?;
        let member = self.all.get_mut(index).filter(|member| !member.suspended)?;
        let behind = member.behind.take_if(|behind| !behind.held && !behind.is_lost)?;
        let unwanted = std::mem::take(&mut member.unwanted);
        let reader = member.reader.clone();
        Some(Owed { reader, behind, unwanted, sent: Sent::default() })
    }

    /// A reader that was caught up stays at its place.
    pub(super) fn stays(&mut self, owed: Owed) {
        self.sent.merge(owed.sent);
        let Some(index) = self.index(owed.reader.id()) else { return };
        self.all[index].unwanted = owed.unwanted;
        self.all[index].behind = Some(owed.behind);
    }

    /// A reader that was caught up has everything: it is live, where the tail's cursor says `live`.
    pub(super) fn goes_on(&mut self, owed: Owed, live: &Cursor) {
        self.sent.merge(owed.sent);
        let Some(index) = self.index(owed.reader.id()) else { return };
        let own = owed.behind.cursor;
        let texts: Vec<_> = own.texts.into_iter().filter(|text| is_apart(text, live)).collect();
        let differs = !texts.is_empty() || own.ordinal > live.ordinal;
        let member = &mut self.all[index];
        member.unwanted = owed.unwanted;
        member.apart = differs.then(|| Box::new(Apart { ordinal: own.ordinal, texts }));
    }

    /// It is not known any more which attempts there were of answers, but for those that are
    /// known: what the members have of them may not hold.
    pub(super) fn lose_track(&mut self, is_known: impl Fn(GenerationId) -> bool) {
        for member in &mut self.all {
            let apart = member.apart.iter_mut().flat_map(|apart| &mut apart.texts);
            let behind = member.behind.iter_mut().flat_map(|behind| &mut behind.cursor.texts);
            for text in apart.chain(behind) {
                if !place::is_over(text) && !is_known(text.generation) {
                    text.attempt = place::VOID;
                }
            }
        }
    }

    /// Those that were not handed something because they stand apart.
    pub(super) fn passed(&mut self) -> Vec<ReaderId> {
        std::mem::take(&mut self.passed)
    }

    /// Hands `shown` to every live member, but for the devices of `except`, encoding once per
    /// dialect. Those that do not take it stand at `place` from then on; those that are gone are
    /// removed.
    pub(super) fn hand(
        &mut self,
        dialects: &Dialects,
        session: &SessionId,
        shown: Shown<'_>,
        except: Option<&UserId>,
        place: impl Fn() -> Option<Behind>,
    ) {
        let mut encoded: Vec<Option<Vec<Frame>>> = vec![None; dialects.slots()];
        let mut gone = Vec::new();
        for member in &mut self.all {
            if member.behind.is_some() || except.is_some_and(|user| user == member.reader.user()) {
                continue;
            }
            if member.apart.is_some()
                && let Some(behind) = place()
            {
                member.stay(|| behind.clone());
                self.passed.push(member.reader.id());
                continue;
            }
            if member.unwanted.skips_shown(shown) {
                if let Shown::Event { cursor: Some(cursor), .. } = shown {
                    member.reader.stands(session, Stand::Past(cursor));
                }
                continue;
            }
            let dialect = member.reader.dialect();
            let frames = encoded[dialect.slot()]
                .get_or_insert_with(|| dialects.encode(dialect, session, shown));
            if frames.is_empty() {
                continue;
            }
            match member.reader.offer(frames) {
                Offer::Taken => {
                    if let Some(generation) = shown.generation() {
                        self.sent.add(generation, frames);
                    }
                }
                Offer::Full => member.behind = place(),
                Offer::Gone => gone.push(member.reader.id()),
            }
        }
        for reader in gone {
            self.remove(reader);
        }
    }

    fn index(&self, reader: ReaderId) -> Option<usize> {
        self.all.iter().position(|member| member.reader.id() == reader)
    }
}
