//! Amends socketioxide's packets on their way out, where its API has no hook: gives a CONNECT (`40`)
//! the `pid` without which clients recover nothing, and a refusal (`44`, CONNECT_ERROR) the `data`
//! that a rejecting middleware can only say in its text. For the `pid`, see
//! <https://socket.io/docs/v4/connection-state-recovery>.
//!
//! [`packet`] knows what is amended and how; [`batch`] finds packets in a polling response's body,
//! [`Amender`] in the frames of a WebSocket. Another kind of packet is one more start in
//! [`is_watched`] and one more case in [`packet`]. All else passes uncopied. Only what the server
//! itself writes comes here, and nothing a client says can put the separator into it: the texts
//! of refusals are constants.
//!
//! Both may come at any time, many on a connection, in either transport. So the data goes through
//! its packet, not beside it, and the pid is the session account's ([`Outbound::set_pid`]), looked
//! up when the packet passes, and not used up by it.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::io::AsyncWrite;

use super::connection::Connection;
use super::frames::{header_len, payload_len};
use super::outbound::Outbound;
use super::polling::Protocol;

/// Between the message and the data in the text of a refusal.
const DATA_SEPARATOR: char = '\u{1f}';
/// The longest payload that is held back to be amended; a longer one passes as it is.
const PAYLOAD_BYTES_MAX: u64 = 1_024;
/// The first byte of a text message in one frame, which is all that tungstenite writes.
const WHOLE_TEXT: u8 = 0x81;

/// The text with which a connect middleware refuses a socket, so that its client gets
/// `err.message` and `err.data`. Neither may hold what a client sent. Together they have to stay
/// well below 1 KiB, else the data stays in the message.
pub fn connect_error(message: &str, data: &Value) -> String {
    format!("{message}{DATA_SEPARATOR}{data}")
}

/// What goes out instead of this batch, of the session with this account, where there is something
/// to amend.
pub(super) fn batch(batch: &[u8], protocol: Protocol, outbound: &Outbound) -> Option<Vec<u8>> {
    let packets = protocol.packets(batch);
    if !packets.iter().any(|packet| is_watched(packet)) {
        return None;
    }
    let amended: Vec<Cow<'_, [u8]>> = packets
        .into_iter()
        .map(|from| packet(from, Some(outbound)).map_or(Cow::Borrowed(from), Cow::Owned))
        .collect();
    Some(protocol.batch(&amended))
}

/// Stands between the writer of a WebSocket's frames and what takes them. Starts at the start of a
/// frame. A frame is recognised however its bytes are cut; one that may have to be amended is kept
/// until it is complete, never more than its header and [`PAYLOAD_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct Amender {
    /// The one that is written to; it knows the account of the session that it carries.
    connection: Connection,
    /// How many of the writer's next bytes belong to a frame that passes.
    left: u64,
    /// The start of a frame, taken from the writer, that may yet have to be amended.
    held: Vec<u8>,
    /// What was held and is decided; it goes before anything else.
    due: Bytes,
}

impl Amender {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, left: 0, held: Vec::new(), due: Bytes::new() }
    }

    /// As [`AsyncWrite::poll_write`]: what is returned counts `bytes`, whatever was written for them.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_due(cx, to))?;
        if self.held.is_empty() {
            let passing = self.frame_start(bytes, bytes.len()).min(bytes.len() as u64) as usize;
            if passing > 0 {
                let taken = ready!(Pin::new(to).poll_write(cx, &bytes[..passing]))?;
                self.left = self.frame_start(bytes, taken) - taken as u64;
                return Poll::Ready(Ok(taken));
            }
        }
        Poll::Ready(Ok(self.hold(bytes)))
    }

    /// Writes what is decided, then flushes. The start of a frame that is not complete stays held:
    /// its peer could do nothing with it.
    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_due(cx, to))?;
        Pin::new(to).poll_flush(cx)
    }

    /// Writes everything that was held, then shuts down.
    pub(super) fn poll_shutdown<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_due(cx, to))?;
        self.due = std::mem::take(&mut self.held).into();
        ready!(self.poll_due(cx, to))?;
        Pin::new(to).poll_shutdown(cx)
    }

    fn poll_due<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.due.is_empty() {
            let taken = ready!(Pin::new(&mut *to).poll_write(cx, &self.due))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.due.advance(taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Where in `bytes`, or beyond, the first frame starts that does not pass, as far as they say,
    /// or that starts at `until` or later.
    fn frame_start(&self, bytes: &[u8], until: usize) -> u64 {
        let mut at = self.left;
        while at < until as u64
            && let Start::Passes(frame) = Start::of(&bytes[at as usize..])
        {
            at = at.saturating_add(frame);
        }
        at
    }

    /// Takes bytes up to where the held frame is decided; at least one, where there is one.
    fn hold(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let wanted = match Start::of(&self.held) {
                Start::Short(wanted) => wanted,
                Start::Watched { frame, .. } if self.held.len() < frame => frame,
                Start::Watched { header, .. } => {
                    let held = std::mem::take(&mut self.held);
                    let amended = packet(&held[header..], self.connection.outbound());
                    self.due = amended.map_or(held, |amended| framed(&amended)).into();
                    return taken;
                }
                Start::Passes(frame) => {
                    self.left = frame - self.held.len() as u64;
                    self.due = std::mem::take(&mut self.held).into();
                    return taken;
                }
            };
            let more = (wanted - self.held.len()).min(bytes.len() - taken);
            if more == 0 {
                return taken;
            }
            self.held.extend_from_slice(&bytes[taken..taken + more]);
            taken += more;
        }
    }
}

/// What the start of a frame says about it.
enum Start {
    /// Nothing before there are so many bytes.
    Short(usize),
    /// The frame, of this length, is forwarded.
    Passes(u64),
    /// Its packet may have to be amended.
    Watched { header: usize, frame: usize },
}

impl Start {
    fn of(bytes: &[u8]) -> Self {
        let header_len = header_len(bytes);
        let Some(header) = bytes.get(..header_len) else {
            return Self::Short(header_len);
        };
        let payload = payload_len(header);
        let frame = payload.saturating_add(header_len as u64);
        if header[0] != WHOLE_TEXT || !(2..=PAYLOAD_BYTES_MAX).contains(&payload) {
            return Self::Passes(frame);
        }
        match bytes.get(header_len..header_len + 2) {
            None => Self::Short(header_len + 2),
            Some(start) if is_watched(start) => {
                Self::Watched { header: header_len, frame: frame as usize }
            }
            Some(_) => Self::Passes(frame),
        }
    }
}

/// Whether a packet that starts like this, in its first two bytes, may have to be amended.
fn is_watched(packet: &[u8]) -> bool {
    packet.starts_with(b"40") || packet.starts_with(b"44")
}

/// What goes out instead of this packet of the session with this account: `40/chat,{"sid":…}`
/// becomes `40/chat,{"sid":…,"pid":…}` where that namespace has a pid, `44/chat,{"message":…}` with
/// data in its message `44/chat,{"message":…,"data":…}`. `None` where it goes out as it is. In
/// Socket.IO's protocol 4 no CONNECT says anything, and what a CONNECT_ERROR holds is the data
/// itself, or the message as text.
fn packet(packet: &[u8], outbound: Option<&Outbound>) -> Option<Vec<u8>> {
    let (kind, rest) = packet.split_at_checked(2)?;
    // A namespace, which may be of a client's making, ends at its first comma.
    let namespace_len = match rest.first()? {
        b'/' => rest.iter().position(|byte| *byte == b',')? + 1,
        _ => 0,
    };
    let (namespace, json) = rest.split_at(namespace_len);
    let is_v3 = outbound.is_some_and(Outbound::is_v3);
    let json = match kind {
        b"44" if is_v3 => as_data(json),
        b"40" if is_v3 => None,
        b"40" => recoverable(namespace.strip_suffix(b",").unwrap_or(b"/"), json, outbound?),
        b"44" => with_data(json),
        _ => None,
    }?;
    Some([kind, namespace, &json].concat())
}

fn recoverable(namespace: &[u8], json: &[u8], outbound: &Outbound) -> Option<Vec<u8>> {
    let mut connect: Connect = serde_json::from_slice(json).ok()?;
    connect.pid = outbound.pid(namespace)?;
    serde_json::to_vec(&connect).ok()
}

fn with_data(json: &[u8]) -> Option<Vec<u8>> {
    let refusal: Refusal = serde_json::from_slice(json).ok()?;
    let (message, data) = refusal.message.split_once(DATA_SEPARATOR)?;
    let data = serde_json::from_str(data).ok()?;
    serde_json::to_vec(&WithData { message, data }).ok()
}

/// What `err` is for a socket.io-client 2.x: the data, with the message beside it.
fn as_data(json: &[u8]) -> Option<Vec<u8>> {
    let refusal: Refusal = serde_json::from_slice(json).ok()?;
    let Some((message, data)) = refusal.message.split_once(DATA_SEPARATOR) else {
        return serde_json::to_vec(&refusal.message).ok();
    };
    let mut data: Map<String, Value> = serde_json::from_str(data).ok()?;
    data.insert("message".to_owned(), message.into());
    serde_json::to_vec(&data).ok()
}

/// A CONNECT; the `sid` is all that socketioxide writes into it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Connect {
    sid: String,
    #[serde(skip_deserializing)]
    pid: String,
}

/// All that socketioxide writes into a CONNECT_ERROR.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    message: String,
}

#[derive(Serialize)]
struct WithData<'a> {
    message: &'a str,
    data: &'a RawValue,
}

/// A text message in one frame.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![WHOLE_TEXT];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ ..=125), _) => frame.push(len),
        (_, Ok(len)) => {
            frame.push(126);
            frame.extend(len.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests;
