//! The HTTP edge: REST and server-sent events, the documents of these and of what sockets say,
//! probes, metrics, the demo page and its token.
//!
//! It knows axum and JSON; what a request does is decided below it. A handler reads what it is
//! given, calls one method of [`Chat`], and shows the answer.

mod admin;
mod answer;
mod asyncapi;
mod auth;
#[doc(hidden)]
pub mod cursor;
mod demo;
mod docs;
mod error;
mod extract;
mod messages;
mod openapi;
mod operations;
mod origin;
mod page;
mod reactions;
mod sessions;
mod sse;
mod status;
mod streams;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::adapter::SharedAdapter;
use crate::auth::Verifier;
use crate::chat::Chat;
use crate::dialect::Dialects;
use crate::domain::{NodeId, Role};
use crate::lifecycle::Readiness;
use crate::store::SharedStore;

pub use error::HttpError;
pub use operations::Probe;
pub use origin::{Origins, cors, guard_origins};
pub use sse::{SseEdge, SseOptions};

/// What the handlers need.
#[derive(Clone)]
pub struct HttpState {
    /// This node.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// What everything but the probes is asked of.
    pub chat: Chat,
    /// Whoever reads streams.
    pub sse: SseEdge,
    /// For readiness.
    pub store: SharedStore,
    /// For readiness.
    pub probe: Arc<Probe>,
    /// For readiness.
    pub adapter: SharedAdapter,
    /// Who asks.
    pub verifier: Arc<Verifier>,
    /// The word of a token's scope that makes an operator.
    pub admin_scope: String,
    /// Whether the node takes work.
    pub readiness: Readiness,
    /// The largest body of a request, in bytes.
    pub body_max: usize,
    /// How long it may take to arrive. Until then it is held, and nobody counts the request.
    pub body_timeout: Duration,
    /// Whether `POST /dev/token` gives anybody a token.
    pub dev_auth: bool,
    /// Whether only this machine can connect.
    pub loopback_only: bool,
    /// Whether `/` is the demo chat.
    pub demo_ui: bool,
}

/// What is served beside the sockets.
pub fn public(state: HttpState) -> Router {
    let mut api = openapi::Api::new(page::Bounds::of(&state.chat));
    for routes in [
        sessions::routes,
        messages::routes,
        reactions::routes,
        streams::routes,
        status::routes,
        sse::routes,
        admin::routes,
        operations::routes,
    ] {
        api = routes(api);
    }
    let (mut router, document) = api.finish();
    let events = asyncapi::document(&Dialects::new(false));
    router = router
        .route("/asyncapi.json", get(async move || docs::document(events.clone())))
        .route("/openapi.json", get(async move || docs::document(document.clone())))
        .route("/docs", get(docs::page))
        .route("/docs.js", get(docs::script))
        .route("/docs.css", get(docs::style));
    if state.demo_ui {
        router = router
            .route("/", get(demo::page))
            .route("/demo.js", get(demo::script))
            .route("/demo-message.js", get(demo::message_script))
            .route("/demo-socket.js", get(demo::socket_script))
            .route("/demo.css", get(demo::style));
    }
    if state.dev_auth {
        router = router.route("/dev/token", post(demo::token));
    }
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(state.body_max))
        .with_state(state)
}

/// What a node serves that holds no clients.
pub fn probes(state: HttpState) -> Router {
    let (router, _) = operations::routes(openapi::Api::new(page::Bounds::of(&state.chat))).finish();
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(state)
}

/// What is served on the metrics port only.
pub fn private() -> Router {
    Router::new().route("/metrics", get(operations::metrics)).fallback(error::not_found)
}
