//! The demo chat: one page with its scripts and style, and tokens for whoever asks.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::extract::late_body;
use super::{HttpError, HttpState};
use crate::auth::{NewToken, TokenKind};
use crate::domain::{Error, ErrorCode, UserId};

/// How long a demo token holds.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The page needs nothing but its own files, and its own origin over HTTP and a WebSocket.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(super) async fn page() -> impl IntoResponse {
    html(include_str!("demo/index.html"))
}

/// A page of our own.
pub(super) fn html(content: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, content)
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("demo/demo.js"))
}

pub(super) async fn message_script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("demo/demo-message.js"))
}

pub(super) async fn socket_script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("demo/demo-socket.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("demo/demo.css"))
}

/// A file that a page of our own needs.
pub(super) fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
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

/// Whether the request was sent to a name of this machine. A page of elsewhere whose name was made
/// to point here (DNS rebinding) shows by its `Host`.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A token for whoever asks; only under `DEV_AUTH`.
pub(super) async fn token(
    State(state): State<HttpState>,
    request: Request,
) -> Result<Json<Given>, HttpError> {
    if state.loopback_only && !is_this_machine(request.headers()) {
        let message = "This server gives tokens to pages of localhost only";
        return Err(Error::new(ErrorCode::Forbidden, message).into());
    }
    let arriving = timeout(state.body_timeout, Json::<Wanted>::from_request(request, &())).await;
    let wanted = arriving.map_err(|_| late_body())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_this_machine() {
        let is_ours = |host: &'static str| {
            is_this_machine(&[(header::HOST, host.parse().unwrap())].into_iter().collect())
        };
        for ours in ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "127.0.0.2", "[::1]:3000"] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in ["evil.example:3000", "localhost.evil.example", "10.0.0.1", "", "[::2]"] {
            assert!(!is_ours(foreign), "{foreign}");
        }
        assert!(!is_this_machine(&HeaderMap::new()));
    }
}
