//! Whether a stream is opened: whose token it is, which session, and where it starts.

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};

use super::stream::{self, Place, Wanted};
use crate::auth::{Claims, Opening, find_token};
use crate::chat::Caller;
use crate::domain::{Cursor, Error, ErrorCode, InvalidCursor, SessionId};
use crate::http::{HttpError, HttpState, Origins};
use crate::net::Connection;

const LAST_EVENT_ID: &str = "last-event-id";

/// The session in the path.
pub(super) async fn by_path(
    State(state): State<HttpState>,
    request: Request,
) -> Result<Response, HttpError> {
    let mut head = request.into_parts().0;
    let path = RawPathParams::from_request_parts(&mut head, &state).await;
    let named = path.iter().flatten().map(|(_, id)| id.to_owned()).next();
    open(&state, head, named).await
}

/// The session in `?session=`.
pub(super) async fn by_query(
    State(state): State<HttpState>,
    request: Request,
) -> Result<Response, HttpError> {
    let head = request.into_parts().0;
    let named = in_query(&head.uri, "session");
    open(&state, head, named).await
}

async fn open(
    state: &HttpState,
    mut head: Parts,
    named: Option<String>,
) -> Result<Response, HttpError> {
    let connection = head.extensions.get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
    // Before anything is done for it.
    let peer = connection.as_ref();
    let address = peer.map(|peer| state.sse.shared.address(peer, &head.headers)).transpose()?;
    let session = named.as_deref().map(SessionId::new).transpose();
    let after = last_event_id(&head.headers, &head.uri);
    let resumes = matches!(after, Ok(Some(_)));
    // First who asks, so that nobody else learns more.
    let opening = Opening { session: session.as_ref().ok().and_then(Option::as_ref), resumes };
    let claims = authenticate(state, &mut head, opening)?;
    let about = |error: Error| {
        let named = named.clone().map(|id| ("sessionId", id));
        HttpError::from(error).about(named.into_iter().collect())
    };
    let missing = || Error::invalid("session is missing");
    let session = session.map_err(|_| about(Error::not_found("session")))?.ok_or_else(missing)?;
    let broken = |_| Error::invalid("Last-Event-ID is no id of an event");
    let after = after.map_err(broken)?;
    let place = Place { _slot: state.sse.shared.slot()?, _address: address.flatten() };
    let caller = Caller { user: claims.user, name: claims.name };
    let wanted = Wanted { caller, session, after, place, connection };
    let events = stream::open(&state.sse.shared, wanted).await.map_err(about)?;
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(events)).into_response())
}

/// What a browser says of the page that asks: it sends no `Origin` for an image or a script.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Whose stream it is. By the cookie alone only for pages of an allowed origin: others could not
/// read it, but they could make sessions, and use up what its user may open.
fn authenticate(
    state: &HttpState,
    head: &mut Parts,
    opening: Opening<'_>,
) -> Result<Claims, HttpError> {
    let cookies = head.headers.remove(header::COOKIE);
    let mut token = find_token(None, head);
    if let Some(cookies) = cookies.filter(|_| token.is_none()) {
        head.headers.insert(header::COOKIE, cookies);
        token = find_token(None, head);
        if token.is_some() && !is_own_doing(&state.origins, &head.headers) {
            let message = "With the cookie alone, a stream needs an allowed Origin";
            return Err(Error::new(ErrorCode::Forbidden, message).into());
        }
    }
    Ok(state.verifier.verify_opening(token.as_deref(), opening)?)
}

/// Whether no foreign page is asking. Browsers say over HTTPS, and on loopback, which page it is.
fn is_own_doing(origins: &Origins, headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) {
        return origins.admits(headers);
    }
    headers.get_all(SEC_FETCH_SITE).iter().all(|site| site == "same-origin" || site == "none")
}

/// From the header, which browsers send, else from the query; an empty one is none.
fn last_event_id(headers: &HeaderMap, uri: &Uri) -> Result<Option<Cursor>, InvalidCursor> {
    let text = match headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) {
        Some(value) => Some(value.to_str().map_err(|_| InvalidCursor)?.to_owned()),
        None => in_query(uri, "lastEventId").filter(|text| !text.is_empty()),
    };
    text.map(|text| text.parse()).transpose()
}

fn in_query(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_page_opens_no_stream_by_the_cookie() {
        let origins = Origins::new(&["https://app.example".to_owned()], "/socket.io");
        let is_own = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (HeaderName::from_static(name), header::HeaderValue::from_static(value))
            });
            is_own_doing(&origins, &pairs.collect())
        };
        let site = |site| (SEC_FETCH_SITE, site);
        // `EventSource` on a page of the server's own, an address that was typed, and no browser.
        assert!(is_own(&[site("same-origin")]));
        assert!(is_own(&[site("none")]));
        assert!(is_own(&[]));
        assert!(is_own(&[("origin", "https://app.example"), site("cross-site")]));
        assert!(!is_own(&[("origin", "https://evil.example"), site("same-origin")]));
        // An image or a script, whose requests have no `Origin`.
        assert!(!is_own(&[site("cross-site")]));
        assert!(!is_own(&[site("same-site")]));
        assert!(!is_own(&[site("same-origin"), site("cross-site")]));
    }

    #[test]
    fn the_header_goes_before_the_query_and_an_empty_one_is_none() {
        let read = |header: Option<&'static str>, uri: &'static str| {
            let value = header.map(|text| (LAST_EVENT_ID.parse().unwrap(), text.parse().unwrap()));
            let headers: HeaderMap = value.into_iter().collect();
            last_event_id(&headers, &Uri::from_static(uri))
        };
        let at = |text: &str| Ok(Some(text.parse::<Cursor>().unwrap()));
        assert_eq!(read(None, "/x"), Ok(None));
        assert_eq!(read(None, "/x?lastEventId="), Ok(None));
        assert_eq!(read(None, "/x?lastEventId=1-2%3A3"), at("1-2:3"));
        assert_eq!(read(Some(""), "/x?lastEventId=1-2:3"), at("1-2:3"));
        assert_eq!(read(Some("4-5:6"), "/x?lastEventId=1-2:3"), at("4-5:6"));
        assert_eq!(read(Some("4-5:6"), "/x?lastEventId=nonsense"), at("4-5:6"));
        assert_eq!(read(Some("nonsense"), "/x?lastEventId=1-2:3"), Err(InvalidCursor));
        assert_eq!(read(None, "/x?lastEventId=nonsense"), Err(InvalidCursor));
    }
}
