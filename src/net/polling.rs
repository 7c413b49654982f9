//! What the bodies of polling responses hold: the `sid` of the open packet, and the event packets
//! of a batch, counted when the batch is handed on.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use socketioxide::socket::Sid;

use super::outbound::Outbound;

/// Between the packets of a batch, in Engine.IO 4. JSON never holds it unescaped.
pub(super) const SEPARATOR: u8 = 0x1e;

/// The Engine.IO protocol that a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Engine.IO 3, of socket.io-client 2.x: each packet after its length in UTF-16 code units.
    V3,
    /// Engine.IO 4: packets joined by [`SEPARATOR`].
    V4,
}

impl Protocol {
    /// The value of the `EIO` parameter.
    pub(super) fn parameter(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V4 => "4",
        }
    }

    /// The packets of a batch.
    pub(super) fn packets(self, batch: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::V4 => batch.split(|byte| *byte == SEPARATOR).collect(),
            Self::V3 => std::str::from_utf8(batch).map(packets_v3).unwrap_or_default(),
        }
    }

    /// A batch of these packets.
    pub(super) fn batch(self, packets: &[Cow<'_, [u8]>]) -> Vec<u8> {
        match self {
            Self::V4 => packets.join(&SEPARATOR),
            Self::V3 => {
                let mut batch = Vec::new();
                for packet in packets {
                    // Its characters, and one more for each that has two units.
                    let units: usize = packet
                        .iter()
                        .map(|byte| usize::from(*byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0))
                        .sum();
                    batch.extend(format!("{units}:").bytes());
                    batch.extend_from_slice(packet);
                }
                batch
            }
        }
    }

    /// Whether a client's batch ends with the packet that closes the session.
    pub(super) fn closes(self, batch: &[u8]) -> bool {
        match self {
            Self::V3 => batch.ends_with(b"1:1"),
            Self::V4 => batch.rsplit(|byte| *byte == SEPARATOR).next() == Some(b"1"),
        }
    }

    /// A batch of one packet, which closes the session.
    pub(super) fn close_batch(self) -> &'static str {
        match self {
            Self::V3 => "1:1",
            Self::V4 => "1",
        }
    }
}

/// The `sid` of an open packet, as a handshake's response holds it.
pub(super) fn opened_sid(body: &[u8]) -> Option<Sid> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, from_sid) = body.split_once("\"sid\":\"")?;
    let (sid, _) = from_sid.split_once('"')?;
    sid.parse().ok()
}

/// A body that counts the event packets of this batch for `outbound` when hyper takes it, or when
/// it is dropped untaken: then these packets are lost, and must not be waited for.
pub(super) fn counted(batch: Bytes, protocol: Protocol, outbound: Arc<Outbound>) -> Body {
    let events = event_bytes(&batch, protocol);
    if events == 0 {
        return Body::from(batch);
    }
    Body::new(Batch { bytes: batch, events, outbound })
}

/// Bytes of the event packets of a batch. A binary batch of Engine.IO 3 counts nothing: it is only
/// made for events with attachments.
pub(super) fn event_bytes(batch: &[u8], protocol: Protocol) -> u64 {
    let packets = protocol.packets(batch).into_iter();
    packets.filter(|packet| packet.starts_with(b"42")).map(|packet| packet.len() as u64).sum()
}

fn packets_v3(mut batch: &str) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = batch.split_once(':') {
        let Ok(length) = length.parse::<usize>() else { break };
        let mut units = 0;
        let end = rest
            .char_indices()
            .find_map(|(at, character)| {
                let found = units >= length;
                units += character.len_utf16();
                found.then_some(at)
            })
            .unwrap_or(rest.len());
        packets.push(&rest.as_bytes()[..end]);
        batch = &rest[end..];
    }
    packets
}

struct Batch {
    bytes: Bytes,
    events: u64,
    outbound: Arc<Outbound>,
}

impl Batch {
    fn count(&mut self) {
        let events = std::mem::take(&mut self.events);
        if events > 0 {
            self.outbound.written(events);
        }
    }
}

impl http_body::Body for Batch {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.count();
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn the_sid_is_found_in_both_protocols_and_nothing_else_is_taken_for_one() {
        let sid = Sid::new();
        let open =
            format!("0{{\"sid\":\"{sid}\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000}}");
        assert_eq!(opened_sid(open.as_bytes()), Some(sid));
        assert_eq!(opened_sid(format!("96:{open}").as_bytes()), Some(sid));
        for body in ["", "ok", "0{}", "0{\"sid\":\"", "0{\"sid\":\"too short\"}"] {
            assert_eq!(opened_sid(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_batch_is_its_packets_joined() {
        let packets = ["2", "42[\"é😀\"]", "40/chat,"].map(str::as_bytes);
        for (protocol, batch) in [
            (Protocol::V3, "1:29:42[\"é😀\"]8:40/chat,"),
            (Protocol::V4, "2\x1e42[\"é😀\"]\x1e40/chat,"),
        ] {
            assert_eq!(protocol.packets(batch.as_bytes()), packets);
            assert_eq!(protocol.batch(&packets.map(Cow::Borrowed)), batch.as_bytes());
        }
    }

    #[test]
    fn a_batch_that_closes_is_known() {
        for (closes, batch) in [(true, "1"), (true, "42[]\x1e1"), (false, "3"), (false, "1\x1e3")] {
            assert_eq!(Protocol::V4.closes(batch.as_bytes()), closes, "{batch}");
        }
        assert!(Protocol::V3.closes(b"1:31:1") && !Protocol::V3.closes(b"1:3"));
    }

    #[test]
    fn only_event_packets_count() {
        let event = "42/chat,[\"é😀\",1]";
        let bytes = event.len() as u64;
        let v4 = |packets: &[&str]| event_bytes(packets.join("\x1e").as_bytes(), Protocol::V4);
        assert_eq!(v4(&[]), 0);
        assert_eq!(v4(&["2", "40/chat,{\"sid\":\"42\"}", "43/chat,1[42]", "6", "bNDI="]), 0);
        assert_eq!(v4(&[event]), bytes);
        assert_eq!(v4(&["2", event, "6", event, "42"]), 2 * bytes + 2);

        let v3 = |packets: &[&str]| {
            let batch: String = packets
                .iter()
                .map(|packet| format!("{}:{packet}", packet.encode_utf16().count()))
                .collect();
            event_bytes(batch.as_bytes(), Protocol::V3)
        };
        assert_eq!(v3(&[]), 0);
        assert_eq!(v3(&["2", "40/chat,", event, event, "6"]), 2 * bytes);
        assert_eq!(event_bytes(b"99:42", Protocol::V3), 2);
        assert_eq!(event_bytes(b"\x00\x02\xff42", Protocol::V3), 0);
    }

    #[tokio::test]
    async fn a_batch_counts_when_it_is_taken() {
        let outbound = Arc::new(Outbound::default());
        outbound.queued(7);
        let mut body =
            counted(Bytes::from_static(b"2\x1e42[\"a\"]"), Protocol::V4, Arc::clone(&outbound));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(9));
        assert_eq!(outbound.outstanding(), 7);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), &b"2\x1e42[\"a\"]"[..]);
        assert_eq!(outbound.outstanding(), 0);
        outbound.queued(1);
        drop(body);
        assert_eq!(outbound.outstanding(), 1, "counted once");
    }

    #[test]
    fn a_batch_that_nobody_takes_counts_too() {
        let outbound = Arc::new(Outbound::default());
        outbound.queued(7);
        drop(counted(Bytes::from_static(b"42[\"a\"]"), Protocol::V4, Arc::clone(&outbound)));
        assert_eq!(outbound.outstanding(), 0);
    }
}
