//! The dialect `persona`: frontends that talk to one agent, hear its answers whole, and may say
//! who they are after they have connected.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::acks::{DoneJson, RequestedJson};
use super::fields::{Fields, names};
use super::wire::{ErrorJson, MessageJson};
use super::{
    Answer, CommandSpec, Dialect, EventSpec, Frame, Refusal, Shown, Vocabulary, payload, raw,
};
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, Put, RequestStream};
use crate::domain::{
    Author, Command, Error, ErrorCode, EventKind, GenerationConfig, JoinedPersona, Message, Reply,
    SessionId,
};

const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new::<ChatAuth, AuthAckJson>(
        "chat:auth",
        "Says who one is. With a token: accepted only if it equals the token's `sub`.",
    ),
    CommandSpec::new::<ChatJoin, SessionAckJson>(
        "chat:join",
        "Joins the user's own session with an agent, which is made where there is none.",
    ),
    CommandSpec::new::<ChatMessage, RequestedJson>(
        "chat:message",
        "Stores a message, which the session's agent answers. Joins, where the socket has not.",
    ),
];

const SHOWN: &[EventSpec] = &[
    super::offset::SPEC,
    EventSpec::new::<FaultJson<'_>>(
        "chat:error",
        "A command without an acknowledgement was refused, an answer broke off, or the session \
         may not be seen any more.",
    ),
    EventSpec::new::<ResponseJson<'_>>(
        "chat:response",
        "An answer, whole; also what there was of one that was stopped.",
    ),
    EventSpec::new::<SessionJson<'_>>("chat:session", "The session with the agent is joined."),
];

/// Of a session, where `NOT_FOUND` may be of anything.
const SESSION_NOT_FOUND: &str = "SESSION_NOT_FOUND";

/// Who one is.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct ChatAuth {
    #[schemars(length(min = 1, max = 256), regex(pattern = payload::NO_CONTROLS))]
    user_id: String,
}

/// Which agent.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PersonaJoin")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct ChatJoin {
    #[schemars(regex(pattern = payload::AGENT_ID))]
    persona_id: String,
}

/// A message for the agent.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PersonaMessageSend")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct ChatMessage {
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
#[schemars(rename = "PersonaAuthAck", description = "Who one is now.")]
struct AuthAckJson<'a> {
    #[schemars(extend("const" = true))]
    ok: bool,
    user_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PersonaSessionAck", description = "A session with an agent is joined.")]
struct SessionAckJson<'a> {
    #[schemars(extend("const" = true))]
    ok: bool,
    #[serde(flatten)]
    session: SessionJson<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PersonaSession", description = "A session with an agent.")]
struct SessionJson<'a> {
    session_id: &'a str,
    persona_id: &'a str,
    /// The last ten, oldest first.
    messages: Vec<SentJson<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PersonaMessage", description = "A `Message`, and who sent it.")]
struct SentJson<'a> {
    /// The persona's id, or the user's.
    sender: &'a str,
    #[serde(flatten)]
    message: MessageJson<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PersonaResponse", description = "An answer.")]
struct ResponseJson<'a> {
    #[schemars(extend("format" = "uuid"))]
    id: String,
    /// The persona's id.
    sender: &'a str,
    content: &'a str,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    session_id: &'a str,
}

/// `E` and this dialect's own word for it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PersonaError", description = "What went wrong.")]
struct FaultJson<'a> {
    /// `NOT_AUTHENTICATED`, `SESSION_NOT_FOUND`, or the same as `code`.
    error: &'a str,
    #[serde(flatten)]
    e: ErrorJson<'a>,
}

pub(super) struct PersonaDialect;

impl Vocabulary for PersonaDialect {
    fn name(&self) -> &'static str {
        "persona"
    }

    fn shown(&self) -> &'static [EventSpec] {
        SHOWN
    }

    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        match shown {
            Shown::Event { event, .. } => show(session, &event.kind).into_iter().collect(),
            // Answers come whole.
            Shown::Running { .. } | Shown::Text(_) | Shown::Signal(_) => Vec::new(),
        }
    }
}

impl Dialect for PersonaDialect {
    fn commands(&self) -> &'static [CommandSpec] {
        COMMANDS
    }

    fn claims(&self, event: &str, payload: &Map<String, Value>) -> bool {
        match event {
            // `conversation` has a word that reads the same.
            "chat:join" => names(payload, "personaId"),
            _ => COMMANDS.iter().any(|command| command.name == event),
        }
    }

    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error> {
        let decode = match event {
            "chat:auth" => identify,
            "chat:join" => join,
            "chat:message" => send,
            _ => return Err(Error::invalid("Unknown event")),
        };
        decode(Fields::of(args)?)
    }

    fn revoked(&self, session: &SessionId) -> Frame {
        let error = Error::new(ErrorCode::NotFound, "You may not see this session any more");
        let e = ErrorJson::new(&error, Some("chat:join")).about("sessionId", session.as_str());
        Frame::new("chat:error", &FaultJson { error: SESSION_NOT_FOUND, e })
    }

    fn answer(&self, reply: &Reply) -> Answer {
        match reply {
            Reply::Identified { user } => Answer {
                ack: raw(&AuthAckJson { ok: true, user_id: user.as_str() }),
                frames: Vec::new(),
            },
            Reply::JoinedPersona(joined) => Answer {
                ack: raw(&SessionAckJson { ok: true, session: (&**joined).into() }),
                frames: vec![Frame::new("chat:session", &SessionJson::from(&**joined))],
            },
            Reply::Requested { generation, message, prompt } => Answer {
                ack: raw(&RequestedJson::new(*generation, *message, *prompt)),
                frames: Vec::new(),
            },
            _ => Answer { ack: raw(&DoneJson::OK), frames: Vec::new() },
        }
    }

    fn error(&self, refusal: &Refusal<'_>) -> Frame {
        let error = match (refusal.error.code, refusal.event) {
            (ErrorCode::NotFound, "chat:message") => SESSION_NOT_FOUND,
            (code, _) => word(code),
        };
        Frame::new("chat:error", &FaultJson { error, e: refusal.into() })
    }
}

impl<'a> From<&'a JoinedPersona> for SessionJson<'a> {
    fn from(joined: &'a JoinedPersona) -> Self {
        let sent =
            |message: &'a Message| SentJson { sender: sender(message), message: message.into() };
        Self {
            session_id: joined.session.as_str(),
            persona_id: joined.agent.as_str(),
            messages: joined.messages.iter().map(sent).collect(),
        }
    }
}

fn identify(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Identify { user: fields.parsed("userId")? })
}

fn join(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::JoinPersona { agent: fields.parsed("personaId")? })
}

fn send(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::RequestStream(RequestStream {
        session: fields.parsed("sessionId")?,
        prompt: payload::content(fields.value("content"))?,
        agent: None,
        config: GenerationConfig::default(),
        client_message_id: payload::client_message_id(fields.value("clientMessageId"))?,
        put: Put::AsMessage { echo: true },
    }))
}

fn show(session: &SessionId, kind: &EventKind) -> Option<Frame> {
    match kind {
        EventKind::GenerationCompleted { message, .. } => Some(response(session, message)),
        EventKind::GenerationStopped { message, .. } if !message.content.is_empty() => {
            Some(response(session, message))
        }
        EventKind::GenerationFailed { generation, message, error } => {
            let (stream_id, message_id) = (generation.to_string(), message.id.to_string());
            let e = ErrorJson::new(error, Some("chat:message"))
                .about("sessionId", session.as_str())
                .about("streamId", &stream_id)
                .about("messageId", &message_id);
            Some(Frame::new("chat:error", &FaultJson { error: word(error.code), e }))
        }
        // A frontend of this dialect shows by itself what its user wrote.
        EventKind::MessageNew(_)
        | EventKind::GenerationStopped { .. }
        | EventKind::MessageEdited(_)
        | EventKind::MessageDeleted { .. }
        | EventKind::MessageSeen { .. }
        | EventKind::ReactionChanged { .. }
        | EventKind::AccessRevoked(_)
        | EventKind::Unknown
        | EventKind::GenerationStarted { .. }
        | EventKind::GenerationResumed { .. }
        | EventKind::GenerationReset { .. }
        | EventKind::StageChanged { .. }
        | EventKind::Aside { .. }
        | EventKind::GenerationEnded { .. } => None,
    }
}

fn response(session: &SessionId, message: &Message) -> Frame {
    let json = ResponseJson {
        id: message.id.to_string(),
        sender: sender(message),
        content: &message.content,
        created_at: message.created_at.to_string(),
        session_id: session.as_str(),
    };
    Frame::new("chat:response", &json)
}

/// Who sent it: what neither an agent nor a user did is `system`'s.
fn sender(message: &Message) -> &str {
    let agent = message.agent.as_ref().map(|agent| agent.as_str());
    let user = message.user.as_ref().map(|user| user.as_str());
    match message.author {
        Author::Assistant => agent.or(user),
        Author::User | Author::System => user.or(agent),
    }
    .unwrap_or("system")
}

/// This dialect's word for a code, whatever was asked.
fn word(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Auth => "NOT_AUTHENTICATED",
        other => other.as_str(),
    }
}
