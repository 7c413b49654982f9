//! One socket: its place on the node, and the task that carries out its commands in order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use serde_json::value::RawValue;
use socketioxide::extract::SocketRef;
use socketioxide::socket::DisconnectReason;
use socketioxide::{TransportType, adapter::LocalAdapter};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Packet};
use super::outlet::Outlet;
use super::{Edge, NAMESPACE};
use crate::chat::{Attendance, Caller, Visit};
use crate::dialect::{DialectIndex, Greeting, wire};
use crate::domain::{Error, Timestamp};
use crate::hub::Reader;
use crate::net::Outbound;
use crate::telemetry::metrics::{connected as connected_gauge, connects, disconnects};

/// The most characters of an event's name that an error repeats.
const NAME_CHARS_SHOWN: usize = 64;

/// What the middleware prepares and the connect handler takes.
#[derive(Clone)]
struct Seat(Arc<Mutex<Option<Prepared>>>);

struct Prepared {
    caller: Caller,
    attendance: Attendance,
    outlet: Arc<Outlet>,
    commands: mpsc::Receiver<Packet<LocalAdapter>>,
    closed: CancellationToken,
}

/// Prepares a socket's place. From now on its events are queued; nothing can be sent to it yet.
pub(super) fn seat(
    edge: &Arc<Edge>,
    socket: &SocketRef,
    caller: Caller,
    attendance: Attendance,
    dialect: DialectIndex,
) {
    let outbound = socket
        .req_parts()
        .extensions
        .get::<Arc<Outbound>>()
        .cloned()
        .expect("the transport layer stands before socketioxide and gives every session one");
    let outlet =
        Arc::new(Outlet::new(edge.clone(), socket.clone(), outbound, caller.user.clone(), dialect));
    let (queue, commands) = mpsc::channel(edge.options.command_queue);
    let closed = CancellationToken::new();

    let (own, refusing) = (edge.clone(), Arc::downgrade(&outlet));
    let refuse = move |packet: Packet<LocalAdapter>, error: Error| {
        let event = packet.read().map(|(event, _)| event).unwrap_or_default();
        if let Some(outlet) = refusing.upgrade() {
            refused(&own, &outlet, dialect, &event, packet.ack, &error);
        }
    };
    socket.on_fallback(Inbox { queue, refuse });

    let gone = closed.clone();
    socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
        disconnects(NAMESPACE, reason_label(reason)).increment(1);
        gone.cancel();
        // Where the connect handler never ran, what waits for it would keep the socket.
        socket.extensions.remove::<Seat>();
    });
    let prepared = Prepared { caller, attendance, outlet, commands, closed };
    socket.extensions.insert(Seat(Arc::new(Mutex::new(Some(prepared)))));
}

/// CONNECT is on its way: greets the socket and starts its task.
pub(super) fn connected(edge: &Arc<Edge>, socket: &SocketRef) {
    let Some(Seat(seat)) = socket.extensions.remove::<Seat>() else { return };
    let prepared = seat.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(prepared) = prepared else { return };
    connects(NAMESPACE).increment(1);
    let stop = edge.tasks.stopping().clone();
    let (own, socket) = (edge.clone(), socket.clone());
    edge.tasks.spawn(async move {
        let dialect = prepared.outlet.dialect();
        own.open.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::new(&own, socket, prepared, dialect);
        session.greet();
        stop.run_until_cancelled(session.run()).await;
        session.end().await;
        own.open.fetch_sub(1, Ordering::Relaxed);
    });
}

struct Session<'a> {
    edge: &'a Arc<Edge>,
    socket: SocketRef,
    dialect: DialectIndex,
    outlet: Arc<Outlet>,
    commands: mpsc::Receiver<Packet<LocalAdapter>>,
    closed: CancellationToken,
    caller: Caller,
    visit: Option<Visit>,
    shown_as: (TransportType, Gauge),
}

impl<'a> Session<'a> {
    fn new(
        edge: &'a Arc<Edge>,
        socket: SocketRef,
        prepared: Prepared,
        dialect: DialectIndex,
    ) -> Self {
        let Prepared { caller, attendance, outlet, commands, closed } = prepared;
        let visit = edge.chat.arrive(caller.clone(), outlet.clone(), attendance);
        let transport = socket.transport_type();
        let gauge = gauge(edge, transport, dialect);
        gauge.increment(1.0);
        let shown_as = (transport, gauge);
        Self {
            edge,
            socket,
            dialect,
            outlet,
            commands,
            closed,
            caller,
            visit: Some(visit),
            shown_as,
        }
    }

    fn greet(&self) {
        let id = self.socket.id.to_string();
        let greeting = Greeting {
            user: self.caller.user.as_str(),
            socket: &id,
            node: &self.edge.options.node.to_string(),
            now: Timestamp::now(),
            recovered: false,
        };
        if let Some(frame) = self.edge.dialects.get(self.dialect).greet(greeting) {
            self.outlet.send(&frame);
        }
    }

    /// Carries out commands until the socket closes, the node drains, or its time is up.
    async fn run(&mut self) {
        let end_of_age = Instant::now() + self.edge.options.age_max;
        loop {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                () = self.edge.draining.cancelled() => return self.go_away().await,
                () = self.outlet.drained() => {
                    if let Some(visit) = &self.visit {
                        self.edge.chat.resume(visit);
                    }
                }
                () = self.outlet.room(), if !self.outlet.has_room() => {}
                Some(packet) = self.commands.recv(), if self.outlet.has_room() => {
                    self.carry_out(packet).await;
                }
                () = sleep_until(end_of_age) => {
                    self.outlet.send(&self.edge.dialects.get(self.dialect).timeout());
                    self.outlet.close_transport();
                    return;
                }
            }
        }
    }

    async fn carry_out(&mut self, packet: Packet<LocalAdapter>) {
        self.show_transport();
        let (event, command) = match packet.read() {
            Ok((event, args)) => {
                let dialect = self.edge.dialects.get(self.dialect);
                let command = args.and_then(|args| dialect.decode(&event, &args));
                (event, command)
            }
            Err(error) => (String::new(), Err(error)),
        };
        self.edge.received.of(&event).increment(1);
        let Some(visit) = &mut self.visit else { return };
        let done = match command {
            Ok(command) => self.edge.chat.execute(visit, command).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(done) => {
                let answer = self.edge.dialects.get(self.dialect).answer(&done.reply);
                acknowledge(packet.ack, &answer.ack);
                for frame in &answer.frames {
                    self.outlet.send(frame);
                }
                if let Some(waiting) = done.waiting {
                    self.edge.chat.go_live(visit, waiting);
                }
            }
            Err(error) => {
                refused(self.edge, &self.outlet, self.dialect, &event, packet.ack, &error);
            }
        }
    }

    /// Says goodbye, and closes at a moment of this socket's own.
    async fn go_away(&mut self) {
        let spread = self.edge.options.drain_spread;
        let share = self
            .socket
            .id
            .to_string()
            .bytes()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)))
            % 1000;
        let wait: Duration = spread * share / 1000;
        self.outlet.send(&self.edge.dialects.get(self.dialect).shutdown(wait));
        let close_at = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                () = sleep_until(close_at) => return self.outlet.close_transport(),
                () = self.outlet.drained() => {
                    if let Some(visit) = &self.visit {
                        self.edge.chat.resume(visit);
                    }
                }
                Some(packet) = self.commands.recv() => self.carry_out(packet).await,
            }
        }
    }

    /// Counts the socket under the transport it has now.
    fn show_transport(&mut self) {
        let transport = self.socket.transport_type();
        if transport as u8 != self.shown_as.0 as u8 {
            self.shown_as.1.decrement(1.0);
            self.shown_as = (transport, gauge(self.edge, transport, self.dialect));
            self.shown_as.1.increment(1.0);
        }
    }

    async fn end(&mut self) {
        self.shown_as.1.decrement(1.0);
        if let Some(visit) = self.visit.take() {
            self.edge.chat.depart(visit).await;
        }
    }
}

fn gauge(edge: &Edge, transport: TransportType, dialect: DialectIndex) -> Gauge {
    let transport = match transport {
        TransportType::Websocket => "websocket",
        TransportType::Polling => "polling",
    };
    connected_gauge(transport, edge.dialects.get(dialect).name())
}

type Ack = Option<socketioxide::extract::AckSender<LocalAdapter>>;

fn acknowledge(ack: Ack, json: &RawValue) {
    if let Some(ack) = ack {
        // Full or closed: there is nobody to tell.
        let _ = ack.send(json);
    }
}

/// Tells a client why its command was not carried out: through the acknowledgement where it asked
/// for one, else as the dialect's error event.
fn refused(
    edge: &Edge,
    outlet: &Outlet,
    dialect: DialectIndex,
    event: &str,
    ack: Ack,
    error: &Error,
) {
    let event: String = event.chars().take(NAME_CHARS_SHOWN).collect();
    match ack {
        Some(ack) => acknowledge(Some(ack), &wire::failed(&event, error)),
        None => outlet.send(&edge.dialects.get(dialect).error(&event, error)),
    }
}

fn reason_label(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::MultipleHttpPollingError => "multiple_polls",
        DisconnectReason::PacketParsingError => "parse_error",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClientNSDisconnect => "client_disconnect",
        DisconnectReason::ServerNSDisconnect => "server_disconnect",
        DisconnectReason::ClosingServer => "server_closing",
    }
}
