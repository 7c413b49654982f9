//! A socket as the hub sees it: a reader that takes frames as long as its peer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socketioxide::extract::SocketRef;
use socketioxide::{SendError, SocketError};
use tokio::sync::Notify;

use super::{Edge, NAMESPACE};
use crate::dialect::{DialectIndex, Frame};
use crate::domain::{SessionId, UserId};
use crate::hub::{Offer, Reader, ReaderId};
use crate::net::Outbound;
use crate::telemetry::metrics;

/// How long a reader whose packet queue was full is left alone.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Outlet {
    id: ReaderId,
    user: UserId,
    dialect: DialectIndex,
    socket: SocketRef,
    outbound: Arc<Outbound>,
    edge: Arc<Edge>,
    slow: AtomicBool,
    became_slow: Notify,
    /// At most this much may be outstanding for what was refused to fit.
    room_at: AtomicU64,
    /// socketioxide's own queue was full; it says nothing when it drains.
    queue_full: AtomicBool,
}

impl Outlet {
    pub(super) fn new(
        edge: Arc<Edge>,
        socket: SocketRef,
        outbound: Arc<Outbound>,
        user: UserId,
        dialect: DialectIndex,
    ) -> Self {
        let id = ReaderId(edge.readers.fetch_add(1, Ordering::Relaxed));
        Self {
            id,
            user,
            dialect,
            socket,
            outbound,
            edge,
            slow: AtomicBool::new(false),
            became_slow: Notify::new(),
            room_at: AtomicU64::new(0),
            queue_full: AtomicBool::new(false),
        }
    }

    /// Waits until the socket was slow and can take more again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn drained(&self) {
        while !self.slow.load(Ordering::Acquire) {
            self.became_slow.notified().await;
        }
        if self.outbound.drained(self.room_at.load(Ordering::Acquire)).await.is_err() {
            // Nothing will ever drain it; the disconnect is on its way.
            std::future::pending::<()>().await;
        }
        if self.queue_full.swap(false, Ordering::AcqRel) {
            tokio::time::sleep(QUEUE_FULL_PAUSE).await;
        }
        if self.slow.swap(false, Ordering::AcqRel) {
            metrics::handles().slow_sockets.decrement(1.0);
        }
    }

    /// Whether it may be given answers to commands; where not, [`Outlet::room`] waits for it.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.outstanding() <= self.edge.options.outbound_max
    }

    /// Waits until it has room again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn room(&self) {
        if self.outbound.drained(self.edge.options.outbound_max / 2).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends the connection so that a stock client comes back by itself.
    pub(super) fn close_transport(&self) {
        self.outbound.close_transport();
    }

    /// Sends a frame past the account, for the few that every socket has room for.
    pub(super) fn send(&self, frame: &Frame) {
        // Full or closed: there is nobody to tell.
        let _ = self.emit(frame);
    }

    fn emit(&self, frame: &Frame) -> Result<(), SendError> {
        self.socket.emit(frame.event, &*frame.payload)?;
        let bytes = frame.packet_bytes(NAMESPACE);
        self.outbound.queued(bytes);
        self.edge.sent.of(frame.event).increment(1);
        metrics::handles().sent_bytes.increment(bytes);
        Ok(())
    }

    fn full(&self, bytes: u64) -> Offer {
        let max = self.edge.options.outbound_max;
        self.room_at.store(max.saturating_sub(bytes).min(max / 2), Ordering::Release);
        if !self.slow.swap(true, Ordering::AcqRel) {
            metrics::handles().slow_sockets.increment(1.0);
        }
        self.became_slow.notify_one();
        Offer::Full
    }
}

impl Reader for Outlet {
    fn id(&self) -> ReaderId {
        self.id
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn dialect(&self) -> DialectIndex {
        self.dialect
    }

    fn offer(&self, frames: &[Frame]) -> Offer {
        let bytes: u64 = frames.iter().map(|frame| frame.packet_bytes(NAMESPACE)).sum();
        let outstanding = self.outbound.outstanding();
        if outstanding > 0 && outstanding + bytes > self.edge.options.outbound_max {
            return self.full(bytes);
        }
        for (sent, frame) in frames.iter().enumerate() {
            match self.emit(frame) {
                Ok(()) => {}
                Err(SendError::Socket(SocketError::InternalChannelFull)) if sent == 0 => {
                    self.queue_full.store(true, Ordering::Release);
                    return self.full(0);
                }
                Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                    // A part of them is on its way: only a new connection can be right again.
                    self.close();
                    return Offer::Gone;
                }
                Err(_) => return Offer::Gone,
            }
        }
        Offer::Taken
    }

    fn close(&self) {
        self.close_transport();
    }

    fn revoke(&self, _session: &SessionId) {
        todo!()
    }

    fn disconnect(&self) {
        todo!()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.slow.load(Ordering::Acquire) {
            metrics::handles().slow_sockets.decrement(1.0);
        }
    }
}
