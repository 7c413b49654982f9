//! How an attempt comes to its end: what is left of the text is brought, the end is stored, or the
//! generation is left to another node.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::run::Attempt;
use super::writer::Settled;
use super::{FINISH_WITHIN, PAUSE, Shared};
use crate::domain::{Error, ErrorCode, Event, EventKind, Generation, Outcome, StopReason, Usage};
use crate::store::{Finish, Finished, StoreError};

/// How long an end may take to be appended; after it this node's own readers are shown it.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// How long the end waits for the log to have the whole text; after it the stored answer brings
/// what is missing.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

impl Attempt<'_> {
    /// Brings the rest of the text and stores the end, exactly once.
    pub(super) async fn finish(mut self, outcome: Outcome) {
        if self.usage.output_tokens == 0 || !matches!(outcome, Outcome::Completed { .. }) {
            // What broke off was not counted to its end: providers say the sum last.
            self.usage.output_tokens = self.usage.output_tokens.max(self.writer.tokens());
        }
        self.meter.ended(&outcome, self.usage);
        self.bring_asides();
        let spending = self.spender.rest();
        let settled = timeout(SETTLE_WITHIN, self.settle()).await.unwrap_or(false);
        if let (true, Outcome::Completed { reason }) = (settled, &outcome) {
            self.say_ended(reason.clone()).await;
        }
        let finish = Finish {
            generation: self.generation.id,
            owner: self.shared.options.node,
            attempt: self.generation.attempt,
            metadata: metadata(&outcome),
            outcome,
            usage: self.usage,
            tokens: self.usage.output_tokens,
            first_token_at: self.first_token,
            errors: self.errors,
            answered_by: self.answered_by,
            content: self.writer.into_text(),
        };
        tokio::join!(spending, store_and_tell(self.shared, &self.generation, &finish));
    }

    /// Whoever takes over and finds this only has to finish.
    async fn say_ended(&mut self, reason: StopReason) {
        let generation = &self.generation;
        let ended = Event::new(EventKind::GenerationEnded {
            generation: generation.id,
            attempt: generation.attempt,
            length: self.writer.text().len() as u64,
            reason,
            usage: self.usage,
        });
        let appended = self.shared.adapter.append_event(&generation.session, ended.into());
        match timeout(SETTLE_WITHIN, appended).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(generation = %generation.id, %error, "append end"),
            Err(_) => tracing::debug!(generation = %generation.id, "append end: it takes long"),
        }
    }

    /// Brings the rest of the text, where Redis is there, and leaves the generation to whoever
    /// claims it first.
    pub(super) async fn hand_over(mut self) {
        if self.shared.adapter.is_up() {
            self.bring_asides();
            // What the log does not have is written anew by whoever goes on.
            let _ = timeout(SETTLE_WITHIN, self.settle()).await;
        }
        let spending = self.spender.rest();
        let Generation { id, attempt, .. } = self.generation;
        let (store, node) = (&self.shared.store, self.shared.options.node);
        let released = until_given_up(self.shared, || store.release(id, node, attempt)).await;
        tracing::info!(generation = %id, released, "left to another node");
        spending.await;
    }

    /// Waits until the log has what stands beside the text, and the whole text; `false` where it
    /// cannot have it.
    async fn settle(&mut self) -> bool {
        while !self.herald.is_done() || !self.writer.is_settled() {
            self.writer.flush_all();
            let due = self.writer.due();
            tokio::select! {
                opens = self.herald.progress() => {
                    if opens {
                        self.writer.open();
                    }
                }
                settled = self.writer.progress() => {
                    if settled == Settled::Lost {
                        return false;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.writer.flush();
                }
            }
        }
        true
    }
}

/// Stores an end and has it heard.
pub(super) async fn store_and_tell(shared: &Shared, generation: &Generation, finish: &Finish) {
    let id = generation.id;
    match until_given_up(shared, || shared.store.finish(finish)).await {
        Some(Finished::Stored { outgoing, .. }) => {
            // What is stored after it may be shown already by then: no longer than others wait.
            shared.outbox.deliver_or_show(&outgoing, TELL_WITHIN).await;
        }
        Some(Finished::AlreadyFinal | Finished::NotOwner) | None => {
            tracing::info!(generation = %id, "its end was not this node's to store");
        }
    }
}

/// Asks the store for as long as it takes; while the node shuts down, for [`FINISH_WITHIN`].
/// `None` where it refused, or was not reached: the generation is found by other nodes then, or
/// by this one.
async fn until_given_up<T, F>(shared: &Shared, ask: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE.0;
    let given_up = async {
        shared.runs.stopping().cancelled().await;
        sleep(FINISH_WITHIN).await;
    };
    tokio::pin!(given_up);
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error @ StoreError::Unexpected { .. }) => {
                tracing::error!(%error, source = ?error, "end generation");
                return None;
            }
            Err(error) => tracing::warn!(%error, "end generation"),
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = &mut given_up => return None,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// An end that no attempt of this node has brought about: `text` is what others wrote.
pub(super) fn end_of(generation: &Generation, outcome: Outcome, text: String) -> Finish {
    let tokens = super::writer::tokens_in(&text);
    Finish {
        generation: generation.id,
        owner: generation.owner,
        attempt: generation.attempt,
        metadata: metadata(&outcome),
        content: text,
        outcome,
        usage: Usage { output_tokens: tokens, ..Usage::default() },
        tokens,
        first_token_at: generation.first_token_at,
        errors: 0,
        answered_by: None,
    }
}

/// What clients are told where nobody can go on.
pub(super) fn gone() -> Outcome {
    Outcome::Failed {
        error: Error::new(ErrorCode::Internal, "The node that wrote this answer is gone"),
    }
}

/// What a stored answer says about its end.
fn metadata(outcome: &Outcome) -> serde_json::Map<String, serde_json::Value> {
    let mut metadata = serde_json::Map::new();
    match outcome {
        Outcome::Completed { .. } => {}
        Outcome::Stopped { .. } => {
            metadata.insert("stopped".into(), true.into());
        }
        Outcome::Failed { error } => {
            metadata.insert("partial".into(), true.into());
            metadata.insert("error".into(), error.code.as_str().into());
        }
    }
    metadata
}
