//! Who answers, and stopping an answer.

use super::HttpError;
use super::answer::{Accepted, Shown};
use super::extract::Ask;
use super::openapi::{Api, Operation};
use crate::chat::AgentInfo;
use crate::domain::GenerationId;

const TAG: &str = "Streams";

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const STOP: &str = "/api/chat/streams/{streamId}/stop";
    api.add(
        Operation::get(["/api/chat/agents", TAG, "listAgents", "The configured agents."]),
        agents,
    )
    .add(
        Operation::post([STOP, TAG, "stopStream", "Stop a stream, on whichever node it runs."])
            .about("What there was of the answer is kept."),
        stop,
    )
}

async fn agents(ask: Ask) -> Result<Shown<Vec<AgentInfo>>, HttpError> {
    Ok(Shown(ask.state.chat.agents(&ask.caller).await?))
}

async fn stop(ask: Ask<GenerationId>) -> Result<Accepted<GenerationId>, HttpError> {
    ask.state.chat.stop(&ask.caller, ask.path).await?;
    Ok(Accepted(ask.path))
}
