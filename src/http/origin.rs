//! Which browser origins may use this server: over REST by CORS, and over Socket.IO by refusal,
//! since CORS does not cover WebSockets.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The allowed origins.
#[derive(Clone)]
pub struct Origins {
    allowed: Arc<[String]>,
    /// Only requests below this path are refused; elsewhere CORS decides in the browser.
    path: &'static str,
}

impl Origins {
    /// Allows `allowed` (lower case, without a trailing slash) below `path`.
    pub fn new(allowed: &[String], path: &'static str) -> Self {
        Self { allowed: allowed.into(), path }
    }

    /// No `Origin`, or the server's own host, is always allowed; two are not.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if origins.next().is_some() {
            return false;
        }
        let Ok(origin) = origin.to_str() else { return false };
        // Not `X-Forwarded-Host`, which anybody can send: a proxy passes `Host` on.
        let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some_and(|host| own.is_some_and(|own| own.eq_ignore_ascii_case(host)))
            || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

/// Answers 403 to a polling or WebSocket request from an origin that is not allowed.
pub async fn refuse_foreign_origins(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path().starts_with(origins.path) && !origins.admits(request.headers()) {
        return (StatusCode::FORBIDDEN, "This origin is not allowed").into_response();
    }
    next.run(request).await
}

/// CORS for the allowed origins, with credentials.
pub fn cors(origins: &Origins) -> CorsLayer {
    let allowed = origins.allowed.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            // Of what reads streams without `EventSource`, which sends it unasked.
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::RETRY_AFTER])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn an_origin_is_its_own_allowed_or_refused() {
        let origins = Origins::new(&["https://app.example".to_owned()], "/socket.io");
        let admits = |pairs: &[_]| origins.admits(&headers(pairs));
        assert!(admits(&[]));
        assert!(admits(&[("origin", "https://app.example")]));
        assert!(admits(&[("origin", "http://chat.example:3000"), ("host", "chat.example:3000")]));
        assert!(!admits(&[
            ("origin", "https://evil.example"),
            ("host", "chat.example"),
            ("x-forwarded-host", "evil.example"),
        ]));
        assert!(!admits(&[("origin", "https://evil.example"), ("host", "chat.example")]));
        assert!(!admits(&[("origin", "https://app.example.evil.example")]));
        assert!(!admits(&[("origin", "null"), ("host", "chat.example")]));
    }
}
