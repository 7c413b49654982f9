//! A socket as the hub sees it: a reader that takes frames as long as its peer does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socketioxide::extract::SocketRef;
use socketioxide::{ProtocolVersion, SendError, SocketError};
use tokio::sync::Notify;

use super::allowance::Allowance;
use super::due::Due;
use super::line::{Line, offset_bytes};
use super::places::Places;
use super::{CLOSED_WITHIN, NAMESPACE};
use crate::dialect::{DialectIndex, Frame, offset};
use crate::domain::{SessionId, UserId};
use crate::hub::{Offer, Reader, ReaderId, Stand};
use crate::telemetry::metrics;

/// How long a reader whose packet queue was full is left alone.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(50);
/// The most revocations that wait to be told; with one more, the connection is closed.
const REVOCATIONS_MAX: usize = 1024;

pub(super) struct Outlet {
    id: ReaderId,
    user: UserId,
    line: Line,
    socket: SocketRef,
    client: Option<Client>,
    /// Whether its client is told where it stands: those of protocol 4 would hand that to the
    /// frontend's handlers, as one more argument.
    tells_places: bool,
    /// Held while events are sent that change it, so that the last one tells the truth.
    places: Mutex<Places>,
    allowance: Allowance,
    slow: AtomicBool,
    became_slow: Notify,
    /// At most this much may be outstanding for what was refused to fit.
    room_at: AtomicU64,
    /// socketioxide's own queue was full; it says nothing when it drains.
    queue_full: AtomicBool,
    /// Sessions that the hub took it out of, and its task has not yet heard of.
    revocations: Mutex<VecDeque<SessionId>>,
    has_revocations: Notify,
    /// Where it goes on from the store.
    pub(super) behind: Due,
    disconnecting: AtomicBool,
}

/// Whose connection it is, where that can be recovered.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// What its client shows when it comes back.
    pub pid: String,
    /// This connection, and no other.
    pub connection: String,
}

impl Outlet {
    pub(super) fn new(
        line: Line,
        socket: SocketRef,
        user: UserId,
        client: Option<Client>,
        places: Places,
    ) -> Self {
        let allowance = Allowance::new(line.edge.options.outbound_max);
        let is_old = socket.protocol() == ProtocolVersion::V4;
        let tells_places = line.edge.dialects.has_offsets() && !is_old;
        Self {
            id: ReaderId(line.edge.readers.fetch_add(1, Ordering::Relaxed)),
            user,
            line,
            socket,
            client,
            tells_places,
            places: Mutex::new(places),
            allowance,
            slow: AtomicBool::new(false),
            became_slow: Notify::new(),
            room_at: AtomicU64::new(0),
            queue_full: AtomicBool::new(false),
            revocations: Mutex::default(),
            has_revocations: Notify::new(),
            behind: Due::default(),
            disconnecting: AtomicBool::new(false),
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
        if self.line.outbound.drained(self.room_at.load(Ordering::Acquire)).await.is_err() {
            // Nothing will ever drain it; the disconnect is on its way.
            std::future::pending::<()>().await;
        }
        if self.queue_full.swap(false, Ordering::AcqRel) {
            tokio::time::sleep(QUEUE_FULL_PAUSE).await;
        }
        self.allowance.drained();
        if self.slow.swap(false, Ordering::AcqRel) {
            metrics::handles().slow_sockets.decrement(1.0);
        }
    }

    /// Waits for a session that the socket may not see any more. Each is given once, in order.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn revoked(&self) -> SessionId {
        loop {
            if let Some(session) = self.revocations().pop_front() {
                return session;
            }
            self.has_revocations.notified().await;
        }
    }

    fn revocations(&self) -> MutexGuard<'_, VecDeque<SessionId>> {
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the client nothing more, and tells it nothing of where it stands: it comes back with
    /// what it has.
    pub(super) fn ends(&self) {
        *self.places() = Places::ended();
    }

    /// It is in a session no more, nor does it go on there.
    pub(super) fn gives_up(&self, session: &SessionId) {
        self.change_places(|places| places.give_up(session));
    }

    /// Tells the client where it stands, where no event has done that.
    pub(super) fn tell_place(&self) {
        self.change_places(|_| {});
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_places(&self, change: impl FnOnce(&mut Places)) {
        if !self.tells_places {
            return;
        }
        let mut places = self.places();
        change(&mut places);
        let Some(offset) = places.untold() else { return };
        match self.line.emit_at(&self.socket, &offset::told(&offset), &offset) {
            Ok(()) => places.tells(&offset),
            // What it has is not true any more: it must not come back with that.
            Err(SendError::Socket(SocketError::InternalChannelFull)) => self.close(),
            Err(_) => {}
        }
    }

    fn emit(&self, places: &mut Places, frame: &Frame) -> Result<(), SendError> {
        let own = frame.cursor.as_ref().filter(|_| self.tells_places);
        let Some((own, offset)) = own.and_then(|own| Some((own, places.with(own)?))) else {
            return self.line.emit(&self.socket, frame);
        };
        self.line.emit_at(&self.socket, frame, &offset)?;
        places.moved(own, &offset);
        Ok(())
    }

    fn close(&self) {
        // So that a stock client comes back by itself.
        self.line.outbound.close_transport();
    }

    fn full(&self, bytes: u64) -> Offer {
        let max = self.allowance.bytes();
        self.allowance.refused();
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
        self.line.spoken()
    }

    fn offer(&self, frames: &[Frame]) -> Offer {
        let mut places = self.places();
        if places.has_ended() {
            // It would come without its offset, and so once more on the next connection.
            return Offer::Gone;
        }
        let bytes: u64 = frames.iter().map(bytes).sum();
        let outstanding = self.line.outbound.outstanding();
        if outstanding > 0 && outstanding + bytes > self.allowance.bytes() {
            return self.full(bytes);
        }
        for (sent, frame) in frames.iter().enumerate() {
            match self.emit(&mut places, frame) {
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

    fn fell_behind(&self, session: &SessionId) {
        self.behind.add(session);
    }

    fn stands(&self, session: &SessionId, stand: Stand<'_>) {
        match stand {
            Stand::Joining => self.change_places(|places| places.join(session)),
            Stand::At(cursor) => {
                let at = offset::of(self.dialect(), session, cursor);
                self.places().settle(session, at.into());
            }
            Stand::Past(cursor) => {
                let at = offset::of(self.dialect(), session, cursor);
                self.change_places(|places| places.settle(session, at.into()));
            }
            Stand::Left => self.change_places(|places| places.leave(session)),
        }
    }

    fn came_back(&self, client: &str, by: &str) {
        let own = self.client.as_ref().filter(|own| own.pid == client && own.connection != by);
        if own.is_some() {
            self.close();
        }
    }

    fn revoke(&self, session: &SessionId) {
        let mut revocations = self.revocations();
        if revocations.contains(session) {
            return;
        }
        if revocations.len() >= REVOCATIONS_MAX {
            // It cannot be told: a new connection finds out for itself.
            return self.close();
        }
        revocations.push_back(session.clone());
        self.has_revocations.notify_one();
    }

    fn disconnect(&self) {
        if self.disconnecting.swap(true, Ordering::AcqRel) {
            return;
        }
        // Said here, since the socket's own task may be busy, and ends with this.
        let (socket, outbound) = (self.socket.clone(), self.line.outbound.clone());
        let mut told = said_disconnect(&socket);
        self.line.edge.tasks.spawn(async move {
            let leaving = async {
                while !told {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                    told = said_disconnect(&socket);
                }
                outbound.closed().await;
            };
            // A stock client closes what carries it by itself; others may not, or read nothing.
            let _ = tokio::time::timeout(CLOSED_WITHIN, leaving).await;
            outbound.close_transport();
        });
    }
}

/// About how many bytes a frame's packet has; the offset of a socket in several sessions is longer.
fn bytes(frame: &Frame) -> u64 {
    frame.packet_bytes(NAMESPACE) + frame.cursor.as_deref().map_or(0, offset_bytes)
}

/// Tells the client to go and not to come back by itself. `false`: there is no room for it.
fn said_disconnect(socket: &SocketRef) -> bool {
    socket.clone().disconnect().is_ok()
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.slow.load(Ordering::Acquire) {
            metrics::handles().slow_sockets.decrement(1.0);
        }
    }
}
