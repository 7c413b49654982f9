//! The offset of Socket.IO's [connection state recovery]: where a socket stands in each session
//! that it is in, as text that its client keeps and gives back when it reconnects.
//!
//! `1` and the dialect's letter, then for each session `!`, its id, `~`, and the cursor in binary,
//! base64url: so sockets in one session only have the same text. It is no secret and no proof:
//! whoever reads one checks what it is used for.
//!
//! [connection state recovery]: https://socket.io/docs/v4/connection-state-recovery

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{DialectIndex, EventSpec, Frame};
use crate::domain::{Cursor, GenerationId, Position, SessionId, TextCursor};

/// The most bytes of an offset; what would be longer is [`UNRECOVERABLE`].
pub const BYTES_MAX: usize = 2_048;
/// Stands for an offset from which nothing can be recovered.
pub const UNRECOVERABLE: &str = "-";

/// The event that says an offset which no other event has said.
const EVENT: &str = "connection:offset";
/// The version, and the letter of the first dialect.
const VERSION: u8 = b'1';
const FIRST: u8 = b'a';
/// What stands before each session's part.
const HEAD_BYTES: usize = 2;

/// What dialects list that sockets speak.
pub(super) const SPEC: EventSpec = EventSpec::new::<OffsetJson>(
    EVENT,
    "For Socket.IO's recovery of connections, which takes it from the second argument: what the \
     socket has joined, or left, has changed. Nothing to do.",
);

#[derive(Serialize, JsonSchema)]
#[schemars(
    rename = "ConnectionOffset",
    description = "What the connection has joined has changed."
)]
struct OffsetJson {
    /// Whether the connection could be recovered now.
    recoverable: bool,
}

/// Where a socket stands, as it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offset {
    /// What it speaks.
    pub dialect: DialectIndex,
    /// Each session it is in, and its place there. Never empty.
    pub places: Vec<(SessionId, Cursor)>,
}

/// A text is no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an offset")]
pub struct InvalidOffset;

/// The offset of a socket that is in this session only.
pub fn of(dialect: DialectIndex, session: &SessionId, cursor: &Cursor) -> String {
    let mut text = String::with_capacity(96);
    text.push(char::from(VERSION));
    text.push(char::from(FIRST + u8::try_from(dialect.slot()).expect("there are a few")));
    text.push('!');
    text.push_str(session.as_str());
    text.push('~');
    URL_SAFE_NO_PAD.encode_string(packed(cursor), &mut text);
    text
}

/// Whether an offset of a socket in one session is about this one.
pub fn is_of(offset: &str, session: &SessionId) -> bool {
    let part = offset.get(HEAD_BYTES + 1..).unwrap_or_default();
    part.strip_prefix(session.as_str()).is_some_and(|rest| rest.starts_with('~'))
}

/// The offset of a socket that is in the sessions of all these, each of which is of a socket in one
/// session, in one dialect. [`UNRECOVERABLE`] where it would be too long, or there are none.
pub fn joined<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for offset in all {
        text.push_str(if text.is_empty() { offset } else { &offset[HEAD_BYTES..] });
        if text.len() > BYTES_MAX {
            return UNRECOVERABLE.to_owned();
        }
    }
    if text.is_empty() { UNRECOVERABLE.to_owned() } else { text }
}

/// The event that says an offset by itself.
pub fn told(offset: &str) -> Frame {
    let recoverable = offset != UNRECOVERABLE;
    Frame { cursor: Some(offset.into()), ..Frame::new(EVENT, &OffsetJson { recoverable }) }
}

/// Reads what [`of`] and [`joined`] make. `dialects`: how many sockets may speak.
///
/// # Errors
/// For everything else, a session that comes twice, and [`UNRECOVERABLE`].
pub fn read(text: &str, dialects: usize) -> Result<Offset, InvalidOffset> {
    if text.len() > BYTES_MAX {
        return Err(InvalidOffset);
    }
    let [VERSION, letter, b'!', ..] = text.as_bytes() else { return Err(InvalidOffset) };
    let dialect = letter.checked_sub(FIRST).map(usize::from).filter(|index| *index < dialects);
    let dialect = DialectIndex(dialect.ok_or(InvalidOffset)?);
    let parts = text.get(HEAD_BYTES + 1..).ok_or(InvalidOffset)?.split('!');
    let mut places: Vec<(SessionId, Cursor)> = Vec::new();
    for part in parts {
        let (session, cursor) = part.split_once('~').ok_or(InvalidOffset)?;
        let session: SessionId = session.parse().map_err(|_| InvalidOffset)?;
        let cursor = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidOffset)?;
        let cursor = unpacked(&cursor).ok_or(InvalidOffset)?;
        if places.iter().any(|(known, _)| *known == session) {
            return Err(InvalidOffset);
        }
        places.push((session, cursor));
    }
    Ok(Offset { dialect, places })
}

/// Numbers are LEB128.
fn packed(cursor: &Cursor) -> Vec<u8> {
    let Cursor { position, part, ordinal, given, texts } = cursor;
    let mut bytes = Vec::with_capacity(24 + texts.len() * 24);
    for number in [position.epoch, position.seq, u64::from(*part), *ordinal, *given] {
        put(&mut bytes, number);
    }
    for text in texts {
        bytes.extend_from_slice(text.generation.0.as_bytes());
        put(&mut bytes, u64::from(text.attempt));
        put(&mut bytes, text.offset);
    }
    bytes
}

fn unpacked(mut bytes: &[u8]) -> Option<Cursor> {
    let mut next = || take(&mut bytes);
    let position = Position { epoch: next()?, seq: next()? };
    let part = u8::try_from(next()?).ok()?;
    let (ordinal, given) = (next()?, next()?);
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        bytes = rest;
        let generation = GenerationId(Uuid::from_bytes(*id));
        let attempt = u32::try_from(take(&mut bytes)?).ok()?;
        let offset = take(&mut bytes)?;
        texts.push(TextCursor { generation, attempt, offset });
    }
    Some(Cursor { position, part, ordinal, given, texts })
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: DialectIndex = DialectIndex(1);

    fn session(id: &str) -> SessionId {
        SessionId::new(id).unwrap()
    }

    fn cursor(texts: usize) -> Cursor {
        let text = |n: usize| TextCursor {
            generation: GenerationId::new(),
            attempt: if n == 0 { u32::MAX } else { 1 },
            offset: if n == 1 { u64::MAX } else { 300 },
        };
        let position = Position { epoch: 1_795_000_000_000, seq: u64::MAX };
        let texts = (0..texts).map(text).collect();
        Cursor { position, part: 2, ordinal: 127, given: 128, texts }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        for texts in 0..4 {
            let (one, other) = (cursor(texts), Cursor::default());
            let single = of(DIALECT, &session("room:1"), &one);
            let places = vec![(session("room:1"), one.clone())];
            assert_eq!(read(&single, 4), Ok(Offset { dialect: DIALECT, places }));
            let second = of(DIALECT, &session("room:2"), &other);
            let both = joined([&*single, &*second].into_iter());
            let places = vec![(session("room:1"), one), (session("room:2"), other)];
            assert_eq!(read(&both, 4), Ok(Offset { dialect: DIALECT, places }));
        }
    }

    #[test]
    fn one_session_is_told_from_another_whose_id_begins_alike() {
        let offset = of(DIALECT, &session("room-1"), &Cursor::default());
        assert!(is_of(&offset, &session("room-1")));
        assert!(!is_of(&offset, &session("room-")));
        assert!(!is_of(&offset, &session("room-12")));
        assert!(!is_of(UNRECOVERABLE, &session("room-1")));
    }

    #[test]
    fn a_chunks_offset_is_short() {
        let position = Position { epoch: 1_795_000_000_000, seq: 100 };
        let text = TextCursor { generation: GenerationId::new(), attempt: 1, offset: 10_000 };
        let cursor = Cursor { position, ordinal: 100, texts: vec![text], ..Cursor::default() };
        assert!(of(DIALECT, &session("r"), &cursor).len() <= 46);
    }

    #[test]
    fn one_that_is_too_long_or_of_nothing_is_unrecoverable() {
        let offsets: Vec<String> =
            (0..100).map(|n| of(DIALECT, &session(&format!("room-{n}")), &cursor(1))).collect();
        let fits = BYTES_MAX / offsets[0].len();
        let read = |count| read(&joined(offsets[..count].iter().map(String::as_str)), 4);
        assert_eq!(read(fits).map(|offset| offset.places.len()), Ok(fits));
        assert_eq!(read(100), Err(InvalidOffset));
        assert_eq!(joined(std::iter::empty()), UNRECOVERABLE);
    }

    #[test]
    fn what_is_no_offset_is_refused() {
        let good = of(DIALECT, &session("room"), &cursor(2));
        assert_eq!(read(&good, 1), Err(InvalidOffset), "a dialect that is not spoken");
        let twice = joined([&*good, &*good].into_iter());
        let zeros = "A".repeat(BYTES_MAX);
        for bad in [
            "",
            "-",
            "1",
            "1b",
            "1b!",
            "1b!room",
            "1b!room~",
            "1b!~AAAA",
            "2b!room~AAAAAA",
            "1B!room~AAAAAA",
            "1b!ro om~AAAAAA",
            "1b!room~AAA*",
            "1b!room~AAAAAAAA",
            "1é!room~",
            &format!("1b!room~{}", "_".repeat(40)),
            &format!("{good}!"),
            &twice,
            &zeros,
        ] {
            assert_eq!(read(bad, 4), Err(InvalidOffset), "{bad}");
        }
        for len in 0..good.len() {
            if let Ok(offset) = read(&good[..len], 4) {
                assert!(offset.places[0].1.texts.len() < 2, "cut between two texts: {len}");
            }
        }
    }
}
