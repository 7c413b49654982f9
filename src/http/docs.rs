//! The OpenAPI and the AsyncAPI document, and a page that shows the former with nothing from
//! elsewhere.

use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;

use super::demo::{file, html};

/// A document, made once at the start.
pub(super) fn document(document: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], document)
}

pub(super) async fn page() -> impl IntoResponse {
    html(include_str!("docs/index.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("docs/docs.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("docs/docs.css"))
}
