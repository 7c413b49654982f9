//! The offset of a connection, which its client gives back. An input that begins with `1` is a
//! text to be read; any other tells places to be written and read again.
#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tokencast::dialect::offset::{self, BYTES_MAX, UNRECOVERABLE};
use tokencast::dialect::{DialectIndex, Dialects};
use tokencast::domain::{Cursor, GenerationId, Position, SessionId, TextCursor};

/// `!`, an id of one character, `~`, and five numbers of one byte.
const PART_BYTES_MIN: usize = 10;

fuzz_target!(|input: &[u8]| {
    match std::str::from_utf8(input) {
        Ok(text) if text.starts_with('1') => read(text),
        _ => drop(write(&mut Unstructured::new(input))),
    }
});

fn read(text: &str) {
    let dialects = Dialects::new(false).sockets().count();
    let Ok(read) = offset::read(text, dialects) else { return };
    assert!(text.len() <= BYTES_MAX);
    assert!(read.dialect.slot() < dialects);
    assert!((1..=text.len() / PART_BYTES_MIN).contains(&read.places.len()));
    for (at, (session, _)) in read.places.iter().enumerate() {
        assert!(read.places[..at].iter().all(|(other, _)| other != session), "{session} twice");
    }
    let written = written(read.dialect, &read.places);
    assert!(written.len() <= text.len(), "what is read is never longer when it is written");
    assert_eq!(offset::read(&written, dialects), Ok(read));
}

fn write(input: &mut Unstructured<'_>) -> Result<()> {
    let dialects = Dialects::new(false);
    let name = *input.choose(&["session", "subscribe", "conversation", "persona"])?;
    let dialect = dialects.by_name(name).expect("sockets speak it");
    let mut places: Vec<(SessionId, Cursor)> = Vec::new();
    // Few, as a rule: what is too long for an offset takes long to write.
    let most = if input.ratio(1, 16)? { 300 } else { 12 };
    for number in 0..input.int_in_range(0..=most)? {
        // Ids that differ, and that begin alike.
        let Ok(id) = SessionId::new("a".repeat(number % 100) + &number.to_string()) else { break };
        places.push((id, cursor(input)?));
    }
    let text = written(dialect, &places);
    let read = offset::read(&text, dialects.sockets().count());
    if text == UNRECOVERABLE {
        assert!(read.is_err());
        let all: usize = places.iter().map(|(id, c)| offset::of(dialect, id, c).len()).sum();
        assert!(places.is_empty() || all > BYTES_MAX, "{all} bytes are not too many");
    } else {
        assert!(text.len() <= BYTES_MAX);
        let read = read.expect("it was written just now");
        assert_eq!((read.dialect, &read.places), (dialect, &places));
        let (first, _) = &places[0];
        assert!(offset::is_of(&text, first));
        assert!(places[1..].iter().all(|(other, _)| !offset::is_of(&text, other)));
    }
    Ok(())
}

fn written(dialect: DialectIndex, places: &[(SessionId, Cursor)]) -> String {
    let all: Vec<_> = places.iter().map(|(id, at)| offset::of(dialect, id, at)).collect();
    offset::joined(all.iter().map(String::as_str))
}

fn cursor(input: &mut Unstructured<'_>) -> Result<Cursor> {
    let mut texts = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        let generation: GenerationId = uuid(input.arbitrary()?).parse().expect("a UUID");
        texts.push(TextCursor {
            generation,
            attempt: input.arbitrary()?,
            offset: input.arbitrary()?,
        });
    }
    Ok(Cursor {
        position: Position { epoch: input.arbitrary()?, seq: input.arbitrary()? },
        part: input.arbitrary()?,
        ordinal: input.arbitrary()?,
        given: input.arbitrary()?,
        texts,
    })
}

fn uuid(number: u128) -> String {
    format!("{number:032x}")
}
