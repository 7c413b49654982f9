//! The demo chat: one page with its script and style, and tokens for whoever asks.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::{HttpError, HttpState};
use crate::auth::{NewToken, TokenKind};
use crate::domain::{Error, ErrorCode, UserId};

/// How long a demo token holds.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The page needs nothing but its own two files and a WebSocket to its own origin.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(super) async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("demo/index.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("demo/demo.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("demo/demo.css"))
}

fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, content)
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    sub: String,
    name: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Given {
    token: String,
}

/// A token for whoever asks; only under `DEV_AUTH`.
pub(super) async fn token(
    State(state): State<HttpState>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Given>, HttpError> {
    let Json(wanted) = wanted.map_err(|error| Error::invalid(error.body_text()))?;
    let user = UserId::new(&wanted.sub)
        .map_err(|_| Error::invalid("sub must be 1 to 256 bytes without control characters"))?;
    let new = NewToken {
        name: wanted.name.as_deref(),
        user: &user,
        kind: TokenKind::Normal,
        session: None,
        ttl: TOKEN_TTL,
    };
    let token = state.verifier.issue(&new).map_err(|error| {
        tracing::error!(%error, "issue a demo token");
        Error::new(ErrorCode::Internal, "The token could not be made")
    })?;
    Ok(Json(Given { token }))
}
