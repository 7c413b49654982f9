//! One socket: its place on the node, and the task that carries out its commands in order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use socketioxide::extract::SocketRef;
use socketioxide::socket::{DisconnectReason, Socket};
use socketioxide::{TransportType, adapter::LocalAdapter};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::flood::Flood;
use super::inbox::{Inbox, Packet};
use super::line::{Line, acknowledge};
use super::outlet::Outlet;
use super::{Edge, NAMESPACE};
use crate::chat::{Attendance, Caller, Visit};
use crate::dialect::{DialectIndex, Greeting};
use crate::domain::{Error, SessionId, Timestamp};
use crate::telemetry::metrics::{connected as connected_gauge, connects, disconnects};

/// What the middleware prepares and the connect handler takes. Where that never runs, since the
/// client is gone, socketioxide drops the socket and this with it: it must not hold the socket.
#[derive(Clone)]
struct Seat(Arc<Mutex<Option<Prepared>>>);

struct Prepared {
    caller: Caller,
    attendance: Attendance,
    line: Line,
    commands: mpsc::Receiver<Packet<LocalAdapter>>,
    closed: CancellationToken,
}

/// Prepares a socket's place. From now on its events are queued; nothing can be sent to it yet.
pub(super) fn seat(socket: &SocketRef, line: Line, caller: Caller, attendance: Attendance) {
    let options = &line.edge.options;
    let (queue, commands) = mpsc::channel(options.command_queue);
    let flood = Mutex::new(Flood::new(options.events_max));
    let own = line.clone();
    let refuse =
        move |socket: &Socket<LocalAdapter>, packet: Packet<LocalAdapter>, error: Error| {
            let (event, ids) = packet.skim();
            own.edge.received.of(&event).increment(1);
            // Who reads nothing is told nothing: what waits for it stays bounded.
            if own.has_room() {
                own.refuse(socket, packet.ack, &event, &ids, &error);
            }
        };
    socket.on_fallback(Inbox { queue, flood, refuse });

    let closed = CancellationToken::new();
    let gone = closed.clone();
    socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
        disconnects(NAMESPACE, reason_label(reason)).increment(1);
        gone.cancel();
        socket.extensions.remove::<Seat>();
    });
    let prepared = Prepared { caller, attendance, line, commands, closed };
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
        own.open.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::new(&own, socket, prepared);
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
    fn new(edge: &'a Arc<Edge>, socket: SocketRef, prepared: Prepared) -> Self {
        let Prepared { caller, attendance, line, commands, closed } = prepared;
        let dialect = line.dialect;
        let outlet = Arc::new(Outlet::new(line, socket.clone(), caller.user.clone()));
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
        if let Some(frame) = self.outlet.line().dialect().greet(greeting) {
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
                session = self.outlet.revoked() => self.revoke(session).await,
                () = self.outlet.room(), if !self.outlet.line().has_room() => {}
                Some(packet) = self.commands.recv(), if self.outlet.line().has_room() => {
                    self.carry_out(packet).await;
                }
                () = sleep_until(end_of_age) => {
                    if let Some(frame) = self.outlet.line().dialect().timeout() {
                        self.outlet.send(&frame);
                    }
                    self.outlet.close_transport();
                    return;
                }
            }
        }
    }

    async fn carry_out(&mut self, packet: Packet<LocalAdapter>) {
        self.show_transport();
        let dialect = self.outlet.line().dialect();
        let (event, command) = match packet.read() {
            Ok((event, args)) => {
                let command = args.and_then(|args| dialect.decode(&event, &args));
                (event, command)
            }
            Err(error) => (String::new(), Err(error)),
        };
        self.edge.received.of(&event).increment(1);
        let Some(visit) = &mut self.visit else { return };
        let done = match command {
            Ok(command) => self.edge.chat.execute(visit, command, &event).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(done) => {
                let answer = dialect.answer(&done.reply);
                acknowledge(packet.ack, &answer.ack);
                for frame in &answer.frames {
                    self.outlet.send(frame);
                }
                if let Some(waiting) = done.waiting {
                    self.edge.chat.go_live(visit, waiting);
                }
            }
            Err(error) => {
                let ids = packet.ids();
                self.outlet.line().refuse(&self.socket, packet.ack, &event, &ids, &error);
            }
        }
    }

    /// The hub says that the socket may not see a session any more. Between two commands, so that
    /// no answer about the session comes after it.
    async fn revoke(&mut self, session: SessionId) {
        let Some(visit) = &mut self.visit else { return };
        if self.edge.chat.stays(visit, &session).await {
            return;
        }
        self.outlet.send(&self.outlet.line().dialect().revoked(&session));
        self.edge.chat.revoked(visit, &session).await;
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
        if let Some(frame) = self.outlet.line().dialect().shutdown(wait) {
            self.outlet.send(&frame);
        }
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
                session = self.outlet.revoked() => self.revoke(session).await,
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
