//! Asking an agent, who answers, and stopping an answer.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HttpError;
use super::answer::{Accepted, Shown, View};
use super::extract::{Ask, Body, NoQuery, SESSION_ID_PATTERN, id, optional_id};
use super::messages::client_message_id;
use super::openapi::{Api, Operation};
use crate::chat::AgentInfo;
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, Put, RequestStream};
use crate::domain::{Error, ErrorCode, GenerationConfig, GenerationId, MessageId, Reply};

const TAG: &str = "Streams";
/// The highest temperature that a request may ask for.
const TEMPERATURE_MAX: f64 = 2.0;
/// The most tokens that a request may ask for.
const TOKENS_MAX: u32 = 1_000_000;
/// The most bytes of a model's name.
const MODEL_BYTES_MAX: usize = 128;

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const STOP: &str = "/api/chat/streams/{streamId}/stop";
    api.add(
        Operation::post(["/api/chat/streams", TAG, "requestStream", "Store a prompt and have an agent answer it."])
            .about("The answer is heard by whoever has joined the session, over whichever transport. With a `clientMessageId`, or the header `Idempotency-Key`, which means the same, it may be repeated.")
            .may(StatusCode::NOT_FOUND)
            .may(StatusCode::UNPROCESSABLE_ENTITY)
            .header("Idempotency-Key", "The client's own id for the prompt.", CLIENT_MESSAGE_ID_BYTES_MAX),
        request,
    )
    .add(
        Operation::get(["/api/chat/agents", TAG, "listAgents", "The configured agents."]),
        agents,
    )
    .add(
        Operation::post([STOP, TAG, "stopStream", "Stop a stream, on whichever node it runs."])
            .about("What there was of the answer is kept."),
        stop,
    )
}

/// A prompt that an agent is to answer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("examples" = [{ "sessionId": "holidays", "prompt": "Where to?", "config": { "maxTokens": 200 } }]))]
struct NewStream {
    #[schemars(regex(pattern = SESSION_ID_PATTERN))]
    session_id: String,
    #[schemars(length(min = 1), regex(pattern = "^[^\\u0000]*$"))]
    prompt: String,
    /// Who answers; else the session's agent.
    agent_id: Option<String>,
    config: Option<StreamConfig>,
    /// The client's own id for the prompt, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

/// What to change about the agent's settings.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StreamConfig {
    #[schemars(range(min = 0.0, max = TEMPERATURE_MAX))]
    temperature: Option<f64>,
    /// The most tokens to answer with.
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_tokens: Option<u32>,
    /// Another model of the same provider.
    #[schemars(length(min = 1, max = MODEL_BYTES_MAX), regex(pattern = "^[^\\u0000]*$"))]
    model: Option<String>,
}

impl StreamConfig {
    /// # Errors
    /// `INVALID`, naming the field.
    fn check(self) -> Result<GenerationConfig, Error> {
        let Self { temperature, max_tokens, model } = self;
        if temperature.is_some_and(|wanted| !(0.0..=TEMPERATURE_MAX).contains(&wanted)) {
            return Err(Error::invalid(format!("temperature must be from 0 to {TEMPERATURE_MAX}")));
        }
        if max_tokens.is_some_and(|wanted| !(1..=TOKENS_MAX).contains(&wanted)) {
            return Err(Error::invalid(format!("maxTokens must be from 1 to {TOKENS_MAX}")));
        }
        let is_name =
            |name: &str| (1..=MODEL_BYTES_MAX).contains(&name.len()) && !name.contains('\0');
        if model.as_deref().is_some_and(|name| !is_name(name)) {
            let message = format!("model must have 1 to {MODEL_BYTES_MAX} bytes, and no NUL");
            return Err(Error::invalid(message));
        }
        Ok(GenerationConfig { temperature, max_tokens, model })
    }
}

async fn request(ask: Ask<(), NoQuery, Body<NewStream>>) -> Result<Accepted<Requested>, HttpError> {
    let Body(body) = ask.body;
    if body.prompt.is_empty() || body.prompt.contains('\0') {
        return Err(Error::invalid("prompt must have at least 1 character, and no NUL").into());
    }
    let request = RequestStream {
        session: id("sessionId", &body.session_id)?,
        prompt: body.prompt,
        agent: optional_id("agentId", body.agent_id)?,
        config: body.config.unwrap_or_default().check()?,
        client_message_id: client_message_id(body.client_message_id, &ask.headers)?,
        put: Put::AsRequest,
    };
    Ok(Accepted(ask.state.chat.request(&ask.caller, request).await?.try_into()?))
}

/// A stream that was asked for.
pub(super) struct Requested {
    generation: GenerationId,
    message: MessageId,
    prompt: MessageId,
}

impl TryFrom<Reply> for Requested {
    type Error = Error;

    fn try_from(reply: Reply) -> Result<Self, Error> {
        match reply {
            Reply::Requested { generation, message, prompt } => {
                Ok(Self { generation, message, prompt })
            }
            _ => Err(Error::new(ErrorCode::Internal, "Another answer was expected")),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Requested")]
pub(super) struct RequestedJson {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    /// The answer's.
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    #[schemars(extend("format" = "uuid"))]
    prompt_message_id: String,
}

impl View for Requested {
    type Json<'a> = RequestedJson;

    fn json(&self) -> RequestedJson {
        RequestedJson {
            stream_id: self.generation.to_string(),
            message_id: self.message.to_string(),
            prompt_message_id: self.prompt.to_string(),
        }
    }
}

async fn agents(ask: Ask) -> Result<Shown<Vec<AgentInfo>>, HttpError> {
    Ok(Shown(ask.state.chat.agents(&ask.caller).await?))
}

async fn stop(ask: Ask<GenerationId>) -> Result<Accepted<GenerationId>, HttpError> {
    ask.state.chat.stop(&ask.caller, ask.path).await?;
    Ok(Accepted(ask.path))
}
