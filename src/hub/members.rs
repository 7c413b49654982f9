//! A session's readers on this node: handing frames to those that are live, and remembering where
//! those stand that are not.

use std::collections::HashSet;
use std::sync::Arc;

use super::tail::Running;
use super::{Offer, Reader, ReaderId, Standing};
use crate::dialect::{Dialects, Frame, Shown};
use crate::domain::{GenerationId, MessageId, Revoked, SessionId, UserId};

/// Where a member stands that was not given everything: how many of the tail's events, and how
/// much of each running text.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind {
    /// Counts the events that the tail has applied.
    pub applied: u64,
    /// Attempt and byte offset, per generation; one that is not listed stands at 0.
    texts: Vec<(GenerationId, u32, u64)>,
    /// Nothing is offered before [`Members::admit`].
    held: bool,
}

impl Behind {
    /// A reader that joins now and has `texts` (UTF-16 offsets) of the running answers. An offset
    /// that does not exist in the text counts as 0.
    pub(super) fn new(applied: u64, running: &[Running], texts: &[(GenerationId, u64)]) -> Self {
        let known = running.iter().filter_map(|running| {
            let (id, utf16) = texts.iter().find(|(id, _)| *id == running.generation)?;
            Some((*id, running.attempt, running.text.byte_offset(*utf16)?))
        });
        Self { applied, texts: known.collect(), held: true }
    }

    /// A reader that was live up to here and did not take what came next.
    pub(super) fn at(applied: u64, running: &[Running]) -> Self {
        let texts = running.iter().map(|r| (r.generation, r.attempt, r.text.len()));
        Self { applied, texts: texts.collect(), held: false }
    }

    /// How much of an attempt's text it has, in bytes.
    pub(super) fn text(&self, generation: GenerationId, attempt: u32) -> u64 {
        let found = self.texts.iter().find(|(id, ..)| *id == generation);
        found.filter(|(_, known, _)| *known == attempt).map_or(0, |(.., offset)| *offset)
    }

    /// How much of a generation's text it has, in bytes, whichever attempt wrote it.
    pub(super) fn any_text(&self, generation: GenerationId) -> u64 {
        let found = self.texts.iter().find(|(id, ..)| *id == generation);
        found.map_or(0, |(.., offset)| *offset)
    }

    pub(super) fn set_text(&mut self, generation: GenerationId, attempt: u32, offset: u64) {
        self.forget(generation);
        self.texts.push((generation, attempt, offset));
    }

    /// Another attempt goes on from the same text.
    pub(super) fn rename_attempt(&mut self, generation: GenerationId, attempt: u32) {
        if let Some(text) = self.texts.iter_mut().find(|(id, ..)| *id == generation) {
            text.1 = attempt;
        }
    }

    pub(super) fn forget(&mut self, generation: GenerationId) {
        self.texts.retain(|(id, ..)| *id != generation);
    }
}

struct Member {
    reader: Arc<dyn Reader>,
    standing: Standing,
    /// `None`: live, it has everything.
    behind: Option<Behind>,
    /// It came as a guest, and guests may not stay: nothing is offered before [`Members::keep`].
    suspended: bool,
    /// Messages that it was given from the store, before the log had them: what is still to come
    /// and brings these is not for it; what changes them is. At most a page of them.
    known: HashSet<MessageId>,
}

/// The readers of one session.
#[derive(Default)]
pub(super) struct Members(Vec<Member>);

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a reader; one that is a member already keeps its place, with its new standing.
    pub(super) fn add(&mut self, reader: Arc<dyn Reader>, standing: Standing, behind: Behind) {
        if let Some(index) = self.index(reader.id()) {
            self.0[index].standing = standing;
            return;
        }
        let behind = Some(behind);
        self.0.push(Member { reader, standing, behind, suspended: false, known: HashSet::new() });
    }

    pub(super) fn remove(&mut self, reader: ReaderId) -> bool {
        let found = self.index(reader);
        if let Some(index) = found {
            self.0.swap_remove(index);
        }
        found.is_some()
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
        self.0.retain_mut(|member| {
            let (concerned, stays) = match revoked {
                Revoked::User(user) => (member.reader.user() == user, false),
                Revoked::Guests => (member.standing == Standing::Guest, true),
                Revoked::Everyone => (true, false),
            };
            if !concerned {
                return true;
            }
            member.suspended = true;
            member.behind.get_or_insert_with(&place);
            member.reader.revoke(session);
            stays
        });
    }

    pub(super) fn is_suspended(&self, reader: ReaderId) -> bool {
        self.index(reader).is_some_and(|index| self.0[index].suspended)
    }

    /// A suspended reader's user belongs to the session: it goes on. `false` where it is none.
    pub(super) fn keep(&mut self, reader: ReaderId) -> bool {
        let suspended = self.0.iter_mut().find(|m| m.reader.id() == reader && m.suspended);
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
        self.0.iter().filter(move |member| !is_held(member)).map(|member| &member.reader)
    }

    /// Lets a held member be offered what it is owed; from now on it is not shown the messages it
    /// has.
    pub(super) fn admit(&mut self, reader: ReaderId, known: HashSet<MessageId>) {
        let Some(index) = self.index(reader) else { return };
        let member = &mut self.0[index];
        if let Some(behind) = &mut member.behind {
            behind.held = false;
        }
        member.known = known;
    }

    /// The reader, its place and the messages it has, where it is behind and may be offered
    /// something.
    pub(super) fn owed(
        &self,
        reader: ReaderId,
    ) -> Option<(Arc<dyn Reader>, Behind, HashSet<MessageId>)> {
        let member = self.0.get(self.index(reader)?).filter(|member| !member.suspended)?;
        let behind = member.behind.as_ref().filter(|behind| !behind.held)?;
        Some((member.reader.clone(), behind.clone(), member.known.clone()))
    }

    /// Notes where a reader stands after it was caught up; `None`: it is live.
    pub(super) fn settle(&mut self, reader: ReaderId, behind: Option<Behind>) {
        if let Some(index) = self.index(reader) {
            self.0[index].behind = behind;
        }
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
        let about = shown.brings();
        for member in &mut self.0 {
            if member.behind.is_some()
                || except.is_some_and(|user| user == member.reader.user())
                || about.is_some_and(|message| member.known.contains(&message))
            {
                continue;
            }
            let dialect = member.reader.dialect();
            let frames = encoded[dialect.slot()]
                .get_or_insert_with(|| dialects.vocabulary(dialect).encode(session, shown));
            if frames.is_empty() {
                continue;
            }
            match member.reader.offer(frames) {
                Offer::Taken => {}
                Offer::Full => member.behind = place(),
                Offer::Gone => gone.push(member.reader.id()),
            }
        }
        for reader in gone {
            self.remove(reader);
        }
    }

    fn index(&self, reader: ReaderId) -> Option<usize> {
        self.0.iter().position(|member| member.reader.id() == reader)
    }
}
