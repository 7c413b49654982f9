//! Where a page of sessions ends, as clients hold it: opaque, so that it may change.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::{Error, Timestamp};
use crate::store::SessionCursor;

/// The end of the year 9999, which is the last that a timestamp can show.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// As text.
pub fn write(cursor: &SessionCursor) -> String {
    let text = format!("{} {}", cursor.active_at.as_millis(), cursor.session);
    URL_SAFE_NO_PAD.encode(text)
}

/// # Errors
/// `INVALID` for what [`write`] does not make.
pub fn read(text: &str) -> Result<SessionCursor, Error> {
    parse(text).ok_or_else(|| Error::invalid("cursor is none that was given out"))
}

fn parse(text: &str) -> Option<SessionCursor> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (millis, session) = text.split_once(' ')?;
    let millis = millis.parse().ok().filter(|millis| (0..=LAST_MILLIS).contains(millis))?;
    Some(SessionCursor {
        active_at: Timestamp::from_millis(millis),
        session: session.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_wrote_and_nothing_else() {
        let at = Timestamp::from_millis(1_767_323_045_678);
        let cursor = SessionCursor { active_at: at, session: "room:1".parse().unwrap() };
        assert_eq!(read(&write(&cursor)), Ok(cursor));
        for text in ["1 ", "a b", "1", " a", "-1 a", "253402300800000 a", "1 a/b", "\u{7f}"] {
            assert!(read(&URL_SAFE_NO_PAD.encode(text)).is_err(), "{text}");
        }
        for text in ["", "ä", "=", "AA==", "\0"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
