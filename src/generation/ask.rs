//! Asking whoever answers, until the answer is whole: its pace is watched, and it is asked again
//! where it fails before the first visible token.

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::run::{provider_failed, timed_out};
use super::voice::{Solo, Voice, Voices};
use crate::domain::{AgentId, Aside, Error, ErrorCode, GenerationConfig, Stage, StopReason, Usage};
use crate::llm::{Delta, ProviderError, Request, Turn};

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
    /// The stages that an earlier attempt has left behind, each over, in their order.
    pub stages: Vec<Stage>,
}

/// What is said on the way to a whole answer.
#[derive(Debug)]
pub(super) enum Said {
    /// New text, to be shown.
    Text(String),
    /// Something beside it.
    Aside(Aside),
    /// What all of it cost so far: a later one replaces an earlier one.
    Usage(Usage),
    /// A stage began or is over.
    Stage(Stage),
    /// A provider failed, and is asked again or another instead.
    Failed,
    /// Another provider and model than the configured ones answer.
    AnsweredBy { provider: String, model: String },
}

/// Asks, and says on the way what there is to say. `Ok` once the answer is whole.
///
/// # Cancel safety
/// Dropping it closes every upstream connection.
pub(super) async fn ask(
    voices: &Voices,
    question: Question,
    say: mpsc::Sender<Said>,
) -> Result<StopReason, Error> {
    let Some(Voice::Solo(solo)) = voices.get(&question.agent) else {
        return Err(Error::new(ErrorCode::Internal, "The agent is not configured here"));
    };
    let request = request(solo, &question);
    let patience = || Instant::now() + solo.timeout;
    let late = |_| timed_out(false);
    let asked = timeout_at(patience(), solo.provider.stream(&request)).await.map_err(late)?;
    let mut deltas = asked.map_err(|error| provider_failed(&error))?;
    loop {
        let delta = timeout_at(patience(), deltas.next()).await.map_err(late)?;
        let said = match delta {
            Some(Ok(Delta::Text(text))) => Said::Text(text),
            Some(Ok(Delta::Aside(aside))) => Said::Aside(aside),
            Some(Ok(Delta::Usage(usage))) => Said::Usage(usage),
            Some(Ok(Delta::Done(reason))) => return Ok(reason),
            Some(Err(error)) => return Err(provider_failed(&error)),
            None => return Err(provider_failed(&ProviderError::BrokenOff(None))),
        };
        // Whoever listened is gone, and drops this in a moment.
        let _ = say.send(said).await;
    }
}

fn request(solo: &Solo, question: &Question) -> Request {
    let config = &question.config;
    Request {
        model: config.model.clone().unwrap_or_else(|| solo.model.clone()),
        system: solo.system.clone(),
        turns: question.turns.clone(),
        partial: question.partial.clone(),
        is_gate: false,
        temperature: config.temperature.or(solo.temperature),
        max_tokens: config.max_tokens.or(solo.max_tokens),
    }
}
