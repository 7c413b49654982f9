//! Signals as the channel between nodes writes them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::CodecError;
use super::message::parsed;
use crate::domain;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Signal<'a> {
    #[serde(borrow)]
    UserJoined(Presence<'a>),
    UserLeft(Presence<'a>),
    TypingStarted(Typing<'a>),
    TypingStopped(Typing<'a>),
}

#[derive(Serialize, Deserialize)]
pub(super) struct Typing<'a> {
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Presence<'a> {
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    online: u64,
}

impl<'a> From<&'a domain::Signal> for Signal<'a> {
    fn from(signal: &'a domain::Signal) -> Self {
        let presence = |user: &'a domain::UserId, name: &'a Option<String>, online| Presence {
            user: user.as_str().into(),
            name: name.as_deref().map(Cow::Borrowed),
            online,
        };
        let typing = |user: &'a domain::UserId, name: &'a Option<String>| Typing {
            user: user.as_str().into(),
            name: name.as_deref().map(Cow::Borrowed),
        };
        match signal {
            domain::Signal::UserJoined { user, name, online } => {
                Self::UserJoined(presence(user, name, *online))
            }
            domain::Signal::UserLeft { user, name, online } => {
                Self::UserLeft(presence(user, name, *online))
            }
            domain::Signal::TypingStarted { user, name } => Self::TypingStarted(typing(user, name)),
            domain::Signal::TypingStopped { user, name } => Self::TypingStopped(typing(user, name)),
        }
    }
}

impl TryFrom<Signal<'_>> for domain::Signal {
    type Error = CodecError;

    fn try_from(wire: Signal<'_>) -> Result<Self, CodecError> {
        Ok(match wire {
            Signal::UserJoined(Presence { user, name, online }) => Self::UserJoined {
                user: parsed("user", &user)?,
                name: name.map(Cow::into_owned),
                online,
            },
            Signal::UserLeft(Presence { user, name, online }) => Self::UserLeft {
                user: parsed("user", &user)?,
                name: name.map(Cow::into_owned),
                online,
            },
            Signal::TypingStarted(Typing { user, name }) => Self::TypingStarted {
                user: parsed("user", &user)?,
                name: name.map(Cow::into_owned),
            },
            Signal::TypingStopped(Typing { user, name }) => Self::TypingStopped {
                user: parsed("user", &user)?,
                name: name.map(Cow::into_owned),
            },
        })
    }
}
