//! Where a reader stands, as `Last-Event-ID` says it, and where a page of sessions ends. An input
//! is a text; one that begins with NUL tells a cursor to be written.
#![no_main]

use arbitrary::{Result, Unstructured};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use tokencast::domain::{Cursor, Position, TextCursor};
use tokencast::http::cursor as page;

/// The most answers that a text names.
const TEXTS_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, told)) => drop(write(&mut Unstructured::new(told))),
        _ => {
            if let Ok(text) = std::str::from_utf8(input) {
                read(text);
            }
        }
    }
});

fn read(text: &str) {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert!(cursor.texts.len() <= TEXTS_MAX);
        assert_eq!((cursor.part, cursor.given), (0, 0));
        let written = cursor.to_string();
        assert_eq!(written.parse(), Ok(cursor), "{written}");
    }
    match page::read(text) {
        Ok(cursor) => {
            let written = page::write(&cursor);
            assert_eq!(page::read(&written), Ok(cursor.clone()), "{written}");
            assert!((0..=253_402_300_799_999).contains(&cursor.active_at.as_millis()));
        }
        Err(error) => assert!(error.message.len() < 100, "{error}"),
    }
}

fn write(input: &mut Unstructured<'_>) -> Result<()> {
    let mut cursor = Cursor {
        position: Position { epoch: input.arbitrary()?, seq: input.arbitrary()? },
        ordinal: input.arbitrary()?,
        ..Cursor::default()
    };
    for _ in 0..input.int_in_range(0..=TEXTS_MAX + 6)? {
        let id = format!("{:032x}", input.arbitrary::<u128>()?);
        cursor.texts.push(TextCursor {
            generation: id.parse().expect("a UUID"),
            attempt: input.arbitrary()?,
            offset: input.arbitrary()?,
        });
    }
    let text = cursor.to_string();
    assert!(HeaderValue::from_str(&text).is_ok() && !text.contains(char::is_whitespace), "{text}");
    cursor.texts.truncate(TEXTS_MAX);
    assert_eq!(text.parse(), Ok(cursor), "{text}");
    Ok(())
}
