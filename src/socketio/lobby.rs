//! Where a socket waits that came without a token: it is nobody until it says who it is.

use socketioxide::adapter::LocalAdapter;
use tokio::time::{Instant, sleep_until};

use super::handshake::{Coming, Known};
use super::inbox::Packet;
use super::line::Ack;
use super::place::Place;
use crate::chat::Caller;
use crate::domain::{Command, Error, ErrorCode};
use crate::telemetry::metrics::{self, Limit};

/// The event by which a socket says who it is.
const IDENTIFY: &str = "chat:auth";

/// A socket that has said who it is, and is to be answered once it is there.
pub(super) struct Named {
    pub known: Known,
    pub ack: Ack,
}

/// Hears a socket until it has said who it is, which may take so long as coming here may;
/// everything else it says is refused. `None`: it has gone or was sent away.
///
/// # Cancel safety
/// Dropped, the event that is being carried out is not answered; its user does not count.
pub(super) async fn wait(place: &mut Place) -> Option<Named> {
    let edge = place.line.edge.clone();
    let late_at = Instant::now() + edge.options.connect_timeout;
    let ends_at = late_at.min(place.ends_at);
    loop {
        let has_room = place.line.has_room();
        tokio::select! {
            biased;
            () = place.closed.cancelled() => return None,
            () = edge.draining.cancelled(), if place.closes_at.is_none() => {
                place.say_goodbye();
            }
            () = sleep_until(place.closes_at.unwrap_or(ends_at)) => {
                if place.closes_at.is_none() {
                    let limit = if ends_at < late_at { Limit::Age } else { Limit::ConnectTimeout };
                    metrics::limited(limit).increment(1);
                }
                place.line.outbound.close_transport();
                return None;
            }
            () = place.line.room(), if !has_room => {}
            Some(packet) = place.commands.recv(), if has_room => {
                if let Some(named) = hear(place, packet).await {
                    return Some(named);
                }
            }
        }
    }
}

async fn hear(place: &mut Place, packet: Packet<LocalAdapter>) -> Option<Named> {
    place.tally();
    let (event, user) = match packet.read() {
        Ok((event, args)) if event == IDENTIFY => {
            let command = args.and_then(|args| place.line.dialect().decode(&event, &args));
            let user = command.and_then(|command| match command {
                Command::Identify { user } => Ok(user),
                _ => Err(nobody()),
            });
            (event, user)
        }
        Ok((event, _)) => (event, Err(nobody())),
        Err(_) => (String::new(), Err(nobody())),
    };
    let edge = &place.line.edge;
    edge.received.of(&event).increment(1);
    let admitted = match user {
        Ok(user) => {
            let caller = Caller { user, name: None };
            let admitted = edge.chat.admit(&caller).await;
            admitted.map(|attendance| Known {
                caller,
                attendance,
                client: None,
                coming: Coming::New,
                expires_at: None,
            })
        }
        Err(error) => Err(error),
    };
    match admitted {
        Ok(known) => Some(Named { known, ack: packet.ack }),
        Err(error) => {
            let ids = packet.ids();
            place.line.refuse(&place.socket, packet.ack, &event, &ids, &error);
            None
        }
    }
}

fn nobody() -> Error {
    Error::new(ErrorCode::Auth, "Say who you are first")
}
