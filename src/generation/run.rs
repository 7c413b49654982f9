//! One attempt, from beginning to end.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ask::{Question, SAID_MAX, Said, ask};
use super::ending::{metadata, store_end};
use super::meter::Meter;
use super::spend::Spender;
use super::writer::{Joining, LATE, Settled, Writer};
use super::{PAUSE, Shared, Stop};
use crate::domain::{
    Author, Error, ErrorCode, Event, EventKind, Generation, Message, Outcome, Position, StopReason,
    Timestamp, Usage,
};
use crate::llm::{ProviderError, Speaker, Turn};
use crate::outbox::DeliverError;
use crate::store::{Finish, Finished, Outgoing, StoreError};

/// How long the end waits for the log to have the whole text; after it the stored answer brings
/// what is missing.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Runs an attempt to its end.
pub(super) async fn attempt(
    shared: &Arc<Shared>,
    generation: Generation,
    announce: Vec<Outgoing>,
    stop: &Stop,
) {
    let speaker = shared.voices.speaker(&generation.agent);
    let provider = speaker.map_or("unknown", |solo| solo.provider.id());
    let meter = Meter::new(provider, generation.agent.as_str());
    let mut attempt = Attempt {
        writer: Writer::new(
            shared.adapter.clone(),
            generation.session.clone(),
            generation.id,
            generation.attempt,
            Joining { delay: shared.options.delay, delay_max: shared.options.delay_max },
        ),
        started: Arc::new(Event::new(EventKind::GenerationStarted {
            generation: generation.id,
            message: generation.message,
            agent: generation.agent.clone(),
            attempt: generation.attempt,
        })),
        spender: Spender::new(
            shared.adapter.clone(),
            generation.user.clone(),
            shared.options.budget,
        ),
        shared,
        generation,
        stop,
        meter,
        opening: None,
        usage: Usage::default(),
        first_token: None,
    };
    let ended = attempt.write(announce).await;
    let outcome = match ended {
        Some(outcome) => outcome,
        None => {
            tracing::info!(generation = %attempt.generation.id, "no longer this node's");
            attempt.spender.rest().await;
            return;
        }
    };
    let label = match &outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Stopped { .. } => "stopped",
        Outcome::Failed { .. } => "failed",
    };
    if attempt.usage.output_tokens == 0 {
        attempt.usage.output_tokens = attempt.writer.tokens();
    }
    attempt.meter.ended(label, attempt.usage);
    attempt.spender.counted(attempt.usage.output_tokens);
    let spend = attempt.spender.rest();
    tokio::join!(attempt.finish(outcome), spend);
}

struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    generation: Generation,
    stop: &'a Stop,
    meter: Meter,
    spender: Spender,
    writer: Writer,
    /// Appended again, under the same id, should the log be lost.
    started: Arc<Event>,
    /// Brings what has to stand in the log before the text.
    opening: Option<BoxFuture<'static, ()>>,
    usage: Usage,
    first_token: Option<Timestamp>,
}

/// Why writing ended before the provider did.
enum Broken {
    Failed(Error),
    Stopped,
    NotOwner,
}

impl Attempt<'_> {
    /// Asks the provider and appends what it says. `None` where the attempt is no longer this
    /// node's.
    async fn write(&mut self, announce: Vec<Outgoing>) -> Option<Outcome> {
        // The prompt is heard of first, whatever becomes of the answer.
        let announced = self.announce(&announce).await;
        let announce = if announced { Vec::new() } else { announce };
        let result = match self.begin().await {
            Ok(()) => self.stream(announce).await,
            Err(broken) => Err(broken),
        };
        match result {
            Ok(reason) => Some(Outcome::Completed { reason }),
            Err(Broken::NotOwner) => None,
            Err(Broken::Failed(error)) => Some(Outcome::Failed { error }),
            Err(Broken::Stopped) => Some(match self.stop.by.get() {
                Some(by) => Outcome::Stopped { by: by.clone() },
                None => Outcome::Failed {
                    error: Error::new(ErrorCode::Internal, "The server was shut down"),
                },
            }),
        }
    }

    /// Appends what stands before the generation; `false` where that takes too long, and is to be
    /// tried again.
    async fn announce(&mut self, announce: &[Outgoing]) -> bool {
        let outbox = self.shared.outbox.clone();
        let deliver = async move {
            for outgoing in announce {
                outbox.deliver(outgoing).await?;
            }
            Ok::<_, DeliverError>(())
        };
        matches!(timeout(LATE, deliver).await, Ok(Ok(())))
    }

    async fn begin(&mut self) -> Result<(), Broken> {
        let (id, attempt) = (self.generation.id, self.generation.attempt);
        let (store, node) = (&self.shared.store, self.shared.options.node);
        if until_stored(|| store.begin(id, node, attempt), self.stop).await? {
            return Ok(());
        }
        // Not ours any more, or stopped before it began: the stored stop says by whom.
        match until_stored(|| store.generation(id), self.stop).await? {
            Some(stored) if !stored.status.is_final() && stored.stop_requested.is_some() => {
                if let Some(by) = stored.stop_requested {
                    let _ = self.stop.by.set(by);
                }
                Err(Broken::Stopped)
            }
            _ => Err(Broken::NotOwner),
        }
    }

    async fn question(&mut self) -> Result<Question, Broken> {
        let limit = self.shared.options.context_messages.max(1);
        let (session, prompt) = (&self.generation.session, self.generation.prompt);
        let store = &self.shared.store;
        let messages = until_stored(|| store.context(session, prompt, limit), self.stop).await?;
        Ok(Question {
            agent: self.generation.agent.clone(),
            config: self.generation.config.clone(),
            turns: messages.into_iter().filter_map(turn).collect(),
            partial: None,
            stages: Vec::new(),
        })
    }

    async fn stream(&mut self, announce: Vec<Outgoing>) -> Result<StopReason, Broken> {
        let question = self.question().await?;
        let (say, mut said) = mpsc::channel(SAID_MAX);
        let asked = Instant::now();
        let whole = asked + self.shared.options.duration_max;
        let voices = self.shared.voices.clone();
        let mut asking = async move { ask(&voices, question, say).await }.boxed().fuse();
        let mut ended = None;
        self.opening = Some(self.open(announce));
        loop {
            let due = self.writer.due();
            tokio::select! {
                biased;
                () = self.stop.told.cancelled() => return Err(Broken::Stopped),
                () = opened(&mut self.opening) => self.writer.rewrite(),
                settled = self.writer.progress() => {
                    if settled == Settled::Lost {
                        self.confirm().await?;
                        self.opening = Some(self.open(Vec::new()));
                    }
                }
                () = sleep_until(due.unwrap_or(whole)), if due.is_some() => self.writer.flush(),
                error = self.spender.over() => return Err(Broken::Failed(error)),
                Some(said) = said.recv() => self.take(said, asked)?,
                end = &mut asking, if ended.is_none() => ended = Some(end),
                () = sleep_until(whole) => return Err(Broken::Failed(timed_out(true))),
            }
            // All that was said has been taken once the asking is over and nothing is left.
            if said.is_empty()
                && let Some(end) = ended.take()
            {
                return end.map_err(Broken::Failed);
            }
        }
    }

    /// Takes what was said.
    fn take(&mut self, said: Said, asked: Instant) -> Result<(), Broken> {
        match said {
            Said::Text(text) => {
                if self.writer.text().len() + text.len() > self.shared.options.text_bytes_max {
                    let error = Error::new(ErrorCode::Provider, "The answer is too long");
                    return Err(Broken::Failed(error));
                }
                if self.first_token.is_none() {
                    self.first_token = Some(Timestamp::now());
                    self.meter.first_token.record(asked.elapsed());
                }
                self.meter.rate.add(1);
                self.spender.said(1);
                self.writer.push(&text);
            }
            Said::Usage(usage) => {
                self.usage = usage;
                self.spender.counted(usage.output_tokens);
            }
            Said::Aside(_) | Said::Stage(_) | Said::Failed | Said::AnsweredBy { .. } => {}
        }
        Ok(())
    }

    /// Brings what has to stand in the log before the text, for as long as it takes. This node's
    /// own readers do not wait for Redis: after a moment they are shown it from memory.
    fn open(&self, announce: Vec<Outgoing>) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        let (session, started) = (self.generation.session.clone(), self.started.clone());
        async move {
            let late = async {
                sleep(LATE).await;
                for outgoing in &announce {
                    shared.adapter.show_event(&session, Arc::new(outgoing.event.clone()));
                }
                shared.adapter.show_event(&session, started.clone());
                std::future::pending::<()>().await;
            };
            let append = async {
                for outgoing in &announce {
                    until_appended(|| shared.outbox.deliver(outgoing)).await;
                }
                until_appended(|| shared.adapter.append_event(&session, started.clone())).await;
            };
            tokio::select! {
                () = append => {}
                () = late => {}
            }
        }
        .boxed()
    }

    /// The text in the log was lost, or another attempt has replaced this one: which?
    async fn confirm(&mut self) -> Result<(), Broken> {
        let (id, attempt) = (self.generation.id, self.generation.attempt);
        let (store, node) = (&self.shared.store, self.shared.options.node);
        if until_stored(|| store.owns(id, node, attempt), self.stop).await? {
            tracing::info!(generation = %id, "the text was lost; writing it again");
            return Ok(());
        }
        Err(Broken::NotOwner)
    }

    /// Brings the rest of the text and stores the end, exactly once.
    async fn finish(mut self, outcome: Outcome) {
        let settled = timeout(SETTLE_WITHIN, self.settle()).await.unwrap_or(false);
        let (shared, generation) = (self.shared, self.generation);
        if let (true, Outcome::Completed { reason }) = (settled, &outcome) {
            let ended = Event::new(EventKind::GenerationEnded {
                generation: generation.id,
                attempt: generation.attempt,
                length: self.writer.text().len() as u64,
                reason: reason.clone(),
                usage: self.usage,
            });
            let appended = shared.adapter.append_event(&generation.session, Arc::new(ended)).await;
            if let Err(error) = appended {
                tracing::debug!(generation = %generation.id, %error, "append end");
            }
        }
        let finish = Finish {
            generation: generation.id,
            owner: shared.options.node,
            attempt: generation.attempt,
            metadata: metadata(&outcome),
            outcome,
            usage: self.usage,
            tokens: self.usage.output_tokens,
            first_token_at: self.first_token,
            errors: 0,
            answered_by: None,
            content: self.writer.into_text(),
        };
        match store_end(shared, &finish).await {
            Some(Finished::Stored { outgoing, .. }) => {
                if let Err(error) = shared.outbox.deliver(&outgoing).await {
                    tracing::debug!(generation = %generation.id, %error, "deliver the answer");
                    shared.adapter.show_event(&generation.session, Arc::new(outgoing.event));
                }
            }
            Some(Finished::AlreadyFinal | Finished::NotOwner) | None => {
                tracing::info!(generation = %generation.id, "its end was not this node's to store");
            }
        }
    }

    /// Waits until the log has the start and the whole text; `false` where it cannot have it.
    async fn settle(&mut self) -> bool {
        while self.opening.is_some() || !self.writer.is_settled() {
            self.writer.flush_all();
            let due = self.writer.due();
            tokio::select! {
                () = opened(&mut self.opening) => self.writer.rewrite(),
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

/// Waits for an opening, and takes it out; for ever where there is none.
async fn opened(opening: &mut Option<BoxFuture<'static, ()>>) {
    match opening {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
    *opening = None;
}

/// Appends until it is done.
async fn until_appended<F, E>(append: impl Fn() -> F)
where
    F: Future<Output = Result<Position, E>>,
    E: std::fmt::Display,
{
    let mut pause = PAUSE.0;
    while let Err(error) = append().await {
        tracing::debug!(%error, "announce generation");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Asks the store until it answers. Stopped meanwhile, the attempt ends.
async fn until_stored<T, F>(ask: impl Fn() -> F, stop: &Stop) -> Result<T, Broken>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE.0;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error @ StoreError::Unexpected { .. }) => {
                tracing::error!(%error, source = ?error, "run generation");
                let error = Error::new(ErrorCode::Internal, "The answer could not be stored");
                return Err(Broken::Failed(error));
            }
            Err(error) => tracing::debug!(%error, "run generation"),
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.told.cancelled() => return Err(Broken::Stopped),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn turn(message: Message) -> Option<Turn> {
    let speaker = match message.author {
        Author::User => Speaker::User,
        Author::Assistant => Speaker::Assistant,
        Author::System => return None,
    };
    (!message.content.is_empty()).then_some(Turn { speaker, content: message.content })
}

pub(super) fn timed_out(whole: bool) -> Error {
    let message =
        if whole { "The answer took too long" } else { "The model did not answer in time" };
    Error::new(ErrorCode::Timeout, message)
}

/// What clients are told of a provider's failure; operators find the rest in the log.
pub(super) fn provider_failed(error: &ProviderError) -> Error {
    tracing::warn!(%error, source = ?std::error::Error::source(error), "provider");
    match error {
        ProviderError::Overloaded { retry_after } => {
            let error = Error::new(ErrorCode::Overloaded, "The model's provider is overloaded");
            match retry_after {
                Some(after) => error.retry_after(*after),
                None => error,
            }
        }
        _ => Error::new(ErrorCode::Provider, "The model's provider failed"),
    }
}
