//! Whether a request that wants a WebSocket is the opening handshake of one
//! ([RFC 6455, 4.2.1](https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1)). engineioxide looks for
//! a key and no further, and would answer `101` to what can never become a WebSocket.

use axum::body::Body;
use axum::extract::ConnectInfo;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};

use super::connection::Connection;

const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
/// The one version of the protocol.
const VERSION: &str = "13";
/// How long a key is, decoded.
const KEY_BYTES: usize = 16;

/// The answer to a request that is no handshake; `None` for one that is.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<Response<Body>> {
    let headers = request.headers();
    let status = if request.version() < Version::HTTP_11 {
        StatusCode::BAD_REQUEST
    } else if !lists(headers, UPGRADE, "websocket")
        || only(headers, SEC_WEBSOCKET_VERSION) != Some(VERSION.as_bytes())
    {
        StatusCode::UPGRADE_REQUIRED
    } else if !lists(headers, CONNECTION, "upgrade") || !has_key(headers) {
        StatusCode::BAD_REQUEST
    } else {
        return None;
    };
    let mut response = Response::new(Body::from(BAD_REQUEST));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    }
    Some(response)
}

/// Forgets whatever came with a request besides its head, its body and its connection's handle.
/// A session keeps the head of the request that opened it, and hyper hands the TCP connection of
/// one with an `Upgrade` to whoever could still ask for it: a session that is polled would hold it
/// open to its own end.
pub(super) fn forget<B>(request: &mut Request<B>) {
    let extensions = request.extensions_mut();
    let connection = extensions.remove::<ConnectInfo<Connection>>();
    extensions.clear();
    if let Some(connection) = connection {
        extensions.insert(connection);
    }
}

/// Whether a header that is a list of words has this one, in whatever letters.
fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
}

/// The value of a header that is there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

fn has_key(headers: &HeaderMap) -> bool {
    only(headers, SEC_WEBSOCKET_KEY)
        .and_then(|key| STANDARD.decode(key).ok())
        .is_some_and(|key| key.len() == KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(headers: &[(&'static str, &str)]) -> Option<u16> {
        let mut request = Request::get("/socket.io/?EIO=4&transport=websocket");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(&request.body(()).unwrap()).map(|response| response.status().as_u16())
    }

    #[test]
    fn a_handshake_is_told_from_what_is_none() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = ("sec-websocket-version", "13");
        let upgrade = ("upgrade", "WebSocket");
        let connection = ("connection", "keep-alive, Upgrade");
        for (headers, expected) in [
            (vec![key, version, upgrade, connection], None),
            (vec![version, upgrade, connection], Some(400)),
            (vec![key, key, version, upgrade, connection], Some(400)),
            (vec![("sec-websocket-key", "AAAA"), version, upgrade, connection], Some(400)),
            (vec![key, version, upgrade], Some(400)),
            (vec![key, version, connection], Some(426)),
            (vec![key, upgrade, connection], Some(426)),
            (vec![key, ("sec-websocket-version", "8"), upgrade, connection], Some(426)),
            (vec![key, version, ("upgrade", "h2c"), connection], Some(426)),
            (vec![], Some(426)),
        ] {
            assert_eq!(answered(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn what_hyper_and_others_left_is_forgotten() {
        let mut request = Request::new(());
        request.extensions_mut().insert(7_u8);
        forget(&mut request);
        assert!(request.extensions().get::<u8>().is_none());
    }
}
