//! What a tail's members are shown of what it applies, and what that changes about the running
//! answers.

use std::sync::Arc;

use super::members::Behind;
use super::tail::{Recent, Running, TailState};
use crate::dialect::{Dialects, Shown, TextShown};
use crate::domain::{Event, EventKind, GenerationId, Message, Text};

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
        running.seq = seq.max(running.seq + 1);
        running.tokens = tokens;
        let running = &self.running[at];
        let shown = Shown::Text(TextShown {
            generation,
            message: running.message,
            seq: running.seq,
            utf16_offset,
            delta,
            so_far: running.text.as_str(),
            tokens: running.tokens,
            cursor: None,
        });
        self.members.hand(dialects, &self.session, shown, None, || {
            let mut behind = Behind::at(self.applied, &self.running);
            behind.set_text(generation, attempt, before);
            Some(behind)
        });
    }

    /// Shows an event to the members that are live, and keeps it for those that are behind.
    pub(super) fn show_event(&mut self, dialects: &Dialects, event: &Arc<Event>) {
        // Also those that are held or behind: what they are owed is not theirs any more.
        if let EventKind::AccessRevoked(revoked) = &event.kind {
            let place = || Behind::at(self.applied, &self.running);
            self.members.revoke(&self.session, revoked, place);
        }
        let generation = event.kind.generation();
        let at = self.running.iter().position(|r| Some(r.generation) == generation);
        // The end of an answer brings all of its text: what is missing is shown before it.
        if let (Some(at), Some(answer)) = (at, event.kind.answer()) {
            let known = usize::try_from(self.running[at].text.len()).unwrap_or(usize::MAX);
            if let Some(rest) = answer.content.get(known..).filter(|rest| !rest.is_empty()) {
                self.grow(dialects, at, rest, 0, answer.tokens.unwrap_or(0));
            }
        }
        if let (None, Some(generation), Some(answer)) = (at, generation, event.kind.answer()) {
            self.show_whole(dialects, generation, answer);
        }
        let seq = at.map_or(2, |at| self.running[at].seq + 1);
        let shown = Shown::Event { event, seq, cursor: None };
        let whole = (at.is_none()).then(|| event.kind.answer().zip(generation)).flatten();
        let place = || {
            let mut behind = Behind::at(self.applied, &self.running);
            if let Some((answer, generation)) = whole {
                // Its text was taken just before.
                behind.set_text(generation, 0, answer.content.len() as u64);
            }
            Some(behind)
        };
        if is_shown(&event.kind) {
            self.members.hand(dialects, &self.session, shown, None, place);
        }
        self.note(event, at);
        self.applied += 1;
        self.recent.push_back(Recent { event: event.clone(), seq });
        while self.recent.len() > self.recent_max {
            if let Some(oldest) = self.recent.pop_front() {
                self.seen.remove(&oldest.event.id);
            }
        }
    }

    /// Shows the text of an answer whose start and text never reached the log, because Redis was
    /// away for as long as it was written.
    fn show_whole(&mut self, dialects: &Dialects, generation: GenerationId, answer: &Message) {
        if answer.content.is_empty() {
            return;
        }
        let shown = Shown::Text(TextShown {
            generation,
            message: answer.id,
            seq: 1,
            utf16_offset: 0,
            delta: &answer.content,
            so_far: &answer.content,
            tokens: answer.tokens.unwrap_or(0),
            cursor: None,
        });
        self.members.hand(dialects, &self.session, shown, None, || {
            Some(Behind::at(self.applied, &self.running))
        });
    }

    /// What an event changes about the running answers.
    fn note(&mut self, event: &Event, at: Option<usize>) {
        match &event.kind {
            EventKind::GenerationStarted { generation, message, agent, attempt }
            | EventKind::GenerationReset { generation, message, agent, attempt, .. } => {
                let running = Running {
                    generation: *generation,
                    message: *message,
                    agent: agent.clone(),
                    attempt: *attempt,
                    text: Text::default(),
                    seq: at.map_or(0, |at| self.running[at].seq),
                    tokens: 0,
                };
                self.strangers.retain(|stranger| stranger != generation);
                match at {
                    Some(at) => self.running[at] = running,
                    None => self.running.push(running),
                }
            }
            EventKind::GenerationResumed { generation, message, agent, attempt, .. } => match at {
                Some(at) => self.running[at].attempt = *attempt,
                None => self.running.push(Running {
                    generation: *generation,
                    message: *message,
                    agent: agent.clone(),
                    attempt: *attempt,
                    text: Text::default(),
                    seq: 0,
                    tokens: 0,
                }),
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
