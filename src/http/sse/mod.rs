//! Server-sent events: streams for frontends that speak plain HTTP.
//!
//! A stream is a hub reader like a socket, in the vocabulary of SSE. Everything that can be refused
//! is refused with a status before it starts.

mod ask;
mod open;
mod reader;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::answer::Answered;
use super::error::method_not_allowed;
use super::extract::SESSION_ID_PATTERN;
use super::openapi::{Api, Operation};
use crate::chat::Chat;
use crate::dialect::DialectIndex;
use crate::domain::{Error, ErrorCode};
use crate::hub::ReaderId;
use crate::lifecycle::Tasks;
use crate::net::{AddressSlot, Addresses, Connection, Slot, Slots};
use crate::telemetry::metrics::{self, Limit};

const TAG: &str = "SSE";
/// How long a stream may take to end once it was told to.
const ENDED_WITHIN: Duration = Duration::from_secs(2);
/// When to come back to a node that has no place.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Sockets count their readers from 0.
const FIRST_READER: u64 = 1 << 63;

/// How streams behave.
#[derive(Debug, Clone)]
pub struct SseOptions {
    /// What they speak.
    pub dialect: DialectIndex,
    /// The most bytes of a stream that hyper has not taken; beyond it its reader is slow.
    pub outbound_max: usize,
    /// The age at which a stream is ended; `EventSource` comes back by itself.
    pub age_max: Duration,
    /// How long after the end of its normal token a stream is ended; `None`: not for that.
    pub expires_after: Option<Duration>,
    /// The connections of this node, sockets among them.
    pub slots: Arc<Slots>,
    /// What addresses behind proxies have.
    pub addresses: Arc<Addresses>,
    /// Over what time streams are ended when the node drains.
    pub drain_spread: Duration,
}

/// The streams of a node. Clones are the same.
#[derive(Clone)]
pub struct SseEdge {
    shared: Arc<Shared>,
}

struct Shared {
    chat: Chat,
    options: SseOptions,
    tasks: Tasks,
    draining: CancellationToken,
    readers: AtomicU64,
}

impl SseEdge {
    /// Streams of `chat`'s sessions.
    pub fn new(chat: Chat, options: SseOptions) -> Self {
        let (tasks, draining) = (Tasks::new(), CancellationToken::new());
        let readers = AtomicU64::new(FIRST_READER);
        Self { shared: Arc::new(Shared { chat, options, tasks, draining, readers }) }
    }

    /// Ends every stream over `drain_spread`, in a way after which `EventSource` comes back by
    /// itself; further ones are refused. Answers when all are gone.
    pub async fn drain(&self) {
        self.shared.draining.cancel();
        let tasks = &self.shared.tasks;
        if !tasks.finished(self.shared.options.drain_spread + ENDED_WITHIN).await {
            tasks.shutdown(ENDED_WITHIN).await;
        }
    }

    /// How many streams there are.
    pub fn open(&self) -> usize {
        self.shared.tasks.len()
    }
}

impl Shared {
    fn next_reader(&self) -> ReaderId {
        ReaderId(self.readers.fetch_add(1, Ordering::Relaxed))
    }

    /// A place among the connections of whoever is behind a proxy.
    ///
    /// # Errors
    /// `OVERLOADED` where there is none.
    fn address(
        &self,
        peer: &Connection,
        headers: &HeaderMap,
    ) -> Result<Option<AddressSlot>, Error> {
        let refused = |_| {
            metrics::limited(Limit::AddressConnections).increment(1);
            overloaded("Too many connections")
        };
        self.options.addresses.open(peer.peer(), headers).map_err(refused)
    }

    /// A place among the node's connections.
    ///
    /// # Errors
    /// `OVERLOADED` where there is none.
    fn slot(&self) -> Result<Slot, Error> {
        if self.draining.is_cancelled() {
            return Err(shutting_down());
        }
        self.options.slots.take().ok_or_else(|| {
            metrics::limited(Limit::Connections).increment(1);
            overloaded("This node has as many connections as it takes")
        })
    }
}

fn shutting_down() -> Error {
    overloaded("This node is shutting down")
}

fn overloaded(message: &str) -> Error {
    Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER)
}

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    // Not GET's own handler, which would open a stream for nobody.
    let by_path = || get(open::by_path).head(method_not_allowed);
    let by_query = get(open::by_query).head(method_not_allowed);
    let one = |path, id| stream(path, id).parameter(session_id("sessionId", "path"));
    ask::routes(api)
        .mount(one("/chat/stream/{sessionId}", "openStream").about(ABOUT), by_path(), answered)
        .mount(one("/stream/ai/{sessionId}", "openAiStream").about(ALIAS), by_path(), answered)
        .mount(one("/ai/chat/{sessionId}", "openAiChatStream").about(ALIAS), by_path(), answered)
        .mount(
            stream("/stream/ai", "openStreamByQuery")
                .about(ALIAS)
                .parameter(session_id("session", "query")),
            by_query,
            answered,
        )
}

const ABOUT: &str = "A stream token (`POST /stream/init`), or a normal one, by header, `?token=` or \
    cookie. `retry:` and an `id:` first; then events without a name (`{ sessionId, chunk }`, \
    `{ sessionId, status: \"processing\" }`, `{ sessionId, done: true, messageId, stopped? }`), and \
    `done`, `error` and `reset`. Each that has a position carries it as its id, with which the \
    stream is resumed on any node.";
const ALIAS: &str = "The same as `GET /chat/stream/{sessionId}`.";

fn stream(path: &'static str, id: &'static str) -> Operation {
    let last = |name, place| {
        json!({
            "name": name, "in": place, "schema": { "type": "string" },
            "description": "The id of the last event that the reader has: it goes on exactly after it.",
        })
    };
    Operation::get([path, TAG, id, "A session's answers, as server-sent events."])
        .answers_in("text/event-stream")
        .with_token_in_query()
        .parameter(last("Last-Event-ID", "header"))
        .parameter(last("lastEventId", "query"))
        .may(StatusCode::BAD_REQUEST)
        .may(StatusCode::UNAUTHORIZED)
        .may(StatusCode::FORBIDDEN)
        .may(StatusCode::NOT_FOUND)
        .may(StatusCode::TOO_MANY_REQUESTS)
        .may(StatusCode::INTERNAL_SERVER_ERROR)
        .may(StatusCode::SERVICE_UNAVAILABLE)
}

fn session_id(name: &str, place: &str) -> serde_json::Value {
    let schema = json!({ "type": "string", "pattern": SESSION_ID_PATTERN });
    json!({ "name": name, "in": place, "required": true, "schema": schema })
}

fn answered(_: &mut SchemaGenerator) -> Vec<Answered> {
    let events: Schema = json_schema!({ "type": "string" });
    vec![(StatusCode::OK, "Events, without an end", Some(events))]
}
