//! What frontends that read streams ask: a token for one, and an answer on one.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TAG;
use crate::auth::STREAM_TOKEN_TTL;
use crate::dialect::payload;
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, Put, RequestStream};
use crate::domain::{Error, ErrorCode, GenerationConfig, SessionId};
use crate::http::HttpError;
use crate::http::answer::{Accepted, Shown, View};
use crate::http::extract::{Ask, Body, MaybeBody, NoQuery, SESSION_ID_PATTERN, id, optional_id};
use crate::http::messages::client_message_id;
use crate::http::openapi::{Api, Operation};
use crate::http::streams::Requested;

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    api.add(
        Operation::post(["/stream/init", TAG, "initStream", "A token that opens streams, and nothing else."])
            .about("For `EventSource`, which sends no headers: `?token=`. It is good for five minutes; one that is bound to a session resumes its stream for an hour.")
            .may(StatusCode::NOT_FOUND),
        init,
    )
    .add(
        Operation::post(["/chat/message", TAG, "askOnStream", "Store a message and have the session's agent answer it on its open streams."])
            .about("With a `clientMessageId`, or the header `Idempotency-Key`, which means the same, it may be repeated.")
            .may(StatusCode::NOT_FOUND)
            .may(StatusCode::UNPROCESSABLE_ENTITY)
            .header("Idempotency-Key", "The client's own id for the message.", CLIENT_MESSAGE_ID_BYTES_MAX),
        message,
    )
}

/// What a stream token is to open.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StreamInit {
    /// The only session that it opens; all of the caller's where it is missing.
    #[schemars(regex(pattern = SESSION_ID_PATTERN))]
    session_id: Option<String>,
}

struct StreamToken(String);

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamToken")]
struct StreamTokenJson<'a> {
    stream_token: &'a str,
    /// In seconds.
    expires_in: u64,
}

impl View for StreamToken {
    type Json<'a> = StreamTokenJson<'a>;

    fn json(&self) -> StreamTokenJson<'_> {
        StreamTokenJson { stream_token: &self.0, expires_in: STREAM_TOKEN_TTL.as_secs() }
    }
}

async fn init(
    ask: Ask<(), NoQuery, MaybeBody<StreamInit>>,
) -> Result<Shown<StreamToken>, HttpError> {
    let session: Option<SessionId> = optional_id("sessionId", ask.body.0.session_id)?;
    ask.state.chat.may_watch(&ask.caller, session.as_ref()).await?;
    let (user, name) = (&ask.caller.user, ask.caller.name.as_deref());
    // A name is for show: one that is too long for a token is left out.
    let token = ask.state.verifier.issue_stream(user, name, session.as_ref());
    let token = token.or_else(|_| ask.state.verifier.issue_stream(user, None, session.as_ref()));
    let token = token.map_err(|error| {
        tracing::error!(%error, "issue a stream token");
        Error::new(ErrorCode::Internal, "The token could not be made")
    })?;
    Ok(Shown(StreamToken(token)))
}

/// A message that an agent is to answer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("examples" = [{ "sessionId": "holidays", "content": "Where to?" }]))]
struct ChatMessage {
    #[schemars(regex(pattern = SESSION_ID_PATTERN))]
    session_id: String,
    #[schemars(length(min = 1), regex(pattern = "^[^\\u0000]*$"))]
    content: String,
    /// The client's own id for it, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

async fn message(
    ask: Ask<(), NoQuery, Body<ChatMessage>>,
) -> Result<Accepted<Requested>, HttpError> {
    let Body(body) = ask.body;
    let request = RequestStream {
        session: id("sessionId", &body.session_id)?,
        prompt: payload::content(Some(body.content.into()))?,
        agent: None,
        config: GenerationConfig::default(),
        client_message_id: client_message_id(body.client_message_id, &ask.headers)?,
        put: Put::AsMessage { echo: true },
    };
    Ok(Accepted(ask.state.chat.request(&ask.caller, request).await?.try_into()?))
}
