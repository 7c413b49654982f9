//! The dialect `conversation`: frontends that think in conversations, and empty their live text
//! on `chat:thinking`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::acks::{DoneJson, RequestedJson};
use super::fields::{Fields, names};
use super::wire::{AuthorJson, ErrorJson};
use super::{
    Answer, CommandSpec, Dialect, EventSpec, Frame, Refusal, Shown, Vocabulary, payload, raw,
};
use crate::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, Join, Put, RequestStream};
use crate::domain::{
    Command, Error, ErrorCode, Event, EventKind, GenerationConfig, Message, MessageId, Reply,
    SessionId, Signal, UserId,
};

const COMMANDS: &[CommandSpec] = &[
    CommandSpec::new::<Conversation, JoinedAckJson>("chat:join", "Joins a conversation."),
    CommandSpec::new::<Conversation, JoinedAckJson>("chat:leave", "Leaves a conversation."),
    CommandSpec::new::<ChatSend, RequestedJson>(
        "chat:send",
        "Stores a message, which the conversation's agent answers. Joins, where the socket has not.",
    ),
    CommandSpec::new::<ChatTyping, DoneJson>(
        "chat:typing",
        "Tells the others; typing ends by itself after 5 s without renewal.",
    ),
];

const SHOWN: &[EventSpec] = &[
    super::offset::SPEC,
    EventSpec::new::<CompleteJson<'_>>("chat:complete", "An answer is over, and stored."),
    EventSpec::new::<FaultJson<'_>>(
        "chat:error",
        "A command without an acknowledgement was refused, an answer broke off, or the \
         conversation may not be seen any more.",
    ),
    EventSpec::new::<JoinedJson<'_>>("chat:joined", "The conversation is joined."),
    EventSpec::new::<SaidJson<'_>>(
        "chat:message",
        "A message is stored: a person's, the sender's own too, or an answer.",
    ),
    EventSpec::new::<StreamingJson<'_>>(
        "chat:streaming",
        "New text of an answer; `isComplete` with an empty `chunk` is the last.",
    ),
    EventSpec::new::<ThinkingJson<'_>>(
        "chat:thinking",
        "An answer begins, or begins again: forget the live text.",
    ),
    EventSpec::new::<UserJson<'_>>("chat:user-joined", "A user's first device came."),
    EventSpec::new::<UserJson<'_>>("chat:user-left", "A user's last device went."),
    EventSpec::new::<TypingJson<'_>>("chat:user-typing", "A user types, or no longer does."),
];

/// Which conversation.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct Conversation {
    #[schemars(regex(pattern = payload::SESSION_ID))]
    conversation_id: String,
}

/// A message for the conversation's agent.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct ChatSend {
    #[schemars(regex(pattern = payload::SESSION_ID))]
    conversation_id: String,
    #[schemars(length(min = 1), regex(pattern = payload::NO_NUL))]
    content: String,
    #[schemars(extend("const" = "user", "type" = "string"))]
    role: Option<String>,
    /// The client's own id for it, which makes a retry harmless.
    #[schemars(length(min = 1, max = CLIENT_MESSAGE_ID_BYTES_MAX))]
    client_message_id: Option<String>,
}

/// Whether one types.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read field by field, so that every refusal names its field")]
struct ChatTyping {
    #[schemars(regex(pattern = payload::SESSION_ID))]
    conversation_id: String,
    is_typing: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatJoinedAck", description = "It is joined, or left.")]
struct JoinedAckJson<'a> {
    #[schemars(extend("const" = true))]
    ok: bool,
    conversation_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatJoined", description = "The conversation is joined.")]
struct JoinedJson<'a> {
    conversation_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatUser", description = "Somebody who came or went.")]
struct UserJson<'a> {
    conversation_id: &'a str,
    user_id: &'a str,
    /// Their name; the id where it is not known.
    username: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatUserTyping", description = "Whether somebody types.")]
struct TypingJson<'a> {
    conversation_id: &'a str,
    user_id: &'a str,
    /// Their name; the id where it is not known.
    username: &'a str,
    is_typing: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatThinking", description = "An answer is being made.")]
struct ThinkingJson<'a> {
    conversation_id: &'a str,
    #[schemars(extend("const" = "processing"))]
    status: &'static str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatStreaming", description = "New text of an answer.")]
struct StreamingJson<'a> {
    conversation_id: &'a str,
    /// The answer's.
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    /// The new text only.
    chunk: &'a str,
    is_complete: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatSaid", description = "A stored message, and where it stands.")]
struct SaidJson<'a> {
    conversation_id: &'a str,
    message: ChatMessageJson<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatMessage", description = "A stored message.")]
struct ChatMessageJson<'a> {
    #[schemars(extend("format" = "uuid"))]
    id: String,
    content: &'a str,
    role: AuthorJson,
    conversation_id: &'a str,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChatComplete", description = "An answer is over.")]
struct CompleteJson<'a> {
    conversation_id: &'a str,
    /// The answer's.
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
}

/// `E` and its message once more. What it is about stands among the ids of `E`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChatError", description = "What went wrong, in which conversation.")]
struct FaultJson<'a> {
    /// For a person: `message`.
    error: &'a str,
    #[serde(flatten)]
    e: ErrorJson<'a>,
}

pub(super) struct ConversationDialect;

impl Vocabulary for ConversationDialect {
    fn name(&self) -> &'static str {
        "conversation"
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
            Shown::Running { .. } => vec![thinking(session)],
            Shown::Text(text) => vec![streaming(session, text.message, text.delta)],
            Shown::Signal(signal) => vec![signalled(session, signal)],
        }
    }
}

impl Dialect for ConversationDialect {
    fn commands(&self) -> &'static [CommandSpec] {
        COMMANDS
    }

    fn claims(&self, event: &str, payload: &Map<String, Value>) -> bool {
        match event {
            // `persona` has a word that reads the same.
            "chat:join" => names(payload, "conversationId"),
            _ => COMMANDS.iter().any(|command| command.name == event),
        }
    }

    fn decode(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error> {
        let decode = match event {
            "chat:join" => join,
            "chat:leave" => leave,
            "chat:send" => send,
            "chat:typing" => typing,
            _ => return Err(Error::invalid("Unknown event")),
        };
        decode(Fields::of(args)?)
    }

    fn revoked(&self, session: &SessionId) -> Frame {
        let error = Error::new(ErrorCode::NotFound, "You may not see this session any more");
        let e = ErrorJson::new(&error, Some("chat:join"));
        fault(&error, e.about("conversationId", session.as_str()))
    }

    fn answer(&self, reply: &Reply) -> Answer {
        let ack = |session: &SessionId| {
            raw(&JoinedAckJson { ok: true, conversation_id: session.as_str() })
        };
        match reply {
            Reply::Joined(joined) => {
                let json = JoinedJson { conversation_id: joined.session.id.as_str() };
                Answer {
                    ack: ack(&joined.session.id),
                    frames: vec![Frame::new("chat:joined", &json)],
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
        fault(refusal.error, refusal.into())
    }
}

fn join(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("conversationId")?;
    Ok(Command::Join(Join { session, last_message: None, texts: Vec::new() }))
}

fn leave(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Leave { session: fields.parsed("conversationId")? })
}

fn send(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("conversationId")?;
    let prompt = payload::content(fields.value("content"))?;
    if fields.optional_text("role")?.is_some_and(|role| role != "user") {
        return Err(Error::invalid("role must be \"user\""));
    }
    Ok(Command::RequestStream(RequestStream {
        session,
        prompt,
        agent: None,
        config: GenerationConfig::default(),
        client_message_id: payload::client_message_id(fields.value("clientMessageId"))?,
        put: Put::AsMessage { echo: true },
    }))
}

fn typing(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("conversationId")?;
    Ok(Command::Type { session, name: None, active: fields.flag("isTyping")? })
}

fn show(session: &SessionId, event: &Event) -> Vec<Frame> {
    match &event.kind {
        EventKind::MessageNew(message) => vec![said(session, message)],
        EventKind::GenerationStarted { .. } | EventKind::GenerationReset { .. } => {
            vec![thinking(session)]
        }
        EventKind::GenerationCompleted { message, .. }
        | EventKind::GenerationStopped { message, .. } => {
            let json = CompleteJson {
                conversation_id: session.as_str(),
                message_id: message.id.to_string(),
            };
            let complete = Frame::new("chat:complete", &json);
            vec![streamed(session, message.id), said(session, message), complete]
        }
        EventKind::GenerationFailed { generation, message, error } => {
            let (stream_id, message_id) = (generation.to_string(), message.id.to_string());
            let e = ErrorJson::new(error, Some("chat:send"))
                .about("conversationId", session.as_str())
                .about("streamId", &stream_id)
                .about("messageId", &message_id);
            let partial = (!message.content.is_empty()).then(|| said(session, message));
            let streamed = streamed(session, message.id);
            [streamed].into_iter().chain(partial).chain([fault(error, e)]).collect()
        }
        EventKind::MessageEdited(_)
        | EventKind::MessageDeleted { .. }
        | EventKind::MessageSeen { .. }
        | EventKind::ReactionChanged { .. }
        | EventKind::AccessRevoked(_)
        | EventKind::Unknown
        | EventKind::GenerationResumed { .. }
        | EventKind::StageChanged { .. }
        | EventKind::Aside { .. }
        | EventKind::GenerationEnded { .. } => Vec::new(),
    }
}

fn signalled(session: &SessionId, signal: &Signal) -> Frame {
    let conversation_id = session.as_str();
    let user = |event, user: &UserId, name: &Option<String>| {
        let username = name.as_deref().unwrap_or(user.as_str());
        Frame::new(event, &UserJson { conversation_id, user_id: user.as_str(), username })
    };
    let typing = |user: &UserId, name: &Option<String>, is_typing| {
        let username = name.as_deref().unwrap_or(user.as_str());
        let json = TypingJson { conversation_id, user_id: user.as_str(), username, is_typing };
        Frame::new("chat:user-typing", &json)
    };
    match signal {
        Signal::UserJoined { user: who, name, .. } => user("chat:user-joined", who, name),
        Signal::UserLeft { user: who, name, .. } => user("chat:user-left", who, name),
        Signal::TypingStarted { user, name } => typing(user, name, true),
        Signal::TypingStopped { user, name } => typing(user, name, false),
    }
}

fn thinking(session: &SessionId) -> Frame {
    let json = ThinkingJson { conversation_id: session.as_str(), status: "processing" };
    Frame::new("chat:thinking", &json)
}

fn streaming(session: &SessionId, message: MessageId, chunk: &str) -> Frame {
    let json = StreamingJson {
        conversation_id: session.as_str(),
        message_id: message.to_string(),
        chunk,
        is_complete: false,
    };
    Frame::new("chat:streaming", &json)
}

/// There is no more text.
fn streamed(session: &SessionId, message: MessageId) -> Frame {
    let json = StreamingJson {
        conversation_id: session.as_str(),
        message_id: message.to_string(),
        chunk: "",
        is_complete: true,
    };
    Frame::new("chat:streaming", &json)
}

fn said(session: &SessionId, message: &Message) -> Frame {
    let conversation_id = session.as_str();
    let message = ChatMessageJson {
        id: message.id.to_string(),
        content: &message.content,
        role: message.author.into(),
        conversation_id,
        created_at: message.created_at.to_string(),
    };
    Frame::new("chat:message", &SaidJson { conversation_id, message })
}

fn fault(error: &Error, e: ErrorJson<'_>) -> Frame {
    Frame::new("chat:error", &FaultJson { error: &error.message, e })
}
