//! For fuzz targets, which are another crate: what reads and amends bytes here, as pure functions.
//! Nothing else uses it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::noop_waker_ref;
use http::Request;
use tokio::io::AsyncWrite;

use super::amend::{self, Amender};
use super::connection::Connection;
use super::frames::FrameMeter;
use super::outbound::Outbound;
use super::polling::{self, Protocol};
use super::request::Wanted;

/// What precedes the frames.
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
/// The namespace that has a pid, and the pid.
const PID: (&str, &str) = ("/chat", "0123456789-_abcdefXYZa");

/// The payload bytes of event packets in a WebSocket's frames, given in these pieces.
pub fn event_bytes_written<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut meter = FrameMeter::new();
    meter.advance(HEAD);
    pieces.into_iter().map(|piece| meter.advance(piece)).sum()
}

/// What goes out for these frames, given in these pieces, where at most `most` bytes are taken at
/// a time. `most` is not zero.
pub fn amended<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, most: usize) -> Vec<u8> {
    let connection = Connection::new(([127, 0, 0, 1], 1).into(), Arc::default());
    connection.bind_outbound(Arc::new(outbound()));
    let mut amender = Amender::new(connection);
    let mut to = Taker { taken: Vec::new(), most };
    let mut cx = Context::from_waker(noop_waker_ref());
    for mut piece in pieces {
        while !piece.is_empty() {
            // One that takes something at once never waits, and never fails.
            let Poll::Ready(Ok(taken)) = amender.poll_write(&mut cx, &mut to, piece) else { break };
            piece = &piece[taken..];
        }
    }
    let _ended = amender.poll_shutdown(&mut cx, &mut to);
    to.taken
}

/// What goes out instead of a polling batch, where that is another.
pub fn amended_batch(batch: &[u8]) -> Option<Vec<u8>> {
    amend::batch(batch, Protocol::V4, &outbound())
}

/// The bytes of event packets in a polling batch of Engine.IO 3, or else 4.
pub fn event_bytes_of_batch(batch: &[u8], version: u8) -> u64 {
    let protocol = if version == 3 { Protocol::V3 } else { Protocol::V4 };
    polling::event_bytes(batch, protocol)
}

/// Whether a handshake's response names the session that it opened.
pub fn is_opened(body: &[u8]) -> bool {
    polling::opened_sid(body).is_some()
}

/// Whether a request with this query is one for Engine.IO.
pub fn is_wanted(query: &str) -> bool {
    let request = Request::builder().uri(format!("/socket.io/?{query}")).body(());
    request.is_ok_and(|request| Wanted::of(&request).is_some())
}

fn outbound() -> Outbound {
    let outbound = Outbound::default();
    outbound.set_pid(PID.0, PID.1);
    outbound
}

struct Taker {
    taken: Vec<u8>,
    most: usize,
}

impl AsyncWrite for Taker {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(self.most);
        self.taken.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
