//! Errors as HTTP answers: the fitting status, and `{ "error": E }`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::dialect::wire::ErrorJson;
use crate::domain::{Error, ErrorCode};

/// An error on its way out over HTTP.
#[derive(Debug)]
pub struct HttpError {
    error: Error,
    status: StatusCode,
    /// What it is about: names and ids, as in `sessionId`.
    about: Vec<(&'static str, String)>,
}

impl HttpError {
    /// The same error under another status than its code's.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same error, saying what it is about.
    pub fn about(mut self, ids: Vec<(&'static str, String)>) -> Self {
        self.about = ids;
        self
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Self { status: status(error.code), error, about: Vec::new() }
    }
}

/// What every answer that is no success holds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
pub(super) struct Body<'a> {
    error: ErrorJson<'a>,
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut error = ErrorJson::new(&self.error, None);
        for (name, id) in &self.about {
            error = error.about(name, id);
        }
        let mut response = (self.status, Json(Body { error })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(after) = self.error.retry_after {
            let seconds = after.as_millis().div_ceil(1000);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Auth => StatusCode::UNAUTHORIZED,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::RateLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::ModerationFailed => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Provider => StatusCode::BAD_GATEWAY,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) async fn not_found() -> HttpError {
    Error::not_found("route").into()
}

/// axum adds `Allow`.
pub(super) async fn method_not_allowed() -> HttpError {
    HttpError::from(Error::invalid("This route does not take that method"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}
