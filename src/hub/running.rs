//! An answer that is being written, and up to where the texts of its older attempts stand in it.

use crate::domain::{AgentId, GenerationId, MessageId, Text};

/// The most older attempts that are told apart. There are rarely as many; whoever has text of an
/// older one then starts over.
const OLDER_MAX: usize = 8;

/// An answer that is being written.
pub(super) struct Running {
    pub generation: GenerationId,
    pub message: MessageId,
    pub agent: AgentId,
    pub attempt: u32,
    pub text: Text,
    pub seq: u64,
    pub tokens: u64,
    pub lineage: Lineage,
    /// Where the attempt went on: up to there its text is to be had, as long as that was not looked
    /// for.
    pub owed: u64,
    /// The log has jumped since the attempt was heard of: others may have come and gone.
    pub is_unsure: bool,
}

impl Running {
    /// One of which there is no text yet.
    pub(super) fn new(
        generation: GenerationId,
        message: MessageId,
        agent: AgentId,
        attempt: u32,
        lineage: Lineage,
    ) -> Self {
        Self {
            generation,
            message,
            agent,
            attempt,
            text: Text::default(),
            seq: 0,
            tokens: 0,
            lineage,
            owed: 0,
            is_unsure: false,
        }
    }

    /// Another attempt goes on from `offset`. What was known beyond it is void, and all of the
    /// text with it.
    pub(super) fn resume(&mut self, attempt: u32, offset: u64) {
        self.lineage.resumed(self.attempt, offset);
        self.attempt = attempt;
        if self.text.len() > offset {
            self.text = Text::default();
            self.tokens = 0;
        }
        self.owed = offset;
        self.is_unsure = false;
    }

    /// Whether there is text before the attempt's own that is not here and was not looked for.
    pub(super) fn is_owed(&self) -> bool {
        self.text.len() < self.owed
    }

    /// The text up to `offset`, where it goes on beyond it.
    pub(super) fn beyond(&self, offset: u64) -> Option<&str> {
        let stands = || usize::try_from(offset).ok().and_then(|at| self.text.as_str().get(..at));
        (self.text.len() > offset).then(|| stands().unwrap_or_default())
    }

    /// Whether there may have been attempts before this one that nothing was heard of, and that
    /// may have begun anew.
    pub(super) fn lost_track_before(&self, attempt: u32) -> bool {
        self.is_unsure && attempt > self.attempt + 1
    }

    /// Up to where (bytes) an attempt's text is the running one's. `None` where that is not known.
    pub(super) fn stands(&self, attempt: u32) -> Option<u64> {
        if attempt == self.attempt {
            return Some(self.text.len());
        }
        self.lineage.stands(attempt).filter(|_| attempt < self.attempt)
    }
}

/// How the running attempt's text follows from those before it.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Older attempts, in order, and up to where the text of each stands.
    older: Vec<(u32, u64)>,
    /// All text that anybody was shown of the answer is of these or the running one.
    is_whole: bool,
}

impl Lineage {
    /// Of the first attempt.
    pub(super) fn started() -> Self {
        Self { older: Vec::new(), is_whole: true }
    }

    /// Of an attempt that went on from `offset`, where nothing was heard of those before it: only
    /// of the one directly before it it is known then what stands.
    pub(super) fn joined(attempt: u32, offset: u64) -> Self {
        let before = attempt.saturating_sub(1);
        Self { older: vec![(before, offset)], is_whole: before <= 1 }
    }

    fn resumed(&mut self, before: u32, offset: u64) {
        for (_, stands) in &mut self.older {
            *stands = (*stands).min(offset);
        }
        if self.older.len() == OLDER_MAX {
            self.older.remove(0);
            self.is_whole = false;
        }
        self.older.push((before, offset));
    }

    /// An attempt between two that are known appended nothing: what it had stands as far as that of
    /// the one before it.
    fn stands(&self, attempt: u32) -> Option<u64> {
        let older = self.older.iter().rev().find(|(older, _)| *older <= attempt);
        older.map(|(_, stands)| *stands)
    }

    /// Up to where the text stands, whichever attempt it is of.
    pub(super) fn all_stand(&self) -> u64 {
        match self.older.first() {
            _ if !self.is_whole => 0,
            Some((_, stands)) => *stands,
            None => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(lineage: Lineage, attempt: u32, text: &str) -> Running {
        let agent = AgentId::new("assistant").unwrap();
        let mut running =
            Running::new(GenerationId::new(), MessageId::new(), agent, attempt, lineage);
        running.text.push(text);
        running
    }

    #[test]
    fn an_older_attempts_text_stands_up_to_the_least_offset_that_was_gone_on_from_since() {
        let mut answer = running(Lineage::started(), 1, "0123456789");
        assert_eq!((answer.stands(1), answer.stands(0)), (Some(10), None));
        assert_eq!(answer.lineage.all_stand(), u64::MAX);
        answer.resume(2, 10);
        answer.text.push("abcdef");
        answer.resume(3, 16);
        // The fourth was never heard of.
        answer.resume(5, 12);
        assert!(answer.text.is_empty(), "it was beyond");
        answer.text.push("0123456789abgh");
        let stands: Vec<_> = (0..=6).map(|attempt| answer.stands(attempt)).collect();
        let known = [Some(10), Some(12), Some(12), Some(12), Some(14)];
        assert_eq!(stands, [&[None][..], &known, &[None]].concat());
        assert_eq!(answer.lineage.all_stand(), 10);
    }

    #[test]
    fn where_nothing_was_heard_of_older_attempts_only_the_last_one_is_known() {
        let second = running(Lineage::joined(2, 7), 2, "0123456789");
        assert_eq!((second.stands(1), second.lineage.all_stand()), (Some(7), 7));
        let third = running(Lineage::joined(3, 7), 3, "0123456789");
        assert_eq!((third.stands(1), third.stands(2)), (None, Some(7)));
        assert_eq!(third.lineage.all_stand(), 0);
        let anew = running(Lineage::default(), 3, "0123456789");
        assert_eq!((anew.stands(2), anew.lineage.all_stand()), (None, 0));
    }

    #[test]
    fn what_is_remembered_of_older_attempts_is_bounded() {
        let mut answer = running(Lineage::started(), 1, "0123456789");
        for attempt in 2..100 {
            answer.resume(attempt, 10);
        }
        assert_eq!(answer.lineage.older.len(), OLDER_MAX);
        assert_eq!((answer.stands(98), answer.stands(1)), (Some(10), None));
        assert_eq!(answer.lineage.all_stand(), 0);
    }

    #[test]
    fn track_is_lost_only_where_there_is_room_for_others_between() {
        let mut answer = running(Lineage::started(), 1, "");
        assert!(!answer.lost_track_before(9));
        answer.is_unsure = true;
        assert!(!answer.lost_track_before(2));
        assert!(answer.lost_track_before(3));
    }
}
