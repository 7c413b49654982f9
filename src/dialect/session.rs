//! The dialect `session`: the native and richest one.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::wire::{ErrorJson, MessageJson, SessionJson, UsageJson};
use super::{Answer, Dialect, Frame, Greeting, Shown, TextShown, raw};
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, Join, RequestStream};
use crate::domain::text::utf16_len;
use crate::domain::{
    Command, Error, Event, EventKind, GenerationConfig, GenerationId, Joined, Message,
    PresenceChange, Reply, SessionId, Signal, StopReason, Usage, UserId,
};

/// The most answers a joining client may say it has a part of.
const TEXTS_MAX: usize = 64;

pub(super) struct SessionDialect {
    pub(super) cumulative: bool,
}

impl Dialect for SessionDialect {
    fn name(&self) -> &'static str {
        "session"
    }

    fn commands(&self) -> &'static [&'static str] {
        &["session:join", "session:leave", "stream:request", "stream:stop"]
    }

    fn shown(&self) -> &'static [&'static str] {
        &[
            "connection:success",
            "error",
            "message:new",
            "messages:missed",
            "server:shutdown",
            "server:timeout",
            "stream:chunk",
            "stream:complete",
            "stream:error",
            "stream:reset",
            "stream:resumed",
            "stream:start",
            "stream:stopped",
            "user:joined",
            "user:left",
        ]
    }

    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error> {
        match event {
            "session:join" => join(Fields::of(args)?),
            "session:leave" => {
                Ok(Command::Leave { session: Fields::of(args)?.parsed("sessionId")? })
            }
            "stream:request" => request(Fields::of(args)?),
            "stream:stop" => stop(Fields::of(args)?),
            _ => Err(Error::invalid("Unknown event")),
        }
    }

    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        match shown {
            Shown::Event { event, seq } => encode_event(session, event, seq),
            Shown::Text(text) => vec![self.chunk(session, text)],
            Shown::Signal(signal) => vec![encode_signal(session, signal)],
        }
    }

    fn presence(&self, _change: &PresenceChange) -> Option<Frame> {
        todo!()
    }

    fn revoked(&self, _session: &SessionId) -> Frame {
        todo!()
    }

    fn answer(&self, reply: &Reply) -> Answer {
        let ok = serde_json::json!({ "ok": true });
        match reply {
            Reply::Joined(joined) => answer_joined(joined),
            Reply::Requested { generation, message, prompt } => Answer {
                ack: raw(&serde_json::json!({
                    "ok": true,
                    "streamId": generation.to_string(),
                    "messageId": message.to_string(),
                    "promptMessageId": prompt.to_string(),
                })),
                frames: Vec::new(),
            },
            Reply::Sent { .. }
            | Reply::Edited { .. }
            | Reply::Deleted
            | Reply::Seen
            | Reply::Reacted { .. }
            | Reply::Typed => todo!(),
            Reply::Left | Reply::StopStored => Answer { ack: raw(&ok), frames: Vec::new() },
        }
    }

    fn greet(&self, greeting: Greeting<'_>) -> Option<Frame> {
        Some(Frame::new(
            "connection:success",
            &serde_json::json!({
                "userId": greeting.user,
                "socketId": greeting.socket,
                "nodeId": greeting.node,
                "serverTime": greeting.now.to_string(),
                "recovered": greeting.recovered,
            }),
        ))
    }

    fn error(&self, event: &str, error: &Error) -> Frame {
        Frame::new("error", &ErrorJson::new(error, Some(event)))
    }

    fn shutdown(&self, reconnect_in: Duration) -> Frame {
        Frame::new(
            "server:shutdown",
            &serde_json::json!({
                "message": "This server is shutting down",
                "reconnectInMs": u64::try_from(reconnect_in.as_millis()).unwrap_or(u64::MAX),
            }),
        )
    }

    fn timeout(&self) -> Frame {
        Frame::new(
            "server:timeout",
            &serde_json::json!({ "message": "This connection has reached its age" }),
        )
    }
}

fn join(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("sessionId")?;
    let last_message = fields.optional_parsed("lastMessageId")?;
    let mut texts = Vec::new();
    if let Some(streams) = fields.optional_object("streams")? {
        if streams.len() > TEXTS_MAX {
            return Err(Error::invalid(format!("streams must name at most {TEXTS_MAX}")));
        }
        for (generation, offset) in streams.into_entries() {
            let generation: GenerationId =
                generation.parse().map_err(|error| Error::invalid(format!("streams: {error}")))?;
            let offset = offset
                .as_u64()
                .ok_or_else(|| Error::invalid("streams must map to whole numbers"))?;
            texts.push((generation, offset));
        }
    }
    Ok(Command::Join(Join { session, last_message, texts }))
}

fn request(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("sessionId")?;
    let prompt = fields.text("prompt")?;
    let agent = fields.optional_parsed("agentId")?;
    let client_message_id = fields.optional_text("clientMessageId")?;
    if client_message_id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.len() > CLIENT_MESSAGE_ID_BYTES_MAX)
    {
        return Err(Error::invalid(format!(
            "clientMessageId must have 1 to {CLIENT_MESSAGE_ID_BYTES_MAX} bytes"
        )));
    }
    let config = match fields.optional_object("config")? {
        None => GenerationConfig::default(),
        Some(mut config) => GenerationConfig {
            temperature: config.optional_number("temperature", 0.0..=2.0)?,
            max_tokens: config.optional_integer("maxTokens", 1..=1_000_000)?,
            model: config.optional_text("model")?,
        },
    };
    if config.model.as_ref().is_some_and(|model| model.is_empty() || model.len() > 128) {
        return Err(Error::invalid("model must have 1 to 128 bytes"));
    }
    Ok(Command::RequestStream(RequestStream { session, prompt, agent, config, client_message_id }))
}

/// An id that is no UUID is one that does not exist.
fn stop(mut fields: Fields) -> Result<Command, Error> {
    let generation = fields.text("streamId")?;
    let generation = generation.parse().map_err(|_| Error::not_found("stream"))?;
    Ok(Command::StopStream { generation })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChunkJson<'a> {
    id: &'a str,
    stream_id: &'a str,
    session_id: &'a str,
    message_id: &'a str,
    seq: u64,
    offset: u64,
    delta: &'a str,
    content: &'a str,
    tokens: u64,
    is_complete: bool,
}

impl SessionDialect {
    fn chunk(&self, session: &SessionId, text: TextShown<'_>) -> Frame {
        let generation = text.generation.to_string();
        Frame::new(
            "stream:chunk",
            &ChunkJson {
                id: &generation,
                stream_id: &generation,
                session_id: session.as_str(),
                message_id: &text.message.to_string(),
                seq: text.seq,
                offset: text.utf16_offset,
                delta: text.delta,
                content: if self.cumulative { text.so_far } else { "" },
                tokens: text.tokens,
                is_complete: false,
            },
        )
    }
}

/// What the events about a generation have in common.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamJson<'a> {
    stream_id: String,
    session_id: &'a str,
    message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson<'a>>,
}

impl<'a> StreamJson<'a> {
    fn new(generation: GenerationId, session: &'a SessionId, message: impl ToString) -> Self {
        Self {
            stream_id: generation.to_string(),
            session_id: session.as_str(),
            message_id: message.to_string(),
            agent_id: None,
            attempt: None,
            offset: None,
            reason: None,
            stopped_by: None,
            content: None,
            message: None,
            usage: None,
            stop_reason: None,
            error: None,
        }
    }
}

fn encode_event(session: &SessionId, event: &Event, seq: u64) -> Vec<Frame> {
    match &event.kind {
        EventKind::MessageNew(message) => {
            vec![Frame::new("message:new", &MessageJson::from(&**message))]
        }
        EventKind::GenerationStarted { generation, message, agent, .. } => {
            let mut json = StreamJson::new(*generation, session, message);
            json.agent_id = Some(agent.as_str());
            vec![Frame::new("stream:start", &json)]
        }
        EventKind::GenerationResumed { generation, message, attempt, utf16_offset, .. } => {
            let mut json = StreamJson::new(*generation, session, message);
            json.attempt = Some(*attempt);
            json.offset = Some(*utf16_offset);
            vec![Frame::new("stream:resumed", &json)]
        }
        EventKind::GenerationReset { generation, message, attempt, reason, .. } => {
            let mut json = StreamJson::new(*generation, session, message);
            json.attempt = Some(*attempt);
            json.reason = Some(reason);
            vec![Frame::new("stream:reset", &json)]
        }
        EventKind::MessageEdited(_)
        | EventKind::MessageDeleted { .. }
        | EventKind::MessageSeen { .. }
        | EventKind::ReactionChanged { .. } => todo!(),
        EventKind::GenerationEnded { .. } | EventKind::AccessRevoked(_) | EventKind::Unknown => {
            Vec::new()
        }
        EventKind::GenerationCompleted { generation, message, reason, usage } => {
            completed(session, *generation, message, reason, *usage, seq)
        }
        EventKind::GenerationStopped { generation, message, by } => {
            let mut json = StreamJson::new(*generation, session, message.id);
            json.stopped_by = Some(by.as_str());
            json.content = Some(&message.content);
            vec![Frame::new("stream:stopped", &json)]
        }
        EventKind::GenerationFailed { generation, message, error } => {
            let mut json = StreamJson::new(*generation, session, message.id);
            json.error = Some(ErrorJson::new(error, Some("stream:request")));
            vec![Frame::new("stream:error", &json)]
        }
    }
}

/// The last chunk, with the whole response in it, then the stored message.
fn completed(
    session: &SessionId,
    generation: GenerationId,
    message: &Message,
    reason: &StopReason,
    usage: Usage,
    seq: u64,
) -> Vec<Frame> {
    let id = generation.to_string();
    let chunk = ChunkJson {
        id: &id,
        stream_id: &id,
        session_id: session.as_str(),
        message_id: &message.id.to_string(),
        seq,
        offset: utf16_len(&message.content),
        delta: "",
        content: &message.content,
        tokens: message.tokens.unwrap_or(0),
        is_complete: true,
    };
    let mut json = StreamJson::new(generation, session, message.id);
    json.message = Some(MessageJson::from(message));
    json.usage = Some(usage.into());
    json.stop_reason = Some(reason.as_str());
    vec![Frame::new("stream:chunk", &chunk), Frame::new("stream:complete", &json)]
}

fn encode_signal(session: &SessionId, signal: &Signal) -> Frame {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct UserJson<'a> {
        session_id: &'a str,
        user_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_name: Option<&'a str>,
        online: u64,
    }
    let (event, user, name, online) = match signal {
        Signal::UserJoined { user, name, online } => ("user:joined", user, name, *online),
        Signal::UserLeft { user, name, online } => ("user:left", user, name, *online),
        Signal::TypingStarted { .. } | Signal::TypingStopped { .. } => todo!(),
    };
    Frame::new(
        event,
        &UserJson {
            session_id: session.as_str(),
            user_id: user.as_str(),
            user_name: name.as_deref(),
            online,
        },
    )
}

fn answer_joined(joined: &Joined) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ActiveJson<'a> {
        stream_id: String,
        message_id: String,
        agent_id: &'a str,
        offset: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct JoinedJson<'a> {
        ok: bool,
        session: SessionJson<'a>,
        online: Vec<&'a str>,
        online_count: u64,
        active_streams: Vec<ActiveJson<'a>>,
        missed: usize,
        has_more: bool,
    }
    let ack = JoinedJson {
        ok: true,
        session: SessionJson::new(&joined.session, joined.membership),
        online: joined.online.iter().map(UserId::as_str).collect(),
        online_count: joined.online_count,
        active_streams: joined
            .active
            .iter()
            .map(|active| ActiveJson {
                stream_id: active.generation.to_string(),
                message_id: active.message.to_string(),
                agent_id: active.agent.as_str(),
                offset: active.utf16_len,
            })
            .collect(),
        missed: joined.missed.as_ref().map_or(0, Vec::len),
        has_more: joined.has_more,
    };
    let frames = joined.missed.iter().map(|messages| missed(joined, messages)).collect();
    Answer { ack: raw(&ack), frames }
}

fn missed(joined: &Joined, messages: &[Message]) -> Frame {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct MissedJson<'a> {
        session_id: &'a str,
        messages: Vec<MessageJson<'a>>,
        has_more: bool,
    }
    Frame::new(
        "messages:missed",
        &MissedJson {
            session_id: joined.session.id.as_str(),
            messages: messages.iter().map(MessageJson::from).collect(),
            has_more: joined.has_more,
        },
    )
}
