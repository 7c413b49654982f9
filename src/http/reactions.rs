//! Emojis under messages, and files named with them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::HttpError;
use super::answer::{Created, Gone, Shown};
use super::extract::{Ask, Body, NoQuery};
use super::openapi::{Api, Operation};
use super::view::Reacted;
use crate::dialect::payload::{self, AttachmentBody};
use crate::domain::command::EMOJI_BYTES_MAX;
use crate::domain::{Attachment, AttachmentId, Error, MessageId, Reaction};

const TAG: &str = "Reactions and attachments";

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const REACTIONS: &str = "/api/chat/messages/{messageId}/reactions";
    const ATTACHMENTS: &str = "/api/chat/messages/{messageId}/attachments";
    const ATTACHMENT: &str = "/api/chat/attachments/{attachmentId}";
    api.add(
        Operation::post([
            REACTIONS,
            TAG,
            "toggleReaction",
            "Give a message an emoji, or take it back.",
        ]),
        react,
    )
    .add(
        Operation::get([REACTIONS, TAG, "listReactions", "Who gave a message which emoji."]),
        reactions,
    )
    .add(
        Operation::post([
            ATTACHMENTS,
            TAG,
            "addAttachment",
            "Name a further file with the caller's own message.",
        ]),
        attach,
    )
    .add(
        Operation::get([ATTACHMENTS, TAG, "listAttachments", "The files named with a message."]),
        attachments,
    )
    .add(
        Operation::delete([
            ATTACHMENT,
            TAG,
            "deleteAttachment",
            "Take a file away from its message, as the message's author or the session's owner.",
        ]),
        detach,
    )
}

/// An emoji to be given or taken back.
#[derive(Deserialize, JsonSchema)]
#[schemars(extend("examples" = [{ "emoji": "👍" }]))]
struct NewReaction {
    #[schemars(length(min = 1, max = EMOJI_BYTES_MAX), regex(pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u00a0]*$"))]
    emoji: String,
}

async fn react(
    ask: Ask<MessageId, NoQuery, Body<NewReaction>>,
) -> Result<Shown<Reacted>, HttpError> {
    let emoji = payload::emoji(Some(ask.body.0.emoji.into()))?;
    let (added, counts) = ask.state.chat.react(&ask.caller, ask.path, emoji).await?;
    Ok(Shown(Reacted { added, counts }))
}

async fn reactions(ask: Ask<MessageId>) -> Result<Shown<Vec<Reaction>>, HttpError> {
    Ok(Shown(ask.state.chat.reactions(&ask.caller, ask.path).await?))
}

async fn attach(
    ask: Ask<MessageId, NoQuery, Body<AttachmentBody>>,
) -> Result<Created<Attachment>, HttpError> {
    let file = ask.body.0.check()?;
    let added = ask.state.chat.attach(&ask.caller, ask.path, vec![file]).await?;
    // The message went away in between.
    let gone = || HttpError::from(Error::not_found("message"));
    added.into_iter().next().map(Created).ok_or_else(gone)
}

async fn attachments(ask: Ask<MessageId>) -> Result<Shown<Vec<Attachment>>, HttpError> {
    Ok(Shown(ask.state.chat.attachments(&ask.caller, ask.path).await?))
}

async fn detach(ask: Ask<AttachmentId>) -> Result<Gone, HttpError> {
    ask.state.chat.detach(&ask.caller, ask.path).await?;
    Ok(Gone)
}
