//! Sessions and who belongs to them.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{Gone, Made, Shown};
use super::extract::{Ask, Body, NoQuery, SESSION_ID_PATTERN, id, optional_id, or_null};
use super::openapi::{Api, Operation};
use super::page::Limit;
use super::{HttpError, cursor};
use crate::chat::{MadeSession, WantedSession};
use crate::dialect::payload::NO_CONTROLS;
use crate::dialect::wire::VisibilityJson;
use crate::domain::{Access, Error, Member, Presence, SessionChange, SessionId, UserId};
use crate::store::SessionPage;

const TAG: &str = "Sessions";
/// The most characters of a title: `chat` sees to it.
const TITLE_CHARS_MAX: usize = 200;
const AGENT_ID_PATTERN: &str = "^[A-Za-z0-9._-]{1,64}$";

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const ONE: &str = "/api/chat/sessions/{sessionId}";
    const ALL: &str = "/api/chat/sessions";
    const MEMBERS: &str = "/api/chat/sessions/{sessionId}/members";
    const MEMBER: &str = "/api/chat/sessions/{sessionId}/members/{userId}";
    const PRESENCE: &str = "/api/chat/sessions/{sessionId}/presence";
    api.add(
        Operation::post([ALL, TAG, "createSession", "Make a session, which the caller then owns."])
            .may(StatusCode::CONFLICT)
            .may(StatusCode::NOT_FOUND),
        create,
    )
    .add(
        Operation::get([ALL, TAG, "listSessions", "The caller's sessions, last active first."]),
        list,
    )
    .add(Operation::get([ONE, TAG, "getSession", "A session that the caller may see."]), get)
    .add(
        Operation::patch([ONE, TAG, "updateSession", "Change a session, as its owner."]).about(
            "A field that is not there stays as it is; `null` clears `title` and `agentId`.",
        ),
        update,
    )
    .add(
        Operation::delete([ONE, TAG, "deleteSession", "Delete a session, as its owner."])
            .about("Its readers leave it, and its streams are stopped."),
        delete,
    )
    .add(Operation::get([MEMBERS, TAG, "listMembers", "Who belongs to a session."]), members)
    .add(
        Operation::post([MEMBERS, TAG, "addMember", "Make somebody a member, as the owner."]),
        add_member,
    )
    .add(
        Operation::delete([
            MEMBER,
            TAG,
            "removeMember",
            "End a membership, as the owner or oneself.",
        ])
        .about("The member's connections leave the session at once, on every node."),
        remove_member,
    )
    .add(
        Operation::get([PRESENCE, TAG, "getPresence", "Who is there, across the cluster."]),
        presence,
    )
}

/// A session to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("examples" = [{ "title": "Holidays", "visibility": "private" }]))]
struct NewSession {
    /// Its id; made here where there is none.
    #[schemars(regex(pattern = SESSION_ID_PATTERN))]
    id: Option<String>,
    #[schemars(length(min = 1, max = TITLE_CHARS_MAX), regex(pattern = NO_CONTROLS))]
    title: Option<String>,
    /// The agent that answers in it; else the default one.
    #[schemars(regex(pattern = AGENT_ID_PATTERN))]
    agent_id: Option<String>,
    /// `private` where unset.
    visibility: Option<VisibilityJson>,
}

async fn create(ask: Ask<(), NoQuery, Body<NewSession>>) -> Result<Made<Access>, HttpError> {
    let Body(body) = ask.body;
    let wanted = WantedSession {
        id: optional_id("id", body.id)?,
        title: body.title,
        agent: optional_id("agentId", body.agent_id)?,
        visibility: body.visibility.map(Into::into),
    };
    match ask.state.chat.create_session(&ask.caller, wanted).await? {
        MadeSession::New(access) => Ok(Made::New(access)),
        MadeSession::Own(access) => Ok(Made::Before(access)),
        MadeSession::Taken => {
            let error = HttpError::from(Error::invalid("id is taken"));
            Err(error.with_status(StatusCode::CONFLICT))
        }
    }
}

#[derive(Deserialize, JsonSchema)]
struct ListQuery {
    #[serde(default)]
    limit: Limit<50>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

async fn list(ask: Ask<(), ListQuery>) -> Result<Shown<SessionPage>, HttpError> {
    let cursor = ask.query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    let after = cursor.map(cursor::read).transpose()?;
    Ok(Shown(
        ask.state.chat.sessions(&ask.caller, after, ask.query.limit.of(&ask.state.chat)).await?,
    ))
}

async fn get(ask: Ask<SessionId>) -> Result<Shown<Access>, HttpError> {
    Ok(Shown(ask.state.chat.session(&ask.caller, &ask.path).await?))
}

/// What to change about a session.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SessionChange", extend("examples" = [{ "title": null, "visibility": "open" }]))]
struct Change {
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(min = 1, max = TITLE_CHARS_MAX), regex(pattern = NO_CONTROLS))]
    title: Option<Option<String>>,
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(regex(pattern = AGENT_ID_PATTERN))]
    agent_id: Option<Option<String>>,
    visibility: Option<VisibilityJson>,
}

async fn update(ask: Ask<SessionId, NoQuery, Body<Change>>) -> Result<Shown<Access>, HttpError> {
    let Body(body) = ask.body;
    let change = SessionChange {
        title: body.title,
        agent: body.agent_id.map(|agent| optional_id("agentId", agent)).transpose()?,
        visibility: body.visibility.map(Into::into),
    };
    Ok(Shown(ask.state.chat.update_session(&ask.caller, &ask.path, change).await?))
}

async fn delete(ask: Ask<SessionId>) -> Result<Gone, HttpError> {
    ask.state.chat.delete_session(&ask.caller, &ask.path).await?;
    Ok(Gone)
}

async fn members(ask: Ask<SessionId>) -> Result<Shown<Vec<Member>>, HttpError> {
    Ok(Shown(ask.state.chat.members(&ask.caller, &ask.path).await?))
}

/// Who is to be a member.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("examples" = [{ "userId": "bob" }]))]
struct NewMember {
    #[schemars(length(min = 1, max = 256), regex(pattern = NO_CONTROLS))]
    user_id: String,
}

async fn add_member(
    ask: Ask<SessionId, NoQuery, Body<NewMember>>,
) -> Result<Made<Member>, HttpError> {
    let user = id("userId", &ask.body.0.user_id)?;
    let (member, is_new) = ask.state.chat.add_member(&ask.caller, &ask.path, user).await?;
    Ok(if is_new { Made::New(member) } else { Made::Before(member) })
}

async fn remove_member(ask: Ask<(SessionId, UserId)>) -> Result<Gone, HttpError> {
    let (session, user) = &ask.path;
    ask.state.chat.remove_member(&ask.caller, session, user).await?;
    Ok(Gone)
}

async fn presence(ask: Ask<SessionId>) -> Result<Shown<Vec<Presence>>, HttpError> {
    Ok(Shown(ask.state.chat.presence(&ask.caller, &ask.path).await?))
}
