//! What a tail's members are shown of what it applies, and what that changes about the running
//! answers.

use std::sync::Arc;

use super::place::{self, Behind};
use super::running::{Lineage, Running};
use super::tail::{Recent, TailState};
use crate::dialect::{Dialects, Shown, TextShown};
use crate::domain::{Cursor, Event, EventKind, GenerationId, Message, Position};

impl TailState {
    /// Appends to a running text and shows it.
    pub(super) fn grow(
        &mut self,
        dialects: &Dialects,
        at: usize,
        delta: &str,
        seq: u64,
        tokens: u64,
    ) {
        let running = &mut self.running[at];
        let (generation, attempt) = (running.generation, running.attempt);
        let (before, utf16_offset) = (running.text.len(), running.text.utf16_len());
        running.text.push(delta);
        running.seq = seq.max(running.seq.saturating_add(1));
        running.tokens = tokens;
        place::set_text(&mut self.cursor, generation, attempt, running.text.len());
        let running = &self.running[at];
        let shown = Shown::Text(TextShown {
            generation,
            message: running.message,
            seq: running.seq,
            utf16_offset,
            delta,
            so_far: running.text.as_str(),
            tokens: running.tokens,
            ordinal: 0,
            cursor: Some(&self.cursor),
        });
        self.members.hand(dialects, &self.session, shown, None, || {
            let mut behind = Behind::at(self.applied, &self.cursor);
            place::set_text(&mut behind.cursor, generation, attempt, before);
            Some(behind)
        });
        self.catch_up_passed(dialects);
    }

    /// Shows an event to the members that are live, and keeps it for those that are behind.
    /// `position`: where the log has it, if it does.
    pub(super) fn show_event(
        &mut self,
        dialects: &Dialects,
        event: &Arc<Event>,
        position: Option<Position>,
    ) {
        // Also those that are held or behind: what they are owed is not theirs any more.
        if let EventKind::AccessRevoked(revoked) = &event.kind {
            let place = || Behind::at(self.applied, &self.cursor);
            self.members.revoke(&self.session, revoked, place);
        }
        let event = &self.understood(event);
        let generation = event.kind.generation();
        let at = generation.and_then(|generation| self.at(generation));
        let ends = match (at, event.kind.answer()) {
            (Some(at), Some(answer)) => self.show_rest(dialects, at, answer),
            _ => true,
        };
        let mut before = self.cursor.clone();
        if let (None, Some(generation), Some(answer)) = (at, generation, event.kind.answer()) {
            self.show_whole(dialects, generation, answer, position.is_some());
            // Whoever is live has its text now.
            place::set_text(&mut before, generation, 0, answer.content.len() as u64);
        }
        let (seq, attempt) = at.map_or((2, 0), |at| {
            (self.running[at].seq.saturating_add(1), self.running[at].attempt)
        });
        let attempt = if ends { attempt } else { place::VOID };
        // Whoever is live was shown more than the new attempt goes on from.
        let stands = self.overtaken(at, &event.kind);
        let void = stands.as_ref().and_then(|_| place::reset_instead(&event.kind));
        self.note(event, at);
        self.move_on(&event.kind, position);
        if is_shown(&event.kind) {
            let cursor = position.map(|_| &self.cursor);
            let shown = Shown::Event { event: void.as_ref().unwrap_or(event), seq, cursor };
            let place = || Some(Behind::at(self.applied, &before));
            self.members.hand(dialects, &self.session, shown, None, place);
        }
        let Cursor { position: place, ordinal, .. } = self.cursor;
        self.keep(Recent { event: event.clone(), seq, position, place, ordinal, attempt });
        self.catch_up_passed(dialects);
        if let (Some(at), Some(text)) = (at, stands.filter(|text| !text.is_empty())) {
            self.grow(dialects, at, &text, 0, (text.len() as u64).div_ceil(8));
        }
    }

    /// Where a member stands that was shown an event.
    fn move_on(&mut self, kind: &EventKind, position: Option<Position>) {
        // The texts that are shown go on, whatever was resumed from.
        match kind {
            EventKind::GenerationResumed { generation, attempt, .. } => {
                let len = self.at(*generation).map_or(0, |at| self.running[at].text.len());
                place::set_text(&mut self.cursor, *generation, *attempt, len);
            }
            kind => place::advance_texts(&mut self.cursor, kind, position.is_some()),
        }
        if let Some(position) = position {
            self.moves_to(position, kind);
        }
    }

    /// The log has brought an event.
    pub(super) fn moves_to(&mut self, position: Position, kind: &EventKind) {
        self.cursor.position = position;
        self.logged = self.logged.max(place::ordinal(kind));
        self.cursor.ordinal = self.cursor.ordinal.max(self.logged);
    }

    /// Shows those what was just shown to the others, each with its own cursor, that stand apart.
    fn catch_up_passed(&mut self, dialects: &Dialects) {
        for reader in self.members.passed() {
            self.catch_up(dialects, reader);
        }
    }

    /// Shows the text of an answer whose start and text never reached the log, because Redis was
    /// away for as long as it was written.
    fn show_whole(
        &mut self,
        dialects: &Dialects,
        generation: GenerationId,
        answer: &Message,
        is_logged: bool,
    ) {
        if answer.content.is_empty() {
            return;
        }
        let mut cursor = self.cursor.clone();
        place::set_text(&mut cursor, generation, 0, answer.content.len() as u64);
        let shown = Shown::Text(TextShown {
            generation,
            message: answer.id,
            seq: 1,
            utf16_offset: 0,
            delta: &answer.content,
            so_far: &answer.content,
            tokens: answer.tokens.unwrap_or(0),
            ordinal: answer.ordinal,
            cursor: is_logged.then_some(&cursor),
        });
        self.members.hand(dialects, &self.session, shown, None, || {
            Some(Behind::at(self.applied, &self.cursor))
        });
    }

    /// What an event changes about the running answers.
    fn note(&mut self, event: &Event, at: Option<usize>) {
        match &event.kind {
            EventKind::GenerationStarted { generation, message, agent, attempt }
            | EventKind::GenerationReset { generation, message, agent, attempt, .. } => {
                let lineage = match event.kind {
                    EventKind::GenerationStarted { .. } => Lineage::started(),
                    _ => Lineage::default(),
                };
                let mut running =
                    Running::new(*generation, *message, agent.clone(), *attempt, lineage);
                running.seq = at.map_or(0, |at| self.running[at].seq);
                self.strangers.retain(|stranger| stranger != generation);
                match at {
                    Some(at) => self.running[at] = running,
                    None => self.running.push(running),
                }
            }
            EventKind::GenerationResumed {
                generation, message, agent, attempt, offset, ..
            } => match at {
                Some(at) => self.running[at].resume(*attempt, *offset),
                None => {
                    let lineage = Lineage::joined(*attempt, *offset);
                    let mut running =
                        Running::new(*generation, *message, agent.clone(), *attempt, lineage);
                    running.owed = *offset;
                    self.strangers.retain(|stranger| stranger != generation);
                    self.running.push(running);
                }
            },
            kind if kind.answer().is_some() => {
                if let Some(at) = at {
                    self.running.remove(at);
                }
            }
            _ => {}
        }
    }
}

/// Whether an event is for readers: the others only hold their place.
pub(super) fn is_shown(kind: &EventKind) -> bool {
    !matches!(
        kind,
        EventKind::AccessRevoked(_) | EventKind::Unknown | EventKind::GenerationEnded { .. }
    )
}
