//! What goes on beside an answer's text.

use schemars::JsonSchema;
use serde::Serialize;

use super::stream::StreamOf;
use crate::dialect::Frame;
use crate::dialect::stage::StageStatusJson;
use crate::domain::{AgentId, Aside, GenerationId, SessionId, Stage};

/// A stage of a pipeline begins or is over.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PipelineStage")]
pub(super) struct StageJson<'a> {
    session_id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    /// Its name.
    stage: &'a str,
    status: StageStatusJson,
    /// The ids of those who speak in it.
    agents: Vec<&'a str>,
    /// Which it is, from 0.
    index: u32,
    /// How many there are.
    total: u32,
}

pub(super) fn stage(session: &SessionId, generation: GenerationId, stage: &Stage) -> Frame {
    let json = StageJson {
        session_id: session.as_str(),
        stream_id: generation.to_string(),
        stage: &stage.name,
        status: stage.into(),
        agents: stage.agents.iter().map(AgentId::as_str).collect(),
        index: stage.index,
        total: stage.total,
    };
    Frame::new("pipeline:stage", &json)
}

/// The model does something beside its text.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "StreamEvent")]
pub(super) enum AsideJson<'a> {
    /// It thinks.
    Thinking {
        #[serde(flatten)]
        of: StreamOf<'a>,
        #[schemars(extend("const" = "thinking"))]
        kind: &'static str,
        /// What is new of it: it stands behind what came before.
        text: &'a str,
    },
    /// It asks for a tool, which nothing here runs.
    #[serde(rename_all = "camelCase")]
    Tool {
        #[serde(flatten)]
        of: StreamOf<'a>,
        #[schemars(extend("const" = "tool"))]
        kind: &'static str,
        /// The provider's id of the call.
        tool_call_id: &'a str,
        /// The tool's.
        name: &'a str,
        /// As the provider wrote it: JSON as a rule.
        input: &'a str,
    },
    /// It names a source of what it said.
    Citation {
        #[serde(flatten)]
        of: StreamOf<'a>,
        #[schemars(extend("const" = "citation"))]
        kind: &'static str,
        /// For people. May be empty.
        title: &'a str,
        /// Where it is, as the provider says: any text, not to be followed unseen.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<&'a str>,
    },
}

pub(super) fn aside(of: StreamOf<'_>, aside: &Aside) -> Frame {
    let json = match aside {
        Aside::Thinking { text } => AsideJson::Thinking { of, kind: "thinking", text },
        Aside::Tool { id, name, input } => {
            AsideJson::Tool { of, kind: "tool", tool_call_id: id, name, input }
        }
        Aside::Citation { title, url } => {
            AsideJson::Citation { of, kind: "citation", title, url: url.as_deref() }
        }
    };
    Frame::new("stream:event", &json)
}
