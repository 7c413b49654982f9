//! Probes and metrics.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::HttpState;
use super::openapi::{Api, Operation};
use crate::store::SharedStore;
use crate::telemetry::metrics;

/// How long readiness waits for the database.
const DATABASE_WITHIN: Duration = Duration::from_secs(2);

/// How long it is taken to be as it was found.
const DATABASE_FOUND_FOR: Duration = Duration::from_millis(250);

/// Whether the database answers, asked by one for all: anybody may want to know it as often as they
/// like, and everybody else waits for a connection behind those who ask.
#[derive(Debug, Default)]
pub struct Probe {
    found: Mutex<Option<(Instant, bool)>>,
}

impl Probe {
    /// # Cancel safety
    /// Safe: the next one asks instead.
    async fn answers(&self, store: &SharedStore) -> bool {
        let mut found = self.found.lock().await;
        if let Some((at, answers)) = *found
            && at.elapsed() < DATABASE_FOUND_FOR
        {
            return answers;
        }
        let answers = matches!(timeout(DATABASE_WITHIN, store.ping()).await, Ok(Ok(())));
        *found = Some((Instant::now(), answers));
        answers
    }
}

/// The process is alive. Never looks at what it depends on: restarting it would not help that.
pub(super) async fn live() -> &'static str {
    "ok"
}

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const TAG: &str = "Operations";
    let alive = |path, id| {
        let summary = "Whether the process is alive. Never looks at what it depends on.";
        Operation::get([path, TAG, id, summary]).public()
    };
    let ok = |_: &mut _| vec![(StatusCode::OK, "It is: `ok`", None)];
    let summary = "Whether the node takes work.";
    api.mount(alive("/livez", "isAlive"), get(live), ok)
        .mount(alive("/healthz", "isHealthy"), get(live), ok)
        .mount(
            Operation::get(["/readyz", TAG, "isReady", summary]).public(),
            get(ready),
            |generator| {
                let schema = generator.subschema_for::<Ready>();
                vec![
                    (StatusCode::OK, "It does", Some(schema.clone())),
                    (StatusCode::SERVICE_UNAVAILABLE, "It does not", Some(schema)),
                ]
            },
        )
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Ready {
    ready: bool,
    node_id: String,
    role: &'static str,
    started: bool,
    draining: bool,
    database: &'static str,
    degraded: Vec<&'static str>,
}

/// Whether the node takes work: it has started, its database answers, and it is not draining.
/// Without Redis, or the keys of the token issuer, it is degraded and ready, so that a cluster is
/// not emptied.
pub(super) async fn ready(State(state): State<HttpState>) -> Response {
    let database = state.probe.answers(&state.store).await;
    let (started, draining) = (state.readiness.is_started(), state.readiness.is_draining());
    let ready = database && started && !draining;
    let body = Ready {
        ready,
        node_id: state.node.to_string(),
        role: state.role.as_str(),
        started,
        draining,
        database: if database { "up" } else { "down" },
        degraded: [("redis", state.adapter.is_up()), ("jwks", state.verifier.is_up())]
            .into_iter()
            .filter_map(|(what, is_up)| (!is_up).then_some(what))
            .collect(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// Everything that is measured, in Prometheus' text format.
pub(super) async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render())
}
