//! HTTP on what a listener accepts: one task for each connection, bounded in what a request's head
//! may hold and in how long it may take to arrive.
//!
//! The time for a head runs while one is waited for, and at no other time: not while a request is
//! answered, however long that takes (a poll, a stream), and not on a WebSocket. hyper starts it
//! with the connection and again when a response has been written, so a connection that is kept
//! open and asks nothing ends by it, too. Whoever keeps connections to a node has to give them up
//! earlier: a request that crosses with the end is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::io::MonitoredIo;
use super::listener::Listener;
use crate::lifecycle::Tasks;
use crate::telemetry::metrics::{self, Limit};

/// The least and the most that hyper reads ahead of a request, and keeps of a response that is not
/// written: the most unless heads may be larger.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a connection may do before a handler sees it.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The largest head of a request, its line included, in bytes; a larger one, as one of more
    /// than 100 headers, is answered 431.
    pub head_max: usize,
    /// How long a head may take to arrive, and a connection may be without a request. Not zero.
    pub head_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { head_max: 32 * 1024, head_timeout: Duration::from_secs(20) }
    }
}

/// Serves `router` on what `listener` accepts, as tasks of `tasks`, until these are told to stop:
/// then nothing more is accepted, connections without a request end, and the others end with the
/// response that is under way. Each request has `ConnectInfo<Connection>` in its extensions.
pub fn serve(mut listener: Listener, router: Router, options: &HttpOptions, tasks: &Tasks) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_header_size(options.head_max)
        .max_buf_size(options.head_max.max(BUFFER_BYTES));
    let http = Arc::new(http);
    let (own, stop) = (tasks.clone(), tasks.stopping().clone());
    tasks.spawn(async move {
        while let Some(io) = stop.run_until_cancelled(listener.accept()).await {
            own.spawn(connection(http.clone(), io, router.clone(), stop.clone()));
        }
    });
}

/// From the first request to the last, or until a WebSocket has the connection.
async fn connection(
    http: Arc<http1::Builder>,
    io: MonitoredIo,
    router: Router,
    stop: CancellationToken,
) {
    let peer = io.connection().clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        router.clone().call(request.map(Body::new))
    });
    let mut served = http.serve_connection(TokioIo::new(io), answer).with_upgrades();
    drop(http);
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut served).graceful_shutdown();
            (&mut served).await
        }
    };
    let Err(error) = ended else { return };
    if error.is_parse_too_large() {
        metrics::limited(Limit::Headers).increment(1);
    } else if error.is_timeout() && served.into_parts().is_some_and(|it| !it.read_buf.is_empty()) {
        // Without a byte of a request it was idle, which is everybody's right.
        metrics::limited(Limit::HeadersTimeout).increment(1);
    } else {
        tracing::trace!(%error, "a connection ended");
    }
}
