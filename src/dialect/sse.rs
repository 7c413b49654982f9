//! What SSE readers are shown: the answers, and nothing that others write.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::stage::StageStatusJson;
use super::{EventSpec, Frame, Shown, Vocabulary};
use crate::domain::{Cursor, Event, EventKind, SessionId};

const SHOWN: &[EventSpec] = &[
    EventSpec::new::<UnnamedJson<'_>>(
        "",
        "An answer begins, goes on, or is over: what `EventSource.onmessage` sees.",
    ),
    EventSpec::new::<DoneJson>("done", "After the unnamed event with `done`."),
    EventSpec::new::<FaultJson<'_>>("error", "The answer broke off."),
    EventSpec::new::<ResetJson>("reset", "Forget the text so far: it starts again."),
    EventSpec::new::<StageJson<'_>>("stage", "A stage of a pipeline begins or is over."),
];

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "SseData", description = "What an event without a name carries.")]
enum UnnamedJson<'a> {
    /// An answer begins.
    #[serde(rename_all = "camelCase")]
    Begins {
        session_id: &'a str,
        #[schemars(extend("const" = "processing"))]
        status: &'static str,
    },
    /// New text.
    #[serde(rename_all = "camelCase")]
    Text { session_id: &'a str, chunk: &'a str },
    /// It is over, and stored.
    #[serde(rename_all = "camelCase")]
    Over {
        session_id: &'a str,
        #[schemars(extend("const" = true))]
        done: bool,
        #[schemars(extend("format" = "uuid"))]
        message_id: String,
        /// There where somebody stopped it.
        #[serde(skip_serializing_if = "Option::is_none")]
        stopped: Option<bool>,
    },
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SseDone", description = "Nothing more.")]
struct DoneJson {}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SseError", description = "What went wrong.")]
struct FaultJson<'a> {
    /// Stable: what programs look at.
    r#type: &'static str,
    /// For a person.
    message: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SseReset", description = "The text so far is void.")]
struct ResetJson {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SseStage", description = "A stage of a pipeline begins or is over.")]
struct StageJson<'a> {
    session_id: &'a str,
    /// Its name.
    stage: &'a str,
    status: StageStatusJson,
    /// Which it is, from 0.
    index: u32,
    /// How many there are.
    total: u32,
}

pub(super) struct Sse;

impl Vocabulary for Sse {
    fn name(&self) -> &'static str {
        "sse"
    }

    fn shown(&self) -> &'static [EventSpec] {
        SHOWN
    }

    fn encode(&self, session: &SessionId, shown: Shown<'_>) -> Vec<Frame> {
        let (mut frames, cursor) = match shown {
            Shown::Event { event, cursor, .. } => (show(session, event), cursor),
            Shown::Text(text) => {
                let json = UnnamedJson::Text { session_id: session.as_str(), chunk: text.delta };
                (vec![Frame::new("", &json)], text.cursor)
            }
            Shown::Running { .. } | Shown::Signal(_) => (Vec::new(), None),
        };
        // Of several, only the last: who comes back after a part of them is shown all again.
        if let Some(last) = frames.last_mut() {
            last.cursor = cursor.map(text);
        }
        frames
    }
}

fn text(cursor: &Cursor) -> Arc<str> {
    cursor.to_string().into()
}

fn show(session: &SessionId, event: &Event) -> Vec<Frame> {
    let session_id = session.as_str();
    let over = |message_id: String, stopped| {
        let json = UnnamedJson::Over { session_id, done: true, message_id, stopped };
        vec![Frame::new("", &json), Frame::new("done", &DoneJson {})]
    };
    match &event.kind {
        EventKind::GenerationStarted { .. } => {
            vec![Frame::new("", &UnnamedJson::Begins { session_id, status: "processing" })]
        }
        EventKind::GenerationCompleted { message, .. } => over(message.id.to_string(), None),
        EventKind::GenerationStopped { message, .. } => over(message.id.to_string(), Some(true)),
        EventKind::GenerationFailed { error, .. } => {
            let json = FaultJson { r#type: error.code.as_str(), message: &error.message };
            vec![Frame::new("error", &json)]
        }
        EventKind::GenerationReset { generation, .. } => {
            vec![Frame::new("reset", &ResetJson { stream_id: generation.to_string() })]
        }
        EventKind::StageChanged { stage, .. } => {
            let json = StageJson {
                session_id,
                stage: &stage.name,
                status: stage.into(),
                index: stage.index,
                total: stage.total,
            };
            vec![Frame::new("stage", &json)]
        }
        EventKind::MessageNew(_)
        | EventKind::MessageEdited(_)
        | EventKind::MessageDeleted { .. }
        | EventKind::MessageSeen { .. }
        | EventKind::ReactionChanged { .. }
        | EventKind::AccessRevoked(_)
        | EventKind::Unknown
        | EventKind::GenerationResumed { .. }
        | EventKind::Aside { .. }
        | EventKind::GenerationEnded { .. } => Vec::new(),
    }
}
