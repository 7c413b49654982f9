//! The dialect `subscribe`: frontends that subscribe to a session, send messages that its agent
//! answers, and append the answer chunk by chunk.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::value::RawValue;

use super::acks::{DoneJson, RequestedJson};
use super::fields::Fields;
use super::stage::StageStatusJson;
use super::wire::{ErrorJson, MessageJson};
use super::{
    Answer, CommandSpec, Dialect, EventSpec, Frame, Ids, Refusal, Shown, TextShown, Vocabulary,
    payload, raw,
};
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, Join, Put, RequestStream};
use crate::domain::{
    Command, Error, ErrorCode, Event, EventKind, GenerationConfig, GenerationId, Message, Reply,
    SessionId,
};

const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new::<MessageSend, RequestedJson>(
        "message:send",
        "Stores a message, which the session's agent answers. Joins, where the socket has not.",
    ),
    CommandSpec::new::<Subscription, SubscribedAckJson>(
        "subscribe",
        "Joins a session; with `lastMessageId`, `messages:missed` brings what came after it.",
    ),
    CommandSpec::new::<Subscription, SubscribedAckJson>("unsubscribe", "Leaves a session."),
];

const SHOWN: &[EventSpec] = &[
    super::offset::SPEC,
    EventSpec::new::<ErrorJson<'_>>(
        "error",
        "A command without an acknowledgement was refused, an answer broke off, or the session \
         may not be seen any more.",
    ),
    EventSpec::new::<ChunkJson<'_>>("message:chunk", "New text of an answer."),
    EventSpec::new::<CompleteJson<'_>>(
        "message:complete",
        "An answer is stored; also what there was of one that was stopped or broke off.",
    ),
    EventSpec::new::<MessageJson<'_>>(
        "message:new",
        "Somebody else, or another device of the user, wrote a message.",
    ),
    EventSpec::new::<ResetJson<'_>>(
        "message:reset",
        "Forget the text of this answer: it starts again at offset 0.",
    ),
    EventSpec::new::<MissedJson<'_>>(
        "messages:missed",
        "What came after the `lastMessageId` of a subscription, before `subscribed`. Unasked, without \
         messages and with `hasMore`: the connection was away or slow for longer than the session's \
         log reaches, and was shown what was stored meanwhile; of older messages it may lack changes.",
    ),
    EventSpec::new::<StageJson<'_>>(
        "pipeline:stage",
        "A stage of a pipeline begins or is over. The last one's text is the answer's.",
    ),
    EventSpec::new::<NoticeJson>("server:shutdown", "The node is about to close the connection."),
    EventSpec::new::<NoticeJson>(
        "server:timeout",
        "The connection has reached its age and is about to be closed.",
    ),
    EventSpec::new::<SubscribedJson<'_>>("subscribed", "The session is joined."),
];

/// Which session.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct Subscribe {
    #[schemars(regex(pattern = payload::SESSION_ID))]
    session_id: String,
    /// The last message that the client has.
    #[schemars(extend("format" = "uuid"))]
    last_message_id: Option<String>,
}

/// A [`Subscribe`], or the session's id by itself.
struct Subscription;

impl JsonSchema for Subscription {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Subscription".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let object = generator.subschema_for::<Subscribe>();
        json_schema!({ "anyOf": [object, { "type": "string", "pattern": payload::SESSION_ID }] })
    }
}

/// A message for the session's agent.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SubscribeMessageSend")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct MessageSend {
    #[schemars(regex(pattern = payload::SESSION_ID))]
    session_id: String,
    #[schemars(length(min = 1), regex(pattern = payload::NO_NUL))]
    content: String,
    /// The client's own id for it, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SubscribedAck", description = "It is joined, or left.")]
struct SubscribedAckJson<'a> {
    #[schemars(extend("const" = true))]
    ok: bool,
    session_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Subscribed", description = "The session is joined.")]
struct SubscribedJson<'a> {
    session_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SubscribeMissed", description = "Messages that the client does not have.")]
struct MissedJson<'a> {
    session_id: &'a str,
    messages: Vec<MessageJson<'a>>,
    /// Whether there is more, or may be, over REST.
    has_more: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessageChunk", description = "New text of an answer.")]
struct ChunkJson<'a> {
    session_id: &'a str,
    /// The new text only.
    chunk: &'a str,
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    /// Counts the chunks as they were made; may jump.
    seq: u64,
    /// Where `chunk` starts in the answer, in UTF-16 code units.
    offset: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessageComplete", description = "An answer, as it is stored.")]
struct CompleteJson<'a> {
    session_id: &'a str,
    message: MessageJson<'a>,
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessageReset", description = "The text so far is void.")]
struct ResetJson<'a> {
    session_id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SubscribeStage", description = "A stage of a pipeline begins or is over.")]
struct StageJson<'a> {
    session_id: &'a str,
    /// Its name.
    stage: &'a str,
    status: StageStatusJson,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Notice", description = "What is about to happen, for a person.")]
struct NoticeJson {
    message: &'static str,
}

pub(super) struct SubscribeDialect;

impl Vocabulary for SubscribeDialect {
    fn name(&self) -> &'static str {
        "subscribe"
    }

    fn forgets_on_join(&self) -> bool {
        true
    }

    fn shown(&self) -> &'static [EventSpec] {
        SHOWN
    }

    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        match shown {
            Shown::Event { event, .. } => show(session, event),
            // What follows is its text from the start, whatever the reader has of it.
            Shown::Running { generation, .. } => vec![reset(session, generation)],
            Shown::Text(text) => vec![chunk(session, text)],
            Shown::Signal(_) => Vec::new(),
        }
    }

    fn incomplete(&self, session: &SessionId) -> Option<Frame> {
        let session_id = session.as_str();
        let json = MissedJson { session_id, messages: Vec::new(), has_more: true };
        Some(Frame::new("messages:missed", &json))
    }
}

impl Dialect for SubscribeDialect {
    fn commands(&self) -> &'static [CommandSpec] {
        COMMANDS
    }

    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error> {
        match event {
            "message:send" => send(Fields::of(args)?),
            "subscribe" => Ok(Command::Join(join(args)?)),
            "unsubscribe" => Ok(Command::Leave { session: join(args)?.session }),
            _ => Err(Error::invalid("Unknown event")),
        }
    }

    fn revoked(&self, session: &SessionId) -> Frame {
        let error = Error::new(ErrorCode::NotFound, "You may not see this session any more");
        self.error(&Refusal { event: "subscribe", error: &error, ids: &Ids::session(session) })
    }

    fn answer(&self, reply: &Reply) -> Answer {
        let ack = |session: &SessionId| {
            raw(&SubscribedAckJson { ok: true, session_id: session.as_str() })
        };
        match reply {
            Reply::Joined(joined) => {
                let session_id = joined.session.id.as_str();
                let missed = joined.missed.iter().map(|messages| {
                    let messages = messages.iter().map(MessageJson::from).collect();
                    let json = MissedJson { session_id, messages, has_more: joined.has_more };
                    Frame::new("messages:missed", &json)
                });
                let subscribed = Frame::new("subscribed", &SubscribedJson { session_id });
                Answer {
                    ack: ack(&joined.session.id),
                    frames: missed.chain([subscribed]).collect(),
                }
            }
            Reply::Left { session } => Answer { ack: ack(session), frames: Vec::new() },
            Reply::Requested { generation, message, prompt } => Answer {
                ack: raw(&RequestedJson::new(*generation, *message, *prompt)),
                frames: Vec::new(),
            },
            _ => Answer { ack: raw(&DoneJson::OK), frames: Vec::new() },
        }
    }

    fn error(&self, refusal: &Refusal<'_>) -> Frame {
        Frame::new("error", &ErrorJson::from(refusal))
    }

    fn shutdown(&self, _reconnect_in: Duration) -> Option<Frame> {
        let json = NoticeJson { message: "This server is shutting down" };
        Some(Frame::new("server:shutdown", &json))
    }

    fn timeout(&self) -> Option<Frame> {
        let json = NoticeJson { message: "This connection has reached its age" };
        Some(Frame::new("server:timeout", &json))
    }
}

fn join(args: &[&RawValue]) -> Result<Join, Error> {
    let mut fields = Fields::of_either(args, "sessionId")?;
    Ok(Join {
        session: fields.parsed("sessionId")?,
        last_message: fields.optional_parsed("lastMessageId")?,
        texts: Vec::new(),
    })
}

fn send(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::RequestStream(RequestStream {
        session: fields.parsed("sessionId")?,
        prompt: payload::content(fields.value("content"))?,
        agent: None,
        config: GenerationConfig::default(),
        client_message_id: payload::client_message_id(fields.value("clientMessageId"))?,
        put: Put::AsMessage { echo: false },
    }))
}

fn show(session: &SessionId, event: &Event) -> Vec<Frame> {
    match &event.kind {
        EventKind::MessageNew(message) => {
            vec![Frame::new("message:new", &MessageJson::from(&**message))]
        }
        EventKind::GenerationReset { generation, .. } => vec![reset(session, *generation)],
        EventKind::StageChanged { stage, .. } => {
            let session_id = session.as_str();
            let json = StageJson { session_id, stage: &stage.name, status: stage.into() };
            vec![Frame::new("pipeline:stage", &json)]
        }
        EventKind::GenerationCompleted { generation, message, .. }
        | EventKind::GenerationStopped { generation, message, .. } => {
            vec![complete(session, *generation, message)]
        }
        EventKind::GenerationFailed { generation, message, error } => {
            let (stream_id, message_id) = (generation.to_string(), message.id.to_string());
            let json = ErrorJson::new(error, Some("message:send"))
                .about("sessionId", session.as_str())
                .about("streamId", &stream_id)
                .about("messageId", &message_id);
            let partial =
                (!message.content.is_empty()).then(|| complete(session, *generation, message));
            partial.into_iter().chain([Frame::new("error", &json)]).collect()
        }
        EventKind::MessageEdited(_)
        | EventKind::MessageDeleted { .. }
        | EventKind::MessageSeen { .. }
        | EventKind::ReactionChanged { .. }
        | EventKind::AccessRevoked(_)
        | EventKind::Unknown
        | EventKind::GenerationStarted { .. }
        | EventKind::GenerationResumed { .. }
        | EventKind::Aside { .. }
        | EventKind::GenerationEnded { .. } => Vec::new(),
    }
}

fn chunk(session: &SessionId, text: TextShown<'_>) -> Frame {
    let json = ChunkJson {
        session_id: session.as_str(),
        chunk: text.delta,
        stream_id: text.generation.to_string(),
        seq: text.seq,
        offset: text.utf16_offset,
    };
    Frame::new("message:chunk", &json)
}

fn complete(session: &SessionId, generation: GenerationId, message: &Message) -> Frame {
    let json = CompleteJson {
        session_id: session.as_str(),
        message: message.into(),
        stream_id: generation.to_string(),
    };
    Frame::new("message:complete", &json)
}

fn reset(session: &SessionId, generation: GenerationId) -> Frame {
    let json = ResetJson { session_id: session.as_str(), stream_id: generation.to_string() };
    Frame::new("message:reset", &json)
}
