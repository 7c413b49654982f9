//! How far an answer is, and what it took.

use schemars::JsonSchema;
use serde::Serialize;

use super::HttpError;
use super::answer::{Shown, View};
use super::extract::Ask;
use super::openapi::{Api, Operation};
use crate::chat::{StreamMetrics, StreamStatus};
use crate::domain::{GenerationId, Status};

const TAG: &str = "Streams";

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const STATUS: &str = "/api/chat/streams/{streamId}/status";
    const METRICS: &str = "/api/chat/streams/{streamId}/metrics";
    api.add(
        Operation::get([STATUS, TAG, "readStreamStatus", "How far a stream is."])
            .about("On any node. While it runs, what is counted is up to a second old; where Redis is away it is 0 until the stream has ended."),
        status,
    )
    .add(
        Operation::get([METRICS, TAG, "readStreamMetrics", "What a stream took, so far or in all."])
            .about("On any node. While it runs, what is counted is up to a second old, and bytes up to three; where Redis is away it is not known until the stream has ended."),
        metrics,
    )
}

async fn status(ask: Ask<GenerationId>) -> Result<Shown<StreamStatus>, HttpError> {
    Ok(Shown(ask.state.chat.stream_status(&ask.caller, ask.path).await?))
}

async fn metrics(ask: Ask<GenerationId>) -> Result<Shown<StreamMetrics>, HttpError> {
    Ok(Shown(ask.state.chat.stream_metrics(&ask.caller, ask.path).await?))
}

/// Where a stream stands.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum StatusWord {
    /// Stored; nobody has begun.
    Pending,
    /// It runs.
    Streaming,
    /// It came to its end.
    Completed,
    /// Somebody stopped it.
    Stopped,
    /// It broke off.
    Failed,
}

impl From<Status> for StatusWord {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Streaming => Self::Streaming,
            Status::Completed => Self::Completed,
            Status::Stopped => Self::Stopped,
            Status::Failed => Self::Failed,
        }
    }
}

/// How far a stream is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamStatus")]
pub(super) struct StatusJson<'a> {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    session_id: &'a str,
    status: StatusWord,
    /// The tokens so far, as a share of `maxTokens`: the request's, else the agent's. 1 once it is
    /// completed; 0 until then where neither says one.
    #[schemars(range(min = 0.0, max = 1.0))]
    progress: f64,
    /// So far, or in all.
    tokens_generated: u64,
    /// When the node that runs it began: after that of another one died, when the next one did.
    /// `null` where none has.
    #[schemars(extend("format" = "date-time"))]
    started_at: Option<String>,
    /// Not there while it runs.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
}

impl View for StreamStatus {
    type Json<'a> = StatusJson<'a>;

    fn json(&self) -> StatusJson<'_> {
        let Self { generation, tokens, progress } = self;
        StatusJson {
            stream_id: generation.id.to_string(),
            session_id: generation.session.as_str(),
            status: generation.status.into(),
            progress: *progress,
            tokens_generated: *tokens,
            started_at: generation.started_at.map(|at| at.to_string()),
            completed_at: generation.completed_at.map(|at| at.to_string()),
        }
    }
}

/// What a stream took.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamMetrics")]
pub(super) struct MetricsJson {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    /// Tokens of the answer, so far or in all.
    total_tokens: u64,
    /// From the first token to the end, or until now; 0 before the first.
    #[schemars(range(min = 0.0))]
    tokens_per_second: f64,
    /// Milliseconds from the request to the first token; `null` before it.
    latency: Option<u64>,
    /// Bytes of the answer's events that were given to clients, on all nodes; `null` where that is
    /// not known: while Redis is away, and some time after the end.
    bandwidth: Option<u64>,
    /// How often providers failed on the way, retries and fallbacks included.
    errors: u32,
}

impl View for StreamMetrics {
    type Json<'a> = MetricsJson;

    fn json(&self) -> MetricsJson {
        MetricsJson {
            stream_id: self.generation.to_string(),
            total_tokens: self.tokens,
            tokens_per_second: (self.tokens_per_second * 100.0).round() / 100.0,
            latency: self.first_token_ms,
            bandwidth: self.sent_bytes,
            errors: self.errors,
        }
    }
}
