//! One socket: its place on the node, and the task that carries out its commands in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::socket::{DisconnectReason, Socket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::flood::Flood;
use super::handshake::{Coming, Known};
use super::inbox::{Inbox, Packet};
use super::line::{Ack, Line, acknowledge};
use super::lobby::{self, Named};
use super::outlet::Outlet;
use super::place::Place;
use super::places::Places;
use super::{Edge, NAMESPACE};
use crate::auth::Refused;
use crate::chat::{Caller, Owed, Visit, Wants};
use crate::dialect::{Dialect, Dialects, Greeting, Ids};
use crate::domain::{Command, Error, ErrorCode, Reply, SessionId, Timestamp};
use crate::hub::Reader;
use crate::net::Slot;
use crate::telemetry::metrics::{self, Limit, connects, disconnects};

/// How long a socket waits before it tries again to go on where it cannot.
const OWED_AGAIN: Duration = Duration::from_secs(1);

/// What the middleware prepares and the connect handler takes. Where that never runs, since the
/// client is gone, socketioxide drops the socket and this with it: it must not hold the socket.
#[derive(Clone)]
struct Seat(Arc<Mutex<Option<Prepared>>>);

struct Prepared {
    /// `None`: it says later who it is.
    known: Option<Known>,
    line: Line,
    commands: mpsc::Receiver<Packet<LocalAdapter>>,
    closed: CancellationToken,
    slot: Slot,
}

/// Prepares a socket's place; `known` is who it is, where its handshake told. From now on its
/// events are queued; nothing can be sent to it yet. It holds `slot` until it has gone.
pub(super) fn seat(socket: &SocketRef, line: Line, known: Option<Known>, slot: Slot) {
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
    let (own, admission) = (line.clone(), line.outbound.admissions());
    socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
        disconnects(NAMESPACE, reason_label(reason)).increment(1);
        gone.cancel();
        if reason == DisconnectReason::ClientNSDisconnect {
            expect_back(&own, admission);
        }
        socket.extensions.remove::<Seat>();
    });
    let prepared = Prepared { known, line, commands, closed, slot };
    socket.extensions.insert(Seat(Arc::new(Mutex::new(Some(prepared)))));
}

/// A client has left, and its connection is open still: it has to come back, or to go, in the time
/// that a new one has to come here. Else it would hold a connection that nobody counts.
fn expect_back(line: &Line, admission: u32) {
    let (edge, outbound) = (line.edge.clone(), Arc::downgrade(&line.outbound));
    line.edge.tasks.spawn(async move {
        let wait = sleep(edge.options.connect_timeout);
        if edge.draining.run_until_cancelled(wait).await.is_some()
            && let Some(outbound) = outbound.upgrade()
            && outbound.admissions() == admission
        {
            metrics::limited(Limit::ConnectTimeout).increment(1);
            outbound.close_transport();
        }
    });
}

/// CONNECT is on its way: greets the socket and starts its task.
pub(super) fn connected(edge: &Arc<Edge>, socket: &SocketRef) {
    let Some(Seat(seat)) = socket.extensions.remove::<Seat>() else { return };
    let prepared = seat.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(prepared) = prepared else { return };
    connects(NAMESPACE).increment(1);
    let Prepared { known, line, commands, closed, slot } = prepared;
    let stop = edge.tasks.stopping().clone();
    let socket = socket.clone();
    edge.tasks.spawn(async move {
        serve(Place::new(socket, line, commands, closed), known, &stop).await;
        drop(slot);
    });
}

/// From the connect to the end.
async fn serve(mut place: Place, known: Option<Known>, stop: &CancellationToken) {
    let session = match known {
        Some(known) => {
            let session = Session::new(place, known);
            session.greet();
            Some(session)
        }
        None => match stop.run_until_cancelled(lobby::wait(&mut place)).await.flatten() {
            Some(Named { known, ack }) => {
                let session = Session::new(place, known);
                session.answer(ack, &Reply::Identified { user: session.caller.user.clone() });
                Some(session)
            }
            None => None,
        },
    };
    if let Some(mut session) = session {
        stop.run_until_cancelled(session.run()).await;
        session.end().await;
    }
}

/// A socket whose user is known.
struct Session {
    place: Place,
    outlet: Arc<Outlet>,
    caller: Caller,
    visit: Option<Visit>,
    /// Where it is to go on, and cannot yet.
    owed: Vec<Owed>,
    /// Where it fell behind what the log holds, and the store could not be read.
    behind: Vec<SessionId>,
    recovered: bool,
    /// When to try again what is owed.
    again_at: Instant,
    /// When its token ends, where that is what ends the socket.
    expires_at: Option<Instant>,
}

impl Session {
    fn new(place: Place, known: Known) -> Self {
        let Known { caller, attendance, client, coming, expires_at } = known;
        let (line, socket) = (place.line.clone(), place.socket.clone());
        let places = match &coming {
            Coming::New => Places::default(),
            Coming::Anew => Places::begun_anew(),
            Coming::Back(returned, _) => Places::recovered(returned.offsets()),
        };
        let outlet = Arc::new(Outlet::new(line, socket, caller.user.clone(), client, places));
        let chat = &place.line.edge.chat;
        let visit = Some(chat.arrive(caller.clone(), outlet.clone(), attendance));
        let (owed, recovered) = match coming {
            Coming::Back(_, owed) => (owed, true),
            Coming::New | Coming::Anew => (Vec::new(), false),
        };
        let (behind, again_at) = (Vec::new(), Instant::now());
        let expires_at = expires_at.filter(|at| *at < place.ends_at);
        Self { place, outlet, caller, visit, owed, behind, recovered, again_at, expires_at }
    }

    fn greet(&self) {
        let id = self.place.socket.id.to_string();
        let greeting = Greeting {
            user: self.caller.user.as_str(),
            socket: &id,
            node: &self.place.line.edge.options.node.to_string(),
            now: Timestamp::now(),
            recovered: self.recovered,
        };
        if let Some(frame) = self.place.line.dialect().greet(greeting) {
            self.place.send(&frame);
        }
        self.outlet.tell_place();
    }

    /// Goes on in the sessions that the client was in. What cannot be had now is tried again.
    async fn go_on(&mut self) {
        let edge = self.place.line.edge.clone();
        for owed in std::mem::take(&mut self.owed) {
            let Some(visit) = &mut self.visit else { return };
            let session = &owed.access.session.id;
            match edge.chat.recover(visit, owed.access.clone(), &owed.after).await {
                Ok(waiting) => edge.chat.go_live(visit, waiting),
                Err(error) if error.code == ErrorCode::NotFound => {
                    self.outlet.gives_up(session);
                    self.place.send(&self.place.line.dialect().revoked(session));
                }
                Err(error) => {
                    tracing::debug!(%session, %error, "go on in a session");
                    self.owed.push(owed);
                }
            }
        }
        for session in std::mem::take(&mut self.behind) {
            self.go_on_from_store(session).await;
        }
        // From now on, so that commands have their turn however long that took.
        self.again_at = Instant::now() + OWED_AGAIN;
        self.outlet.tell_place();
    }

    /// Has what the socket missed of a session read, since it fell behind what the log holds.
    async fn go_on_from_store(&mut self, session: SessionId) {
        let Some(visit) = &self.visit else { return };
        let chat = &self.place.line.edge.chat;
        if let Err(error) = chat.go_on_from_store(visit, &session, Wants::Messages).await {
            tracing::debug!(%session, %error, "go on from the store");
            self.behind.push(session);
            self.again_at = Instant::now() + OWED_AGAIN;
        }
        self.outlet.tell_place();
    }

    /// Whether something is to be tried again.
    fn is_owed(&self) -> bool {
        !self.owed.is_empty() || !self.behind.is_empty()
    }

    /// Whether a command would have the socket hear a session from now on that it is still to go
    /// on in.
    fn overtakes(&self, command: &Command) -> bool {
        let session = match command {
            Command::Join(join) => &join.session,
            Command::RequestStream(request) => &request.session,
            _ => return false,
        };
        self.owed.iter().any(|owed| owed.access.session.id == *session)
    }

    /// Does not go on in a session any more, where that is still to be done.
    fn give_up(&mut self, session: &SessionId) {
        let before = self.owed.len();
        self.owed.retain(|owed| owed.access.session.id != *session);
        if self.owed.len() < before {
            self.outlet.gives_up(session);
        }
    }

    /// Carries out commands until the socket closes, the node drains, or its time is up.
    async fn run(&mut self) {
        let edge = self.place.line.edge.clone();
        let closed = self.place.closed.clone();
        if !self.owed.is_empty() {
            closed.run_until_cancelled(self.go_on()).await;
        }
        loop {
            let has_room = self.place.line.has_room();
            tokio::select! {
                biased;
                () = self.place.closed.cancelled() => return,
                () = self.place.line.outbound.closed() => return self.place.forget(),
                () = edge.draining.cancelled() => return self.go_away().await,
                () = sleep_until(self.expires_at.unwrap_or(self.place.ends_at)),
                    if self.expires_at.is_some() => return self.expire(),
                () = self.outlet.drained() => self.resume(),
                session = self.outlet.revoked() => self.revoke(session).await,
                session = self.outlet.behind.next() => {
                    metrics::limited(Limit::Log).increment(1);
                    self.go_on_from_store(session).await;
                }
                () = sleep_until(self.again_at), if self.is_owed() => {
                    closed.run_until_cancelled(self.go_on()).await;
                }
                () = self.place.line.room(), if !has_room => {}
                Some(packet) = self.place.commands.recv(), if has_room => {
                    self.carry_out(packet).await;
                }
                () = sleep_until(self.place.ends_at) => return self.place.time_out().await,
            }
        }
    }

    /// Its token has ended: says so, and closes the socket in a way after which a stock client does
    /// not come back with the same one.
    fn expire(&self) {
        let error = Error::from(Refused::Expired);
        self.place.line.refuse(&self.place.socket, None, "", &Ids::default(), &error);
        self.outlet.disconnect();
    }

    fn resume(&self) {
        if let Some(visit) = &self.visit {
            self.place.line.edge.chat.resume(visit);
        }
    }

    async fn carry_out(&mut self, packet: Packet<LocalAdapter>) {
        let (event, command) = match packet.read() {
            Ok((event, args)) => {
                let command = args.and_then(|args| self.understand(&event, &args));
                (event, command)
            }
            Err(error) => (String::new(), Err(error)),
        };
        if let Ok(Command::Leave { session }) = &command {
            self.give_up(session);
        }
        self.place.tally();
        let edge = &self.place.line.edge;
        edge.received.of(&event).increment(1);
        let overtakes = command.as_ref().is_ok_and(|command| self.overtakes(command));
        let Some(visit) = &mut self.visit else { return };
        let done = match command {
            Ok(_) if overtakes => Err(not_yet()),
            // Joining may stand in line: who is gone leaves it.
            Ok(command @ (Command::Join(_) | Command::JoinPersona { .. })) => {
                let joined = edge.chat.execute(visit, command, &event);
                match self.place.closed.run_until_cancelled(joined).await {
                    Some(done) => done,
                    None => return,
                }
            }
            Ok(command) => edge.chat.execute(visit, command, &event).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(done) => {
                self.answer(packet.ack, &done.reply);
                if let (Some(waiting), Some(visit)) = (done.waiting, &self.visit) {
                    self.place.line.edge.chat.go_live(visit, waiting);
                }
                self.outlet.tell_place();
            }
            Err(error) => {
                let (ids, socket) = (packet.ids(), &self.place.socket);
                self.place.line.refuse(socket, packet.ack, &event, &ids, &error);
            }
        }
    }

    /// Decodes an event, in the dialect that it settles where none is settled yet.
    fn understand(&self, event: &str, args: &[&RawValue]) -> Result<Command, Error> {
        let (line, edge) = (&self.place.line, &self.place.line.edge);
        if line.settled().is_none() {
            let settled = edge.dialects.settle(event, args, edge.options.default_dialect);
            line.settle(settled.ok_or_else(|| unclaimed(&edge.dialects, event, args))?);
        }
        line.dialect().decode(event, args)
    }

    fn answer(&self, ack: Ack, reply: &Reply) {
        let answer = self.place.line.dialect().answer(reply);
        acknowledge(ack, &answer.ack);
        for frame in &answer.frames {
            self.place.send(frame);
        }
    }

    /// The hub says that the socket may not see a session any more. Between two commands, so that
    /// no answer about the session comes after it.
    async fn revoke(&mut self, session: SessionId) {
        let Some(visit) = &mut self.visit else { return };
        let line = &self.place.line;
        if line.edge.chat.stays(visit, &session).await {
            return;
        }
        self.place.send(&line.dialect().revoked(&session));
        self.outlet.gives_up(&session);
        line.edge.chat.revoked(visit, &session).await;
    }

    /// Says goodbye, and closes at a moment of this socket's own.
    async fn go_away(&mut self) {
        let close_at = self.place.say_goodbye();
        loop {
            tokio::select! {
                biased;
                () = self.place.closed.cancelled() => return,
                () = sleep_until(close_at) => return self.place.line.outbound.close_transport(),
                () = self.outlet.drained() => self.resume(),
                session = self.outlet.revoked() => self.revoke(session).await,
                Some(packet) = self.place.commands.recv() => self.carry_out(packet).await,
            }
        }
    }

    async fn end(mut self) {
        self.outlet.ends();
        if let Some(visit) = self.visit.take() {
            self.place.line.edge.chat.depart(visit).await;
        }
    }
}

/// Why a session is not joined that the socket is still to go on in.
fn not_yet() -> Error {
    let message = "What was missed of this session cannot be had now";
    Error::new(ErrorCode::Internal, message).retry_after(OWED_AGAIN)
}

/// Why an event is not understood that no dialect has: a dialect that knows its name says what is
/// wrong with it.
fn unclaimed(dialects: &Dialects, event: &str, args: &[&RawValue]) -> Error {
    let knows = |dialect: &&dyn Dialect| dialect.commands().iter().any(|c| c.name == event);
    let first = dialects.sockets().find(knows);
    let found = first.and_then(|dialect| dialect.decode(event, args).err());
    found.unwrap_or_else(|| Error::invalid("Unknown event"))
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
