//! A socket as the hub sees it: a reader that takes frames as long as its peer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socketioxide::extract::SocketRef;
use socketioxide::{SendError, SocketError};
use tokio::sync::Notify;

use super::{Edge, NAMESPACE};
use crate::dialect::{DialectIndex, Frame};
use crate::domain::UserId;
use crate::hub::{Offer, Reader, ReaderId};
use crate::net::Outbound;
use crate::telemetry::metrics;

pub(super) struct Outlet {
    id: ReaderId,
    user: UserId,
    dialect: DialectIndex,
    socket: SocketRef,
    outbound: Arc<Outbound>,
    edge: Arc<Edge>,
    slow: AtomicBool,
    became_slow: Notify,
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
        if self.outbound.drained(self.edge.options.outbound_max / 2).await.is_err() {
            // Nothing will ever drain it; the disconnect is on its way.
            std::future::pending::<()>().await;
        }
        if self.slow.swap(false, Ordering::AcqRel) {
            metrics::handles().slow_sockets.decrement(1.0);
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

    fn full(&self) -> Offer {
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
            return self.full();
        }
        for (sent, frame) in frames.iter().enumerate() {
            match self.emit(frame) {
                Ok(()) => {}
                Err(SendError::Socket(SocketError::InternalChannelFull)) if sent == 0 => {
                    return self.full();
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
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.slow.load(Ordering::Acquire) {
            metrics::handles().slow_sockets.decrement(1.0);
        }
    }
}
