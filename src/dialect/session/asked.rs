//! The payloads of this dialect's events, for its documents. They are read field by field
//! ([`decode`](super::decode)), so that each refusal says what is wrong with which field.
#![expect(dead_code, reason = "described, never made")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::answer::{JoinedJson, ReactedJson, RequestedJson, StoredJson};
use crate::dialect::CommandSpec;
use crate::dialect::acks::DoneJson;
use crate::dialect::payload::{AGENT_ID, AttachmentBody, NO_NUL, SESSION_ID};
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, EMOJI_BYTES_MAX};

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new::<DeleteMessage, DoneJson>(
        "message:delete",
        "Deletes a message, as its author or the session's owner.",
    ),
    CommandSpec::new::<EditMessage, StoredJson<'static>>(
        "message:edit",
        "Gives a message of one's own another text.",
    ),
    CommandSpec::new::<React, ReactedJson>(
        "message:reaction",
        "Gives a reaction, or takes it back.",
    ),
    CommandSpec::new::<See, DoneJson>("message:seen", "Says that one has read up to a message."),
    CommandSpec::new::<SendMessage, StoredJson<'static>>(
        "message:send",
        "Stores a message and shows it to the session.",
    ),
    CommandSpec::new::<JoinSession, JoinedJson<'static>>(
        "session:join",
        "Shows this connection the session from now on, and what it missed.",
    ),
    CommandSpec::new::<LeaveSession, DoneJson>("session:leave", "Shows it no more."),
    CommandSpec::new::<RequestStream, RequestedJson>(
        "stream:request",
        "Stores a prompt and has an agent answer it; joins the session where that is needed.",
    ),
    CommandSpec::new::<StopStream, DoneJson>("stream:stop", "Stops an answer, wherever it runs."),
    CommandSpec::new::<StartTyping, DoneJson>(
        "typing:start",
        "Says that one types; ends by itself after 5 s.",
    ),
    CommandSpec::new::<StopTyping, DoneJson>("typing:stop", "Says that one does not any more."),
];

/// Which session to join, and what the client has of it.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct JoinSession {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
    /// The last message that the client has: `messages:missed` brings those after it.
    last_message_id: Option<String>,
    /// How much it has of each running answer, in UTF-16 code units, by `streamId`; at most 64.
    streams: Option<BTreeMap<String, u64>>,
}

/// Which session to leave.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct LeaveSession {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
}

/// A message to be stored.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct SendMessage {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
    #[schemars(length(min = 1), regex(pattern = NO_NUL))]
    content: String,
    /// The message it replies to.
    parent_message_id: Option<String>,
    attachments: Option<Vec<AttachmentBody>>,
    /// The client's own id for it, of at most 128 bytes, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

/// A message's new text.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct EditMessage {
    message_id: String,
    #[schemars(length(min = 1), regex(pattern = NO_NUL))]
    content: String,
}

/// Which message to delete.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct DeleteMessage {
    message_id: String,
}

/// How far one has read.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", rename = "SeeMessage")]
struct See {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
    message_id: String,
}

/// A reaction.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", rename = "ReactToMessage")]
struct React {
    message_id: String,
    /// 1 to 64 bytes without white space.
    #[schemars(length(min = 1, max = EMOJI_BYTES_MAX))]
    emoji: String,
}

/// Where one types, and as whom.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct StartTyping {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
    /// The name that others are shown: at most 256 bytes.
    #[schemars(length(max = 256))]
    user_name: Option<String>,
}

/// Where one does not type any more.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct StopTyping {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
}

/// What is to be answered, and how.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct RequestStream {
    #[schemars(regex(pattern = SESSION_ID))]
    session_id: String,
    #[schemars(length(min = 1), regex(pattern = NO_NUL))]
    prompt: String,
    /// Who is to answer; else the session's agent.
    #[schemars(regex(pattern = AGENT_ID))]
    agent_id: Option<String>,
    config: Option<StreamConfig>,
    /// The client's own id for the prompt, of at most 128 bytes, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

/// How an agent is to answer; what is missing is as the agent has it.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct StreamConfig {
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f64>,
    #[schemars(range(min = 1, max = 1_000_000))]
    max_tokens: Option<u32>,
    #[schemars(length(min = 1, max = 128))]
    model: Option<String>,
}

/// Which answer to stop.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct StopStream {
    stream_id: String,
}
