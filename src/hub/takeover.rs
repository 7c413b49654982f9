//! What an attempt that follows another changes: which of its words hold, and which readers have
//! to start over.

use std::sync::Arc;

use super::place::{self, Behind};
use super::running::{Lineage, Running};
use super::tail::TailState;
use crate::dialect::{Dialects, Shown};
use crate::domain::{Event, EventKind, GenerationId, Message, Text};

impl TailState {
    pub(super) fn at(&self, generation: GenerationId) -> Option<usize> {
        self.running.iter().position(|running| running.generation == generation)
    }

    /// Whether the end of an answer is among what was shown.
    pub(super) fn is_over(&self, generation: GenerationId) -> bool {
        self.recent.iter().any(|recent| {
            let kind = &recent.event.kind;
            kind.answer().is_some() && kind.generation() == Some(generation)
        })
    }

    /// What an event comes to here. One of an attempt that is not the newest, or of an answer that
    /// is over, holds its place and no more: a node that was frozen says late what it meant to do.
    /// One that goes on with words which are not known to be those that were shown starts over.
    pub(super) fn understood(&self, event: &Arc<Event>) -> Arc<Event> {
        let Some((generation, attempt)) = place::begun(&event.kind) else { return event.clone() };
        let kind = match self.at(generation).map(|at| &self.running[at]) {
            None if self.is_over(generation) => EventKind::Unknown,
            Some(running) if attempt <= running.attempt => EventKind::Unknown,
            Some(running) => {
                let starts = matches!(event.kind, EventKind::GenerationStarted { .. });
                let is_void = running.lost_track_before(attempt);
                if !is_void && (!starts || running.text.is_empty()) {
                    return event.clone();
                }
                let agent = running.agent.clone();
                place::made_reset(generation, running.message, agent, attempt).kind
            }
            None => return event.clone(),
        };
        Arc::new(Event { id: event.id, at: event.at, kind })
    }

    /// What stands of the text that is shown, where an attempt goes on before its end.
    pub(super) fn overtaken(&self, at: Option<usize>, kind: &EventKind) -> Option<String> {
        let EventKind::GenerationResumed { offset, .. } = kind else { return None };
        self.running[at?].beyond(*offset).map(str::to_owned)
    }

    /// The end of an answer brings all of its text: what is missing is shown before it. Where what
    /// was shown is no beginning of it, that is void first; `false` then.
    pub(super) fn show_rest(&mut self, dialects: &Dialects, at: usize, answer: &Message) -> bool {
        let rest = answer.content.strip_prefix(self.running[at].text.as_str());
        if rest.is_none() {
            self.start_over(dialects, at);
        }
        let missing = rest.unwrap_or(&answer.content);
        if !missing.is_empty() {
            self.grow(dialects, at, missing, 0, answer.tokens.unwrap_or(0));
        }
        rest.is_some()
    }

    /// What was shown of a running answer is void; what follows is the stored one's.
    fn start_over(&mut self, dialects: &Dialects, at: usize) {
        let before = self.cursor.clone();
        let running = &mut self.running[at];
        let (generation, message) = (running.generation, running.message);
        let event =
            place::made_reset(generation, message, running.agent.clone(), running.attempt.max(1));
        running.text = Text::default();
        running.lineage = Lineage::default();
        running.attempt = place::STORED;
        place::set_text(&mut self.cursor, generation, place::STORED, 0);
        let seq = running.seq.saturating_add(1);
        let shown = Shown::Event { event: &event, seq, cursor: Some(&self.cursor) };
        self.members
            .hand(dialects, &self.session, shown, None, || Some(Behind::at(self.applied, &before)));
    }

    /// Text of an attempt was heard that the log does not tell of, although it was just read: it
    /// has lost that. Nobody knows what that attempt went on from.
    pub(super) fn adopt(&mut self, dialects: &Dialects, generation: GenerationId, attempt: u32) {
        let Some(running) = self.at(generation).map(|at| &self.running[at]) else { return };
        let event = place::made_reset(generation, running.message, running.agent.clone(), attempt);
        self.show_unlogged(dialects, &Arc::new(event));
    }

    /// Whether a takeover was heard of, but not all of the text before it.
    pub(super) fn is_owed_text(&self) -> bool {
        self.running.iter().any(Running::is_owed)
    }

    /// The log has lost what came between: which attempts there were since is not known any more.
    pub(super) fn lose_track(&mut self) {
        for running in &mut self.running {
            running.is_unsure = true;
        }
        let Self { members, running, recent, .. } = self;
        members.lose_track(|generation| {
            running.iter().any(|running| running.generation == generation)
                || recent.iter().any(|recent| recent.event.kind.generation() == Some(generation))
        });
    }
}
