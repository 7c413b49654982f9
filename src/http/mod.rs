//! The HTTP edge: probes, metrics, the demo page and its token.
//!
//! It knows axum and JSON; what a request does is decided below it.

mod demo;
mod error;
mod operations;
mod origin;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tower_http::limit::RequestBodyLimitLayer;

use crate::adapter::SharedAdapter;
use crate::auth::Verifier;
use crate::domain::NodeId;
use crate::lifecycle::Readiness;
use crate::store::SharedStore;

pub use error::HttpError;
pub use origin::{Origins, cors, refuse_foreign_origins};

/// The largest body of a request of our own, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What the handlers need.
#[derive(Clone)]
pub struct HttpState {
    /// This node.
    pub node: NodeId,
    /// For readiness.
    pub store: SharedStore,
    /// For readiness.
    pub adapter: SharedAdapter,
    /// For the demo's tokens.
    pub verifier: Arc<Verifier>,
    /// Whether the node takes work.
    pub readiness: Readiness,
    /// Whether `POST /dev/token` gives anybody a token.
    pub dev_auth: bool,
    /// Whether only this machine can connect.
    pub loopback_only: bool,
    /// Whether `/` is the demo chat.
    pub demo_ui: bool,
}

/// What is served beside the sockets.
pub fn public(state: HttpState) -> Router {
    let mut router = Router::new()
        .route("/livez", get(operations::live))
        .route("/healthz", get(operations::live))
        .route("/readyz", get(operations::ready));
    if state.demo_ui {
        router = router
            .route("/", get(demo::page))
            .route("/demo.js", get(demo::script))
            .route("/demo.css", get(demo::style));
    }
    if state.dev_auth {
        router = router.route("/dev/token", post(demo::token));
    }
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .with_state(state)
}

/// What is served on the metrics port only.
pub fn private() -> Router {
    Router::new().route("/metrics", get(operations::metrics)).fallback(error::not_found)
}
