//! The tower layer around socketioxide's: gives each session its account, binds the WebSocket that
//! carries it, counts and amends polling batches, and refuses the requests of a session that was closed.
//!
//! It goes outside `SocketIoLayer` and inside compression and CORS, so that it sees plain batches
//! and its refusals reach browsers. Requests for other paths pass untouched.
//!
//! Bounded here: how many sessions are nobody's yet (the oldest goes for one more), and how many an address behind a trusted proxy
//! has, at the handshake; a session's requests at a time; the body of a POST, in size and in time:
//! it is read before socketioxide sees it, which would wait for it for ever. Not bounded here,
//! because socketioxide does: the packets that a session may have waiting (`max_buffer_size`).
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
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use socketioxide::socket::Sid;
use tower::{Layer, Service, ServiceExt};

use super::amend;
use super::connection::Connection;
use super::eio3;
use super::handshakes::Ousted;
use super::options::TransportOptions;
use super::outbound::Outbound;
use super::polling::{self, Protocol};
use super::request::{Action, PATH, Wanted, speaks_v3};
use super::sessions::{Running, Sessions};
use super::upgrade;
use crate::telemetry::metrics::{self, Limit};

/// What a handshake's response may hold; an open packet has about 120 bytes.
const OPEN_BYTES_MAX: usize = 4_096;

/// What a body of Engine.IO 3 says of itself that is read as binary.
const BINARY: &str = "application/octet-stream";

const UNKNOWN_SID: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const UNSUPPORTED: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
const TOO_MANY: &str = r#"{"code":4,"message":"Too many connections"}"#;

/// Puts [`TransportService`] around socketioxide's layer. Clones share their sessions; use one
/// per socketioxide layer.
#[derive(Debug, Clone, Default)]
pub struct TransportLayer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    sessions: Sessions,
    options: TransportOptions,
}

impl TransportLayer {
    /// A layer that knows no session yet.
    pub fn new(options: TransportOptions) -> Self {
        Self { shared: Arc::new(Shared { sessions: Sessions::default(), options }) }
    }
}

impl<S> Layer<S> for TransportLayer {
    type Service = TransportService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TransportService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service that [`TransportLayer`] makes. The request that opens a session has an
/// `Arc<Outbound>` in its extensions when it reaches the inner service. WebSockets need
/// `ConnectInfo<Connection>` in theirs; without it they are answered HTTP 500.
#[derive(Debug, Clone)]
pub struct TransportService<S> {
    inner: S,
    shared: Arc<Shared>,
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
        if !self.shared.options.eio3 && speaks_v3(&request) {
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
                open_polling(inner, protocol, Arc::clone(&self.shared), request).boxed()
            }
            Wanted::OpenWebSocket(protocol) => match self.shared.options.open(&request, protocol) {
                Ok((outbound, ousted)) => open_websocket(inner, outbound, ousted, request).boxed(),
                Err(limit) => refused(limit).boxed(),
            },
            Wanted::Of { sid, action, protocol } => match self.shared.sessions.get(&sid) {
                Some(outbound) => {
                    let shared = Arc::clone(&self.shared);
                    Session { sid, protocol, outbound, shared }
                        .answer(inner, action, request)
                        .boxed()
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
    shared: Arc<Shared>,
}

impl Session {
    async fn answer<S, B>(
        self,
        inner: S,
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
                Some(running) => self.post(inner, running, request).await,
                None => Ok(refusal(BAD_REQUEST)),
            },
        }
    }

    /// One whose body cannot be had ends the session: what its client said is lost.
    async fn post<S, B>(
        self,
        mut inner: S,
        running: Running,
        request: Request<Body>,
    ) -> Answer<S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let binary = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == BINARY);
        let answer = match self.shared.options.body_of(body).await {
            Ok(body) => {
                let closes = self.protocol.closes(&body);
                // In a form that engineioxide reads in a time that follows from its length.
                let body = match self.protocol == Protocol::V3 && !binary {
                    true => eio3::body(body),
                    false => Body::from(body),
                };
                let request = Request::from_parts(head, body);
                let answer = passed_on(inner.call(request)).await?;
                // Refused, it closes nothing: of a session that a WebSocket carries, for one.
                if closes && answer.status() == StatusCode::OK {
                    self.outbound.carrier_ended();
                }
                return Ok(answer);
            }
            Err(answer) => answer,
        };
        drop(running);
        drop(self.refuse(inner).await);
        Ok(status(answer))
    }

    async fn poll<S, B>(self, mut inner: S, request: Request<Body>) -> Answer<S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Some(running) = Running::poll(&self.outbound, self.shared.options.polls_max) else {
            metrics::limited(Limit::Polls).increment(1);
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
        end(inner, self.sid, self.protocol).await;
        refusal(UNKNOWN_SID)
    }
}

/// Lets socketioxide forget a session that polling carries.
async fn end<S, B>(inner: S, sid: Sid, protocol: Protocol)
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    let uri = format!("{PATH}/?EIO={}&transport=polling&sid={sid}", protocol.parameter());
    let close = Request::post(uri)
        .header(CONTENT_TYPE, "text/plain;charset=UTF-8")
        .body(Body::from(protocol.close_batch()));
    match close {
        Ok(close) => drop(inner.oneshot(close).await),
        Err(error) => tracing::error!(%error, "make a closing request"),
    }
}

/// Ends the session that has to make room for another. Not before the end of this is anything else
/// waited for, so that it is carried out also where the other's client goes at once.
async fn oust<S, B>(inner: S, ousted: Option<Ousted>)
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    let Some(Ousted { outbound, sid }) = ousted else { return };
    metrics::limited(Limit::Handshakes).increment(1);
    outbound.close_transport();
    if let Some(sid) = sid {
        end(inner, sid, outbound.protocol()).await;
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
    shared: Arc<Shared>,
    mut request: Request<Body>,
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (outbound, ousted) = match shared.options.open(&request, protocol) {
        Ok(opened) => opened,
        Err(limit) => return refused(limit).await,
    };
    oust(inner.clone(), ousted).await;
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
        Some(sid) => {
            shared.sessions.insert(sid, &outbound);
            if !outbound.called(sid) {
                end(inner, sid, protocol).await;
                return Ok(refusal(UNKNOWN_SID));
            }
        }
        None => {
            tracing::error!("a handshake's response has no sid; its session is not accounted for")
        }
    }
    Ok(Response::from_parts(parts, Body::from(open)))
}

async fn open_websocket<S, B>(
    inner: S,
    outbound: Arc<Outbound>,
    ousted: Option<Ousted>,
    mut request: Request<Body>,
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    oust(inner.clone(), ousted).await;
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

/// A session is not opened. Stock clients take that for a failure of the transport, and try again.
async fn refused<E>(limit: Limit) -> Answer<E> {
    metrics::limited(limit).increment(1);
    let mut response = refusal(TOO_MANY);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
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
