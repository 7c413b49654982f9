//! Messages: sending, changing, reading and finding them.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::HttpError;
use super::answer::{Created, Gone, Shown};
use super::extract::{Ask, Body, MaybeMessage, MessageRef, NoQuery, SESSION_ID_PATTERN, id};
use super::openapi::{Api, Operation};
use super::page::{Limit, Offset};
use axum::http::{HeaderMap, StatusCode};

use crate::dialect::payload::{self, AttachmentBody};
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, SendMessage};
use crate::domain::{Error, Message, MessageId, SessionId};
use crate::store::{Found, History, HistoryPage};

const TAG: &str = "Messages";
/// The header that names a request, so that it can be repeated.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const ONE: &str = "/api/chat/messages/{messageId}";
    let about = "With a `clientMessageId`, or the header `Idempotency-Key`, which means the same, \
        it may be repeated: the answer is the message that was stored first.";
    api.add(
        Operation::post(["/api/chat/messages", TAG, "sendMessage", "Store a message and tell the session."])
            .about(about)
            .may(StatusCode::NOT_FOUND)
            .may(StatusCode::UNPROCESSABLE_ENTITY)
            .header("Idempotency-Key", "The client's own id for the message.", CLIENT_MESSAGE_ID_BYTES_MAX),
        send,
    )
    .add(
        Operation::get(["/api/chat/sessions/{sessionId}/messages", TAG, "listMessages", "A page of a session's messages, in the order of time."])
            .about("`offset` counts from the newest, so the first page is the end of the conversation; with `after` alone, from the oldest."),
        history,
    )
    .add(Operation::get([ONE, TAG, "getMessage", "A message, deleted or not."]), get)
    .add(
        Operation::put([ONE, TAG, "editMessage", "Change the text of the caller's own message."])
            .may(StatusCode::UNPROCESSABLE_ENTITY),
        edit,
    )
    .add(
        Operation::delete([ONE, TAG, "deleteMessage", "Delete a message, as its author or the session's owner."])
            .about("It keeps its place without its content."),
        delete,
    )
    .add(
        Operation::get(["/api/chat/messages/{messageId}/thread", TAG, "getThread", "The replies to a message, and the replies to those."]),
        thread,
    )
    .add(
        Operation::get(["/api/chat/sessions/{sessionId}/search", TAG, "searchMessages", "The messages that hold every word of `query`."]),
        search,
    )
}

/// A message to be stored.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("examples" = [{ "sessionId": "holidays", "content": "Where to?", "clientMessageId": "7f3a" }]))]
struct NewMessage {
    #[schemars(regex(pattern = SESSION_ID_PATTERN))]
    session_id: String,
    #[schemars(length(min = 1), regex(pattern = "^[^\\u0000]*$"))]
    content: String,
    /// The message it replies to.
    parent_message_id: Option<MessageRef>,
    #[schemars(with = "Option<Vec<AttachmentBody>>")]
    attachments: Option<Value>,
    /// The client's own id for it, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

async fn send(ask: Ask<(), NoQuery, Body<NewMessage>>) -> Result<Created<Arc<Message>>, HttpError> {
    let Body(body) = ask.body;
    let message = SendMessage {
        session: id("sessionId", &body.session_id)?,
        content: payload::content(Some(body.content.into()))?,
        parent: body.parent_message_id.map(|parent| parent.0),
        attachments: payload::attachments(body.attachments)?,
        client_message_id: client_message_id(body.client_message_id, &ask.headers)?,
    };
    Ok(Created(ask.state.chat.send(&ask.caller, message).await?))
}

/// From the body or from the header, which mean the same.
///
/// # Errors
/// `INVALID`, also where they differ.
pub(super) fn client_message_id(
    in_body: Option<String>,
    headers: &HeaderMap,
) -> Result<Option<String>, Error> {
    let in_body = payload::client_message_id(in_body.map(Value::from))?;
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(in_body) };
    // A space would be lost at its ends.
    let is_key = |key: &&str| key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = key.to_str().ok().filter(is_key).filter(|_| keys.next().is_none()).map(Value::from);
    let invalid = || Error::invalid("Idempotency-Key must be one, as clientMessageId");
    let key = key.and_then(|key| payload::client_message_id(Some(key)).ok()).ok_or_else(invalid)?;
    if in_body.is_some() && in_body != key {
        return Err(Error::invalid("clientMessageId and Idempotency-Key differ"));
    }
    Ok(key)
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct HistoryQuery {
    #[serde(default)]
    limit: Limit<50>,
    #[serde(default)]
    offset: Offset,
    /// Only the direct replies to this message.
    #[serde(default)]
    parent_message_id: MaybeMessage,
    /// Only what came before this message.
    #[serde(default)]
    before: MaybeMessage,
    /// Only what came after this message.
    #[serde(default)]
    after: MaybeMessage,
}

async fn history(ask: Ask<SessionId, HistoryQuery>) -> Result<Shown<History>, HttpError> {
    let query = ask.query;
    let page = HistoryPage {
        parent: query.parent_message_id.0,
        before: query.before.0,
        after: query.after.0,
        limit: query.limit.of(&ask.state.chat),
        offset: query.offset.0,
    };
    Ok(Shown(ask.state.chat.history(&ask.caller, &ask.path, page).await?))
}

async fn get(ask: Ask<MessageId>) -> Result<Shown<Message>, HttpError> {
    Ok(Shown(ask.state.chat.message(&ask.caller, ask.path).await?))
}

/// A message's new text.
#[derive(Deserialize, JsonSchema)]
#[schemars(extend("examples" = [{ "content": "Where to, and when?" }]))]
struct Edit {
    #[schemars(length(min = 1), regex(pattern = "^[^\\u0000]*$"))]
    content: String,
}

async fn edit(ask: Ask<MessageId, NoQuery, Body<Edit>>) -> Result<Shown<Arc<Message>>, HttpError> {
    let content = payload::content(Some(ask.body.0.content.into()))?;
    Ok(Shown(ask.state.chat.edit(&ask.caller, ask.path, content).await?))
}

async fn delete(ask: Ask<MessageId>) -> Result<Gone, HttpError> {
    ask.state.chat.delete(&ask.caller, ask.path).await?;
    Ok(Gone)
}

#[derive(Deserialize, JsonSchema)]
struct ThreadQuery {
    #[serde(default)]
    limit: Limit<50>,
    #[serde(default)]
    offset: Offset,
}

async fn thread(ask: Ask<MessageId, ThreadQuery>) -> Result<Shown<Found>, HttpError> {
    let (limit, offset) = (ask.query.limit.of(&ask.state.chat), ask.query.offset.0);
    Ok(Shown(ask.state.chat.thread(&ask.caller, ask.path, limit, offset).await?))
}

#[derive(Deserialize, JsonSchema)]
struct SearchQuery {
    /// The words.
    #[schemars(length(min = 1), regex(pattern = "^[^\\u0000]*$"), extend("x-bound" = "search"))]
    query: String,
    #[serde(default)]
    limit: Limit<20>,
    #[serde(default)]
    offset: Offset,
}

async fn search(ask: Ask<SessionId, SearchQuery>) -> Result<Shown<Found>, HttpError> {
    let SearchQuery { query, limit, offset } = ask.query;
    let (chat, limit) = (&ask.state.chat, limit.of(&ask.state.chat));
    Ok(Shown(chat.search(&ask.caller, &ask.path, &query, limit, offset.0).await?))
}
