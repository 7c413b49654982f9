//! What a member that stayed behind is owed, and bringing it there.

use super::members::Behind;
use super::show::is_shown;
use super::tail::{Recent, TailState};
use super::{Offer, ReaderId};
use crate::dialect::{Dialects, Frame, Shown, TextShown, Vocabulary};
use crate::domain::text::utf16_len;
use crate::domain::{EventKind, SessionId};
use crate::telemetry::metrics;

impl TailState {
    /// Offers a member that is behind what it is owed: the events in order, what was missing of
    /// each answer joined into one text before its end, and of each running answer after them.
    pub(super) fn catch_up(&mut self, dialects: &Dialects, id: ReaderId) {
        let Some((reader, mut behind, known)) = self.members.owed(id) else { return };
        let dialect = dialects.vocabulary(reader.dialect());
        let kept_from = self.applied - self.recent.len() as u64;
        if behind.applied < kept_from {
            tracing::info!(session = %self.session, "a reader fell behind what is kept");
            self.members.remove(id);
            reader.close();
            return;
        }
        let skip = usize::try_from(behind.applied - kept_from).unwrap_or(usize::MAX);
        for recent in self.recent.iter().skip(skip) {
            let frames = match recent.event.kind.brings() {
                Some(message) if known.contains(&message) => Vec::new(),
                _ => owed_event(dialect, &self.session, recent, &behind),
            };
            if !frames.is_empty() && reader.offer(&frames) != Offer::Taken {
                self.members.settle(id, Some(behind));
                return;
            }
            behind.applied += 1;
            advance(&mut behind, &recent.event.kind);
        }
        for running in &self.running {
            let from = behind.text(running.generation, running.attempt);
            let Some((delta, utf16_offset)) = running.text.after(from) else { continue };
            if delta.is_empty() || known.contains(&running.message) {
                continue;
            }
            let frames = dialect.encode(
                &self.session,
                Shown::Text(TextShown {
                    generation: running.generation,
                    message: running.message,
                    seq: running.seq,
                    utf16_offset,
                    delta,
                    so_far: running.text.as_str(),
                    tokens: running.tokens,
                    cursor: None,
                }),
            );
            metrics::handles().coalesced_chunks.increment(1);
            if reader.offer(&frames) != Offer::Taken {
                self.members.settle(id, Some(behind));
                return;
            }
            behind.set_text(running.generation, running.attempt, running.text.len());
        }
        self.members.settle(id, None);
    }
}

/// What a member that stands at `behind` is shown of one event.
fn owed_event(
    dialect: &dyn Vocabulary,
    session: &SessionId,
    recent: &Recent,
    behind: &Behind,
) -> Vec<Frame> {
    let event = &recent.event;
    let mut frames = Vec::new();
    if let (Some(generation), Some(answer)) = (event.kind.generation(), event.kind.answer()) {
        let from = behind.any_text(generation);
        let rest = usize::try_from(from).ok().and_then(|from| answer.content.get(from..));
        if let Some(delta) = rest.filter(|delta| !delta.is_empty()) {
            frames = dialect.encode(
                session,
                Shown::Text(TextShown {
                    generation,
                    message: answer.id,
                    seq: recent.seq.saturating_sub(1),
                    utf16_offset: utf16_len(&answer.content) - utf16_len(delta),
                    delta,
                    so_far: &answer.content,
                    tokens: answer.tokens.unwrap_or(0),
                    cursor: None,
                }),
            );
            metrics::handles().coalesced_chunks.increment(1);
        }
    }
    if is_shown(&event.kind) {
        frames
            .extend(dialect.encode(session, Shown::Event { event, seq: recent.seq, cursor: None }));
    }
    frames
}

/// Where a member stands after an event.
fn advance(behind: &mut Behind, kind: &EventKind) {
    match kind {
        EventKind::GenerationStarted { generation, attempt, .. }
        | EventKind::GenerationReset { generation, attempt, .. } => {
            behind.set_text(*generation, *attempt, 0);
        }
        EventKind::GenerationResumed { generation, attempt, .. } => {
            behind.rename_attempt(*generation, *attempt);
        }
        kind => {
            if let (Some(generation), Some(_)) = (kind.generation(), kind.answer()) {
                behind.forget(generation);
            }
        }
    }
}
