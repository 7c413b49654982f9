//! What travels on the channels. The first two bytes are the kind and its version; what this
//! version does not know is ignored and counted, so that nodes of two versions can run together.

use bytes::{Bytes, BytesMut};

use crate::codec;
use crate::domain::{
    Chunk, Event, GenerationId, Position, PresenceChange, SessionId, Signal, Timestamp, UserId,
};

use serde::{Deserialize, Serialize};

use super::super::{News, Notice};

/// `C1`, then generation (16 bytes), attempt (4), seq, offset, tokens, read-at (8 each, big
/// endian); the delta follows.
const CHUNK_HEADER_BYTES: usize = 2 + 16 + 4 + 4 * 8;
/// The scripts count positions on, in floating point.
const EXACT_MAX: u64 = 1 << 53;

/// What came over a channel.
#[derive(Debug)]
pub enum Frame {
    Chunk(Chunk),
    Event(Position, Event),
    Signal(Signal),
    Ping(u64),
    Notice(Notice),
    News(News),
}

/// News as they are written, in JSON behind `A1`. Fields that are not known are passed over.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum NewsWire {
    Disconnect {
        user: String,
    },
    CameBack {
        user: String,
        client: String,
        by: String,
    },
    #[serde(rename_all = "camelCase")]
    Presence {
        user: String,
        online: bool,
        last_seen_at: i64,
        sessions: Vec<String>,
    },
}

/// A chunk's frame without its delta, which the script puts behind it.
pub fn chunk_header(chunk: &Chunk) -> Bytes {
    let mut header = BytesMut::with_capacity(CHUNK_HEADER_BYTES);
    header.extend_from_slice(b"C1");
    header.extend_from_slice(chunk.generation.0.as_bytes());
    header.extend_from_slice(&chunk.attempt.to_be_bytes());
    for number in [chunk.seq, chunk.offset, chunk.tokens] {
        header.extend_from_slice(&number.to_be_bytes());
    }
    header.extend_from_slice(&chunk.read_at_ms.to_be_bytes());
    header.freeze()
}

pub fn signal(signal: &Signal) -> Vec<u8> {
    [b"S1".as_slice(), &codec::encode_signal(signal)].concat()
}

pub fn ping(number: u64) -> String {
    format!("P1{number}")
}

pub fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Run { generation } => format!("N1run {generation}"),
        Notice::Stop { generation, by } => format!("N1stop {generation} {by}"),
    }
}

pub fn news(news: &News) -> String {
    let wire = match news {
        News::Disconnect { user } => NewsWire::Disconnect { user: user.to_string() },
        News::CameBack { user, client, by } => {
            let (user, client, by) = (user.to_string(), client.clone(), by.clone());
            NewsWire::CameBack { user, client, by }
        }
        News::Presence { change, sessions } => NewsWire::Presence {
            user: change.user.to_string(),
            online: change.online,
            last_seen_at: change.last_seen_at.as_millis(),
            sessions: sessions.iter().map(SessionId::to_string).collect(),
        },
    };
    let json = serde_json::to_string(&wire).expect("strings, integers and booleans are JSON");
    format!("A1{json}")
}

/// Reads a position written `epoch-seq`.
pub fn position(text: &str) -> Option<Position> {
    let (epoch, seq) = text.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
}

/// Reads a frame; `None` where this version does not understand it.
pub fn decode(bytes: &[u8]) -> Option<Frame> {
    let (kind, body) = bytes.split_at_checked(2)?;
    match kind {
        b"C1" => chunk(body),
        b"E1" => {
            let space = body.iter().position(|byte| *byte == b' ')?;
            let at = position(std::str::from_utf8(&body[..space]).ok()?)?;
            if at.epoch.max(at.seq) > EXACT_MAX {
                return None;
            }
            Some(Frame::Event(at, codec::decode_event(&body[space + 1..]).ok()?))
        }
        b"S1" => Some(Frame::Signal(codec::decode_signal(body).ok()?)),
        b"P1" => Some(Frame::Ping(std::str::from_utf8(body).ok()?.parse().ok()?)),
        b"A1" => Some(Frame::News(read_news(body)?)),
        b"N1" => Some(Frame::Notice(read_notice(std::str::from_utf8(body).ok()?)?)),
        _ => None,
    }
}

fn chunk(body: &[u8]) -> Option<Frame> {
    let (header, delta) = body.split_at_checked(CHUNK_HEADER_BYTES - 2)?;
    let number = |at: usize| Some(u64::from_be_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let delta = std::str::from_utf8(delta).ok()?;
    if delta.is_empty() {
        return None;
    }
    Some(Frame::Chunk(Chunk {
        generation: GenerationId(uuid::Uuid::from_slice(header.get(..16)?).ok()?),
        attempt: u32::from_be_bytes(header.get(16..20)?.try_into().ok()?),
        seq: number(20)?,
        offset: number(28)?,
        tokens: number(36)?,
        read_at_ms: i64::from_be_bytes(header.get(44..52)?.try_into().ok()?),
        delta: delta.into(),
    }))
}

fn read_notice(body: &str) -> Option<Notice> {
    if let Some(generation) = body.strip_prefix("run ") {
        return Some(Notice::Run { generation: generation.parse().ok()? });
    }
    let (generation, by) = body.strip_prefix("stop ")?.split_once(' ')?;
    Some(Notice::Stop { generation: generation.parse().ok()?, by: UserId::new(by).ok()? })
}

fn read_news(body: &[u8]) -> Option<News> {
    Some(match serde_json::from_slice(body).ok()? {
        NewsWire::Disconnect { user } => News::Disconnect { user: user.parse().ok()? },
        NewsWire::CameBack { user, client, by } => {
            News::CameBack { user: user.parse().ok()?, client, by }
        }
        NewsWire::Presence { user, online, last_seen_at, sessions } => News::Presence {
            change: PresenceChange {
                user: user.parse().ok()?,
                online,
                last_seen_at: Timestamp::from_millis(last_seen_at),
            },
            sessions: sessions.iter().map(|id| id.parse().ok()).collect::<Option<_>>()?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_reads_back_as_it_was_written() {
        let written = Chunk {
            generation: GenerationId::new(),
            attempt: 3,
            seq: 7,
            offset: 1 << 40,
            tokens: 9,
            read_at_ms: 1_767_323_045_678,
            delta: "a😀".into(),
        };
        let frame = [&chunk_header(&written)[..], written.delta.as_bytes()].concat();
        let Some(Frame::Chunk(read)) = decode(&frame) else { panic!("not a chunk") };
        assert_eq!(read, written);
        for cut in 0..=CHUNK_HEADER_BYTES {
            assert!(decode(&frame[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for garbage in [r#"A1{"rain":{}}"#, r#"A1{"disconnect":{"user":""}}"#, "A1", "A2{}"] {
            assert!(decode(garbage.as_bytes()).is_none(), "{garbage}");
        }
        for garbage in [
            "",
            "C",
            "C2x",
            "E1",
            "E1x-y z",
            "E118446744073709551615-1 {\"v\":2}",
            "E112-1 {}",
            "P1x",
            "N1go",
            "N1run",
            "N1run x",
            "ZZ",
            "S1{}",
        ] {
            assert!(decode(garbage.as_bytes()).is_none(), "{garbage}");
        }
        assert!(decode(&[0xff; 80]).is_none());
    }

    #[test]
    fn notices_read_back_as_they_were_written_with_spaces_in_a_user_id() {
        let (generation, by) = (GenerationId::new(), UserId::new("a b c").expect("valid"));
        for sent in [Notice::Stop { generation, by }, Notice::Run { generation }] {
            let Some(Frame::Notice(read)) = decode(notice(&sent).as_bytes()) else { panic!() };
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn news_read_back_as_they_were_written() {
        let user = UserId::new("a \"b\" {ü}").expect("valid");
        let change = PresenceChange {
            user: user.clone(),
            online: true,
            last_seen_at: Timestamp::from_millis(1_767_323_045_678),
        };
        let sessions = ["a", "b:c"].map(|id| SessionId::new(id).expect("valid")).to_vec();
        let came_back = News::CameBack {
            user: user.clone(),
            client: "client".to_owned(),
            by: "connection".to_owned(),
        };
        for sent in [News::Disconnect { user }, News::Presence { change, sessions }, came_back] {
            let Some(Frame::News(read)) = decode(news(&sent).as_bytes()) else { panic!() };
            assert_eq!(read, sent);
        }
        let later = br#"A1{"disconnect":{"user":"ada","because":"of a later version"}}"#;
        assert!(matches!(decode(later), Some(Frame::News(News::Disconnect { .. }))));
    }
}
