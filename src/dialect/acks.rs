//! Acknowledgements of success that dialects share.

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::{GenerationId, MessageId};

/// `{ ok: true }`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Done", description = "It was done.")]
pub(super) struct DoneJson {
    #[schemars(extend("const" = true))]
    ok: bool,
}

impl DoneJson {
    pub(super) const OK: Self = Self { ok: true };
}

/// `{ ok: true, streamId, messageId, promptMessageId }`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AnswerAccepted", description = "An answer will be written.")]
pub(super) struct RequestedJson {
    #[schemars(extend("const" = true))]
    ok: bool,
    /// What writes it.
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    /// The answer's id, known from now on.
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    /// The id of the message that is answered.
    #[schemars(extend("format" = "uuid"))]
    prompt_message_id: String,
}

impl RequestedJson {
    pub(super) fn new(generation: GenerationId, message: MessageId, prompt: MessageId) -> Self {
        Self {
            ok: true,
            stream_id: generation.to_string(),
            message_id: message.to_string(),
            prompt_message_id: prompt.to_string(),
        }
    }
}
