//! What clients of Engine.IO 3 and Socket.IO protocol 4 (socket.io-client 2.x) send, put into a
//! form that socketioxide takes.
//!
//! They name the namespace that they connect to with the query of their connection behind it,
//! `40/chat?token=…,`, which servers of theirs cut off. It cannot be cut off under a WebSocket
//! without changing lengths, so the `?` becomes a `,`: what follows is then an `auth` that is no
//! JSON, which counts as none. The query itself is in the URL of the handshake, too.
//!
//! A polling body is cut into its packets here, and handed on packet by packet: engineioxide 0.17.9
//! looks at all that it has of a body again for each packet, which takes minutes for a body of many
//! small ones.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;

use super::frames::{OPCODE_TEXT, header_len, payload_len};

/// How a CONNECT to a namespace other than `/` starts.
const CONNECT: &[u8] = b"40/";
/// What turns `?` into `,`, masked or not.
const QUERY_TO_END: u8 = b'?' ^ b',';
/// The longest header of a frame, its mask included.
const HEADER_BYTES_MAX: usize = 14;

/// Finds in a packet, byte by byte, the `?` of a namespace.
#[derive(Debug, Clone, Copy)]
enum Seeking {
    /// So many bytes of [`CONNECT`] were there.
    Start(usize),
    Query,
    Nothing,
}

impl Seeking {
    /// Whether this byte of the packet is the one.
    fn is_query(&mut self, byte: u8) -> bool {
        let (next, found) = match (*self, byte) {
            (Self::Start(at), byte) if byte != CONNECT[at] => (Self::Nothing, false),
            (Self::Start(at), _) if at + 1 < CONNECT.len() => (Self::Start(at + 1), false),
            (Self::Start(_), _) => (Self::Query, false),
            (Self::Query, b'?') => (Self::Nothing, true),
            (Self::Query, b',') => (Self::Nothing, false),
            (Self::Query | Self::Nothing, _) => (*self, false),
        };
        *self = next;
        found
    }
}

/// Amends what comes from a WebSocket's client, in place; however it is cut. Starts at the start of
/// a frame. A CONNECT in several frames passes as it is: no stock client sends one.
#[derive(Debug)]
pub(super) struct Incoming {
    header: [u8; HEADER_BYTES_MAX],
    have: usize,
    /// Where in the frame's payload this is, and how much of it is still to come.
    at: usize,
    left: u64,
    mask: [u8; 4],
    seeking: Seeking,
}

impl Incoming {
    pub(super) fn new() -> Self {
        let (header, mask) = ([0; HEADER_BYTES_MAX], [0; 4]);
        Self { header, have: 0, at: 0, left: 0, mask, seeking: Seeking::Nothing }
    }

    pub(super) fn amend(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.take_header(bytes[0]);
                bytes = &mut bytes[1..];
                continue;
            }
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at_mut(here);
            for byte in payload {
                if matches!(self.seeking, Seeking::Nothing) {
                    break;
                }
                if self.seeking.is_query(*byte ^ self.mask[self.at % 4]) {
                    *byte ^= QUERY_TO_END;
                }
                self.at += 1;
            }
            self.left -= here as u64;
            bytes = rest;
        }
    }

    fn take_header(&mut self, byte: u8) {
        self.header[self.have] = byte;
        self.have += 1;
        let header = &self.header[..self.have];
        let length = header_len(header);
        let is_masked = header.get(1).is_some_and(|second| second & 0x80 != 0);
        if self.have < 2 || self.have < length + if is_masked { 4 } else { 0 } {
            return;
        }
        self.mask = match is_masked {
            true => [header[length], header[length + 1], header[length + 2], header[length + 3]],
            false => [0; 4],
        };
        self.left = payload_len(header);
        let is_text = header[0] & 0x0f == OPCODE_TEXT;
        self.seeking = if is_text { Seeking::Start(0) } else { Seeking::Nothing };
        (self.have, self.at) = (0, 0);
    }
}

/// The body of a POST, amended, packet by packet. One that is malformed stays so, and closes its
/// session.
pub(super) fn body(whole: Bytes) -> Body {
    let mut whole = Vec::from(whole);
    let mut at = 0;
    while at < whole.len() {
        let Some((start, end)) = packet(&whole[at..]) else { return Body::from("malformed") };
        let mut seeking = Seeking::Start(0);
        for byte in &mut whole[at + start..at + end] {
            if seeking.is_query(*byte) {
                *byte ^= QUERY_TO_END;
            }
            if matches!(seeking, Seeking::Nothing) {
                break;
            }
        }
        at += end;
    }
    Body::new(Packets(whole.into()))
}

/// Where the first packet of a batch starts, behind its length in UTF-16 code units, and ends.
fn packet(batch: &[u8]) -> Option<(usize, usize)> {
    let digits = batch.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let length: usize = std::str::from_utf8(&batch[..digits]).ok()?.parse().ok()?;
    let start = digits + 1;
    if length == 0 || batch.get(digits) != Some(&b':') {
        return None;
    }
    let (mut units, mut end) = (0, start);
    while units < length {
        // A character of four bytes has two units, each other one has one.
        let (bytes, more) = match batch.get(end)? {
            0x00..=0x7f => (1, 1),
            0xc2..=0xdf => (2, 1),
            0xe0..=0xef => (3, 1),
            0xf0..=0xf4 => (4, 2),
            _ => return None,
        };
        (units, end) = (units + more, end + bytes);
    }
    let is_text = std::str::from_utf8(batch.get(start..end)?).is_ok();
    (units == length && is_text).then_some((start, end))
}

/// The packets of a batch that is well-formed, with their lengths.
struct Packets(Bytes);

impl http_body::Body for Packets {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = packet(&self.0).map(|(_, end)| self.0.split_to(end));
        Poll::Ready(next.map(|packet| Ok(Frame::data(packet))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn frame(opcode: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    const MASK: [u8; 4] = [0x12, 0, 0xff, 0x3f];

    #[test]
    fn the_query_of_a_namespace_ends_it_however_the_frames_are_cut() {
        let long = format!("40/chat?token={},", "x?".repeat(200));
        let ends = format!("40/chat,token={},", "x?".repeat(200));
        let passing: [(u8, &[u8]); 8] = [
            (1, b"40/chat,{\"a\":\"?\"}"),
            (1, b"42/chat,[\"?\"]"),
            (1, b"2probe"),
            (1, b""),
            (1, b"40?x"),
            (2, b"40/chat?x"),
            (9, b"40/chat?x"),
            (1, b"41/chat?x"),
        ];
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for (opcode, payload) in passing {
            sent.extend(frame(opcode, MASK, payload));
            expected.extend(frame(opcode, MASK, payload));
            sent.extend(frame(1, MASK, long.as_bytes()));
            expected.extend(frame(1, MASK, ends.as_bytes()));
            sent.extend(frame(1, [0; 4], b"40/?"));
            expected.extend(frame(1, [0; 4], b"40/,"));
        }
        for size in 1..sent.len().min(40) {
            let mut amended = sent.clone();
            let mut incoming = Incoming::new();
            amended.chunks_mut(size).for_each(|piece| incoming.amend(piece));
            assert!(amended == expected, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_batch_is_handed_on_packet_by_packet() {
        let mut body = body(Bytes::from("1:213:40/chat?a=😀,4:4😀x1:2"));
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(frames, ["1:2", "13:40/chat,a=😀,", "4:4😀x", "1:2"].map(Bytes::from));
    }

    #[tokio::test]
    async fn a_malformed_batch_is_handed_on_as_such() {
        let long = "9".repeat(40);
        let cases: [&[u8]; 14] = [
            b"2",
            b":2",
            b"0:",
            b"0:2",
            b"2:2",
            b"1:2x",
            b"-1:2",
            b"+1:2",
            b" 1:2",
            b"1:\xff",
            b"1:\xe2\x82",
            "1:😀".as_bytes(),
            b"1:2\x001:2",
            long.as_bytes(),
        ];
        for case in cases {
            let body = body(Bytes::copy_from_slice(case)).collect().await.unwrap().to_bytes();
            assert_eq!(body, "malformed", "{case:?}");
        }
        assert_eq!(body(Bytes::new()).collect().await.unwrap().to_bytes(), "");
    }
}
