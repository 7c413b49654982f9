//! What goes on beside an answer's text, as the log writes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::CodecError;
use super::message::parsed;
use crate::domain;

#[derive(Serialize, Deserialize)]
pub(super) struct Stage<'a> {
    name: Cow<'a, str>,
    agents: Vec<Cow<'a, str>>,
    index: u32,
    total: u32,
    /// There where the stage is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<Vec<Cow<'a, str>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(super) enum Aside<'a> {
    Thinking {
        text: Cow<'a, str>,
    },
    Tool {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        input: Cow<'a, str>,
    },
    Citation {
        title: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<Cow<'a, str>>,
    },
    /// One that this build does not know. Only read.
    #[serde(other)]
    Unknown,
}

impl<'a> From<&'a domain::Stage> for Stage<'a> {
    fn from(stage: &'a domain::Stage) -> Self {
        let said = stage.said.as_ref();
        Self {
            name: stage.name.as_str().into(),
            agents: stage.agents.iter().map(|agent| agent.as_str().into()).collect(),
            index: stage.index,
            total: stage.total,
            said: said.map(|all| all.iter().map(|one| one.as_str().into()).collect()),
        }
    }
}

impl TryFrom<Stage<'_>> for domain::Stage {
    type Error = CodecError;

    fn try_from(wire: Stage<'_>) -> Result<Self, CodecError> {
        let agents = wire.agents.iter().map(|agent| parsed("stage.agents", agent));
        Ok(Self {
            agents: agents.collect::<Result<_, _>>()?,
            name: wire.name.into_owned(),
            index: wire.index,
            total: wire.total,
            said: wire.said.map(|all| all.into_iter().map(Cow::into_owned).collect()),
        })
    }
}

impl<'a> From<&'a domain::Aside> for Aside<'a> {
    fn from(aside: &'a domain::Aside) -> Self {
        match aside {
            domain::Aside::Thinking { text } => Self::Thinking { text: text.into() },
            domain::Aside::Tool { id, name, input } => {
                Self::Tool { id: id.into(), name: name.into(), input: input.into() }
            }
            domain::Aside::Citation { title, url } => {
                Self::Citation { title: title.into(), url: url.as_deref().map(Cow::Borrowed) }
            }
        }
    }
}

impl Aside<'_> {
    /// `None` where this build does not know it.
    pub(super) fn read(self) -> Option<domain::Aside> {
        Some(match self {
            Self::Thinking { text } => domain::Aside::Thinking { text: text.into_owned() },
            Self::Tool { id, name, input } => domain::Aside::Tool {
                id: id.into_owned(),
                name: name.into_owned(),
                input: input.into_owned(),
            },
            Self::Citation { title, url } => {
                domain::Aside::Citation { title: title.into_owned(), url: url.map(Cow::into_owned) }
            }
            Self::Unknown => return None,
        })
    }
}
