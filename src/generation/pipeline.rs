//! A pipeline's answer: stages one after another, the agents of each at the same time, the last
//! one heard.
//!
//! Every agent hears the conversation. From the second stage on it is told, below its own
//! instructions, what the agents of all earlier stages said ([`TOLD`]). A stage is told of when it
//! begins and when it is over, with what was said in it, so that a takeover goes on after it.

#[cfg(test)]
mod tests;

use futures::future::try_join_all;

use super::ask::{Asking, Question, Said};
use super::gate::Verdict;
use super::tries::{Ear, Prompt, TOLD_MAX};
use super::voice::{Pipeline, PipelineStage};
use crate::domain::{AgentId, Error, ErrorCode, GenerationConfig, Stage, StopReason};

/// What stands before what the others said, each below the other as `name: text`.
const TOLD: &str = "Others were asked before you. This is what they said, each after their name:";

/// Has a pipeline answer.
///
/// # Errors
/// The first agent that fails, named with its stage, ends it; so does a gate that is not
/// understood.
///
/// # Cancel safety
/// Dropping it closes every upstream connection.
pub(super) async fn run(
    asking: &Asking<'_>,
    pipeline: &Pipeline,
    question: &Question,
) -> Result<StopReason, Error> {
    let Some((last, earlier)) = pipeline.stages.split_last() else {
        return Err(Error::new(ErrorCode::Internal, "The pipeline has no stages"));
    };
    let mut told: Vec<(&AgentId, String)> = Vec::new();
    for (index, stage) in earlier.iter().enumerate() {
        let place = Place::of(pipeline, index, question);
        place.begin(asking).await;
        let said = match place.said() {
            Some(said) if !stage.gate || Verdict::find(&said[0]).is_some() => said.to_vec(),
            _ => said_in(asking, stage, question, &told).await?,
        };
        let verdict = match stage.gate {
            true => Some(verdict(stage, &said)?),
            false => None,
        };
        let kept = match &verdict {
            Some(verdict) => vec![verdict.to_text()],
            None => said.clone(),
        };
        place.end(asking, kept).await;
        match verdict {
            Some(Verdict { proceed: false, output }) => {
                let rest = rest_of(output, question.partial.as_deref());
                if !rest.is_empty() {
                    asking.say(Said::Text(rest)).await;
                }
                return Ok(StopReason::EndTurn);
            }
            Some(Verdict { output, .. }) => told.extend(stage.agents.first().map(|a| (a, output))),
            None => told.extend(stage.agents.iter().zip(said)),
        }
    }
    let place = Place::of(pipeline, earlier.len(), question);
    place.begin(asking).await;
    let Some(speaker) = last.agents.first() else {
        return Err(Error::new(ErrorCode::Internal, "Nobody speaks last in the pipeline"));
    };
    let prompt = Prompt { told: told_so_far(&told), ..Prompt::of_heard(question) };
    let answer = asking.hear(speaker, &prompt, &mut Ear::readers()).await;
    let reason = answer.map_err(|error| within(last, speaker, error))?;
    // Its words are the answer's text; they are not kept twice.
    place.end(asking, Vec::new()).await;
    Ok(reason)
}

/// What each agent of a stage that nobody hears said.
async fn said_in(
    asking: &Asking<'_>,
    stage: &PipelineStage,
    question: &Question,
    told: &[(&AgentId, String)],
) -> Result<Vec<String>, Error> {
    let prompt = Prompt {
        told: told_so_far(told),
        partial: None,
        is_gate: stage.gate,
        config: GenerationConfig::default(),
        ..Prompt::of_heard(question)
    };
    let prompt = &prompt;
    let answers = stage.agents.iter().map(|agent| async move {
        let mut ear = Ear::Pipeline(String::new());
        match asking.hear(agent, prompt, &mut ear).await {
            Ok(_) => Ok(ear.into_told()),
            Err(error) => Err(within(stage, agent, error)),
        }
    });
    try_join_all(answers).await
}

fn verdict(stage: &PipelineStage, said: &[String]) -> Result<Verdict, Error> {
    let answer = said.first().map_or("", String::as_str);
    Verdict::find(answer).ok_or_else(|| {
        let error = Error::new(ErrorCode::Provider, "the gate's answer was not understood");
        match stage.agents.first() {
            Some(agent) => within(stage, agent, error),
            None => error,
        }
    })
}

/// What readers still lack of a gate's answer, having been shown `partial`. Should a gate that was
/// asked again say something else, what they were shown stands.
fn rest_of(output: String, partial: Option<&str>) -> String {
    match partial {
        Some(partial) => output.strip_prefix(partial).unwrap_or_default().to_owned(),
        None => output,
    }
}

fn told_so_far(told: &[(&AgentId, String)]) -> Option<String> {
    let mut text = TOLD.to_owned();
    for (agent, said) in told {
        text.push_str("\n\n");
        text.push_str(agent.as_str());
        text.push_str(": ");
        text.push_str(said);
    }
    (!told.is_empty()).then_some(text)
}

/// The error of one agent as that of the pipeline.
fn within(stage: &PipelineStage, agent: &AgentId, error: Error) -> Error {
    Error { message: format!("Stage {:?}, {agent}: {}", stage.name, error.message), ..error }
}

/// A stage's place in its pipeline, and what an earlier attempt told of it.
struct Place<'a> {
    stage: Stage,
    earlier: Option<&'a Stage>,
}

impl<'a> Place<'a> {
    fn of(pipeline: &Pipeline, index: usize, question: &'a Question) -> Self {
        let PipelineStage { name, agents, .. } = &pipeline.stages[index];
        let stage = Stage {
            name: name.clone(),
            agents: agents.clone(),
            index: up_to_u32(index),
            total: up_to_u32(pipeline.stages.len()),
            said: None,
        };
        // Of a pipeline that was changed meanwhile, what is no longer the same is done again.
        let earlier = question.stages.iter().rfind(|earlier| {
            (earlier.index, earlier.total) == (stage.index, stage.total)
                && (&earlier.name, &earlier.agents) == (&stage.name, &stage.agents)
        });
        Self { stage, earlier }
    }

    /// What was said in it, where an earlier attempt kept that whole.
    fn said(&self) -> Option<&'a [String]> {
        let said = self.earlier?.said.as_deref()?;
        (!said.is_empty() && said.len() == self.stage.agents.len()).then_some(said)
    }

    /// Says that it begins, once.
    async fn begin(&self, asking: &Asking<'_>) {
        if self.earlier.is_none() {
            asking.say(Said::Stage(self.stage.clone())).await;
        }
    }

    /// Says that it is over, once, with what was said if that is not too long.
    async fn end(self, asking: &Asking<'_>, said: Vec<String>) {
        if self.earlier.is_none_or(|earlier| earlier.said.is_none()) {
            let length: usize = said.iter().map(String::len).sum();
            let said = if length <= TOLD_MAX { said } else { Vec::new() };
            asking.say(Said::Stage(Stage { said: Some(said), ..self.stage })).await;
        }
    }
}

fn up_to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
