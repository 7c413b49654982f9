//! An HTTP server on loopback that stands for a provider's own, and says what a test tells it to.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt;
use futures::stream;
use http::request::Parts;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// A request's head and its JSON.
pub type Asked = (Parts, Value);
type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;
type Answer = Arc<dyn Fn(Asked) -> Answering + Send + Sync>;

/// Runs until it is dropped.
pub struct Upstream {
    base_url: String,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Upstream {
    /// A server on a free port that gives each request what `answer` says.
    #[expect(clippy::disallowed_methods, reason = "aborted on drop")]
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let answer: Answer = Arc::new(move |asked| Box::pin(answer(asked)));
        let router = Router::new().fallback(handle).with_state(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let listener = listener.tap_io(move |io| {
            io.set_nodelay(true).expect("a new connection takes options");
            count.fetch_add(1, Ordering::Relaxed);
        });
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it never ends by itself");
        });
        Self { base_url, connections, server }
    }

    pub fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// How many were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Tells that it was dropped.
pub struct OnDrop(pub UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        // Nobody listens any more once the test is over.
        let _ = self.0.send(());
    }
}

/// A stream of events.
pub fn events(body: Body) -> Response {
    let response = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    response.body(body).expect("the head is well-formed")
}

/// `bytes` in HTTP chunks as `cut` says: `none`, `single` (a byte each), or where to cut in two.
/// A client reads no two chunks at once.
pub fn pieces(bytes: &[u8], cut: &str) -> Body {
    let pieces: Vec<&[u8]> = match cut {
        "none" => vec![bytes],
        "single" => bytes.chunks(1).collect(),
        at => {
            let (head, tail) = bytes.split_at(at.parse().expect("a cut is a number"));
            vec![head, tail]
        }
    };
    let pieces: Vec<_> = pieces
        .into_iter()
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    Body::from_stream(stream::iter(pieces))
}

async fn handle(State(answer): State<Answer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a request has a body");
    let body = serde_json::from_slice(&body).expect("a request is JSON");
    answer((head, body)).await
}
