//! What a member that stayed behind is owed, and bringing it there.

use std::sync::Arc;

use super::members::{Owed, Unwanted};
use super::place::{self, Behind, Found, Has};
use super::running::Running;
use super::sent::Sent;
use super::show::is_shown;
use super::tail::{Recent, TailState};
use super::{Offer, Reader, ReaderId, Stand, Stored};
use crate::dialect::{DialectIndex, Dialects, Frame, Shown, TextShown};
use crate::domain::text::utf16_len;
use crate::domain::{
    AgentId, Cursor, Event, EventKind, GenerationId, Message, MessageId, SessionId,
};
use crate::telemetry::metrics;

impl TailState {
    /// Offers a member that is behind what it is owed: what is from the store, the events in order,
    /// what was missing of each answer joined into one text before its end, and of each running
    /// answer after them. What is about one event is offered together. Where the tail does not hold
    /// what comes next, it waits for the store.
    pub(super) fn catch_up(&mut self, dialects: &Dialects, id: ReaderId) {
        let Some(mut owed) = self.members.owed(id) else { return };
        let words = Words { dialects, dialect: owed.reader.dialect(), session: &self.session };
        if !self.bring_stored(&words, &mut owed) {
            self.members.stays(owed);
        } else if owed.behind.has_more || owed.behind.applied < self.kept_from() {
            tracing::debug!(session = %self.session, "a reader goes on from the store");
            owed.behind.is_lost = true;
            owed.reader.fell_behind(&self.session);
            self.members.stays(owed);
        } else if self.bring(&words, &mut owed) {
            self.members.goes_on(owed, &self.cursor);
        } else {
            self.members.stays(owed);
        }
    }

    /// `false` where the reader did not take all that is from the store.
    fn bring_stored(&self, words: &Words<'_>, owed: &mut Owed) -> bool {
        let Owed { reader, behind, unwanted, sent } = owed;
        while let Some(stored) = behind.missed.front() {
            // From there it has to come back to the store, whatever a log holds.
            let mut cursor = behind.off_the_log();
            let frames = self.stored(words, stored, behind, unwanted, &mut cursor);
            if !took(reader, sent, stored.event.kind.generation(), &frames) {
                return false;
            }
            behind.cursor = Cursor { position: behind.cursor.position, ..cursor };
            behind.has_upto = behind.has_upto.max(behind.cursor.ordinal);
            behind.missed.pop_front();
            if !frames.is_empty() {
                behind.told = None;
            }
        }
        if behind.is_incomplete {
            behind.cursor.ordinal = behind.cursor.ordinal.max(behind.upto);
            behind.has_upto = behind.has_upto.max(behind.upto);
        }
        true
    }

    /// `false` where the reader did not take all of it.
    fn bring(&self, words: &Words<'_>, owed: &mut Owed) -> bool {
        let Owed { reader, behind, unwanted, sent } = owed;
        let mut took =
            |about: Option<GenerationId>, frames: &[Frame]| took(reader, sent, about, frames);
        for generation in behind.unsure.drain(..) {
            place::set_void(&mut behind.cursor, generation);
        }
        if behind.is_incomplete {
            // From its place in the log on that brings them once more.
            if behind.has_upto > self.logged {
                behind.cursor.given = behind.has_upto;
            }
            let told = words.dialects.incomplete(words.dialect, words.session, &behind.cursor);
            if !took(None, told.as_slice()) {
                return false;
            }
            if told.is_none() {
                reader.stands(words.session, Stand::At(&behind.cursor));
            }
            behind.is_incomplete = false;
            behind.told = None;
        }
        if behind.cursor.part > 0 {
            let frames = self.rest_of_event(words, &behind.cursor);
            if !took(None, &frames) {
                return false;
            }
            behind.cursor.part = 0;
        }
        let skip = usize::try_from(behind.applied - self.kept_from()).unwrap_or(usize::MAX);
        for recent in self.recent.iter().skip(skip) {
            let mut cursor = behind.cursor.clone();
            let mut found = None;
            let mut frames = Vec::new();
            if !self.has(recent, behind) {
                let generation = recent.event.kind.generation();
                found = behind.found.iter().position(|found| Some(found.generation) == generation);
                frames = self.event(words, recent, behind, unwanted, &mut cursor);
            }
            if !took(recent.event.kind.generation(), &frames) {
                return false;
            }
            if let Some(found) = found
                && is_shown(&recent.event.kind)
            {
                behind.found.remove(found);
            }
            behind.cursor = cursor;
            behind.applied += 1;
        }
        behind.cursor.position = self.cursor.position;
        behind.cursor.ordinal = behind.cursor.ordinal.max(self.cursor.ordinal);
        for running in &self.running {
            let mut cursor = behind.cursor.clone();
            let frames = if unwanted.knows(running.message) {
                Vec::new()
            } else {
                self.text(words, running, behind, &mut cursor)
            };
            if !took(Some(running.generation), &frames) {
                return false;
            }
            behind.cursor = cursor;
            behind.found.retain(|found| found.generation != running.generation);
        }
        true
    }

    /// What a reader that was cut off between the frames of one event lacks of it.
    fn rest_of_event(&self, words: &Words<'_>, at: &Cursor) -> Vec<Frame> {
        let found = self.recent.iter().find(|recent| recent.position == Some(at.position));
        let Some(Recent { event, seq, .. }) = found else { return Vec::new() };
        let cursor = Cursor { part: 0, ..at.clone() };
        let frames = words.say(Shown::Event { event, seq: *seq, cursor: Some(&cursor) });
        frames.into_iter().skip(usize::from(at.part)).collect()
    }

    /// Whether a member that stands at `behind` was shown an event, or must not be any more.
    fn has(&self, recent: &Recent, behind: &Behind) -> bool {
        let cursor = &behind.cursor;
        match recent.position {
            Some(position) => position <= cursor.position,
            // The log does not have it, but it may have the end of the same answer.
            None => recent.event.kind.generation().is_some_and(|generation| {
                self.recent.iter().any(|end| {
                    end.event.kind.answer().is_some()
                        && end.event.kind.generation() == Some(generation)
                        && end.position.is_some_and(|position| position <= cursor.position)
                })
            }),
        }
    }

    /// An event, with what is missing of the text that it ends; moves `cursor` on.
    fn event(
        &self,
        words: &Words<'_>,
        recent: &Recent,
        behind: &Behind,
        unwanted: &mut Unwanted,
        cursor: &mut Cursor,
    ) -> Vec<Frame> {
        let Recent { event, seq, attempt, .. } = recent;
        let is_past = place::is_past(cursor, &event.kind);
        let has = matches!(&event.kind, EventKind::MessageNew(m) if m.ordinal <= behind.has_upto);
        let is_wanted = !is_past && !has && is_shown(&event.kind) && !unwanted.skips(event);
        let mut frames = Vec::new();
        if is_wanted {
            frames = words.running(behind, event.kind.generation(), *attempt, cursor);
            if let (Some(generation), Some(answer)) = (event.kind.generation(), event.kind.answer())
            {
                let ended = Ended { generation, answer, attempt: *attempt, seq: *seq };
                frames.extend(words.rest(&ended, recent.is_in_order(), cursor));
            }
        }
        let void = Some(&event.kind).filter(|kind| place::is_overtaken(cursor, kind));
        let void = void.and_then(place::reset_instead);
        if !is_past || event.kind.answer().is_some() {
            place::advance_texts(cursor, &event.kind, recent.is_in_order());
        }
        cursor.position = cursor.position.max(recent.place);
        cursor.ordinal = cursor.ordinal.max(recent.ordinal);
        if is_wanted {
            let cursor = recent.is_in_order().then_some(&*cursor);
            let event = void.as_ref().unwrap_or(event);
            frames.extend(words.say(Shown::Event { event, seq: *seq, cursor }));
        }
        frames
    }

    /// A message or the end of an answer from the store; moves `cursor` on.
    fn stored(
        &self,
        words: &Words<'_>,
        stored: &Stored,
        behind: &Behind,
        unwanted: &Unwanted,
        cursor: &mut Cursor,
    ) -> Vec<Frame> {
        let Stored { event, attempt } = stored;
        let ordinal = place::ordinal(&event.kind);
        let (Some(generation), Some(answer)) = (event.kind.generation(), event.kind.answer())
        else {
            cursor.ordinal = cursor.ordinal.max(ordinal);
            let is_new = ordinal > behind.has_upto
                && event.kind.brings().is_none_or(|message| !unwanted.sends(message));
            let shown = Shown::Event { event, seq: 2, cursor: Some(cursor) };
            return if is_new { words.say(shown) } else { Vec::new() };
        };
        if behind.again == Some(ordinal) {
            // What it has of it is not known.
            place::set_text(cursor, generation, place::VOID, 1);
        } else if ordinal <= behind.has_upto {
            return Vec::new();
        }
        if place::is_past(cursor, &event.kind) {
            cursor.ordinal = cursor.ordinal.max(ordinal);
            return Vec::new();
        }
        let ended = Ended { generation, answer, attempt: *attempt, seq: 2 };
        let mut frames = words.rest(&ended, true, cursor);
        let is_running = self.running.iter().any(|running| running.generation == generation);
        let is_ahead = ordinal > self.cursor.ordinal;
        place::advance_texts(cursor, &event.kind, !is_running && !is_ahead);
        cursor.ordinal = cursor.ordinal.max(ordinal);
        frames.extend(words.say(Shown::Event { event, seq: 2, cursor: Some(cursor) }));
        frames
    }

    /// What is missing of a running answer; moves `cursor` on.
    fn text(
        &self,
        words: &Words<'_>,
        running: &Running,
        behind: &Behind,
        cursor: &mut Cursor,
    ) -> Vec<Frame> {
        let Running { generation, attempt, seq, text, .. } = running;
        let mut frames = words.running(behind, Some(*generation), *attempt, cursor);
        let from = match place::has_running(cursor, running) {
            Has::Over => return Vec::new(),
            Has::Upto(from) => from,
            Has::Unfit => {
                place::set_text(cursor, *generation, *attempt, 0);
                let Running { message, agent, .. } = running;
                frames.extend(words.reset(*generation, *message, agent, *seq, cursor));
                0
            }
        };
        place::set_text(cursor, *generation, *attempt, text.len());
        let Some((delta, utf16_offset)) = text.after(from) else { return frames };
        if !delta.is_empty() {
            metrics::handles().coalesced_chunks.increment(1);
            frames.extend(words.say(Shown::Text(TextShown {
                generation: *generation,
                message: running.message,
                seq: *seq,
                utf16_offset,
                delta,
                so_far: text.as_str(),
                tokens: running.tokens,
                ordinal: 0,
                cursor: Some(cursor),
            })));
        }
        frames
    }
}

/// An answer that has ended, the attempt whose text it has (0: not known; [`place::VOID`]: of none
/// that was shown), and the number of the next chunk.
struct Ended<'a> {
    generation: GenerationId,
    answer: &'a Message,
    attempt: u32,
    seq: u64,
}

/// How one reader is shown the session.
struct Words<'a> {
    dialects: &'a Dialects,
    dialect: DialectIndex,
    session: &'a SessionId,
}

impl Words<'_> {
    fn say(&self, shown: Shown<'_>) -> Vec<Frame> {
        self.dialects.encode(self.dialect, self.session, shown)
    }

    /// That an answer is running, where the reader found it so and was not told. Whoever was told
    /// has a place in it, if only at its start.
    fn running(
        &self,
        behind: &Behind,
        generation: Option<GenerationId>,
        attempt: u32,
        cursor: &Cursor,
    ) -> Vec<Frame> {
        let found = behind.found.iter().find(|found| Some(found.generation) == generation);
        let Some(Found { is_missed, generation, message, agent }) = found else {
            return Vec::new();
        };
        let mut cursor = cursor.clone();
        if place::text(&cursor, *generation).is_none() {
            place::set_text(&mut cursor, *generation, attempt, 0);
        }
        let (generation, message) = (*generation, *message);
        if *is_missed {
            let (agent, attempt) = (agent.clone(), attempt.max(1));
            let kind = EventKind::GenerationStarted { generation, message, agent, attempt };
            let event = Event::new(kind);
            return self.say(Shown::Event { event: &event, seq: 1, cursor: Some(&cursor) });
        }
        self.say(Shown::Running { generation, message, agent, cursor: &cursor })
    }

    /// That what the reader has of an answer is void.
    fn reset(
        &self,
        generation: GenerationId,
        message: MessageId,
        agent: &AgentId,
        seq: u64,
        cursor: &Cursor,
    ) -> Vec<Frame> {
        let attempt = place::text(cursor, generation).map_or(1, |text| text.attempt.max(1));
        let event = place::made_reset(generation, message, agent.clone(), attempt);
        self.say(Shown::Event { event: &event, seq, cursor: Some(cursor) })
    }

    /// What the reader lacks of the text of an answer that has ended. `is_known`: the cursor may
    /// be told, since the log or the store has the answer.
    fn rest(&self, ended: &Ended<'_>, is_known: bool, cursor: &mut Cursor) -> Vec<Frame> {
        let Ended { generation, answer, attempt, seq } = ended;
        let content = &answer.content;
        let whose = if *attempt == place::VOID { place::STORED } else { *attempt };
        let mut frames = Vec::new();
        let from = match place::has_ended(cursor, *generation, *attempt, content) {
            Has::Over => return frames,
            Has::Upto(from) => from,
            Has::Unfit => {
                place::set_text(cursor, *generation, whose, 0);
                let agent = answer.agent.clone().unwrap_or_else(nobody);
                frames = self.reset(*generation, answer.id, &agent, *seq, cursor);
                0
            }
        };
        place::set_text(cursor, *generation, whose, content.len() as u64);
        let delta = usize::try_from(from).ok().and_then(|from| content.get(from..));
        if let Some(delta) = delta.filter(|delta| !delta.is_empty()) {
            metrics::handles().coalesced_chunks.increment(1);
            frames.extend(self.say(Shown::Text(TextShown {
                generation: *generation,
                message: answer.id,
                seq: seq.saturating_sub(1),
                utf16_offset: utf16_len(content) - utf16_len(delta),
                delta,
                so_far: content,
                tokens: answer.tokens.unwrap_or(0),
                ordinal: answer.ordinal,
                cursor: is_known.then_some(&*cursor),
            })));
        }
        frames
    }
}

/// Whether a reader took these, which are about one answer.
fn took(
    reader: &Arc<dyn Reader>,
    sent: &mut Sent,
    about: Option<GenerationId>,
    frames: &[Frame],
) -> bool {
    if frames.is_empty() {
        return true;
    }
    let is_taken = reader.offer(frames) == Offer::Taken;
    if let Some(generation) = about.filter(|_| is_taken) {
        sent.add(generation, frames);
    }
    is_taken
}

/// Stands where an answer does not say whose it is.
fn nobody() -> AgentId {
    AgentId::new("agent").expect("it is a valid id")
}
