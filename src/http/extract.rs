//! What a request asks: its path, query and body, each read by its type, whose JSON Schema is also
//! what the document says of it.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::{HeaderMap, StatusCode, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::auth::{authenticate, is_json};
use super::{HttpError, HttpState};
use crate::auth::Claims;
use crate::chat::Caller;
use crate::domain::ids::InvalidId;
use crate::domain::{AttachmentId, Error, GenerationId, MessageId, SessionId, UserId};
use crate::telemetry::metrics;

/// A request of an authenticated user, read.
pub(super) struct Ask<P = (), Q = NoQuery, B = NoBody> {
    pub(super) state: HttpState,
    pub(super) caller: Caller,
    pub(super) claims: Claims,
    pub(super) headers: HeaderMap,
    pub(super) path: P,
    pub(super) query: Q,
    pub(super) body: B,
}

impl<P: PathArgs, Q: DeserializeOwned, B: Payload> Ask<P, Q, B> {
    /// Reads the request: first who asks, so that nobody else learns more.
    pub(super) async fn read(state: HttpState, request: Request) -> Result<Self, HttpError> {
        let (mut head, body) = request.into_parts();
        let claims = authenticate(&state, &mut head).await?;
        let path = RawPathParams::from_request_parts(&mut head, &state).await;
        let ids: Vec<_> = path.iter().flatten().map(|(_, id)| id.to_owned()).collect();
        let path = P::read(&ids).map_err(|error| {
            let names = P::parameters().into_iter().map(|(name, _)| name);
            HttpError::from(error).about(names.zip(ids).collect())
        })?;
        let query = query(&head.uri)?;
        let headers = head.headers.clone();
        let body = B::read(Request::from_parts(head, body), &state).await?;
        let caller = Caller { user: claims.user.clone(), name: claims.name.clone() };
        Ok(Self { state, caller, claims, headers, path, query, body })
    }
}

/// An id that stands in a path. One that cannot exist does not.
pub(super) trait PathId: FromStr<Err = InvalidId> + ToString {
    /// As in `sessionId`.
    const NAME: &'static str;
    /// As in "No such session".
    const WHAT: &'static str;

    /// What it looks like.
    fn schema() -> Value {
        json!({ "type": "string", "format": "uuid" })
    }
}

impl PathId for SessionId {
    const NAME: &'static str = "sessionId";
    const WHAT: &'static str = "session";

    fn schema() -> Value {
        json!({ "type": "string", "pattern": SESSION_ID_PATTERN })
    }
}

impl PathId for UserId {
    const NAME: &'static str = "userId";
    const WHAT: &'static str = "user";

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 256 })
    }
}

impl PathId for MessageId {
    const NAME: &'static str = "messageId";
    const WHAT: &'static str = "message";
}

impl PathId for AttachmentId {
    const NAME: &'static str = "attachmentId";
    const WHAT: &'static str = "attachment";
}

impl PathId for GenerationId {
    const NAME: &'static str = "streamId";
    const WHAT: &'static str = "stream";
}

/// What a session's id looks like.
pub(super) const SESSION_ID_PATTERN: &str = "^[A-Za-z0-9._:-]{1,128}$";

/// The ids of a path, in its order.
pub(super) trait PathArgs: Sized {
    fn read(ids: &[String]) -> Result<Self, Error>;
    /// Names and schemas.
    fn parameters() -> Vec<(&'static str, Value)>;
    /// Names and ids.
    fn ids(&self) -> Vec<(&'static str, String)>;
}

impl PathArgs for () {
    fn read(_: &[String]) -> Result<Self, Error> {
        Ok(())
    }

    fn parameters() -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    fn ids(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl<T: PathId> PathArgs for T {
    fn read(ids: &[String]) -> Result<Self, Error> {
        let id = ids.first().map(String::as_str).unwrap_or_default();
        id.parse().map_err(|_| Error::not_found(T::WHAT))
    }

    fn parameters() -> Vec<(&'static str, Value)> {
        vec![(T::NAME, T::schema())]
    }

    fn ids(&self) -> Vec<(&'static str, String)> {
        vec![(T::NAME, self.to_string())]
    }
}

impl<A: PathId, B: PathId> PathArgs for (A, B) {
    fn read(ids: &[String]) -> Result<Self, Error> {
        Ok((A::read(ids)?, B::read(ids.get(1..).unwrap_or_default())?))
    }

    fn parameters() -> Vec<(&'static str, Value)> {
        [A::parameters(), B::parameters()].concat()
    }

    fn ids(&self) -> Vec<(&'static str, String)> {
        [self.0.ids(), self.1.ids()].concat()
    }
}

/// No parameters.
#[derive(Deserialize, JsonSchema)]
pub(super) struct NoQuery {}

fn query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, Error> {
    let Query(query) = Query::try_from_uri(uri).map_err(|rejection| {
        let text = rejection.body_text();
        Error::invalid(text.trim_start_matches("Failed to deserialize query string: "))
    })?;
    Ok(query)
}

/// A request's body.
pub(super) trait Payload: Sized {
    fn read(
        request: Request,
        state: &HttpState,
    ) -> impl Future<Output = Result<Self, HttpError>> + Send;
    /// `None`: there is none.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// Whether a request without one is refused.
    const IS_REQUIRED: bool = true;
}

/// No body; one that is there is not read.
pub(super) struct NoBody;

impl Payload for NoBody {
    async fn read(_: Request, _: &HttpState) -> Result<Self, HttpError> {
        Ok(Self)
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
}

/// A body that is a JSON object.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + JsonSchema> Payload for Body<T> {
    async fn read(request: Request, state: &HttpState) -> Result<Self, HttpError> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        object(&whole_body(request, state.body_timeout).await?).map(Self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
}

/// A body that is a JSON object; none, or an empty one, is the default.
pub(super) struct MaybeBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default + JsonSchema> Payload for MaybeBody<T> {
    async fn read(request: Request, state: &HttpState) -> Result<Self, HttpError> {
        let is_json = is_json(request.headers());
        let bytes = whole_body(request, state.body_timeout).await?;
        match bytes.is_empty() {
            true => Ok(Self(T::default())),
            false if is_json => object(&bytes).map(Self),
            false => Err(not_json()),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }

    const IS_REQUIRED: bool = false;
}

fn not_json() -> HttpError {
    Error::invalid("Content-Type must be application/json").into()
}

fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HttpError> {
    let invalid = |what: String| Error::invalid(format!("The body: {what}"));
    // An object first: an array of its fields' values would do for the derived types.
    let object: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
    serde_path_to_error::deserialize(Value::Object(object))
        .map_err(|error| invalid(error.to_string()).into())
}

/// A body, whole.
///
/// # Errors
/// What is to be said where it is too large, too late, or broke off.
pub(super) async fn whole_body(request: Request, within: Duration) -> Result<Bytes, HttpError> {
    let arriving = tokio::time::timeout(within, Bytes::from_request(request, &()));
    arriving.await.map_err(|_| late_body())?.map_err(|rejection| {
        let error = HttpError::from(Error::invalid("The body is too large, or broke off"));
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                metrics::limited(metrics::Limit::Body).increment(1);
                error.with_status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            _ => error,
        }
    })
}

/// A body that did not arrive in time.
pub(super) fn late_body() -> HttpError {
    metrics::limited(metrics::Limit::BodyTimeout).increment(1);
    let error = HttpError::from(Error::invalid("The body took too long to arrive"));
    error.with_status(StatusCode::REQUEST_TIMEOUT)
}

/// A message that a body names.
#[derive(Clone, Copy)]
pub(super) struct MessageRef(pub(super) MessageId);

impl<'de> Deserialize<'de> for MessageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("must be a UUID"))
    }
}

impl JsonSchema for MessageRef {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MessageRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uuid" })
    }
}

/// A message that a query may name; an empty parameter names none.
#[derive(Default)]
pub(super) struct MaybeMessage(pub(super) Option<MessageId>);

impl<'de> Deserialize<'de> for MaybeMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|id| Self(Some(id))).map_err(|_| D::Error::custom("must be a UUID"))
    }
}

impl JsonSchema for MaybeMessage {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MaybeMessage".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string", "format": "uuid" }, { "const": "" }] })
    }
}

/// Takes `null` for a value of its own, where a missing field is `None`.
pub(super) fn or_null<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// An id that a field of the body names.
///
/// # Errors
/// `INVALID`, naming the field.
pub(super) fn id<T: FromStr<Err = InvalidId>>(field: &str, text: &str) -> Result<T, Error> {
    let refused = |error: InvalidId| Error::invalid(format!("{field} must be {}", error.rule()));
    text.parse().map_err(refused)
}

/// The same, where the field may be missing.
///
/// # Errors
/// As [`id`].
pub(super) fn optional_id<T>(field: &str, text: Option<String>) -> Result<Option<T>, Error>
where
    T: FromStr<Err = InvalidId>,
{
    text.map(|text| id(field, &text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_not_waited_for() {
        let chunks = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(axum::body::Body::from_stream(chunks));
        let refused = whole_body(request, Duration::from_secs(20)).await;
        let response = axum::response::IntoResponse::into_response(refused.unwrap_err());
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
