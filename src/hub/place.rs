//! Where a reader stands that does not have everything, and how an event moves a cursor on.

use std::collections::VecDeque;

use super::running::Running;
use super::tail::TailState;
use super::{FromStore, ReaderId, Stand, Stored};
use crate::domain::{
    AgentId, Cursor, Event, EventKind, GenerationId, MessageId, Position, TextCursor,
};

/// Stands for an attempt where the text is the stored answer's, whichever wrote that.
pub(super) const STORED: u32 = 0;
/// Stands for an attempt where a reader was shown text that may not be what the answer has there:
/// it starts over.
pub(super) const VOID: u32 = u32::MAX;

/// An answer whose end a reader was shown before the log had it: nothing more of it is shown. No
/// attempt has this number, and no text this length.
const fn over(generation: GenerationId) -> TextCursor {
    TextCursor { generation, attempt: STORED, offset: u64::MAX }
}

/// An answer that was running when a reader joined.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// It began after the reader's place, and the log does not hold that any more.
    pub is_missed: bool,
    pub generation: GenerationId,
    pub message: MessageId,
    pub agent: AgentId,
}

/// Where a member stands that was not given everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind {
    /// Counts the events of the tail that it is past, given or passed over.
    pub applied: u64,
    /// What it was shown. Of the tail's other events, those that are not after its position were
    /// shown to it, too; a running answer that it does not name stands at 0.
    pub cursor: Cursor,
    /// Nothing is offered before [`super::members::Members::admit`].
    pub held: bool,
    /// Answers that it found running and was not told of yet.
    pub found: Vec<Found>,
    /// What comes before everything else, from the store; at most a page.
    pub missed: VecDeque<Stored>,
    /// The store has more after these.
    pub has_more: bool,
    /// With these it has all messages up to this ordinal.
    pub upto: u64,
    /// It waits for what the store has, since the tail does not hold what it is owed.
    pub is_lost: bool,
    /// It stands at the end of the log without having been shown all that came before: until it
    /// was told so, only the store can bring it on from where it is.
    pub is_incomplete: bool,
    /// What its client says about its place, as long as nothing was offered to it from the store.
    pub told: Option<Cursor>,
    /// The ordinal of an answer of whose end it was shown a part only: all of that comes again.
    pub again: Option<u64>,
    /// Answers of which it has text, whose ends may be among these, and of which too little is
    /// known for it to go on otherwise.
    pub unsure: Vec<GenerationId>,
    /// It has all messages up to this ordinal, also where the log brings them later.
    pub has_upto: u64,
}

impl Behind {
    /// A reader that joins now and has `texts` (UTF-16 offsets) of the running answers. It does not
    /// say of which attempts: beyond what all of them have in common, or the end of the text, it
    /// starts over. Also where it has text of an answer that nothing is known of. It is not to be
    /// shown what is `stored`, but for the ends of the answers that it finds running.
    pub(super) fn now(state: &TailState, texts: &[(GenerationId, u64)], stored: u64) -> Self {
        let mut behind = Self::at(state.applied, &state.cursor);
        behind.held = true;
        if state.logged == 0 {
            // Where others are here, it says of such ends what they say.
            let may_end = !state.running.is_empty() && !state.members.is_empty();
            let most = if may_end { behind.cursor.ordinal } else { u64::MAX };
            behind.cursor.ordinal = stored.min(most);
        }
        for running in &state.running {
            let generation = running.generation;
            match texts.iter().find(|(id, _)| *id == generation) {
                Some((_, utf16)) => {
                    let offset = running.text.byte_offset(*utf16);
                    match offset.filter(|offset| *offset <= running.lineage.all_stand()) {
                        Some(offset) => {
                            set_text(&mut behind.cursor, generation, running.attempt, offset);
                        }
                        None => set_text(&mut behind.cursor, generation, VOID, 1),
                    }
                }
                None => forget(&mut behind.cursor, generation),
            }
            behind.found.push(Found::of(running, false));
        }
        for (generation, utf16) in texts {
            if *utf16 > 0 && state.strangers.contains(generation) {
                set_text(&mut behind.cursor, *generation, VOID, 1);
            }
        }
        behind
    }

    /// A reader that goes on after `cursor`, and whether all that came since is kept. Otherwise it
    /// stands at the end, with what it has of answers. `stored`: as many messages there are.
    pub(super) fn after(state: &TailState, cursor: &Cursor, stored: u64) -> (Self, bool) {
        let is_whole = state.holds_since(cursor, stored)
            && (cursor.part == 0
                || state.recent.iter().any(|r| r.position == Some(cursor.position)));
        let mut behind = if is_whole {
            let mut behind = Self::at(state.applied, cursor);
            behind.has_upto = cursor.given;
            let is_old = |at: Option<Position>| at.is_some_and(|at| at <= cursor.position);
            let old = state.recent.iter().take_while(|recent| is_old(recent.position)).count();
            behind.applied = state.kept_from() + old as u64;
            behind.find_running(state, false);
            behind
        } else {
            Self { told: Some(cursor.clone()), ..Self::beyond(state, cursor) }
        };
        behind.held = true;
        (behind, is_whole)
    }

    /// One that fell behind what is kept, and stands at the end instead.
    pub(super) fn further(state: &TailState, lost: &Self) -> Self {
        let mut behind = Self::beyond(state, &lost.cursor);
        behind.told = match lost.is_incomplete {
            true => lost.told.clone(),
            false => Some(lost.cursor.clone()),
        };
        let again = lost.again.filter(|ordinal| *ordinal > lost.cursor.ordinal);
        behind.again = behind.again.or(again);
        behind.has_upto = behind.has_upto.max(lost.has_upto);
        behind.is_lost = true;
        behind
    }

    /// At the end of the log, with what a reader at `cursor` has of answers.
    fn beyond(state: &TailState, cursor: &Cursor) -> Self {
        let mut behind = Self::at(state.applied, cursor);
        behind.is_incomplete = true;
        behind.has_upto = cursor.ordinal.max(cursor.given);
        behind.again = (cursor.part > 0).then_some(cursor.ordinal);
        behind.cursor.ordinal = cursor.has_upto();
        behind.cursor.part = 0;
        behind.cursor.position = state.cursor.position;
        behind.settle(state);
        behind.find_running(state, true);
        behind
    }

    /// The running answers that began before the reader's place, and that it was not told of.
    fn find_running(&mut self, state: &TailState, is_missed: bool) {
        let skip = usize::try_from(self.applied - state.kept_from()).unwrap_or(usize::MAX);
        for running in &state.running {
            let generation = running.generation;
            let begins = |kind: &EventKind| {
                kind.generation() == Some(generation)
                    && matches!(kind, EventKind::GenerationStarted { .. })
            };
            let is_told = text(&self.cursor, generation).is_some()
                || state.recent.iter().skip(skip).any(|recent| begins(&recent.event.kind));
            if !is_told {
                self.found.push(Found::of(running, is_missed));
            }
        }
    }

    /// What the reader's texts are worth where what came since is not kept.
    fn settle(&mut self, state: &TailState) {
        for at in 0..self.cursor.texts.len() {
            let text = self.cursor.texts[at];
            match state.at(text.generation).map(|at| &state.running[at]) {
                Some(running) => match has_running(&self.cursor, running) {
                    Has::Upto(_) => self.cursor.texts[at].attempt = running.attempt,
                    Has::Unfit => self.unsure.push(text.generation),
                    Has::Over => {}
                },
                None => self.unsure.push(text.generation),
            }
        }
    }

    /// A reader that was live up to here and did not take what came next.
    pub(super) fn at(applied: u64, cursor: &Cursor) -> Self {
        Self { applied, cursor: cursor.clone(), ..Self::default() }
    }

    /// The cursor of whoever has all that this one was given.
    pub(super) fn stands(&self) -> Cursor {
        match &self.told {
            Some(told) => told.clone(),
            None if self.is_incomplete => self.off_the_log(),
            None => self.cursor.clone(),
        }
    }

    /// The place of whoever can be brought on from the store only.
    pub(super) fn off_the_log(&self) -> Cursor {
        Cursor { position: Position::default(), ..self.cursor.clone() }
    }
}

impl Found {
    fn of(running: &Running, is_missed: bool) -> Self {
        let Running { generation, message, agent, .. } = running;
        let (generation, message, agent) = (*generation, *message, agent.clone());
        Self { is_missed, generation, message, agent }
    }
}

impl TailState {
    /// A member joins again whose frontend forgets the text of running answers by that: of each it
    /// is told anew, and shown all of it. One that is to be brought on from the store is so anyway.
    pub(super) fn show_running_again(&mut self, id: ReaderId) {
        let place = Behind::at(self.applied, &self.cursor);
        let Some(behind) = self.members.hold(id, place) else { return };
        for running in &self.running {
            let has_some = text(&behind.cursor, running.generation).is_some();
            if has_some && has_running(&behind.cursor, running) != Has::Over {
                forget(&mut behind.cursor, running.generation);
                behind.found.push(Found::of(running, false));
            }
        }
    }

    /// Tells a reader where it stands that is about to be offered what it is owed: where it joined,
    /// with what the store gave it beside that.
    pub(super) fn settle_place(&self, id: ReaderId, from_store: &FromStore) {
        let Some((reader, behind)) = self.members.held(id) else { return };
        let mut at = behind.stands();
        if !behind.is_incomplete {
            if from_store.upto > at.ordinal {
                at.given = from_store.upto;
            }
            for running in &self.running {
                if from_store.known.contains(&running.message) {
                    set_over(&mut at, running.generation);
                }
            }
        }
        reader.stands(&self.session, Stand::At(&at));
    }
}

/// What a cursor says about an answer's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    /// This much of it, in bytes; 0 where the cursor does not name it.
    Upto(u64),
    /// Something that cannot be continued: it starts over.
    Unfit,
    /// All of it, and its end.
    Over,
}

/// What a cursor says about the running text of an answer.
pub(super) fn has_running(cursor: &Cursor, running: &Running) -> Has {
    has(cursor, running.generation, |text| {
        let stands = running.stands(text.attempt);
        stands.is_some_and(|stands| text.offset <= stands)
            && running.text.after(text.offset).is_some()
    })
}

/// What a cursor says about the text of an answer that has ended. `attempt` 0: whose it was is not
/// known; [`VOID`]: of none that was shown.
pub(super) fn has_ended(
    cursor: &Cursor,
    generation: GenerationId,
    attempt: u32,
    content: &str,
) -> Has {
    has(cursor, generation, |text| {
        let is_same = [attempt, STORED].contains(&text.attempt) || attempt == 0;
        is_same && usize::try_from(text.offset).is_ok_and(|at| content.is_char_boundary(at))
    })
}

fn has(cursor: &Cursor, generation: GenerationId, fits: impl Fn(&TextCursor) -> bool) -> Has {
    match text(cursor, generation) {
        None => Has::Upto(0),
        Some(text) if is_over(text) => Has::Over,
        Some(text) if !is_void(text) && fits(text) => Has::Upto(text.offset),
        Some(_) => Has::Unfit,
    }
}

pub(super) fn text(cursor: &Cursor, generation: GenerationId) -> Option<&TextCursor> {
    cursor.texts.iter().find(|text| text.generation == generation)
}

pub(super) fn set_text(cursor: &mut Cursor, generation: GenerationId, attempt: u32, offset: u64) {
    put(cursor, TextCursor { generation, attempt, offset });
}

/// Nothing more of the answer is shown, until the log brings its end.
pub(super) fn set_over(cursor: &mut Cursor, generation: GenerationId) {
    put(cursor, over(generation));
}

pub(super) fn is_over(text: &TextCursor) -> bool {
    *text == over(text.generation)
}

pub(super) fn is_void(text: &TextCursor) -> bool {
    text.attempt == VOID
}

/// What a reader was shown of an answer may not hold.
pub(super) fn set_void(cursor: &mut Cursor, generation: GenerationId) {
    let text = cursor.texts.iter_mut().find(|text| text.generation == generation);
    if let Some(text) = text.filter(|text| !is_over(text)) {
        text.attempt = VOID;
    }
}

pub(super) fn put(cursor: &mut Cursor, new: TextCursor) {
    match cursor.texts.iter_mut().find(|text| text.generation == new.generation) {
        Some(text) => *text = new,
        None => cursor.texts.push(new),
    }
}

pub(super) fn forget(cursor: &mut Cursor, generation: GenerationId) {
    cursor.texts.retain(|text| text.generation != generation);
}

/// Whether a reader was shown the beginning of this attempt, since it has text of it or of a later
/// one, or will be shown nothing more of the answer.
pub(super) fn is_past(cursor: &Cursor, kind: &EventKind) -> bool {
    let Some(named) = kind.generation().and_then(|generation| text(cursor, generation)) else {
        return false;
    };
    match kind {
        EventKind::GenerationStarted { attempt, .. } => is_over(named) || *attempt <= named.attempt,
        EventKind::GenerationReset { attempt, .. }
        | EventKind::GenerationResumed { attempt, .. } => {
            is_over(named) || (!is_void(named) && *attempt <= named.attempt)
        }
        EventKind::GenerationCompleted { .. }
        | EventKind::GenerationStopped { .. }
        | EventKind::GenerationFailed { .. } => is_over(named),
        _ => false,
    }
}

/// What an event that is shown changes about the texts of whoever is shown it. `is_logged`: the
/// log had it then, so that it does not come again.
pub(super) fn advance_texts(cursor: &mut Cursor, kind: &EventKind, is_logged: bool) {
    match kind {
        EventKind::GenerationStarted { generation, attempt, .. }
        | EventKind::GenerationReset { generation, attempt, .. } => {
            set_text(cursor, *generation, *attempt, 0);
        }
        EventKind::GenerationResumed { generation, attempt, offset, .. } => {
            let stands = text(cursor, *generation).filter(|text| stands(text, *offset));
            let stands = stands.map_or(0, |text| text.offset);
            set_text(cursor, *generation, *attempt, stands);
        }
        kind => {
            if let (Some(generation), Some(_)) = (kind.generation(), kind.answer()) {
                if is_logged {
                    forget(cursor, generation);
                } else {
                    set_over(cursor, generation);
                }
            }
        }
    }
}

fn stands(text: &TextCursor, offset: u64) -> bool {
    !is_void(text) && text.offset <= offset
}

/// Whether a reader was shown text that does not stand where an attempt goes on.
pub(super) fn is_overtaken(cursor: &Cursor, kind: &EventKind) -> bool {
    let EventKind::GenerationResumed { generation, offset, .. } = kind else { return false };
    text(cursor, *generation).is_some_and(|text| !stands(text, *offset))
}

/// The attempt that an event begins.
pub(super) fn begun(kind: &EventKind) -> Option<(GenerationId, u32)> {
    match kind {
        EventKind::GenerationStarted { generation, attempt, .. }
        | EventKind::GenerationReset { generation, attempt, .. }
        | EventKind::GenerationResumed { generation, attempt, .. } => Some((*generation, *attempt)),
        _ => None,
    }
}

/// What somebody is shown instead of an attempt's going on whose text does not stand.
pub(super) fn reset_instead(kind: &EventKind) -> Option<Event> {
    let EventKind::GenerationResumed { generation, message, agent, attempt, .. } = kind else {
        return None;
    };
    Some(made_reset(*generation, *message, agent.clone(), *attempt))
}

/// The ordinal of the message that an event brings whole; 0 where it brings none.
pub(super) fn ordinal(kind: &EventKind) -> u64 {
    match kind {
        EventKind::MessageNew(message) => message.ordinal,
        kind => kind.answer().map_or(0, |answer| answer.ordinal),
    }
}

/// Says that what a reader has of an answer is void, where the log has no event that does.
pub(super) fn made_reset(
    generation: GenerationId,
    message: MessageId,
    agent: AgentId,
    attempt: u32,
) -> Event {
    let reason = "What was shown of this answer cannot be continued".to_owned();
    Event::new(EventKind::GenerationReset { generation, message, agent, attempt, reason })
}
