//! Events and signals as nodes of different versions write them: in the log, in the outbox and on
//! the channels. The input is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokencast::codec::{self, CodecError};
use tokencast::dialect::{Dialects, Shown};
use tokencast::domain::{Cursor, Event, EventKind, SessionId, Signal};
use tokencast_fuzz::is_same;

/// The version that is written.
const VERSION: u64 = 1;

fuzz_target!(|bytes: &[u8]| {
    let version = serde_json::from_slice::<Value>(bytes).ok().and_then(|json| json["v"].as_u64());
    match codec::decode_event(bytes) {
        Ok(event) => {
            if version.is_some_and(|version| version != VERSION) {
                assert_eq!(event.kind, EventKind::Unknown, "of version {version:?}");
            }
            written_again(&event);
            shown(&event);
        }
        Err(CodecError::Version(_)) => panic!("an event of another version has its place"),
        Err(_) => {}
    }
    match codec::decode_signal(bytes) {
        Ok(signal) => {
            // `None`: a field that is passed over holds what is no text.
            assert!(version.is_none_or(|version| version == VERSION), "{version:?}");
            let written = codec::encode_signal(&signal);
            assert_eq!(codec::decode_signal(&written).expect("just written"), signal);
            signalled(&signal);
        }
        Err(CodecError::Version(other)) => assert_ne!(other, VERSION),
        Err(_) => {}
    }
});

fn written_again(event: &Event) {
    if event.kind == EventKind::Unknown {
        return;
    }
    let written = codec::encode_event(event);
    let read = codec::decode_event(&written).expect("just written");
    if read != *event {
        // Metadata may hold numbers with a fraction.
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("it is JSON");
        let (once, twice) = (json(&written), json(&codec::encode_event(&read)));
        assert!(once != twice && is_same(&once, &twice), "{event:?} is read as {read:?}");
    }
}

/// Whatever another node wrote, every reader can be shown it.
fn shown(event: &Event) {
    let dialects = Dialects::new(true);
    let session = SessionId::new("room").expect("it follows the rule");
    let cursor = Cursor::default();
    let names = ["session", "subscribe", "conversation", "persona"];
    let sockets = names.map(|name| dialects.by_name(name).expect("sockets speak it"));
    for index in sockets.into_iter().chain([dialects.sse()]) {
        for cursor in [None, Some(&cursor)] {
            dialects.encode(index, &session, Shown::Event { event, seq: 1, cursor });
        }
    }
}

fn signalled(signal: &Signal) {
    let dialects = Dialects::new(false);
    let session = SessionId::new("room").expect("it follows the rule");
    for dialect in dialects.sockets() {
        dialect.encode(&session, Shown::Signal(signal));
    }
}
