//! How far an answer is, on whichever node it runs: from what is stored, and from what its node
//! and those with readers have counted. Where that cannot be asked (Redis is away, or it was
//! forgotten) the stored part is what is known.

use super::presence::passing;
use super::{Caller, Chat};
use crate::adapter::Tally;
use crate::domain::{Action, Error, Generation, GenerationId, Status, Timestamp};

/// How far an answer is.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamStatus {
    /// The generation as it is stored.
    pub generation: Generation,
    /// Tokens of the answer so far.
    pub tokens: u64,
    /// From 0 to 1: the tokens so far of the most that there may be, which the request says, else
    /// its agent. 1 once it is completed; 0 until then where nobody says how many there may be.
    pub progress: f64,
}

/// What an answer took.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamMetrics {
    /// Whose.
    pub generation: GenerationId,
    /// Tokens of the answer so far.
    pub tokens: u64,
    /// The same for each second since the first one; 0 before it.
    pub tokens_per_second: f64,
    /// Milliseconds from the request to the first token; `None` before it.
    pub first_token_ms: Option<u64>,
    /// Bytes of its events that were given to clients, on all nodes; `None` where that is not
    /// known, or any more.
    pub sent_bytes: Option<u64>,
    /// How often providers failed on the way.
    pub errors: u32,
}

impl Chat {
    /// How far an answer is that the caller may see.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn stream_status(
        &self,
        caller: &Caller,
        id: GenerationId,
    ) -> Result<StreamStatus, Error> {
        let Counted { generation, tally } = self.counted(caller, id).await?;
        let max = generation.config.max_tokens;
        let max = max.or_else(|| self.shared.generations.tokens_max(&generation.agent));
        let tokens = tokens(&generation, tally.as_ref());
        let progress = progress(generation.status, tokens, max);
        Ok(StreamStatus { generation, tokens, progress })
    }

    /// What an answer took that the caller may see.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn stream_metrics(
        &self,
        caller: &Caller,
        id: GenerationId,
    ) -> Result<StreamMetrics, Error> {
        let counted = self.counted(caller, id).await?;
        Ok(metrics(&counted, Timestamp::now()))
    }

    async fn counted(&self, caller: &Caller, id: GenerationId) -> Result<Counted, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Read).await?;
        let generation = shared.generation(caller, id).await?;
        let tally = if shared.adapter.is_up() {
            let asked = shared.adapter.tallied(&generation.session, id);
            let found = passing("read what was counted", asked).await;
            // Nothing was counted yet, or it is forgotten.
            let none_yet = || (!generation.status.is_final()).then(Tally::default);
            found.and_then(|tally| tally.or_else(none_yet))
        } else {
            None
        };
        Ok(Counted { generation, tally })
    }
}

/// What is stored of a generation, and what was counted of it, where that is known.
struct Counted {
    generation: Generation,
    tally: Option<Tally>,
}

/// At the end what is stored, which is exact.
fn tokens(generation: &Generation, tally: Option<&Tally>) -> u64 {
    generation.tokens.or(tally.map(|tally| tally.tokens)).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a share of what is less than 2⁵³")]
fn progress(status: Status, tokens: u64, max: Option<u32>) -> f64 {
    match (status, max) {
        (Status::Completed, _) => 1.0,
        (_, Some(max)) if max > 0 => (tokens as f64 / f64::from(max)).min(1.0),
        _ => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "less than 2⁵³")]
fn metrics(counted: &Counted, now: Timestamp) -> StreamMetrics {
    let Counted { generation, tally } = counted;
    let tokens = tokens(generation, tally.as_ref());
    let stored = generation.first_token_at.map(|at| millis(at, generation.created_at));
    let first_token_ms = stored.or(tally.and_then(|tally| tally.first_token_ms));
    let ended_after = millis(generation.completed_at.unwrap_or(now), generation.created_at);
    let tokens_per_second = first_token_ms.map_or(0.0, |first| {
        // Never less than a millisecond, which is as fine as the times are.
        let took_ms = ended_after.saturating_sub(first).max(1);
        tokens as f64 * 1_000.0 / took_ms as f64
    });
    StreamMetrics {
        generation: generation.id,
        tokens,
        tokens_per_second,
        first_token_ms,
        sent_bytes: tally.map(|tally| tally.sent_bytes),
        errors: if generation.status.is_final() {
            generation.errors
        } else {
            tally.map_or(0, |tally| tally.errors)
        },
    }
}

fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, GenerationConfig, MessageId, NodeId, SessionId, UserId};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn generation(status: Status) -> Generation {
        Generation {
            id: GenerationId::new(),
            session: SessionId::new("s").unwrap(),
            user: UserId::new("ada").unwrap(),
            prompt: MessageId::new(),
            message: MessageId::new(),
            agent: AgentId::new("helper").unwrap(),
            provider: "scripted".to_owned(),
            model: "parrot-1".to_owned(),
            status,
            config: GenerationConfig::default(),
            owner: NodeId::new(),
            attempt: 1,
            stop_requested: None,
            created_at: at(0),
            started_at: None,
            first_token_at: None,
            completed_at: None,
            tokens: None,
            errors: 0,
            losses: 0,
        }
    }

    #[test]
    fn progress_is_a_share_of_the_most_tokens() {
        for (status, tokens, max, expected) in [
            (Status::Pending, 0, Some(10), 0.0),
            (Status::Streaming, 5, Some(10), 0.5),
            (Status::Streaming, 11, Some(10), 1.0),
            (Status::Streaming, 5, None, 0.0),
            (Status::Stopped, 5, Some(10), 0.5),
            (Status::Failed, 0, Some(10), 0.0),
            (Status::Failed, 5, None, 0.0),
            (Status::Completed, 5, Some(10), 1.0),
            (Status::Completed, 0, None, 1.0),
        ] {
            let told = progress(status, tokens, max);
            assert!((told - expected).abs() < 1e-9, "{status:?} {tokens} {max:?}: {told}");
        }
    }

    #[test]
    fn while_it_runs_what_was_counted_is_told() {
        let tally = Tally { tokens: 30, first_token_ms: Some(500), errors: 2, sent_bytes: 900 };
        let running = generation(Status::Streaming);
        let id = running.id;
        let told = metrics(&Counted { generation: running, tally: Some(tally) }, at(2_000));
        let expected = StreamMetrics {
            generation: id,
            tokens: 30,
            tokens_per_second: 20.0,
            first_token_ms: Some(500),
            sent_bytes: Some(900),
            errors: 2,
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn before_the_first_token_and_without_a_tally_there_is_nothing_to_tell() {
        let pending = generation(Status::Pending);
        let expected = StreamMetrics {
            generation: pending.id,
            tokens: 0,
            tokens_per_second: 0.0,
            first_token_ms: None,
            sent_bytes: None,
            errors: 0,
        };
        let pending = Counted { generation: pending, tally: None };
        assert_eq!(metrics(&pending, at(9_000)), expected);
    }

    #[test]
    fn at_the_end_what_is_stored_is_told_and_nothing_changes_any_more() {
        let ended = Generation {
            first_token_at: Some(at(100)),
            completed_at: Some(at(1_100)),
            tokens: Some(40),
            errors: 3,
            ..generation(Status::Completed)
        };
        let stale = Tally { tokens: 38, first_token_ms: Some(99), errors: 1, sent_bytes: 7 };
        for tally in [Some(stale), None] {
            let counted = Counted { generation: ended.clone(), tally };
            let expected = StreamMetrics {
                generation: ended.id,
                tokens: 40,
                tokens_per_second: 40.0,
                first_token_ms: Some(100),
                sent_bytes: tally.map(|_| 7),
                errors: 3,
            };
            assert_eq!(metrics(&counted, at(60_000)), expected);
        }
    }

    /// The clocks of the node and of the database differ, and all tokens may come at once.
    #[test]
    fn no_time_at_all_is_a_millisecond() {
        let ended = Generation {
            first_token_at: Some(at(-5)),
            completed_at: Some(at(-3)),
            tokens: Some(2),
            ..generation(Status::Completed)
        };
        let told = metrics(&Counted { generation: ended, tally: None }, at(0));
        assert_eq!(told.first_token_ms, Some(0));
        assert!((told.tokens_per_second - 2_000.0).abs() < 1e-9, "{}", told.tokens_per_second);
    }
}
