//! Counts the event packets in what a server writes on one WebSocket connection, from the bytes
//! that the kernel has accepted, however they were cut.
//!
//! It walks over frame headers ([RFC 6455, 5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2))
//! and the first two bytes of each message; payloads are skipped, never copied. A server's frames
//! are not masked. Control frames may stand between the fragments of a message.

/// What precedes the frames: the status line of the upgrade's response, then the rest of its head.
/// Looking for the status, and not just for the next end of a head, keeps earlier responses on the
/// same connection out, should they still be in the writer's buffer.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Two bytes, and up to eight of length.
const HEADER_BYTES_MAX: usize = 10;

const OPCODE_CONTINUATION: u8 = 0;
pub(super) const OPCODE_TEXT: u8 = 1;
const OPCODE_CONTROL: u8 = 8;

/// The state between two writes.
#[derive(Debug)]
pub(super) struct FrameMeter {
    state: State,
    message: Message,
}

#[derive(Debug)]
enum State {
    Status { matched: usize },
    Head { matched: usize },
    Header { bytes: [u8; HEADER_BYTES_MAX], have: usize },
    Payload { left: u64, part: Part },
}

/// What a frame is to its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Control,
    Fragment,
    Last,
}

/// The message that is under way.
#[derive(Debug)]
struct Message {
    bytes: u64,
    start: Start,
}

/// How a message starts, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Unknown,
    Four,
    Event,
    Other,
}

impl FrameMeter {
    /// For a connection whose next `101` response starts the frames.
    pub(super) fn new() -> Self {
        Self { state: State::Status { matched: 0 }, message: Message::starting(Start::Other) }
    }

    /// Whether the upgrade's response has been written.
    pub(super) fn in_frames(&self) -> bool {
        !matches!(self.state, State::Status { .. } | State::Head { .. })
    }

    /// How many of the bytes that come next precede the frames.
    pub(super) fn head_len(&self, bytes: &[u8]) -> usize {
        let frames = match self.state {
            State::Status { mut matched } => match skip_past(bytes, SWITCHING, &mut matched) {
                (head, true) => skip_past(head, HEAD_END, &mut 0).0,
                (none, false) => none,
            },
            State::Head { mut matched } => skip_past(bytes, HEAD_END, &mut matched).0,
            State::Header { .. } | State::Payload { .. } => bytes,
        };
        bytes.len() - frames.len()
    }

    /// Takes bytes that follow those of the last call. Returns the payload bytes of the event
    /// packets whose last byte is among them.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> u64 {
        let mut events = 0;
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Status { matched } => {
                    let (rest, found) = skip_past(bytes, SWITCHING, matched);
                    if found {
                        self.state = State::Head { matched: 0 };
                    }
                    rest
                }
                State::Head { matched } => {
                    let (rest, found) = skip_past(bytes, HEAD_END, matched);
                    if found {
                        self.state = State::header();
                    }
                    rest
                }
                State::Header { bytes: header, have } => {
                    let wanted = header_len(&header[..*have]);
                    let taken = bytes.len().min(wanted - *have);
                    header[*have..*have + taken].copy_from_slice(&bytes[..taken]);
                    *have += taken;
                    if *have == header_len(&header[..*have]) {
                        let header = *header;
                        events += self.frame(header);
                    }
                    &bytes[taken..]
                }
                State::Payload { left, part } => {
                    let (left_now, part) = (*left, *part);
                    let taken =
                        usize::try_from(left_now).map_or(bytes.len(), |left| left.min(bytes.len()));
                    if part != Part::Control {
                        self.message.extend(&bytes[..taken]);
                    }
                    *left = left_now - taken as u64;
                    if *left == 0 {
                        events += self.frame_end(part);
                    }
                    &bytes[taken..]
                }
            };
        }
        events
    }

    /// A complete header. Returns what the frame counts for, where it has no payload.
    fn frame(&mut self, header: [u8; HEADER_BYTES_MAX]) -> u64 {
        let last = header[0] & 0x80 != 0;
        let part = match header[0] & 0x0f {
            OPCODE_CONTROL.. => Part::Control,
            opcode => {
                match opcode {
                    OPCODE_CONTINUATION => {}
                    OPCODE_TEXT => self.message = Message::starting(Start::Unknown),
                    _ => self.message = Message::starting(Start::Other),
                }
                if last { Part::Last } else { Part::Fragment }
            }
        };
        let length = payload_len(&header);
        if length == 0 {
            return self.frame_end(part);
        }
        self.state = State::Payload { left: length, part };
        0
    }

    fn frame_end(&mut self, part: Part) -> u64 {
        self.state = State::header();
        if part != Part::Last {
            return 0;
        }
        // What would go on with a message that is over is of none.
        match std::mem::replace(&mut self.message, Message::starting(Start::Other)) {
            Message { bytes, start: Start::Event } => bytes,
            _ => 0,
        }
    }
}

impl State {
    fn header() -> Self {
        Self::Header { bytes: [0; HEADER_BYTES_MAX], have: 0 }
    }
}

impl Message {
    fn starting(start: Start) -> Self {
        Self { bytes: 0, start }
    }

    fn extend(&mut self, payload: &[u8]) {
        for byte in payload.iter().take(2) {
            self.start = match (self.start, byte) {
                (Start::Unknown, b'4') => Start::Four,
                (Start::Four, b'2') => Start::Event,
                (Start::Unknown | Start::Four, _) => Start::Other,
                (settled, _) => settled,
            };
        }
        self.bytes += payload.len() as u64;
    }
}

/// How long the header is that starts like this.
pub(super) fn header_len(start: &[u8]) -> usize {
    match start.get(1).map(|second| second & 0x7f) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    }
}

/// How long the payload is that follows this complete header.
pub(super) fn payload_len(header: &[u8]) -> u64 {
    match header[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => header[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        length => u64::from(length),
    }
}

/// What follows the first `pattern`, of which `matched` bytes came before, and whether it was
/// found. Right for patterns in which a failed match can only start again at its first byte.
fn skip_past<'a>(bytes: &'a [u8], pattern: &[u8], matched: &mut usize) -> (&'a [u8], bool) {
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == pattern[*matched] {
            *matched += 1;
        } else {
            *matched = usize::from(*byte == pattern[0]);
        }
        if *matched == pattern.len() {
            return (&bytes[at + 1..], true);
        }
    }
    (&[], false)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};

    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::{Message, WebSocket};

    use super::*;

    const HEAD: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\n";

    /// Keeps what is written.
    struct Record(Vec<u8>);

    impl Write for Record {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Record {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    /// What tungstenite, as socketioxide uses it, writes for these messages.
    fn recorded(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
        let mut socket = WebSocket::from_raw_socket(Record(HEAD.to_vec()), Role::Server, None);
        for message in messages {
            socket.send(message).unwrap();
        }
        std::mem::take(&mut socket.get_mut().0)
    }

    fn event(bytes: usize) -> Message {
        let mut text = String::from("42");
        text.extend(std::iter::repeat_n('x', bytes.saturating_sub(2)));
        text.truncate(bytes);
        Message::text(text)
    }

    /// All lengths at which the header changes, and everything else that a server writes.
    fn everything() -> (Vec<u8>, u64) {
        let sizes = [0, 1, 2, 125, 126, 127, 65_535, 65_536];
        let mut messages = vec![
            Message::text("0{\"sid\":\"x\"}"),
            Message::text("40/chat,{}"),
            Message::text("2"),
        ];
        messages.extend(sizes.map(event));
        messages.extend([
            Message::Ping(b"42".to_vec().into()),
            Message::Pong(Vec::new().into()),
            Message::binary(b"42 not text".to_vec()),
            Message::text("43/chat,1[]"),
            Message::text("4"),
            Message::text("2"),
            event(20),
            Message::Close(None),
        ]);
        let expected = sizes.iter().filter(|size| **size >= 2).sum::<usize>() + 20;
        (recorded(messages), expected as u64)
    }

    #[test]
    fn every_split_counts_the_same() {
        let (bytes, expected) = everything();
        for at in 0..=bytes.len() {
            let mut meter = FrameMeter::new();
            let counted = meter.advance(&bytes[..at]) + meter.advance(&bytes[at..]);
            assert_eq!(counted, expected, "split at {at}");
        }
    }

    #[test]
    fn pieces_of_every_small_size_count_the_same() {
        let (bytes, expected) = everything();
        for size in 1..20 {
            let mut meter = FrameMeter::new();
            let counted: u64 = bytes.chunks(size).map(|piece| meter.advance(piece)).sum();
            assert_eq!(counted, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_frame_counts_with_its_last_byte() {
        for size in [2, 125, 126, 65_535, 65_536] {
            let bytes = recorded([event(size)]);
            let (last, before) = bytes.split_last().unwrap();
            let mut meter = FrameMeter::new();
            assert_eq!(meter.advance(before), 0, "{size}");
            assert_eq!(meter.advance(&[*last]), size as u64);
        }
    }

    #[test]
    fn frames_start_after_the_upgrades_own_head() {
        let mut bytes =
            b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\x81\x0242\r\n\r\nHHTTP".to_vec();
        bytes.extend(recorded([event(7)]));
        let mut meter = FrameMeter::new();
        let counted: u64 = bytes.iter().map(|byte| meter.advance(&[*byte])).sum();
        assert_eq!(counted, 7);
        assert!(meter.in_frames());
    }

    /// However much of the head was written before.
    #[test]
    fn the_head_is_told_from_the_frames_behind_it() {
        let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        bytes.extend(HEAD);
        let head = bytes.len();
        bytes.extend(b"\x81\x0542\r\n\r\n");
        for at in 0..=bytes.len() {
            let mut meter = FrameMeter::new();
            assert_eq!(meter.head_len(&bytes[..at]), head.min(at));
            meter.advance(&bytes[..at]);
            assert_eq!(meter.head_len(&bytes[at..]), head.saturating_sub(at), "written {at}");
        }
    }

    #[test]
    fn only_the_whole_head_starts_the_frames() {
        let mut meter = FrameMeter::new();
        meter.advance(&HEAD[..HEAD.len() - 1]);
        assert!(!meter.in_frames());
        meter.advance(b"\n");
        assert!(meter.in_frames());
    }

    /// tungstenite writes none, but they must not put the count off.
    #[test]
    fn a_fragmented_message_counts_as_one() {
        let fragmented = [
            &[0x01, 1, b'4'][..],                  // text, more to come
            &[0x89, 2, b'4', b'2'],                // ping between
            &[0x00, 0],                            // empty continuation
            &[0x00, 3, b'2', b'[', b'1'],          // continuation
            &[0x80, 1, b']'],                      // last
            &[0x02, 1, b'4', 0x80, 2, b'2', b'x'], // a binary message
            &[0x81, 2, b'4', b'2'],
            &[0x80, 1, b'x', 0x80, 0], // continuations of nothing
        ]
        .concat();
        for size in 1..fragmented.len() {
            let mut meter = FrameMeter::new();
            meter.advance(HEAD);
            let counted: u64 = fragmented.chunks(size).map(|piece| meter.advance(piece)).sum();
            assert_eq!(counted, 5 + 2, "pieces of {size}");
        }
    }
}
