//! What a request wants of Engine.IO. Reads the query exactly as engineioxide does, so that both
//! always speak of the same session; what this does not recognise, that one refuses.

use http::{Method, Request};
use socketioxide::socket::Sid;

use super::polling::Protocol;

/// Where socketioxide answers, unless told otherwise.
pub(super) const PATH: &str = "/socket.io";

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    OpenPolling(Protocol),
    OpenWebSocket(Protocol),
    Of { sid: Sid, action: Action, protocol: Protocol },
}

/// What a request wants of an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Poll,
    Post,
    Upgrade,
}

impl Wanted {
    /// `None` for what is not Engine.IO's, and for what it will refuse.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let rest = request.uri().path().strip_prefix(PATH)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let query = request.uri().query()?;
        let protocol = match parameter(query, "EIO=")? {
            "3" => Protocol::V3,
            "4" => Protocol::V4,
            _ => return None,
        };
        let transport = parameter(query, "transport=")?;
        let sid = query.split('&').find_map(|part| part.strip_prefix("sid="));
        let Some(sid) = sid else {
            return match (request.method(), transport) {
                (&Method::GET, "polling") => Some(Self::OpenPolling(protocol)),
                (&Method::GET, "websocket") => Some(Self::OpenWebSocket(protocol)),
                _ => None,
            };
        };
        let action = match (request.method(), transport) {
            (&Method::GET, "polling") => Action::Poll,
            (&Method::POST, "polling") => Action::Post,
            (&Method::GET, "websocket") => Action::Upgrade,
            _ => return None,
        };
        Some(Self::Of { sid: sid.parse().ok()?, action, protocol })
    }
}

/// Whether engineioxide would take the request for one of Engine.IO 3, if it were asked.
pub(super) fn speaks_v3<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.uri().path().starts_with(PATH) && parameter(query, "EIO=") == Some("3")
}

/// The first parameter that starts so, up to a further `=`.
fn parameter<'a>(query: &'a str, start: &str) -> Option<&'a str> {
    let found = query.split('&').find_map(|part| part.strip_prefix(start))?;
    Some(found.split_once('=').map_or(found, |(value, _)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(method: &str, uri: &str) -> Option<Wanted> {
        Wanted::of(&Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    #[test]
    fn the_old_protocol_is_recognised_whatever_else_is_asked() {
        let speaks = |uri: &str| speaks_v3(&Request::post(uri).body(()).unwrap());
        for old in ["?EIO=3", "/?EIO=3&transport=x", "x/?a&EIO=3=4", "/y?EIO=3&EIO=4&sid=x"] {
            assert!(speaks(&format!("/socket.io{old}")), "{old}");
        }
        for other in ["", "?EIO=4", "/?EIO=4&EIO=3", "/?EIO=33", "/?EIO=", "/?xEIO=3"] {
            assert!(!speaks(&format!("/socket.io{other}")), "{other}");
        }
        assert!(!speaks("/?EIO=3"));
    }

    #[test]
    fn requests_are_told_apart() {
        let sid = Sid::new();
        let of = |action, protocol| Some(Wanted::Of { sid, action, protocol });
        for (method, uri, expected) in [
            (
                "GET",
                "/socket.io/?EIO=4&transport=polling&t=x".to_owned(),
                Some(Wanted::OpenPolling(Protocol::V4)),
            ),
            (
                "GET",
                "/socket.io?EIO=3&transport=websocket".to_owned(),
                Some(Wanted::OpenWebSocket(Protocol::V3)),
            ),
            ("POST", "/socket.io/?EIO=4&transport=polling".to_owned(), None),
            (
                "GET",
                format!("/socket.io/?EIO=4&transport=polling&sid={sid}"),
                of(Action::Poll, Protocol::V4),
            ),
            (
                "POST",
                format!("/socket.io/?EIO=3&transport=polling&sid={sid}"),
                of(Action::Post, Protocol::V3),
            ),
            (
                "GET",
                format!("/socket.io/?sid={sid}&EIO=4&transport=websocket"),
                of(Action::Upgrade, Protocol::V4),
            ),
            (
                "GET",
                format!("/socket.io/?EIO=4&transport=polling&sid={sid}&sid=x"),
                of(Action::Poll, Protocol::V4),
            ),
            ("GET", format!("/socket.io/?EIO=4&transport=polling&sid=x&sid={sid}"), None),
            ("DELETE", format!("/socket.io/?EIO=4&transport=polling&sid={sid}"), None),
            ("GET", "/socket.io/?EIO=4&transport=polling&sid=".to_owned(), None),
            ("GET", "/socket.io/?transport=polling".to_owned(), None),
            ("GET", "/socket.io/".to_owned(), None),
            ("GET", "/socket.ios/?EIO=4&transport=polling".to_owned(), None),
            ("GET", "/?EIO=4&transport=polling".to_owned(), None),
        ] {
            assert_eq!(wanted(method, &uri), expected, "{method} {uri}");
        }
    }
}
