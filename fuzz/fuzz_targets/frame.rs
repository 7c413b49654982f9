//! What nodes tell each other over Redis: the input is one message of a channel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokencast::adapter::frame::{self, Frame};
use tokencast::codec;
use tokencast::domain::{EventKind, Position};

fuzz_target!(|bytes: &[u8]| {
    let Some(read) = frame::decode(bytes) else { return };
    let known = ["C1", "E1", "S1", "P1", "A1", "N1"];
    assert!(known.iter().any(|kind| bytes.starts_with(kind.as_bytes())), "of another version");
    match read {
        Frame::Chunk(chunk) => {
            assert!(!chunk.delta.is_empty());
            let written = [&frame::chunk_header(&chunk)[..], chunk.delta.as_bytes()].concat();
            assert_eq!(written, bytes);
        }
        Frame::Event(at, event) => {
            assert_eq!(frame::position(&at.to_string()), Some(at));
            assert!(!at.follows(at));
            let next = Position { seq: at.seq.wrapping_add(1), ..at };
            assert_eq!(next.follows(at), at.seq < u64::MAX);
            if event.kind != EventKind::Unknown {
                assert!(codec::decode_event(&codec::encode_event(&event)).is_ok());
            }
        }
        Frame::Signal(signal) => {
            let read = frame::decode(&frame::signal(&signal));
            assert!(matches!(read, Some(Frame::Signal(read)) if read == signal));
        }
        Frame::Ping(number) => {
            let read = frame::decode(frame::ping(number).as_bytes());
            assert!(matches!(read, Some(Frame::Ping(read)) if read == number));
        }
        Frame::Notice(notice) => {
            let read = frame::decode(frame::notice(&notice).as_bytes());
            assert!(matches!(read, Some(Frame::Notice(read)) if read == notice));
        }
        Frame::News(news) => {
            let read = frame::decode(frame::news(&news).as_bytes());
            assert!(matches!(read, Some(Frame::News(read)) if read == news));
        }
    }
});
