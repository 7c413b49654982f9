//! The Socket.IO edge: namespace `/chat` on socketioxide.
//!
//! socketioxide spawns a task for each event it hands over, so that events overtake each other,
//! and says when a connection begins only after its first event may have come. Here, handlers are
//! registered before CONNECT is sent, an event is put into its socket's bounded queue on the
//! reading path, and one task per socket carries them out in order. A socket speaks one dialect,
//! settled once: by the handshake, or by its first event that a dialect has.
//!
//! It knows Socket.IO and the dialects; what a command does is `chat`'s business.

mod allowance;
mod due;
mod flood;
mod handshake;
mod inbox;
mod line;
mod lobby;
mod outlet;
mod place;
mod places;
mod recovery;
mod root;
mod socket;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::layer::SocketIoLayer;
use tokio_util::sync::CancellationToken;

use self::handshake::NotAdmitted;
use crate::auth::Verifier;
use crate::chat::Chat;
use crate::dialect::{DialectIndex, Dialects};
use crate::domain::NodeId;
use crate::lifecycle::Tasks;
use crate::net::Slots;
use crate::telemetry::metrics::EventCounters;

/// The one namespace.
pub const NAMESPACE: &str = "/chat";
/// Where Engine.IO is served.
pub const PATH: &str = "/socket.io";

/// The most packets in a socket's queue; [`SocketOptions::outbound_max`] is met long before. A
/// small queue that is full during an upgrade stalls it for ten seconds.
const PACKETS_MAX: usize = 4096;
/// How often one connection may ask to be let into the namespace: stock clients ask once, and each
/// time costs a token's verification and what it takes to count a user's connections.
const CONNECTS_MAX: u32 = 100;
/// How long a socket may take to close once it was told to.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// How sockets behave. All bounds are per socket, but for `slots`.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// This node.
    pub node: NodeId,
    /// What a socket speaks that does not say so, and whose first event several dialects have.
    pub default_dialect: DialectIndex,
    /// What a socket speaks that came without a token and says by an event who it is; `None`: no
    /// socket is admitted without one.
    pub tokenless_dialect: Option<DialectIndex>,
    /// How often a client is pinged.
    pub ping_interval: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
    /// The most bytes of one message from a client.
    pub payload_max: usize,
    /// The most event bytes that are handed over and not written; beyond it the socket is slow. A
    /// slow one may have less.
    pub outbound_max: u64,
    /// The most commands waiting to be carried out; further ones are refused.
    pub command_queue: usize,
    /// The most events a second, of whatever name; further ones are refused. 0: no limit.
    pub events_max: u32,
    /// Whether connections are recovered whose clients come back soon.
    pub recovers: bool,
    /// Whether clients of Engine.IO 3 are admitted; the transport layer is told so, too.
    pub eio3: bool,
    /// The age at which a connection is closed; its client comes back by itself.
    pub age_max: Duration,
    /// How long after its token's end a connection is closed for good; `None`: not for that.
    pub expires_after: Option<Duration>,
    /// How long a client may take from the handshake to its place in the namespace, and there to
    /// say who it is.
    pub connect_timeout: Duration,
    /// The most binary attachments an event may announce; no event of ours has any.
    pub binaries_max: usize,
    /// The connections of this node, SSE streams among them.
    pub slots: Arc<Slots>,
    /// Over what time sockets are closed when the node drains.
    pub drain_spread: Duration,
}

/// What all sockets of a node share.
struct Edge {
    chat: Chat,
    verifier: Arc<Verifier>,
    dialects: Dialects,
    options: SocketOptions,
    tasks: Tasks,
    draining: CancellationToken,
    readers: AtomicU64,
    received: EventCounters,
    sent: EventCounters,
}

/// The Socket.IO edge of a node.
pub struct SocketEdge {
    edge: Arc<Edge>,
    /// Serves [`PATH`].
    pub layer: SocketIoLayer,
}

impl SocketEdge {
    /// Sockets that ask `chat`.
    pub fn new(
        chat: Chat,
        verifier: Arc<Verifier>,
        dialects: Dialects,
        options: SocketOptions,
    ) -> Self {
        let (layer, io) = SocketIo::builder()
            .req_path(PATH)
            .ping_interval(options.ping_interval)
            .ping_timeout(options.ping_timeout)
            .connect_timeout(options.connect_timeout)
            .max_buffer_size(PACKETS_MAX)
            .max_payload(options.payload_max as u64)
            .ws_max_message_size(options.payload_max)
            .ws_max_frame_size(options.payload_max)
            .ws_read_buffer_size(4 * 1024)
            .with_parser(
                socketioxide::ParserConfig::common()
                    .max_incoming_binary_buf_size(options.payload_max)
                    .max_incoming_binaries(options.binaries_max),
            )
            .build_layer();
        let tasks = Tasks::new();
        let edge = Arc::new(Edge {
            received: EventCounters::received(NAMESPACE, &dialects.commands()),
            sent: EventCounters::sent(NAMESPACE, &dialects.shown()),
            chat,
            verifier,
            dialects,
            options,
            tasks,
            draining: CancellationToken::new(),
            readers: AtomicU64::new(0),
        });
        let (admitting, greeting) = (edge.clone(), edge.clone());
        let admit = async move |socket: SocketRef, TryData(auth): TryData<Value>| {
            handshake::admit(&admitting, &socket, auth.ok()).await.map_err(NotAdmitted::to_client)
        };
        let connected = async move |socket: SocketRef| socket::connected(&greeting, &socket);
        io.ns(NAMESPACE, connected.with(admit));
        if edge.options.eio3 {
            root::serve(&io, edge.clone());
        }
        Self { edge, layer }
    }

    /// Tells every socket that the node shuts down and closes them over `drain_spread`, in a way
    /// after which stock clients come back by themselves; further ones are told so too. Answers
    /// when all are gone.
    pub async fn drain(&self) {
        self.edge.draining.cancel();
        if !self.edge.tasks.finished(self.edge.options.drain_spread + CLOSED_WITHIN).await {
            self.edge.tasks.shutdown(CLOSED_WITHIN).await;
        }
    }

    /// How many sockets there are.
    pub fn open(&self) -> usize {
        self.edge.tasks.len()
    }
}
