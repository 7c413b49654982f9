//! One agent's answer: its pace is watched, it is asked again where it fails before the first
//! visible token, and then its fallbacks are.
//!
//! What is visible is text that readers are shown. Nothing is asked again after it, or they would
//! read a beginning twice. What an agent says to a pipeline only is never visible, so it may be
//! asked again at any point; what it said until then is forgotten.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::ask::{Asking, Question, Said};
use super::run::{provider_failed, timed_out};
use super::voice::Solo;
use crate::domain::{AgentId, Error, GenerationConfig, StopReason, Usage};
use crate::llm::{Delta, ProviderError, Request, Turn};

/// The pause before an agent is asked again: the first, and the longest. Each is twice the one
/// before, and from a half to the whole of it is waited.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// A provider that wants to be left alone for longer is not waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// How often an agent that did not answer in time is asked again.
const LATE_RETRIES: u32 = 1;
/// The most bytes of an agent's answer that a pipeline goes on with.
pub(super) const TOLD_MAX: usize = 64 * 1024;
/// Stands where the rest of such an answer was left out.
pub(super) const CUT: &str = "\n[The rest was too long and is left out.]";

/// What an agent is asked, whoever it is.
pub(super) struct Prompt<'a> {
    /// The conversation; the last turn is the prompt.
    pub turns: &'a [Turn],
    /// Follows the agent's instructions.
    pub told: Option<String>,
    /// The beginning of the answer, where there is one.
    pub partial: Option<&'a str>,
    /// Whether the answer is a gate's.
    pub is_gate: bool,
    /// What the request changes; nothing for an agent that is not heard.
    pub config: GenerationConfig,
}

impl<'a> Prompt<'a> {
    /// What is asked of the agent that readers hear.
    pub fn of_heard(question: &'a Question) -> Self {
        Self {
            turns: &question.turns,
            told: None,
            partial: question.partial.as_deref().filter(|partial| !partial.is_empty()),
            is_gate: false,
            config: question.config.clone(),
        }
    }

    /// The model that the request names is the agent's own; no fallback knows it.
    fn request(&self, solo: &Solo, is_fallback: bool) -> Request {
        let model = self.config.model.as_ref().filter(|_| !is_fallback).unwrap_or(&solo.model);
        let system = match (&solo.system, &self.told) {
            (Some(system), Some(told)) => Some(format!("{system}\n\n{told}")),
            (Some(system), None) => Some(system.clone()),
            (None, told) => told.clone(),
        };
        Request {
            model: model.clone(),
            system,
            turns: self.turns.to_vec(),
            partial: self.partial.map(str::to_owned),
            is_gate: self.is_gate,
            temperature: self.config.temperature.or(solo.temperature),
            max_tokens: self.config.max_tokens.or(solo.max_tokens),
        }
    }
}

/// Who hears an answer.
pub(super) enum Ear {
    /// Readers do: it is said as it comes.
    Readers {
        /// Whether they were shown any of it.
        shown: bool,
        /// Who answers, where that is to be said first.
        answered_by: Option<Said>,
    },
    /// Only the pipeline does, when it is whole; cut at [`TOLD_MAX`] bytes.
    Pipeline(String),
}

impl Ear {
    /// Readers, who were shown nothing yet.
    pub fn readers() -> Self {
        Self::Readers { shown: false, answered_by: None }
    }

    /// What a pipeline was told; nothing where readers heard it.
    pub fn into_told(self) -> String {
        match self {
            Self::Readers { .. } => String::new(),
            Self::Pipeline(told) => told,
        }
    }

    fn is_shown(&self) -> bool {
        matches!(self, Self::Readers { shown: true, .. })
    }

    /// Another try begins.
    fn forget(&mut self) {
        if let Self::Pipeline(text) = self {
            text.clear();
        }
    }

    fn is_answered_by(&mut self, solo: &Solo) {
        if let Self::Readers { answered_by, .. } = self {
            let (provider, model) = (solo.provider.id().to_owned(), solo.model.clone());
            *answered_by = Some(Said::AnsweredBy { provider, model });
        }
    }
}

/// Why a try came to nothing.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("nothing came in time")]
    Late,
    #[error(transparent)]
    Failed(ProviderError),
}

impl Why {
    /// How long to wait before the same is asked again, having been asked again `retries` times
    /// before, `lates` of them for being late; `None` where that would not help.
    fn pause(&self, retries: u32, lates: u32) -> Option<Duration> {
        match self {
            Self::Late => (lates < LATE_RETRIES).then(|| pause(retries)),
            Self::Failed(ProviderError::Overloaded { retry_after: Some(after) }) => {
                (*after <= RETRY_AFTER_MAX).then(|| pause(retries).max(*after))
            }
            Self::Failed(error) => error.is_retryable().then(|| pause(retries)),
        }
    }

    fn error(&self) -> Error {
        match self {
            Self::Late => timed_out(false),
            Self::Failed(error) => provider_failed(error),
        }
    }
}

/// How an agent with all its retries came to nothing.
enum GivenUp {
    /// Another may be asked instead.
    Unheard(Error),
    /// Readers have seen a part of its answer.
    Heard(Error),
}

impl Asking<'_> {
    /// Has an agent answer, or else its fallback, or else that one's.
    ///
    /// # Errors
    /// That of the last one asked.
    ///
    /// # Cancel safety
    /// Dropping it closes the upstream connection.
    pub(super) async fn hear(
        &self,
        agent: &AgentId,
        prompt: &Prompt<'_>,
        ear: &mut Ear,
    ) -> Result<StopReason, Error> {
        let mut solo = self.solo(agent)?;
        let mut request = prompt.request(solo, false);
        loop {
            let error = match self.insist(solo, &request, ear).await {
                Ok(reason) => return Ok(reason),
                Err(GivenUp::Heard(error)) => return Err(error),
                Err(GivenUp::Unheard(error)) => error,
            };
            // Never a round: the configuration refuses it.
            let Some(Ok(fallback)) = solo.fallback.as_ref().map(|agent| self.solo(agent)) else {
                return Err(error);
            };
            ear.is_answered_by(fallback);
            request = prompt.request(fallback, true);
            solo = fallback;
        }
    }

    /// Asks one agent until it answers, again and again within bounds.
    async fn insist(
        &self,
        solo: &Solo,
        request: &Request,
        ear: &mut Ear,
    ) -> Result<StopReason, GivenUp> {
        let (mut retries, mut lates) = (0, 0);
        loop {
            ear.forget();
            let why = match self.once(solo, request, ear).await {
                Ok(reason) => return Ok(reason),
                Err(why) => why,
            };
            self.say(Said::Failed).await;
            if ear.is_shown() {
                return Err(GivenUp::Heard(why.error()));
            }
            let pause = why.pause(retries, lates).filter(|_| retries < self.voices.retries());
            let Some(pause) = pause else { return Err(GivenUp::Unheard(why.error())) };
            tracing::debug!(provider = solo.provider.id(), reason = %why, ?pause, "ask again");
            sleep(pause).await;
            retries += 1;
            lates += u32::from(matches!(why, Why::Late));
        }
    }

    /// Asks once, and passes on what comes.
    async fn once(&self, solo: &Solo, request: &Request, ear: &mut Ear) -> Result<StopReason, Why> {
        let mut spent = Usage::default();
        let mut deadline = Instant::now() + solo.timeout;
        let asked = timeout_at(deadline, solo.provider.stream(request)).await;
        let mut deltas = asked.map_err(|_| Why::Late)?.map_err(Why::Failed)?;
        loop {
            let delta = timeout_at(deadline, deltas.next()).await.map_err(|_| Why::Late)?;
            let waiting = Instant::now();
            match delta {
                Some(Ok(Delta::Text(text))) => {
                    if !self.pass_on(text, ear).await {
                        return Ok(StopReason::MaxTokens);
                    }
                    deadline = Instant::now() + solo.timeout;
                }
                Some(Ok(Delta::Aside(aside))) => {
                    if matches!(ear, Ear::Readers { .. }) {
                        self.say(Said::Aside(aside)).await;
                    }
                    deadline = Instant::now() + solo.timeout;
                }
                Some(Ok(Delta::Usage(usage))) => {
                    self.spend(&mut spent, usage).await;
                    // No token; but the wait for whoever listens is not the provider's.
                    deadline += waiting.elapsed();
                }
                Some(Ok(Delta::Done(reason))) => {
                    self.say_who(ear).await;
                    return Ok(reason);
                }
                Some(Err(error)) => return Err(Why::Failed(error)),
                None => return Err(Why::Failed(ProviderError::BrokenOff(None))),
            }
        }
    }

    /// Passes text on; `false` where no more of it is wanted.
    async fn pass_on(&self, text: String, ear: &mut Ear) -> bool {
        self.say_who(ear).await;
        match ear {
            Ear::Readers { shown, .. } => {
                *shown = true;
                self.say(Said::Text(text)).await;
                true
            }
            Ear::Pipeline(told) => {
                if told.len() + text.len() <= TOLD_MAX {
                    told.push_str(&text);
                    return true;
                }
                told.push_str(&text[..text.floor_char_boundary(TOLD_MAX - told.len())]);
                told.truncate(told.floor_char_boundary(TOLD_MAX - CUT.len()));
                told.push_str(CUT);
                false
            }
        }
    }

    /// Says that a fallback answers, where that was not said yet.
    async fn say_who(&self, ear: &mut Ear) {
        if let Ear::Readers { answered_by, .. } = ear
            && let Some(said) = answered_by.take()
        {
            self.say(said).await;
        }
    }
}

/// The pause before the retry after `retries` of them.
fn pause(retries: u32) -> Duration {
    let whole = PAUSE.0.saturating_mul(2u32.saturating_pow(retries)).min(PAUSE.1);
    // Nodes that failed together do not come back together.
    let random = (Uuid::new_v4().as_u128() & 0xff) as u32;
    whole / 2 + whole / 2 * random / 0xff
}
