//! The account of what one Engine.IO session still has to be sent, and the switch that ends what
//! carries it.
//!
//! Bytes are those of event packets as Engine.IO sees them (`42/chat,["name",{…}]`), without
//! framing: the same for a WebSocket frame and for a packet of a polling batch. The account
//! outlives a change of transport; during the probe of an upgrade both transports count.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socketioxide::socket::Sid;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::addresses::AddressSlot;
use super::connection::{Connection, WeakConnection};
use super::handshakes::{Handshakes, Ousted, Place};
use super::polling::Protocol;
use super::sessions::InFlight;
use crate::telemetry::metrics::{self, Limit};

/// The longest pid that is taken.
const PID_BYTES_MAX: usize = 64;

/// What a session is carried by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Polling requests; also while an upgrade is asked for but not yet answered.
    Polling,
    /// A WebSocket: from its `101` response on, so also during the probe of an upgrade, when
    /// polling requests may still take packets.
    WebSocket,
}

/// The session's transport has ended or was closed; nothing more will be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session's transport is closed")]
pub struct Closed;

/// One Engine.IO session's account. Found in the extensions of the request that opened the
/// session, as `Arc<Outbound>`.
#[derive(Default)]
pub struct Outbound {
    queued: AtomicU64,
    written: AtomicU64,
    closed: AtomicBool,
    carrier: Mutex<Carrier>,
    /// How many futures wait for `changed`: with none, counting costs no lock.
    waiting: AtomicUsize,
    changed: Notify,
    pid: Mutex<Option<Pid>>,
    is_v3: bool,
    pub(super) in_flight: InFlight,
    /// Until the session is admitted somewhere.
    handshake: Mutex<Option<Box<Handshake>>>,
    connects: AtomicU32,
    admissions: AtomicU32,
    /// Its place among those of its client's address, where a proxy said which that is.
    _address: Option<Box<AddressSlot>>,
}

/// A session that is nobody's yet.
struct Handshake {
    place: Place,
    /// When socketioxide gives it up.
    ends_at: Instant,
}

#[derive(Default)]
enum Carrier {
    #[default]
    Polling,
    Upgrading,
    WebSocket(WeakConnection),
}

/// What the CONNECT of one namespace carries.
struct Pid {
    namespace: Box<str>,
    pid: Box<str>,
}

impl Outbound {
    /// Whether its client speaks Engine.IO 3, and so Socket.IO's protocol 4.
    pub(super) fn is_v3(&self) -> bool {
        self.is_v3
    }

    pub(super) fn protocol(&self) -> Protocol {
        if self.is_v3 { Protocol::V3 } else { Protocol::V4 }
    }

    /// The account of a session that has just been opened; socketioxide ends it unless it is
    /// admitted `within` that time. It is one of `handshakes` until then, and holds `address` until
    /// its end. And the session that has to make room for it. `None`: too many are kept.
    pub(super) fn open(
        protocol: Protocol,
        handshakes: &Arc<Handshakes>,
        within: Duration,
        address: Option<AddressSlot>,
    ) -> Option<(Arc<Self>, Option<Ousted>)> {
        let mut outbound = Self::default();
        outbound.is_v3 = protocol == Protocol::V3;
        outbound._address = address.map(Box::new);
        let outbound = Arc::new(outbound);
        let (place, ousted) = handshakes.begin(&outbound)?;
        let handshake = Handshake { place, ends_at: Instant::now() + within };
        *outbound.handshake() = Some(Box::new(handshake));
        Some((outbound, ousted))
    }

    /// Says what socketioxide calls it, before its client knows. `false`: it has had to make room
    /// meanwhile.
    pub(super) fn called(&self, sid: Sid) -> bool {
        self.handshake().as_ref().is_none_or(|handshake| handshake.place.called(sid))
    }

    /// The session is somebody's from now on: its handshake is over.
    pub fn admitted(&self) {
        drop(self.handshake().take());
        self.admissions.fetch_add(1, SeqCst);
    }

    /// The session asks to be admitted. How often it has.
    pub fn connects(&self) -> u32 {
        self.connects.fetch_add(1, SeqCst).saturating_add(1)
    }

    /// How often the session was admitted.
    pub fn admissions(&self) -> u32 {
        self.admissions.load(SeqCst)
    }

    /// Lets every CONNECT of `namespace` (`/chat`; `/` is the root's) that goes out from now on carry
    /// `pid`, so that its client asks to be recovered when it reconnects. A connect middleware says
    /// it, before CONNECT is sent. A later one replaces it, whatever its namespace: one that was
    /// left may be joined again, in the same Engine.IO session.
    ///
    /// A pid is up to 64 characters of base64url. With anything else, as with `""`, CONNECT goes out
    /// without.
    pub fn set_pid(&self, namespace: &str, pid: &str) {
        let is_pid = (1..=PID_BYTES_MAX).contains(&pid.len())
            && pid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        *self.pid_slot() = is_pid.then(|| Pid { namespace: namespace.into(), pid: pid.into() });
    }

    /// The pid of this namespace, where it has one.
    pub(super) fn pid(&self, namespace: &[u8]) -> Option<String> {
        let slot = self.pid_slot();
        let Pid { namespace: of, pid } = slot.as_ref()?;
        (of.as_bytes() == namespace).then(|| pid.to_string())
    }

    /// Adds a packet of `bytes` that socketioxide's queue has taken. It may be called before or
    /// after the emit: a packet may be written before it is counted here.
    pub fn queued(&self, bytes: u64) {
        self.queued.fetch_add(bytes, SeqCst);
    }

    /// Bytes that were queued and not yet written: handed to the kernel where a WebSocket carries
    /// the session, handed to the HTTP response where polling does.
    pub fn outstanding(&self) -> u64 {
        // In this order a race shows too much, never too little.
        let written = self.written.load(SeqCst);
        self.queued.load(SeqCst).saturating_sub(written)
    }

    /// Waits until at most `below` bytes are outstanding.
    ///
    /// # Errors
    /// [`Closed`] once the transport is closed while more than that is outstanding.
    ///
    /// # Cancel safety
    /// Safe. Any number of callers may wait; no wake-up is lost.
    pub async fn drained(&self, below: u64) -> Result<(), Closed> {
        self.wait_until(|outbound| outbound.outstanding() <= below || outbound.is_closed()).await;
        if self.outstanding() <= below { Ok(()) } else { Err(Closed) }
    }

    /// Ends what carries the session, without a word to the client, so that a stock client
    /// reconnects by itself: a WebSocket's connection is closed; a pending poll, and every later
    /// request of this session, is answered HTTP 400 "Session ID unknown". What is queued and not
    /// written is lost: wait for [`Outbound::drained`] where it matters. Idempotent.
    pub fn close_transport(&self) {
        self.closed.store(true, SeqCst);
        let connection = match &*self.carrier() {
            Carrier::WebSocket(connection) => connection.upgrade(),
            Carrier::Polling | Carrier::Upgrading => None,
        };
        if let Some(connection) = connection {
            connection.close();
        }
        self.notify();
    }

    /// Whether the transport was closed, by [`Outbound::close_transport`] or because the WebSocket
    /// that carried the session has ended. A polling client that stays away is not noticed here.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Waits until [`Outbound::is_closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) {
        self.wait_until(Self::is_closed).await;
    }

    /// What carries the session now.
    pub fn transport(&self) -> Transport {
        match &*self.carrier() {
            Carrier::Polling | Carrier::Upgrading => Transport::Polling,
            Carrier::WebSocket(_) => Transport::WebSocket,
        }
    }

    /// Counts event bytes that left.
    pub(super) fn written(&self, bytes: u64) {
        self.written.fetch_add(bytes, SeqCst);
        self.notify();
    }

    /// Claims the session for one upgrade. `false` where another has it, or a WebSocket already
    /// carries it: a session gets one WebSocket in its life.
    pub(super) fn begin_upgrade(&self) -> bool {
        let mut carrier = self.carrier();
        let free = matches!(*carrier, Carrier::Polling) && !self.is_closed();
        if free {
            *carrier = Carrier::Upgrading;
        }
        free
    }

    /// The upgrade came to nothing before its response was written; another may be tried.
    pub(super) fn abandon_upgrade(&self) {
        *self.carrier() = Carrier::Polling;
    }

    /// From now on this WebSocket carries the session.
    pub(super) fn carried_by(&self, connection: &Connection) {
        *self.carrier() = Carrier::WebSocket(connection.downgrade());
        if self.is_closed() {
            connection.close();
        }
    }

    /// The WebSocket that carried the session is gone, or its client said by polling that it goes;
    /// and with it, in socketioxide, the session.
    pub(super) fn carrier_ended(&self) {
        if !self.closed.swap(true, SeqCst) {
            self.count_late();
        }
        self.notify();
    }

    /// Counts the end of a session that was nobody's for too long.
    fn count_late(&self) {
        if self.handshake().as_ref().is_some_and(|handshake| handshake.ends_at <= Instant::now()) {
            metrics::limited(Limit::ConnectTimeout).increment(1);
        }
    }

    fn handshake(&self) -> MutexGuard<'_, Option<Box<Handshake>>> {
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carrier(&self) -> MutexGuard<'_, Carrier> {
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid_slot(&self) -> MutexGuard<'_, Option<Pid>> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        // Sequential consistency between the change, this load, and the waiter's announcement and
        // second look: at least one of the two sides sees the other.
        if self.waiting.load(SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    async fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        if holds(self) {
            return;
        }
        let _waiting = Waiting::announce(&self.waiting);
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("outstanding", &self.outstanding())
            .field("closed", &self.is_closed())
            .field("transport", &self.transport())
            .finish()
    }
}

/// Counted while a future waits, also when it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn announce(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // socketioxide keeps one until its time is up, also one whose client has gone before.
        if !self.is_closed() {
            self.count_late();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;
    use std::time::Duration;

    use futures::{FutureExt, poll};

    use super::*;
    use crate::lifecycle::Tasks;

    #[tokio::test]
    async fn drained_waits_for_the_bytes_and_no_longer() {
        let outbound = Outbound::default();
        assert_eq!(outbound.drained(0).now_or_never(), Some(Ok(())));
        outbound.queued(100);
        let mut drained = pin!(outbound.drained(10));
        assert!(poll!(drained.as_mut()).is_pending());
        outbound.written(89);
        assert!(poll!(drained.as_mut()).is_pending());
        outbound.written(1);
        assert_eq!(poll!(drained.as_mut()), Poll::Ready(Ok(())));
        assert_eq!(outbound.outstanding(), 10);
    }

    #[tokio::test]
    async fn written_may_come_before_queued() {
        let outbound = Outbound::default();
        outbound.written(7);
        assert_eq!(outbound.outstanding(), 0);
        outbound.queued(7);
        assert_eq!(outbound.outstanding(), 0);
        outbound.queued(1);
        assert_eq!(outbound.outstanding(), 1);
    }

    #[tokio::test]
    async fn closing_ends_the_wait() {
        let outbound = Outbound::default();
        outbound.queued(1);
        let mut drained = pin!(outbound.drained(0));
        assert!(poll!(drained.as_mut()).is_pending());
        outbound.close_transport();
        outbound.close_transport();
        assert_eq!(drained.await, Err(Closed));
        assert_eq!(outbound.drained(1).await, Ok(()));
    }

    #[tokio::test]
    async fn a_dropped_wait_leaves_nothing_behind() {
        let outbound = Outbound::default();
        outbound.queued(1);
        assert_eq!(outbound.drained(0).now_or_never(), None);
        assert_eq!(outbound.waiting.load(SeqCst), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_threads() {
        let tasks = Tasks::new();
        for round in 0..2_000 {
            let outbound = Arc::new(Outbound::default());
            outbound.queued(3);
            let writer = Arc::clone(&outbound);
            tasks.spawn(async move {
                for _ in 0..3 {
                    writer.written(1);
                }
            });
            tokio::time::timeout(Duration::from_secs(5), outbound.drained(0))
                .await
                .unwrap_or_else(|_| panic!("woken in round {round}"))
                .unwrap();
        }
    }

    #[test]
    fn a_pid_is_base64url_of_bounded_length() {
        let outbound = Outbound::default();
        let pid = |namespace: &str| outbound.pid(namespace.as_bytes());
        assert_eq!(pid("/chat"), None);
        for taken in ["a", "azAZ09-_", &"x".repeat(64)] {
            outbound.set_pid("/chat", taken);
            assert_eq!(pid("/chat").as_deref(), Some(taken));
        }
        assert_eq!([pid("/"), pid(""), pid("/cha"), pid("/chat/")], [const { None }; 4]);
        for wrong in ["", "a b", "a\"", "a+", "a/", "a=", "é", "a\u{1e}", &"x".repeat(65)] {
            outbound.set_pid("/chat", "former");
            outbound.set_pid("/chat", wrong);
            assert_eq!(pid("/chat"), None, "{wrong}");
        }
        outbound.set_pid("/chat", "former");
        outbound.set_pid("/", "later");
        assert_eq!((pid("/chat"), pid("/").as_deref()), (None, Some("later")));
    }

    #[test]
    fn one_upgrade_at_a_time() {
        let outbound = Outbound::default();
        assert!(outbound.begin_upgrade());
        assert!(!outbound.begin_upgrade());
        outbound.abandon_upgrade();
        assert!(outbound.begin_upgrade());
    }
}
