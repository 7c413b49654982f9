//! The kinds of events as the log writes them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CodecError;
use super::beside::{Aside, Stage};
use super::message::{Message, parsed};
use crate::domain::{self, ErrorCode, EventKind, Timestamp};

/// The names of all kinds, to tell an unknown one from a broken one.
pub(super) const KINDS: [&str; 16] = [
    "messageNew",
    "messageEdited",
    "messageDeleted",
    "messageSeen",
    "reactionChanged",
    "accessRevoked",
    "unknown",
    "generationStarted",
    "generationResumed",
    "generationReset",
    "stageChanged",
    "aside",
    "generationEnded",
    "generationCompleted",
    "generationStopped",
    "generationFailed",
];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind<'a> {
    #[serde(borrow)]
    MessageNew(Box<Message<'a>>),
    #[serde(borrow)]
    MessageEdited(Box<Message<'a>>),
    MessageDeleted {
        message: String,
        by: Cow<'a, str>,
        at: i64,
    },
    MessageSeen {
        message: String,
        user: Cow<'a, str>,
        at: i64,
    },
    ReactionChanged {
        message: String,
        user: Cow<'a, str>,
        emoji: Cow<'a, str>,
        added: bool,
        counts: Vec<(Cow<'a, str>, u64)>,
    },
    #[serde(borrow)]
    AccessRevoked(Revoked<'a>),
    Unknown {},
    GenerationStarted(Attempt<'a>),
    GenerationResumed {
        #[serde(borrow, flatten)]
        attempt: Attempt<'a>,
        offset: u64,
        #[serde(default)]
        utf16_offset: u64,
    },
    GenerationReset {
        #[serde(borrow, flatten)]
        attempt: Attempt<'a>,
        reason: Cow<'a, str>,
    },
    StageChanged {
        generation: String,
        #[serde(borrow)]
        stage: Stage<'a>,
    },
    Aside {
        generation: String,
        message: String,
        #[serde(borrow)]
        aside: Aside<'a>,
    },
    GenerationEnded {
        generation: String,
        attempt: u32,
        length: u64,
        reason: Cow<'a, str>,
        usage: Usage,
    },
    GenerationCompleted {
        generation: String,
        message: Box<Message<'a>>,
        reason: Cow<'a, str>,
        usage: Usage,
    },
    GenerationStopped {
        generation: String,
        message: Box<Message<'a>>,
        by: Cow<'a, str>,
    },
    GenerationFailed {
        generation: String,
        message: Box<Message<'a>>,
        error: Error<'a>,
    },
}

/// Whose access was revoked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Revoked<'a> {
    User(Cow<'a, str>),
    Guests,
    Everyone,
}

/// What the beginnings of an attempt have in common.
#[derive(Serialize, Deserialize)]
pub(super) struct Attempt<'a> {
    generation: String,
    message: String,
    agent: Cow<'a, str>,
    attempt: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Usage {
    input: u64,
    output: u64,
    #[serde(default, skip_serializing_if = "is_none")]
    cached: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Error<'a> {
    code: Cow<'a, str>,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl<'a> From<&'a EventKind> for Kind<'a> {
    fn from(kind: &'a EventKind) -> Self {
        match kind {
            EventKind::MessageNew(message) => Self::MessageNew(Box::new((&**message).into())),
            EventKind::MessageEdited(message) => Self::MessageEdited(Box::new((&**message).into())),
            EventKind::MessageDeleted { message, by, at } => Self::MessageDeleted {
                message: message.to_string(),
                by: by.as_str().into(),
                at: at.as_millis(),
            },
            EventKind::MessageSeen { message, user, at } => Self::MessageSeen {
                message: message.to_string(),
                user: user.as_str().into(),
                at: at.as_millis(),
            },
            EventKind::ReactionChanged { message, user, emoji, added, counts } => {
                let count = |(emoji, n): &'a (String, u64)| (emoji.as_str().into(), *n);
                Self::ReactionChanged {
                    message: message.to_string(),
                    user: user.as_str().into(),
                    emoji: emoji.into(),
                    added: *added,
                    counts: counts.iter().map(count).collect(),
                }
            }
            EventKind::AccessRevoked(revoked) => Self::AccessRevoked(match revoked {
                domain::Revoked::User(user) => Revoked::User(user.as_str().into()),
                domain::Revoked::Guests => Revoked::Guests,
                domain::Revoked::Everyone => Revoked::Everyone,
            }),
            EventKind::Unknown => Self::Unknown {},
            EventKind::GenerationStarted { generation, message, agent, attempt } => {
                Self::GenerationStarted(Attempt::new(*generation, *message, agent, *attempt))
            }
            EventKind::GenerationResumed {
                generation,
                message,
                agent,
                attempt,
                offset,
                utf16_offset,
            } => Self::GenerationResumed {
                attempt: Attempt::new(*generation, *message, agent, *attempt),
                offset: *offset,
                utf16_offset: *utf16_offset,
            },
            EventKind::GenerationReset { generation, message, agent, attempt, reason } => {
                Self::GenerationReset {
                    attempt: Attempt::new(*generation, *message, agent, *attempt),
                    reason: reason.into(),
                }
            }
            EventKind::StageChanged { generation, stage } => {
                Self::StageChanged { generation: generation.to_string(), stage: stage.into() }
            }
            EventKind::Aside { generation, message, aside } => Self::Aside {
                generation: generation.to_string(),
                message: message.to_string(),
                aside: aside.into(),
            },
            EventKind::GenerationEnded { generation, attempt, length, reason, usage } => {
                Self::GenerationEnded {
                    generation: generation.to_string(),
                    attempt: *attempt,
                    length: *length,
                    reason: reason.as_str().into(),
                    usage: (*usage).into(),
                }
            }
            EventKind::GenerationCompleted { generation, message, reason, usage } => {
                Self::GenerationCompleted {
                    generation: generation.to_string(),
                    message: Box::new((&**message).into()),
                    reason: reason.as_str().into(),
                    usage: (*usage).into(),
                }
            }
            EventKind::GenerationStopped { generation, message, by } => Self::GenerationStopped {
                generation: generation.to_string(),
                message: Box::new((&**message).into()),
                by: by.as_str().into(),
            },
            EventKind::GenerationFailed { generation, message, error } => Self::GenerationFailed {
                generation: generation.to_string(),
                message: Box::new((&**message).into()),
                error: error.into(),
            },
        }
    }
}

impl TryFrom<Kind<'_>> for EventKind {
    type Error = CodecError;

    fn try_from(wire: Kind<'_>) -> Result<Self, CodecError> {
        let generation_id = |text: &str| parsed("generation", text);
        Ok(match wire {
            Kind::MessageNew(message) => Self::MessageNew(stored(*message)?),
            Kind::MessageEdited(message) => Self::MessageEdited(stored(*message)?),
            Kind::MessageDeleted { message, by, at } => Self::MessageDeleted {
                message: parsed("message", &message)?,
                by: parsed("by", &by)?,
                at: Timestamp::from_millis(at),
            },
            Kind::MessageSeen { message, user, at } => Self::MessageSeen {
                message: parsed("message", &message)?,
                user: parsed("user", &user)?,
                at: Timestamp::from_millis(at),
            },
            Kind::ReactionChanged { message, user, emoji, added, counts } => {
                Self::ReactionChanged {
                    message: parsed("message", &message)?,
                    user: parsed("user", &user)?,
                    emoji: emoji.into_owned(),
                    added,
                    counts: counts.into_iter().map(|(e, n)| (e.into_owned(), n)).collect(),
                }
            }
            Kind::AccessRevoked(revoked) => Self::AccessRevoked(match revoked {
                Revoked::User(user) => domain::Revoked::User(parsed("user", &user)?),
                Revoked::Guests => domain::Revoked::Guests,
                Revoked::Everyone => domain::Revoked::Everyone,
            }),
            Kind::Unknown {} => Self::Unknown,
            Kind::GenerationStarted(wire) => {
                let (generation, message, agent, attempt) = wire.read()?;
                Self::GenerationStarted { generation, message, agent, attempt }
            }
            Kind::GenerationResumed { attempt: wire, offset, utf16_offset } => {
                let (generation, message, agent, attempt) = wire.read()?;
                Self::GenerationResumed {
                    generation,
                    message,
                    agent,
                    attempt,
                    offset,
                    utf16_offset,
                }
            }
            Kind::GenerationReset { attempt: wire, reason } => {
                let (generation, message, agent, attempt) = wire.read()?;
                let reason = reason.into_owned();
                Self::GenerationReset { generation, message, agent, attempt, reason }
            }
            Kind::StageChanged { generation, stage } => Self::StageChanged {
                generation: generation_id(&generation)?,
                stage: stage.try_into()?,
            },
            Kind::Aside { generation, message, aside } => match aside.read() {
                Some(aside) => Self::Aside {
                    generation: generation_id(&generation)?,
                    message: parsed("message", &message)?,
                    aside,
                },
                None => Self::Unknown,
            },
            Kind::GenerationEnded { generation, attempt, length, reason, usage } => {
                Self::GenerationEnded {
                    generation: generation_id(&generation)?,
                    attempt,
                    length,
                    reason: stop_reason(reason),
                    usage: usage.into(),
                }
            }
            Kind::GenerationCompleted { generation, message, reason, usage } => {
                Self::GenerationCompleted {
                    generation: generation_id(&generation)?,
                    message: stored(*message)?,
                    reason: stop_reason(reason),
                    usage: usage.into(),
                }
            }
            Kind::GenerationStopped { generation, message, by } => Self::GenerationStopped {
                generation: generation_id(&generation)?,
                message: stored(*message)?,
                by: parsed("by", &by)?,
            },
            Kind::GenerationFailed { generation, message, error } => Self::GenerationFailed {
                generation: generation_id(&generation)?,
                message: stored(*message)?,
                error: error.try_into()?,
            },
        })
    }
}

impl<'a> Attempt<'a> {
    fn new(
        generation: domain::GenerationId,
        message: domain::MessageId,
        agent: &'a domain::AgentId,
        attempt: u32,
    ) -> Self {
        Self {
            generation: generation.to_string(),
            message: message.to_string(),
            agent: agent.as_str().into(),
            attempt,
        }
    }

    /// Generation, answer, agent and attempt.
    fn read(
        &self,
    ) -> Result<(domain::GenerationId, domain::MessageId, domain::AgentId, u32), CodecError> {
        Ok((
            parsed("generation", &self.generation)?,
            parsed("message", &self.message)?,
            parsed("agent", &self.agent)?,
            self.attempt,
        ))
    }
}

impl From<domain::Usage> for Usage {
    fn from(usage: domain::Usage) -> Self {
        Self { input: usage.input_tokens, output: usage.output_tokens, cached: usage.cached_tokens }
    }
}

impl From<Usage> for domain::Usage {
    fn from(wire: Usage) -> Self {
        Self { input_tokens: wire.input, output_tokens: wire.output, cached_tokens: wire.cached }
    }
}

impl<'a> From<&'a domain::Error> for Error<'a> {
    fn from(error: &'a domain::Error) -> Self {
        let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self {
            code: error.code.as_str().into(),
            message: error.message.as_str().into(),
            retry_after_ms: error.retry_after.map(millis),
        }
    }
}

impl TryFrom<Error<'_>> for domain::Error {
    type Error = CodecError;

    fn try_from(wire: Error<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            code: ErrorCode::from_word(&wire.code).ok_or(CodecError::Value("error.code"))?,
            message: wire.message.into_owned(),
            retry_after: wire.retry_after_ms.map(Duration::from_millis),
        })
    }
}

fn stored(wire: Message<'_>) -> Result<Arc<domain::Message>, CodecError> {
    Ok(Arc::new(wire.try_into()?))
}

/// The reason that reads `word`.
fn stop_reason(word: Cow<'_, str>) -> domain::StopReason {
    [domain::StopReason::EndTurn, domain::StopReason::MaxTokens]
        .into_iter()
        .find(|reason| reason.as_str() == word)
        .unwrap_or_else(|| domain::StopReason::Other(word.into_owned()))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(tokens: &u64) -> bool {
    *tokens == 0
}
