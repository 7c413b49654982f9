//! Which browser pages may use this server, decided in one place for whatever they ask: REST,
//! server-sent events, polling, and the WebSocket, which CORS does not cover.
//!
//! A page of an origin that is not allowed is refused before anything is done for it. It may still
//! make the browser send requests without an `Origin` (an image, a script, a link), and a cookie
//! goes with those. Where the browser says that such a request is not of a page of ours, its
//! cookies are taken away, so that nobody behind this takes it for its user's doing. Browsers say
//! it over HTTPS and on loopback: <https://www.w3.org/TR/fetch-metadata/>.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::HttpError;
use crate::domain::{Error, ErrorCode};

/// What is answered to anybody: a page learns nothing by it that it could not learn by waiting.
const PROBES: &[&str] = &["/livez", "/healthz", "/readyz"];
/// What a browser says of the page that asks.
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const REFUSED: &str = "This origin is not allowed";

/// The allowed origins.
#[derive(Clone)]
pub struct Origins {
    allowed: Arc<[String]>,
    /// Below this path a refusal is plain text, as Socket.IO's servers write it.
    path: &'static str,
}

impl Origins {
    /// Allows `allowed` (lower case, without a trailing slash); sockets are below `path`.
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

/// Answers 403 to a request of an origin that is not allowed, and takes the cookies from one that a
/// foreign page has made without an `Origin`. It stands outside of everything, [`cors`] included.
pub async fn guard_origins(
    State(origins): State<Origins>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if !origins.admits(request.headers()) && !PROBES.contains(&path) {
        let mut response = match path {
            // The browser asks whether it may: without any header that says so, it may not.
            _ if request.method() == Method::OPTIONS => StatusCode::OK.into_response(),
            path if path.starts_with(origins.path) => {
                (StatusCode::FORBIDDEN, REFUSED).into_response()
            }
            _ => HttpError::from(Error::new(ErrorCode::Forbidden, REFUSED)).into_response(),
        };
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
        return response;
    }
    if !cookies_count(request.headers()) {
        request.headers_mut().remove(header::COOKIE);
    }
    next.run(request).await
}

/// Whether a request whose origin is allowed is no foreign page's, as far as its browser says.
fn cookies_count(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.get_all(SEC_FETCH_SITE).iter().all(|s| s == "same-origin" || s == "none")
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
        assert!(!admits(&[("origin", "null"), ("host", "null")]));
        assert!(!admits(&[("origin", ""), ("host", "")]));
        assert!(!admits(&[("origin", "https://app.example"), ("origin", "https://app.example")]));
    }

    #[test]
    fn cookies_count_only_where_no_foreign_page_asks() {
        let count = |pairs: &[_]| cookies_count(&headers(pairs));
        let site = |site| (SEC_FETCH_SITE, site);
        // `EventSource` on a page of the server's own, an address that was typed, and no browser.
        assert!(count(&[site("same-origin")]));
        assert!(count(&[site("none")]));
        assert!(count(&[]));
        assert!(count(&[("origin", "https://app.example"), site("cross-site")]));
        // An image, a script or a link, whose requests have no `Origin`.
        for foreign in ["cross-site", "same-site", "", "None", "nonsense"] {
            assert!(!count(&[site(foreign)]), "{foreign}");
        }
        assert!(!count(&[site("same-origin"), site("cross-site")]));
    }
}
