//! Whether a stream is opened: whose token it is, which session, and where it starts.

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::stream::{self, Place, Wanted};
use crate::auth::{Opening, TokenKind, find_token};
use crate::chat::Caller;
use crate::domain::{Cursor, Error, InvalidCursor, SessionId};
use crate::http::{HttpError, HttpState};
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
    head: Parts,
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
    let token = find_token(None, &head);
    let claims = state.verifier.verify_opening(token.as_deref(), opening).await?;
    let about = |error: Error| {
        let named = named.clone().map(|id| ("sessionId", id));
        HttpError::from(error).about(named.into_iter().collect())
    };
    let missing = || Error::invalid("session is missing");
    let session = session.map_err(|_| about(Error::not_found("session")))?.ok_or_else(missing)?;
    let broken = |_| Error::invalid("Last-Event-ID is no id of an event");
    let after = after.map_err(broken)?;
    let place = Place { _slot: state.sse.shared.slot()?, _address: address.flatten() };
    let ends = state.sse.shared.options.expires_after.filter(|_| claims.kind == TokenKind::Normal);
    let expires_at = ends.map(|leeway| Instant::now() + claims.holds_for(leeway));
    let caller = Caller { user: claims.user, name: claims.name };
    let wanted = Wanted { caller, session, after, place, connection, expires_at };
    let events = stream::open(&state.sse.shared, wanted).await.map_err(about)?;
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(events)).into_response())
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
