//! The handle of one TCP connection: who it is, how much was written, and the switch that ends it.
//! The IO itself belongs to hyper, later to the WebSocket; this is what others may hold of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use futures::task::AtomicWaker;

use super::listener::ConnectionCounts;
use super::outbound::Outbound;

/// One TCP connection. In a handler of what [`super::serve`] serves: `ConnectInfo<Connection>`.
/// Clones are the same connection.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

/// Does not keep the account of the connection's session alive.
pub(super) struct WeakConnection(Weak<Shared>);

struct Shared {
    peer: SocketAddr,
    written: AtomicU64,
    closed: AtomicBool,
    /// Those who wait in a read, and in a write, to be woken by a close.
    reader: AtomicWaker,
    writer: AtomicWaker,
    outbound: OnceLock<Arc<Outbound>>,
    counts: Arc<ConnectionCounts>,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, counts: Arc<ConnectionCounts>) -> Self {
        Self(Arc::new(Shared {
            peer,
            written: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            outbound: OnceLock::new(),
            counts,
        }))
    }

    /// The address at the other end of the TCP connection: a proxy's, where there is one.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Bytes that the kernel has taken for this connection, heads and framing included.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Ends the connection: a pending and every later read finds its end, writes fail, whoever
    /// waits in either is woken, and so hyper or the WebSocket drops it. What the kernel already
    /// has may still be sent. Idempotent.
    pub fn close(&self) {
        if !self.0.closed.swap(true, Ordering::SeqCst) {
            self.0.reader.wake();
            self.0.writer.wake();
        }
    }

    /// Whether it was closed from this side, or dropped.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Counts the frames that follow the next `101` response on this connection for `outbound`.
    /// Call it before that response is written; only the first call counts.
    pub(super) fn bind_outbound(&self, outbound: Arc<Outbound>) {
        let bound = self.0.outbound.get_or_init(|| outbound);
        bound.carried_by(self);
    }

    pub(super) fn outbound(&self) -> Option<&Outbound> {
        self.0.outbound.get().map(Arc::as_ref)
    }

    pub(super) fn add_written(&self, bytes: usize) {
        self.0.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn reader(&self) -> &AtomicWaker {
        &self.0.reader
    }

    pub(super) fn writer(&self) -> &AtomicWaker {
        &self.0.writer
    }

    pub(super) fn counts(&self) -> &ConnectionCounts {
        &self.0.counts
    }

    pub(super) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.0))
    }
}

impl WeakConnection {
    pub(super) fn upgrade(&self) -> Option<Connection> {
        self.0.upgrade().map(Connection)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("written", &self.written())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
