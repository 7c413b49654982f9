//! The tower layer around socketioxide's: gives each session its account, binds the WebSocket that
//! carries it, counts and amends polling batches, and refuses the requests of a session that was closed.
//!
//! It goes outside `SocketIoLayer` and inside compression and CORS, so that it sees plain batches
//! and its refusals reach browsers. Requests for other paths pass untouched.
//!
//! Not bounded here, because socketioxide does: the body of a POST (`max_payload`, for the whole
//! body, answered 413) and the packets that a session may have waiting (`max_buffer_size`).
//!
//! Not cured here: a packet that did not fit into a polling batch any more is lost when the session
//! is upgraded before the next one (engineioxide 0.17.9 keeps it aside, and its WebSocket writer
//! does not look there), and stays outstanding for ever. So no more than `max_payload`, less some
//! bytes for its own packets, may be outstanding on a session that is carried by polling.

use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use socketioxide::socket::Sid;
use tower::{Layer, Service, ServiceExt};

use super::amend;
use super::connection::Connection;
use super::eio3;
use super::outbound::Outbound;
use super::polling::{self, Protocol};
use super::request::{Action, PATH, Wanted, speaks_v3};
use super::sessions::{Running, Sessions};
use super::upgrade;

/// What a handshake's response may hold; an open packet has about 120 bytes.
const OPEN_BYTES_MAX: usize = 4_096;

/// What a body of Engine.IO 3 says of itself that is read as binary.
const BINARY: &str = "application/octet-stream";

const UNKNOWN_SID: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const UNSUPPORTED: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;

/// Puts [`TransportService`] around socketioxide's layer. Clones share their sessions; use one
/// per socketioxide layer.
#[derive(Debug, Clone, Default)]
pub struct TransportLayer {
    sessions: Arc<Sessions>,
    eio3: Option<usize>,
}

impl TransportLayer {
    /// A layer that knows no session yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Admits clients of Engine.IO 3, whose POSTs may have this many bytes; `None`: none of them.
    pub fn admitting_eio3(self, payload_max: Option<usize>) -> Self {
        Self { eio3: payload_max, ..self }
    }
}

impl<S> Layer<S> for TransportLayer {
    type Service = TransportService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TransportService { inner, sessions: Arc::clone(&self.sessions), eio3: self.eio3 }
    }
}

/// The service that [`TransportLayer`] makes. The request that opens a session has an
/// `Arc<Outbound>` in its extensions when it reaches the inner service. WebSockets need
/// `ConnectInfo<Connection>` in theirs; without it they are answered HTTP 500.
#[derive(Debug, Clone)]
pub struct TransportService<S> {
    inner: S,
    sessions: Arc<Sessions>,
    eio3: Option<usize>,
}

type Answer<E> = Result<Response<Body>, E>;

impl<S, B> Service<Request<Body>> for TransportService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Answer<S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if self.eio3.is_none() && speaks_v3(&request) {
            return ready(Ok(refusal(UNSUPPORTED))).boxed();
        }
        let Some(wanted) = Wanted::of(&request) else {
            return passed_on(self.inner.call(request)).boxed();
        };
        match wanted {
            Wanted::OpenWebSocket(_) | Wanted::Of { action: Action::Upgrade, .. } => {
                if let Some(refusal) = upgrade::refusal(&request) {
                    return ready(Ok(refusal)).boxed();
                }
            }
            Wanted::OpenPolling(_) | Wanted::Of { .. } => upgrade::forget(&mut request),
        }
        // The one that is ready is used; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        match wanted {
            Wanted::OpenPolling(protocol) => {
                open_polling(inner, protocol, Arc::clone(&self.sessions), request).boxed()
            }
            Wanted::OpenWebSocket(protocol) => open_websocket(inner, protocol, request).boxed(),
            Wanted::Of { sid, action, protocol } => match self.sessions.get(&sid) {
                Some(outbound) => {
                    let eio3 = self.eio3.unwrap_or_default();
                    Session { sid, protocol, outbound, eio3 }.answer(inner, action, request).boxed()
                }
                // Unknown here: unknown to socketioxide too, or opened by WebSocket.
                None if action != Action::Upgrade => passed_on(inner.call(request)).boxed(),
                // Which would answer 101 first.
                None => ready(Ok(refusal(UNKNOWN_SID))).boxed(),
            },
        }
    }
}

/// The session that a request belongs to.
struct Session {
    sid: Sid,
    protocol: Protocol,
    outbound: Arc<Outbound>,
    /// The most bytes of a POST in Engine.IO 3.
    eio3: usize,
}

impl Session {
    async fn answer<S, B>(
        self,
        mut inner: S,
        action: Action,
        request: Request<Body>,
    ) -> Answer<S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.outbound.is_closed() {
            return Ok(self.refuse(inner).await);
        }
        match action {
            Action::Upgrade if self.outbound.begin_upgrade() => {
                upgrade(inner, self.outbound, request).await
            }
            Action::Upgrade => Ok(refusal(BAD_REQUEST)),
            Action::Poll => self.poll(inner, request).await,
            Action::Post => match Running::post(&self.outbound) {
                Some(_running) => match self.readable(request).await {
                    Ok(request) => passed_on(inner.call(request)).await,
                    Err(refusal) => Ok(refusal),
                },
                None => Ok(refusal(BAD_REQUEST)),
            },
        }
    }

    /// A POST in a form that engineioxide reads in a time that follows from its length. One that is
    /// refused closes its session, as there.
    async fn readable(&self, request: Request<Body>) -> Result<Request<Body>, Response<Body>> {
        let binary = request.headers().get(CONTENT_TYPE).is_some_and(|value| value == BINARY);
        if self.protocol != Protocol::V3 || binary {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        match Limited::new(body, self.eio3).collect().await {
            Ok(whole) => Ok(Request::from_parts(parts, eio3::body(whole.to_bytes()))),
            Err(error) => {
                self.outbound.close_transport();
                let too_large = error.is::<LengthLimitError>();
                Err(match too_large {
                    true => status(StatusCode::PAYLOAD_TOO_LARGE),
                    false => refusal(BAD_REQUEST),
                })
            }
        }
    }

    async fn poll<S, B>(self, mut inner: S, request: Request<Body>) -> Answer<S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Some(running) = Running::poll(&self.outbound) else {
            return Ok(refusal(BAD_REQUEST));
        };
        let response = tokio::select! {
            biased;
            response = inner.call(request) => Some(response?),
            () = self.outbound.closed() => None,
        };
        drop(running);
        let Some(response) = response else {
            return Ok(self.refuse(inner).await);
        };
        let (mut parts, body) = response.into_parts();
        let mut batch = match body.collect().await {
            Ok(batch) => batch.to_bytes(),
            Err(error) => return Ok(broken(error.into())),
        };
        if let Some(amended) = amend::batch(&batch, self.protocol, &self.outbound) {
            parts.headers.insert(CONTENT_LENGTH, amended.len().into());
            batch = amended.into();
        }
        Ok(Response::from_parts(parts, polling::counted(batch, self.protocol, self.outbound)))
    }

    /// Says that the session is unknown, and makes it so: socketioxide is told what a client says
    /// that closes its session. Without that it would keep it until the next heartbeat fails.
    async fn refuse<S, B>(self, inner: S) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<B>>,
    {
        let uri =
            format!("{PATH}/?EIO={}&transport=polling&sid={}", self.protocol.parameter(), self.sid);
        let close = Request::post(uri)
            .header(CONTENT_TYPE, "text/plain;charset=UTF-8")
            .body(Body::from(self.protocol.close_batch()));
        match close {
            Ok(close) => drop(inner.oneshot(close).await),
            Err(error) => tracing::error!(%error, "make a closing request"),
        }
        refusal(UNKNOWN_SID)
    }
}

async fn passed_on<B, E>(answer: impl Future<Output = Result<Response<B>, E>>) -> Answer<E>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Ok(answer.await?.map(Body::new))
}

async fn open_polling<S, B>(
    mut inner: S,
    protocol: Protocol,
    sessions: Arc<Sessions>,
    mut request: Request<Body>,
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let outbound = Arc::new(Outbound::speaking(protocol));
    request.extensions_mut().insert(Arc::clone(&outbound));
    let response = inner.call(request).await?;
    if response.status() != StatusCode::OK {
        return Ok(response.map(Body::new));
    }
    let (parts, body) = response.into_parts();
    let open = match Limited::new(body, OPEN_BYTES_MAX).collect().await {
        Ok(open) => open.to_bytes(),
        Err(error) => return Ok(broken(error)),
    };
    match polling::opened_sid(&open) {
        Some(sid) => sessions.insert(sid, &outbound),
        None => {
            tracing::error!("a handshake's response has no sid; its session is not accounted for")
        }
    }
    Ok(Response::from_parts(parts, Body::from(open)))
}

async fn open_websocket<S, B>(
    inner: S,
    protocol: Protocol,
    mut request: Request<Body>,
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let outbound = Arc::new(Outbound::speaking(protocol));
    request.extensions_mut().insert(Arc::clone(&outbound));
    upgrade(inner, outbound, request).await
}

/// The outbound is bound before the response is written, for frames may follow in the same write.
async fn upgrade<S, B>(
    mut inner: S,
    outbound: Arc<Outbound>,
    request: Request<Body>,
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let claim = Claim(Some(outbound));
    let Some(ConnectInfo(connection)) =
        request.extensions().get::<ConnectInfo<Connection>>().cloned()
    else {
        tracing::error!(
            "a WebSocket came without its Connection: is the router served with connect info?"
        );
        return Ok(status(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let response = inner.call(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(outbound) = claim.settle()
    {
        connection.bind_outbound(outbound);
    }
    Ok(response.map(Body::new))
}

/// Gives the session back unless the upgrade was answered.
struct Claim(Option<Arc<Outbound>>);

impl Claim {
    fn settle(mut self) -> Option<Arc<Outbound>> {
        self.0.take()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(outbound) = &self.0 {
            outbound.abandon_upgrade();
        }
    }
}

fn refusal(body: &'static str) -> Response<Body> {
    let mut response = status(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(body);
    response
}

fn broken(error: BoxError) -> Response<Body> {
    tracing::error!(error, "read a polling response");
    status(StatusCode::INTERNAL_SERVER_ERROR)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
