//! One attempt, from its beginning to the provider's end.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::asides::{Asides, bytes_in};
use super::ask::{Question, SAID_MAX, Said, ask};
use super::herald::{Herald, Stands};
use super::meter::Meter;
use super::order::{Order, Run};
use super::spend::Spender;
use super::takeover::was_replaced;
use super::writer::{Joining, LATE, Settled, Writer, tokens_in};
use super::{PAUSE, Shared};
use crate::adapter::Tally;
use crate::domain::{
    Aside, Author, Error, ErrorCode, Event, EventKind, Generation, Message, Outcome, Stage, Status,
    StopReason, Timestamp, Usage,
};
use crate::llm::{ProviderError, Speaker, Turn};
use crate::outbox::DeliverError;
use crate::store::{Outgoing, StoreError};

/// How long the database may take to say whose a generation is; then the log is asked.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// What an attempt begins with.
pub(super) struct Start {
    /// Whether the store does not know yet that it begins.
    pub is_first: bool,
    /// Stored events that are appended before anything of it.
    pub announce: Vec<Outgoing>,
    /// What stands in the log before its text.
    pub opening: EventKind,
    /// The text that it goes on with; the log has it.
    pub text: String,
    /// The stages that earlier attempts told of, each at its latest.
    pub stages: Vec<Stage>,
    /// When the first token came.
    pub first_token: Option<Timestamp>,
    /// How often providers failed before.
    pub errors: u32,
}

impl Start {
    /// Of a first attempt.
    pub(super) fn first(generation: &Generation, announce: Vec<Outgoing>) -> Self {
        Self {
            is_first: generation.status == Status::Pending,
            announce,
            opening: EventKind::GenerationStarted {
                generation: generation.id,
                message: generation.message,
                agent: generation.agent.clone(),
                attempt: generation.attempt,
            },
            text: String::new(),
            stages: Vec::new(),
            first_token: None,
            errors: 0,
        }
    }
}

/// Runs an attempt to its end.
pub(super) async fn attempt(shared: &Arc<Shared>, generation: Generation, run: &Run, start: Start) {
    let speaker = shared.voices.speaker(&generation.agent);
    let provider = speaker.map_or("unknown", |solo| solo.provider.id());
    let meter = Meter::new(provider, generation.agent.as_str());
    let earlier = tokens_in(&start.text);
    let opening = Event::new(start.opening);
    let (adapter, user) = (shared.adapter.clone(), generation.user.clone());
    let mut attempt = Attempt {
        writer: Writer::new(
            shared.adapter.clone(),
            generation.session.clone(),
            generation.id,
            generation.attempt,
            Joining { delay: shared.options.delay, delay_max: shared.options.delay_max },
            start.text,
        ),
        herald: Herald::new(shared.clone(), generation.session.clone(), opening),
        asides: Asides::default(),
        shared,
        generation,
        run,
        meter,
        spender: Spender::new(adapter, user, shared.options.budget),
        usage: Usage::default(),
        earlier,
        first_token: start.first_token,
        errors: start.errors,
        answered_by: None,
    };
    let written = attempt.write(start.is_first, start.announce, start.stages).await;
    let broken = match written {
        Ok(reason) => return attempt.finish(Outcome::Completed { reason }).await,
        Err(broken) => broken,
    };
    let order = run.order().cloned().unwrap_or(Order::Leave);
    match (broken, order) {
        (Broken::Failed(error), _) => attempt.finish(Outcome::Failed { error }).await,
        (Broken::Told, Order::Stop(by)) => attempt.finish(Outcome::Stopped { by }).await,
        (Broken::Told, Order::HandOver) => attempt.hand_over().await,
        (Broken::Told, Order::ShutDown) => {
            let error = Error::new(ErrorCode::Internal, "The server was shut down");
            attempt.finish(Outcome::Failed { error }).await;
        }
        (Broken::Told, Order::Leave) | (Broken::NotOwner, _) => {
            tracing::info!(generation = %attempt.generation.id, "no longer this node's");
            attempt.spender.rest().await;
        }
    }
}

pub(super) struct Attempt<'a> {
    pub shared: &'a Arc<Shared>,
    pub generation: Generation,
    run: &'a Run,
    pub meter: Meter,
    pub spender: Spender,
    pub writer: Writer,
    pub herald: Herald,
    asides: Asides,
    /// What this attempt's provider reported, and `earlier`.
    pub usage: Usage,
    /// Tokens of what earlier attempts wrote: estimated, since what their providers would have
    /// reported went with them.
    earlier: u64,
    pub first_token: Option<Timestamp>,
    pub errors: u32,
    pub answered_by: Option<(String, String)>,
}

/// Why writing ended before the provider did.
enum Broken {
    Failed(Error),
    /// The attempt was told to end.
    Told,
    NotOwner,
}

impl Attempt<'_> {
    /// Asks the provider and appends what it says.
    async fn write(
        &mut self,
        is_first: bool,
        announce: Vec<Outgoing>,
        stages: Vec<Stage>,
    ) -> Result<StopReason, Broken> {
        // The prompt is heard of first, whatever becomes of the answer.
        let announced = self.announce(&announce).await;
        let announce = if announced { Vec::new() } else { announce };
        if is_first {
            self.begin().await?;
        }
        let question = self.question(stages).await?;
        self.herald.open(announce);
        self.writer.follow();
        self.stream(question).await
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
        if until_stored(|| store.begin(id, node, attempt), self.run).await? {
            return Ok(());
        }
        // Not ours any more, or stopped before it began: the stored stop says by whom.
        match until_stored(|| store.generation(id), self.run).await? {
            Some(stored) if (stored.owner, stored.attempt) == (node, attempt) => {
                match stored.stop_requested {
                    Some(by) if !stored.status.is_final() => {
                        self.run.tell(Order::Stop(by));
                        Err(Broken::Told)
                    }
                    _ => Err(Broken::NotOwner),
                }
            }
            _ => Err(Broken::NotOwner),
        }
    }

    async fn question(&mut self, stages: Vec<Stage>) -> Result<Question, Broken> {
        let limit = self.shared.options.context_messages.max(1);
        let (session, prompt) = (&self.generation.session, self.generation.prompt);
        let store = &self.shared.store;
        let messages = until_stored(|| store.context(session, prompt, limit), self.run).await?;
        let text = self.writer.text();
        Ok(Question {
            agent: self.generation.agent.clone(),
            config: self.generation.config.clone(),
            turns: messages.into_iter().filter_map(turn).collect(),
            partial: (!text.is_empty()).then(|| text.to_owned()),
            stages,
        })
    }

    async fn stream(&mut self, question: Question) -> Result<StopReason, Broken> {
        let (say, mut said) = mpsc::channel(SAID_MAX);
        let asked = Instant::now();
        let whole = asked + self.shared.options.duration_max;
        let voices = self.shared.voices.clone();
        let mut asking = async move { ask(&voices, question, say).await }.boxed().fuse();
        let mut ended = None;
        let run = self.run;
        let told = run.told().cancelled();
        tokio::pin!(told);
        loop {
            let due = self.writer.due();
            let joined = self.asides.due();
            tokio::select! {
                biased;
                () = &mut told => return Err(Broken::Told),
                opens = self.herald.progress() => {
                    if opens {
                        self.writer.open();
                    }
                }
                settled = self.writer.progress() => {
                    if settled == Settled::Lost {
                        self.confirm().await?;
                        self.herald.open(Vec::new());
                    }
                }
                () = sleep_until(due.unwrap_or(whole)), if due.is_some() => self.writer.flush(),
                () = sleep_until(joined.unwrap_or(whole)), if joined.is_some() => {
                    self.bring_asides();
                }
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
                self.spender.said(text.len());
                self.writer.push(&text);
                self.count();
            }
            Said::Usage(usage) => {
                self.spender.counted(usage.output_tokens);
                self.usage = usage;
                self.usage.output_tokens += self.earlier;
            }
            Said::Stage(stage) => {
                let generation = self.generation.id;
                let event = Event::new(EventKind::StageChanged { generation, stage });
                self.herald.push(event, Stands::Yes);
            }
            Said::Aside(aside) => {
                // The provider counts it only at the end, which an answer that is stopped has not.
                self.spender.said(bytes_in(&aside));
                for aside in self.asides.push(aside) {
                    self.bring_aside(aside);
                }
            }
            Said::Failed => {
                self.errors = self.errors.saturating_add(1);
                self.count();
            }
            Said::AnsweredBy { provider, model } => self.answered_by = Some((provider, model)),
        }
        Ok(())
    }

    fn count(&self) {
        let first_token = self.first_token.map(|at| at.since(self.generation.created_at));
        self.run.count(Tally {
            tokens: self.writer.tokens(),
            first_token_ms: first_token.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            errors: self.errors,
            sent_bytes: 0,
        });
    }

    /// Brings the asides that waited to be joined with more.
    pub(super) fn bring_asides(&mut self) {
        for aside in self.asides.flush() {
            self.bring_aside(aside);
        }
    }

    fn bring_aside(&mut self, aside: Aside) {
        let Generation { id, message, .. } = self.generation;
        let event = Event::new(EventKind::Aside { generation: id, message, aside });
        self.herald.push(event, Stands::No);
    }

    /// The text in the log was lost, or another attempt has replaced this one: which? Nothing is
    /// shown until that is known.
    async fn confirm(&mut self) -> Result<(), Broken> {
        let (run, mut pause) = (self.run, PAUSE.0);
        loop {
            let owns = tokio::select! {
                owns = self.owns() => owns,
                () = run.told().cancelled() => return Err(Broken::Told),
            };
            match owns {
                Some(true) => {
                    tracing::info!(generation = %self.generation.id, "writing the lost text again");
                    return Ok(());
                }
                Some(false) => return Err(Broken::NotOwner),
                None => tokio::select! {
                    () = sleep(pause) => {}
                    () = run.told().cancelled() => return Err(Broken::Told),
                },
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Whether the generation is this attempt's. Where the database is away nobody can claim it
    /// now, but somebody may have before: the log says so. `None`: neither can tell.
    async fn owns(&mut self) -> Option<bool> {
        let Generation { id, attempt, session, .. } = &self.generation;
        let asked = self.shared.store.owns(*id, self.shared.options.node, *attempt);
        match timeout(CONFIRM_WITHIN, asked).await {
            Ok(Ok(owns)) => return Some(owns),
            Ok(Err(error)) => tracing::debug!(generation = %id, %error, "confirm ownership"),
            Err(_) => tracing::debug!(generation = %id, "confirm ownership: it takes long"),
        }
        match was_replaced(self.shared, session, *id, *attempt).await {
            Ok(was_replaced) => Some(!was_replaced),
            Err(error) => {
                tracing::debug!(generation = %id, %error, "confirm ownership");
                None
            }
        }
    }
}

/// Asks the store until it answers, or the attempt is told to end.
async fn until_stored<T, F>(ask: impl Fn() -> F, run: &Run) -> Result<T, Broken>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE.0;
    let asking = async {
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
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    };
    tokio::select! {
        biased;
        () = run.told().cancelled() => Err(Broken::Told),
        stored = asking => stored,
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
