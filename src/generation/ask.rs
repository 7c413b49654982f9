//! Asking whoever answers, until the answer is whole: an agent, or a pipeline of agents.
//!
//! It says on the way what there is to say, over a bounded channel, and adds up what all of it
//! costs. It must not know sessions, readers or storage: the attempt that listens does.

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::pipeline;
use super::tries::{Ear, Prompt};
use super::voice::{Solo, Voice, Voices};
use crate::domain::{AgentId, Aside, Error, ErrorCode, GenerationConfig, Stage, StopReason, Usage};
use crate::llm::Turn;

/// The most that is said and not yet taken.
pub(super) const SAID_MAX: usize = 64;

/// What is asked.
pub(super) struct Question {
    /// Of whom.
    pub agent: AgentId,
    /// What the request changes about the settings of whoever is heard.
    pub config: GenerationConfig,
    /// The conversation; the last turn is the prompt.
    pub turns: Vec<Turn>,
    /// The beginning of the answer, which an earlier attempt wrote.
    pub partial: Option<String>,
    /// The stages that an earlier attempt has told of, each at its latest, in their order.
    pub stages: Vec<Stage>,
}

/// What is said on the way to a whole answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// New text, to be shown; never empty.
    Text(String),
    /// Something beside it.
    Aside(Aside),
    /// What all of it cost so far, failed tries included: a later one replaces an earlier one.
    Usage(Usage),
    /// A stage began or is over.
    Stage(Stage),
    /// A provider failed: once for each try, the last one included.
    Failed,
    /// Another provider and model than the configured ones answer. Before their text.
    AnsweredBy { provider: String, model: String },
}

/// Asks, and says on the way what there is to say. `Ok` once the answer is whole.
///
/// # Errors
/// What the client is to be told: `TIMEOUT`, `OVERLOADED` with the time to wait where the provider
/// named one, `PROVIDER_ERROR`. In a pipeline the message names the stage and the agent.
///
/// # Cancel safety
/// Dropping it closes every upstream connection.
pub(super) async fn ask(
    voices: &Voices,
    question: Question,
    say: mpsc::Sender<Said>,
) -> Result<StopReason, Error> {
    let asking = Asking { voices, say, total: Mutex::default() };
    match voices.get(&question.agent) {
        Some(Voice::Solo(_)) => {
            let mut ear = Ear::readers();
            asking.hear(&question.agent, &Prompt::of_heard(&question), &mut ear).await
        }
        Some(Voice::Pipeline(pipeline)) => pipeline::run(&asking, pipeline, &question).await,
        None => Err(unknown()),
    }
}

/// One question on its way to an answer.
pub(super) struct Asking<'a> {
    pub voices: &'a Voices,
    say: mpsc::Sender<Said>,
    /// What all tries of all agents cost so far.
    total: Mutex<Usage>,
}

impl Asking<'_> {
    /// Says something. Waits where too much is said and not yet taken.
    pub async fn say(&self, said: Said) {
        // Whoever listened is gone, and drops this in a moment.
        let _ = self.say.send(said).await;
    }

    /// Notes what a try cost so far, `spent` being what it was known to have cost, and says the sum.
    pub async fn spend(&self, spent: &mut Usage, now: Usage) {
        let total = {
            let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
            *total = plus(minus(*total, *spent), now);
            *total
        };
        *spent = now;
        self.say(Said::Usage(total)).await;
    }

    /// The agent called so.
    ///
    /// # Errors
    /// There is none.
    pub fn solo(&self, agent: &AgentId) -> Result<&Solo, Error> {
        match self.voices.get(agent) {
            Some(Voice::Solo(solo)) => Ok(solo),
            Some(Voice::Pipeline(_)) | None => Err(unknown()),
        }
    }
}

fn unknown() -> Error {
    Error::new(ErrorCode::Internal, "The agent is not configured here")
}

fn plus(a: Usage, b: Usage) -> Usage {
    each(a, b, u64::saturating_add)
}

fn minus(a: Usage, b: Usage) -> Usage {
    each(a, b, u64::saturating_sub)
}

fn each(a: Usage, b: Usage, with: impl Fn(u64, u64) -> u64) -> Usage {
    Usage {
        input_tokens: with(a.input_tokens, b.input_tokens),
        output_tokens: with(a.output_tokens, b.output_tokens),
        cached_tokens: with(a.cached_tokens, b.cached_tokens),
    }
}
