//! Routes, and the OpenAPI 3.1 document of them. A route is added once, as an [`Operation`] and a
//! handler: what the document says of its path, query, body and answers is taken from the types of
//! that very handler, so the two cannot disagree.
//!
//! The usual crates were looked at: `aide` knows this version of `schemars` in pre-releases only,
//! and with `utoipa` each wire type would derive a second description.

use std::future::Future;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Answered};
use super::error;
use super::extract::{Ask, PathArgs, Payload};
use super::page::Bounds;
use super::{HttpError, HttpState};

/// Routes and what is said of them.
pub(super) struct Api {
    router: Router<HttpState>,
    bounds: Bounds,
    paths: Map<String, Value>,
    /// For what is read and what is written, which differ in what may be missing.
    input: SchemaGenerator,
    output: SchemaGenerator,
}

/// What is said of a route that its handler's types do not.
pub(super) struct Operation {
    method: Method,
    path: &'static str,
    tag: &'static str,
    id: &'static str,
    summary: &'static str,
    about: Option<&'static str>,
    refusals: Vec<StatusCode>,
    /// Those that its handler's types do not tell of.
    parameters: Vec<Value>,
    /// Of what it answers with where all went well.
    media_type: &'static str,
    /// Where a token may stand.
    token_in: &'static [&'static str],
}

impl Operation {
    fn new(method: Method, [path, tag, id, summary]: [&'static str; 4]) -> Self {
        let (about, refusals, parameters) = (None, Vec::new(), Vec::new());
        let (media_type, token_in) = ("application/json", &["bearer", "cookie"][..]);
        Self { method, path, tag, id, summary, about, refusals, parameters, media_type, token_in }
    }

    /// Of path, tag, operation id and summary, as the four others.
    pub(super) fn get(said: [&'static str; 4]) -> Self {
        Self::new(Method::GET, said)
    }

    pub(super) fn post(said: [&'static str; 4]) -> Self {
        Self::new(Method::POST, said)
    }

    pub(super) fn put(said: [&'static str; 4]) -> Self {
        Self::new(Method::PUT, said)
    }

    pub(super) fn patch(said: [&'static str; 4]) -> Self {
        Self::new(Method::PATCH, said)
    }

    pub(super) fn delete(said: [&'static str; 4]) -> Self {
        Self::new(Method::DELETE, said)
    }

    /// More about it, in Markdown.
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = Some(about);
        self
    }

    /// A refusal that does not follow from what it takes.
    pub(super) fn may(mut self, status: StatusCode) -> Self {
        self.refusals.push(status);
        self
    }

    /// A header that it takes, of 1 to `max` visible characters.
    pub(super) fn header(self, name: &str, about: &str, max: usize) -> Self {
        let schema = json!({
            "type": "string", "minLength": 1, "maxLength": max, "pattern": "^[!-~]+$",
        });
        self.parameter(json!({
            "name": name, "in": "header", "description": about, "schema": schema,
        }))
    }

    /// A parameter that the handler's types do not tell of, as the document has it.
    pub(super) fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// It answers in another type than JSON.
    pub(super) fn answers_in(mut self, media_type: &'static str) -> Self {
        self.media_type = media_type;
        self
    }

    /// Anybody may ask.
    pub(super) fn public(mut self) -> Self {
        self.token_in = &[];
        self
    }

    /// The token may stand in the query, too.
    pub(super) fn with_token_in_query(mut self) -> Self {
        self.token_in = &["bearer", "query", "cookie"];
        self
    }
}

impl Api {
    /// No routes yet.
    pub(super) fn new(bounds: Bounds) -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            router: Router::new(),
            bounds,
            paths: Map::new(),
            input: settings().for_deserialize().into_generator(),
            output: settings().for_serialize().into_generator(),
        }
    }

    /// Adds a route for authenticated users.
    pub(super) fn add<P, Q, B, A, F>(
        mut self,
        mut operation: Operation,
        handler: impl Fn(Ask<P, Q, B>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        P: PathArgs + Send + 'static,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: Payload + Send + 'static,
        A: Answer + 'static,
        F: Future<Output = Result<A, HttpError>> + Send,
    {
        let mut parameters: Vec<Value> = P::parameters()
            .into_iter()
            .map(|(name, schema)| {
                json!({ "name": name, "in": "path", "required": true, "schema": schema })
            })
            .collect();
        if !parameters.is_empty() {
            operation.refusals.push(StatusCode::NOT_FOUND);
        }
        parameters
            .extend(query_parameters(self.input.subschema_for::<Q>().to_value(), &self.input));
        parameters.iter_mut().for_each(|parameter| self.bounds.say(&mut parameter["schema"]));
        parameters.append(&mut operation.parameters);
        let body = B::schema(&mut self.input);
        if body.is_some() {
            operation.refusals.push(StatusCode::REQUEST_TIMEOUT);
            operation.refusals.push(StatusCode::PAYLOAD_TOO_LARGE);
        }
        operation.refusals.extend([
            StatusCode::BAD_REQUEST,
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
        ]);
        let body = body.map(|schema| {
            json!({ "required": B::IS_REQUIRED, "content": { "application/json": { "schema": schema } } })
        });
        let answered = A::answered(&mut self.output);
        let method = MethodFilter::try_from(operation.method.clone());
        let route = move |State(state): State<HttpState>, request: Request| {
            let handler = handler.clone();
            async move {
                let ask = Ask::<P, Q, B>::read(state, request).await?;
                let ids = ask.path.ids();
                handler(ask).await.map(Answer::into_response).map_err(|error| error.about(ids))
            }
        };
        let route = on(method.expect("every operation has one of the usual methods"), route);
        self.describe(&operation, parameters, body, answered);
        self.router = self.router.route(operation.path, route);
        self
    }

    /// Adds a route whose handler reads the request itself.
    pub(super) fn mount(
        mut self,
        mut operation: Operation,
        route: MethodRouter<HttpState>,
        answered: impl FnOnce(&mut SchemaGenerator) -> Vec<Answered>,
    ) -> Self {
        let answered = answered(&mut self.output);
        let parameters = std::mem::take(&mut operation.parameters);
        self.describe(&operation, parameters, None, answered);
        self.router = self.router.route(operation.path, route);
        self
    }

    /// The routes, and the document as JSON.
    pub(super) fn finish(mut self) -> (Router<HttpState>, Bytes) {
        self.output.subschema_for::<error::Body<'static>>();
        let mut schemas = self.output.take_definitions(true);
        schemas.append(&mut self.input.take_definitions(true));
        let responses: Map<String, Value> =
            REFUSALS.iter().map(|refusal| (refusal.name.to_owned(), refusal.response())).collect();
        let document = json!({
            "openapi": "3.1.0",
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "info": {
                "title": "tokencast",
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "MIT OR Apache-2.0" },
                "description": ABOUT,
            },
            "servers": [{ "url": "/" }],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "responses": responses,
                "securitySchemes": {
                    "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                    "cookie": { "type": "apiKey", "in": "cookie", "name": "access_token" },
                    "query": { "type": "apiKey", "in": "query", "name": "token" },
                },
            },
        });
        (self.router, Bytes::from(document.to_string()))
    }

    fn describe(
        &mut self,
        operation: &Operation,
        parameters: Vec<Value>,
        body: Option<Value>,
        answered: Vec<Answered>,
    ) {
        let mut responses = Map::new();
        for (status, about, schema) in answered {
            let mut response = json!({ "description": about });
            if let Some(schema) = schema {
                response["content"] = json!({ operation.media_type: { "schema": schema } });
            }
            responses.insert(status.as_str().to_owned(), response);
        }
        for refusal in REFUSALS {
            if operation.refusals.contains(&refusal.status) {
                let reference = format!("#/components/responses/{}", refusal.name);
                responses.insert(refusal.status.as_str().to_owned(), json!({ "$ref": reference }));
            }
        }
        let security = operation.token_in.iter().map(|place| json!({ *place: [] }));
        let mut described = json!({
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "parameters": parameters,
            "responses": responses,
            "security": security.collect::<Vec<_>>(),
        });
        if let Some(about) = operation.about {
            described["description"] = about.into();
        }
        if let Some(body) = body {
            described["requestBody"] = body;
        }
        let path = self.paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_lowercase()] = described;
    }
}

/// Each property of the query's type is a parameter.
fn query_parameters(schema: Value, generator: &SchemaGenerator) -> Vec<Value> {
    let name = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()).unwrap_or_default();
    let Some(object) = generator.definitions().get(name) else { return Vec::new() };
    let required = |name: &str| {
        object["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name))
    };
    let properties = object["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            // A parameter that is there is a text, never null.
            if let Some(types) = schema["type"].as_array() {
                schema["type"] = types[0].clone();
            }
            json!({
                "name": name, "in": "query", "required": required(name),
                "description": about, "schema": schema,
            })
        })
        .collect()
}

/// A way to be refused.
struct Refusal {
    status: StatusCode,
    name: &'static str,
    about: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, name: &'static str, about: &'static str) -> Self {
        Self { status, name, about }
    }

    fn response(&self) -> Value {
        let schema = json!({ "$ref": "#/components/schemas/ErrorBody" });
        let mut response = json!({
            "description": self.about,
            "content": { "application/json": { "schema": schema } },
        });
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response["headers"] = json!({ "Retry-After": {
                "description": "When to try again, in seconds.",
                "schema": { "type": "integer", "minimum": 0 },
            } });
        }
        response
    }
}

const REFUSALS: &[Refusal] = &[
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "Invalid",
        "`INVALID`: the wrong shape, size or values; the message names the field.",
    ),
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "`AUTH_ERROR`: no token, or none that holds.",
    ),
    Refusal::new(
        StatusCode::FORBIDDEN,
        "Forbidden",
        "`FORBIDDEN`: not the caller's to change; an `Origin` that is not allowed; or a form's POST by cookie.",
    ),
    Refusal::new(
        StatusCode::NOT_FOUND,
        "NotFound",
        "`NOT_FOUND`: no such thing, or not the caller's to see: the two are indistinguishable.",
    ),
    Refusal::new(StatusCode::CONFLICT, "Conflict", "`INVALID`: the id is taken."),
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "TooSlow",
        "`INVALID`: the body took too long to arrive.",
    ),
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "TooLarge",
        "`INVALID`: the body is larger than 1 MiB.",
    ),
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Refused",
        "`MODERATION_FAILED`: the content was refused.",
    ),
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooMany", "`RATE_LIMIT`: too many requests."),
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Internal",
        "`INTERNAL_ERROR`: logged under the id in the message.",
    ),
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Overloaded", "`OVERLOADED`: try again later."),
];

/// What the document says first.
const ABOUT: &str = "Sessions and messages over REST. What is changed here is heard by sockets as \
    if it had come over a socket.\n\nErrors are `{ \"error\": { \"code\", \"message\", … } }`: \
    `code` is stable. A thing that is not the caller's to see does not exist for them.";
