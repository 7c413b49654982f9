//! The listener, and what has to be done below socketioxide because its API has no hook for it:
//! knowing how many bytes of events a peer has not been sent yet, ending a peer that takes none,
//! and closing what carries a session in a way after which stock clients reconnect by themselves.
//!
//! Owns: TCP connections ([`Listener`], [`MonitoredIo`], [`Connection`]) and HTTP on them
//! ([`serve`]), the account of each Engine.IO session ([`Outbound`]), and the tower layer that binds
//! the one to the other ([`TransportLayer`]); and how many of each there may be ([`Slots`],
//! [`Addresses`], [`Handshakes`]). A session is opened by a handshake without `sid`, is carried by polling
//! requests or by one WebSocket, and has one account from its handshake to its end.
//!
//! Must not know: dialects, events beyond the two bytes `42` that start an event packet, users,
//! the hub. It copies, keeps and logs no payload, query or header; but for the two packets that are
//! amended on their way out, CONNECT and CONNECT_ERROR, in `amend`, which hooks into `io`, before
//! what is written passes the frame meter, and into `layer`, where a polling batch passes; and the
//! CONNECT of old clients on its way in (`eio3`). The pid
//! that a CONNECT is given, for <https://socket.io/docs/v4/connection-state-recovery>, is an opaque
//! word here, kept in the account.

mod addresses;
mod amend;
mod connection;
mod eio3;
mod frames;
mod handshakes;
mod io;
mod layer;
mod listener;
mod options;
mod outbound;
mod polling;
mod request;
#[doc(hidden)]
pub mod seam;
mod serve;
mod sessions;
mod slots;
mod upgrade;

pub use addresses::{AddressSlot, Addresses, Crowded};
pub use amend::connect_error;
pub use connection::Connection;
pub use handshakes::{Handshakes, KEPT_FACTOR};
pub use io::MonitoredIo;
pub use layer::{TransportLayer, TransportService};
pub use listener::{ConnectionCounts, Listener, ListenerOptions};
pub use options::TransportOptions;
pub use outbound::{Closed, Outbound, Transport};
pub use serve::{HttpOptions, serve};
pub use slots::{Slot, Slots};
