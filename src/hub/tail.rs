//! The end of one session's log as this node knows it: what was applied, the running answers'
//! texts, and the rules by which something new follows.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::HubOptions;
use super::members::Members;
use super::place;
use super::running::Running;
use super::typing::Typing;
use crate::dialect::Dialects;
use crate::domain::{
    ActiveGeneration, Chunk, Cursor, Event, EventId, EventKind, GenerationId, Position, SessionId,
    TextCursor, Timestamp,
};
use crate::telemetry::metrics;

/// The most answers remembered whose start is not in the log.
const STRANGERS_MAX: usize = 16;

/// Whether a tail can be joined. Opening and closing hold its lock, so that a subscription is
/// never ended after a newer one was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    New,
    Open,
    Closed,
}

pub(super) struct Tail {
    pub session: SessionId,
    pub gate: tokio::sync::Mutex<Gate>,
    /// Told when a gap was filled.
    pub filled: tokio::sync::Notify,
    state: Mutex<TailState>,
}

impl Tail {
    pub(super) fn new(session: SessionId, options: &HubOptions) -> Self {
        let state = TailState {
            session: session.clone(),
            live: false,
            overflowed: false,
            pending: VecDeque::new(),
            pending_max: options.pending_max,
            cursor: Cursor::default(),
            logged: 0,
            held_from: Position::default(),
            applied: 0,
            recent: VecDeque::new(),
            recent_max: options.recent_max,
            seen: HashSet::new(),
            running: Vec::new(),
            strangers: VecDeque::new(),
            unheard: None,
            members: Members::default(),
            typing: Typing::default(),
            empty_since: Some(Instant::now()),
        };
        let gate = tokio::sync::Mutex::new(Gate::New);
        Self { session, gate, filled: tokio::sync::Notify::new(), state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, TailState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that arrived and is not applied yet.
pub(super) enum Item {
    Chunk(Chunk),
    Event(Position, Arc<Event>),
}

/// Whether an item could be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It was, or had been, or does not matter any more.
    Yes,
    /// Something before it is missing.
    Gap,
}

pub(super) struct Recent {
    pub event: Arc<Event>,
    /// The next chunk's number, of the generation that the event is about.
    pub seq: u64,
    /// Where the log has it; `None` until it does.
    pub position: Option<Position>,
    /// What the log had brought when this was shown.
    pub place: Position,
    /// And the highest ordinal of its messages.
    pub ordinal: u64,
    /// Whose text it ends; 0 where that is not known, [`place::VOID`] where it is none's that was
    /// shown.
    pub attempt: u32,
}

impl Recent {
    /// Whether it was shown when the log brought it, and so in the log's order.
    pub(super) fn is_in_order(&self) -> bool {
        self.position == Some(self.place)
    }
}

pub(super) struct TailState {
    pub session: SessionId,
    /// `false` while it is opened or a gap is filled: what arrives waits in `pending`.
    live: bool,
    /// Something arrived that `pending` had no room for.
    overflowed: bool,
    pending: VecDeque<Item>,
    pending_max: usize,
    /// Where a member stands that is live: the last event that the log brought, and the texts of
    /// the running answers.
    pub cursor: Cursor,
    /// The highest ordinal of the messages that the log brought; 0: none.
    pub logged: u64,
    /// `recent` has all that the log brought after this.
    held_from: Position,
    /// Counts the events applied by this tail, whatever their epoch.
    pub applied: u64,
    pub recent: VecDeque<Recent>,
    pub recent_max: usize,
    /// The ids of `recent`: an event that is appended twice is shown once.
    pub seen: HashSet<EventId>,
    pub running: Vec<Running>,
    /// Answers whose start the log no longer holds.
    pub strangers: VecDeque<GenerationId>,
    /// The attempt whose text waits, but the log, read once, did not tell of.
    unheard: Option<(GenerationId, u32)>,
    pub members: Members,
    pub typing: Typing,
    empty_since: Option<Instant>,
}

impl TailState {
    /// How many events were applied before the oldest that is kept.
    pub(super) fn kept_from(&self) -> u64 {
        self.applied - self.recent.len() as u64
    }

    /// Whether all that the log brought after a cursor is kept. `stored`: as many messages there are.
    pub(super) fn holds_since(&self, cursor: &Cursor, stored: u64) -> bool {
        let (position, end) = (cursor.position, self.cursor.position);
        if position == Position::default() {
            return self.begins_after(cursor.ordinal, stored);
        }
        let is_kept = self.held_from <= position && position <= end;
        position == end || (position.epoch == end.epoch && is_kept)
    }

    /// Whether all is kept that happened after the message of an ordinal, where the log had
    /// nothing then. It may have been lost since: so it has to begin with the message that follows,
    /// or there is none.
    fn begins_after(&self, ordinal: u64, stored: u64) -> bool {
        let mut ordinals = self.recent.iter().map(|recent| place::ordinal(&recent.event.kind));
        let first = ordinals.find(|first| *first > 0);
        let before = first.map_or(stored.max(self.logged), |first| first - 1);
        self.held_from.seq == 0 && before == ordinal
    }

    /// Whether a cursor may tell of something that this tail has not heard yet.
    pub(super) fn is_short_of(&self, cursor: &Cursor) -> bool {
        let is_shorter = |text: &TextCursor| {
            let running = self.running.iter().find(|r| r.generation == text.generation);
            // A later attempt's text may also be shorter because it was begun anew.
            running.is_some_and(|r| {
                !place::is_void(text) && (r.attempt < text.attempt || r.text.len() < text.offset)
            })
        };
        cursor.position > self.cursor.position || cursor.texts.iter().any(is_shorter)
    }

    /// Whether a reader has more of a running text (UTF-16 offsets) than this tail.
    pub(super) fn is_shorter_than(&self, texts: &[(GenerationId, u64)]) -> bool {
        texts.iter().any(|(generation, utf16)| {
            self.at(*generation).is_some_and(|at| self.running[at].text.utf16_len() < *utf16)
        })
    }

    /// Whether what arrives is applied at once.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn active(&self) -> Vec<ActiveGeneration> {
        let active = self.running.iter().map(|running| ActiveGeneration {
            generation: running.generation,
            message: running.message,
            agent: running.agent.clone(),
            utf16_len: running.text.utf16_len(),
        });
        active.collect()
    }

    /// Takes a chunk that arrived; `true` where it leaves a gap that has to be filled now.
    pub(super) fn take_chunk(&mut self, dialects: &Dialects, chunk: Chunk) -> bool {
        if !self.live {
            self.hold(Item::Chunk(chunk));
            return false;
        }
        let gap = self.apply_chunk(dialects, &chunk) == Applied::Gap;
        if gap {
            self.live = false;
            self.hold(Item::Chunk(chunk));
        }
        gap
    }

    /// Takes an event that arrived; `true` where it leaves a gap that has to be filled now.
    pub(super) fn take_event(
        &mut self,
        dialects: &Dialects,
        position: Position,
        event: Arc<Event>,
    ) -> bool {
        let gap = self.live && self.apply_event(dialects, position, &event) == Applied::Gap;
        if gap {
            self.live = false;
        } else if self.live && self.is_owed_text() {
            self.live = false;
            return true;
        }
        if !self.live {
            // What is missing may be long in coming, and nobody keeps their access that long.
            if matches!(event.kind, EventKind::AccessRevoked(_)) {
                self.show_unlogged(dialects, &event);
            }
            self.hold(Item::Event(position, event));
        }
        gap
    }

    fn hold(&mut self, item: Item) {
        if self.pending.len() < self.pending_max {
            self.pending.push_back(item);
        } else {
            self.overflowed = true;
        }
    }

    /// Begins filling a gap from outside; `false` where that is under way already, and then it
    /// reads once more before it ends.
    pub(super) fn begin_refill(&mut self) -> bool {
        self.overflowed |= !self.live;
        std::mem::replace(&mut self.live, false)
    }

    /// Applies what waited while a gap was filled. `Yes`: the tail is live again.
    pub(super) fn end_refill(&mut self, dialects: &Dialects) -> Applied {
        if std::mem::take(&mut self.overflowed) {
            self.pending.clear();
            return Applied::Gap;
        }
        while let Some(item) = self.pending.pop_front() {
            let applied = match &item {
                Item::Chunk(chunk) => self.apply_chunk(dialects, chunk),
                Item::Event(position, event) => self.apply_event(dialects, *position, event),
            };
            if applied == Applied::Gap && !self.is_stranger(&item) {
                let unheard = self.unheard(&item);
                self.pending.push_front(item);
                // What it waits for may have been appended after the log was read: once more.
                if let Some((generation, attempt)) = unheard.filter(|_| self.unheard == unheard) {
                    self.adopt(dialects, generation, attempt);
                    continue;
                }
                self.unheard = unheard;
                return Applied::Gap;
            }
        }
        if self.is_owed_text() {
            return Applied::Gap;
        }
        self.unheard = None;
        self.live = true;
        Applied::Yes
    }

    /// Whether an item is the text of an answer whose start is not in the log, which was just read:
    /// more than the log holds has happened since. Its readers get it whole at its end.
    fn is_stranger(&mut self, item: &Item) -> bool {
        let Item::Chunk(chunk) = item else { return false };
        if self.running.iter().any(|running| running.generation == chunk.generation) {
            return false;
        }
        if self.strangers.len() == STRANGERS_MAX {
            self.strangers.pop_front();
        }
        self.strangers.push_back(chunk.generation);
        true
    }

    /// The attempt that an item is text of, where nothing else was heard of it.
    fn unheard(&self, item: &Item) -> Option<(GenerationId, u32)> {
        let Item::Chunk(chunk) = item else { return None };
        let at = self.at(chunk.generation)?;
        let is_newer = chunk.attempt > self.running[at].attempt;
        is_newer.then_some((chunk.generation, chunk.attempt))
    }

    /// Accepts that what follows does not follow what was applied: the log has begun a new epoch,
    /// or has dropped what was not read in time.
    pub(super) fn jump(&mut self, before: Position) {
        self.cursor.position = Position { seq: before.seq.saturating_sub(1), ..before };
        self.held_from = self.cursor.position;
        self.lose_track();
    }

    /// Applies text, if it follows the text so far, and shows what is new of it.
    pub(super) fn apply_chunk(&mut self, dialects: &Dialects, chunk: &Chunk) -> Applied {
        let Some(at) = self.at(chunk.generation) else {
            let over = self.is_over(chunk.generation);
            let stranger = self.strangers.contains(&chunk.generation);
            return if over || stranger { Applied::Yes } else { Applied::Gap };
        };
        let len = self.running[at].text.len();
        if chunk.attempt < self.running[at].attempt {
            return Applied::Yes;
        }
        if chunk.attempt > self.running[at].attempt || chunk.offset > len {
            return Applied::Gap;
        }
        if chunk.end() <= len {
            return Applied::Yes;
        }
        let applied = usize::try_from(len - chunk.offset).unwrap_or(usize::MAX);
        // Both ends of a text are boundaries of characters, so this is `None` only for a text
        // that differs from the one applied: then the stored answer decides.
        let Some(delta) = chunk.delta.get(applied..) else { return Applied::Yes };
        self.grow(dialects, at, delta, chunk.seq, chunk.tokens);
        let delay = Timestamp::now().since(Timestamp::from_millis(chunk.read_at_ms));
        metrics::handles().chunk_delivery.record(delay);
        Applied::Yes
    }

    /// Applies text that was read rather than heard: its number and token count are not known, so
    /// the next number is taken, and eight bytes count as a token until the next chunk tells.
    pub(super) fn apply_text(
        &mut self,
        dialects: &Dialects,
        generation: GenerationId,
        attempt: u32,
        offset: u64,
        text: &str,
    ) {
        let Some(at) = self.at(generation) else { return };
        let running = &mut self.running[at];
        if running.attempt == attempt {
            running.owed = 0;
        }
        let fits = running.attempt == attempt && running.text.len() == offset;
        if fits && !text.is_empty() {
            let tokens = (offset + text.len() as u64).div_ceil(8).max(running.tokens);
            self.grow(dialects, at, text, 0, tokens);
        }
    }

    /// Applies an event that was heard, if it follows the position, and shows it.
    fn apply_event(
        &mut self,
        dialects: &Dialects,
        position: Position,
        event: &Arc<Event>,
    ) -> Applied {
        if position <= self.cursor.position {
            return Applied::Yes;
        }
        // The first event of a new epoch tells nothing of the last ones of the old.
        let begins = self.cursor.position == Position::default() && position.seq == 1;
        if !position.follows(self.cursor.position) && !begins {
            return Applied::Gap;
        }
        self.apply_read(dialects, position, event);
        Applied::Yes
    }

    /// Applies an event of a page that was read, where nothing stands between it and the one
    /// before.
    pub(super) fn apply_read(
        &mut self,
        dialects: &Dialects,
        position: Position,
        event: &Arc<Event>,
    ) {
        if position <= self.cursor.position {
            return;
        }
        if self.seen.insert(event.id) {
            self.show_event(dialects, event, Some(position));
        } else {
            self.place(event, position);
        }
    }

    /// The log brings an event that was shown before.
    fn place(&mut self, event: &Event, position: Position) {
        self.moves_to(position, &event.kind);
        if let (Some(generation), Some(_)) = (event.kind.generation(), event.kind.answer()) {
            place::forget(&mut self.cursor, generation);
        }
        let shown = self.recent.iter_mut().rev().find(|recent| recent.event.id == event.id);
        if let Some(recent) = shown {
            recent.position.get_or_insert(position);
        }
    }

    /// Keeps an event that was shown, and drops the oldest where there are too many.
    pub(super) fn keep(&mut self, recent: Recent) {
        self.applied += 1;
        self.recent.push_back(recent);
        while self.recent.len() > self.recent_max {
            if let Some(oldest) = self.recent.pop_front() {
                self.seen.remove(&oldest.event.id);
                self.held_from = self.held_from.max(oldest.position.unwrap_or_default());
            }
        }
    }

    /// Shows an event that the log does not have yet. When it has, the id is known.
    pub(super) fn show_unlogged(&mut self, dialects: &Dialects, event: &Arc<Event>) {
        if self.seen.insert(event.id) {
            self.show_event(dialects, event, None);
        }
    }

    /// Shows text that the log does not have yet, also while a gap waits for Redis to be filled.
    /// What does not follow is passed over: it comes again, from the log.
    pub(super) fn show_ahead(&mut self, dialects: &Dialects, chunk: &Chunk) {
        let _ = self.apply_chunk(dialects, chunk);
    }

    /// Whether nobody has been a member for `linger`. Looks, and remembers since when.
    pub(super) fn is_idle(&mut self, linger: Duration) -> bool {
        if !self.members.is_empty() {
            self.empty_since = None;
            return false;
        }
        self.empty_since.get_or_insert_with(Instant::now).elapsed() >= linger
    }
}
