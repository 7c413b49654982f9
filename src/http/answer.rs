//! What handlers answer with: things of the domain, and how they are shown. A handler's own type
//! says its statuses and the schemas of what it answers.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

/// Something that is shown as JSON.
pub(super) trait View: Send + 'static {
    /// The shape it is shown in.
    type Json<'a>: Serialize + JsonSchema;
    /// It, in that shape.
    fn json(&self) -> Self::Json<'_>;
}

/// A status, what it means, and the schema of its body; `None`: there is none.
pub(super) type Answered = (StatusCode, &'static str, Option<Schema>);

/// What a handler answers with where all went well.
pub(super) trait Answer: Send {
    /// What it may be.
    fn answered(generator: &mut SchemaGenerator) -> Vec<Answered>;
    /// As a response.
    fn into_response(self) -> Response;
}

/// 200 and what was asked for.
pub(super) struct Shown<V>(pub(super) V);

impl<V: View> Answer for Shown<V> {
    fn answered(generator: &mut SchemaGenerator) -> Vec<Answered> {
        vec![(StatusCode::OK, "What was asked for", schema::<V>(generator))]
    }

    fn into_response(self) -> Response {
        Json(self.0.json()).into_response()
    }
}

/// 201 and what was made.
pub(super) struct Created<V>(pub(super) V);

impl<V: View> Answer for Created<V> {
    fn answered(generator: &mut SchemaGenerator) -> Vec<Answered> {
        let what = "Made, or made before by the same request";
        vec![(StatusCode::CREATED, what, schema::<V>(generator))]
    }

    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0.json())).into_response()
    }
}

/// 201 and what was made, or 200 and what was there before.
pub(super) enum Made<V> {
    New(V),
    Before(V),
}

impl<V: View> Answer for Made<V> {
    fn answered(generator: &mut SchemaGenerator) -> Vec<Answered> {
        vec![
            (StatusCode::OK, "It was there before, and was not changed", schema::<V>(generator)),
            (StatusCode::CREATED, "Made now", schema::<V>(generator)),
        ]
    }

    fn into_response(self) -> Response {
        match self {
            Self::New(view) => Created(view).into_response(),
            Self::Before(view) => Shown(view).into_response(),
        }
    }
}

/// 202 and what will happen.
pub(super) struct Accepted<V>(pub(super) V);

impl<V: View> Answer for Accepted<V> {
    fn answered(generator: &mut SchemaGenerator) -> Vec<Answered> {
        vec![(StatusCode::ACCEPTED, "Stored; it happens now", schema::<V>(generator))]
    }

    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0.json())).into_response()
    }
}

/// 204: it is gone.
pub(super) struct Gone;

impl Answer for Gone {
    fn answered(_: &mut SchemaGenerator) -> Vec<Answered> {
        vec![(StatusCode::NO_CONTENT, "It is gone", None)]
    }

    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

fn schema<V: View>(generator: &mut SchemaGenerator) -> Option<Schema> {
    Some(generator.subschema_for::<V::Json<'static>>())
}
