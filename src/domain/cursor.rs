//! Where a reader stands: what it was shown of a session, so that it can go on from there on any
//! node.

use std::fmt;
use std::str::FromStr;

use super::{GenerationId, Position};

/// The most unfinished answers that a cursor's text names.
const TEXTS_MAX: usize = 64;
/// The most bytes of a cursor's text: its head, and each answer's id, attempt and offset.
const BYTES_MAX: usize = 64 + TEXTS_MAX * 72;

/// What a reader was shown of a session: the events up to `position`, and of each answer that was
/// not finished then the text up to an offset. The default is before everything.
///
/// Its text is `<epoch>-<seq>:<ordinal>`, then `:<generation>.<attempt>.<offset>` for each
/// unfinished answer; it stands in URLs and headers as it is. It is no secret and no proof:
/// whoever reads one checks what it is used for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last event of the log.
    pub position: Position,
    /// Where a vocabulary says that event in several pieces, and only some of them were shown: how
    /// many. 0: all. A cursor's text does not have it.
    pub part: u8,
    /// The highest ordinal of the messages that the log brought up to there, so that what follows
    /// can be had from the store once the log has lost it. 0: none, or not known.
    pub ordinal: u64,
    /// Up to which ordinal it was given messages from the store that the log may bring yet; 0: none.
    /// A cursor's text does not have it.
    pub given: u64,
    /// How much of each unfinished answer.
    pub texts: Vec<TextCursor>,
}

/// How much of an answer a reader was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextCursor {
    /// Whose text.
    pub generation: GenerationId,
    /// Of which attempt.
    pub attempt: u32,
    /// Up to where, in bytes.
    pub offset: u64,
}

/// A text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a stream")]
pub struct InvalidCursor;

impl Cursor {
    /// The ordinal up to which its reader was shown every message whole: events that are said in
    /// several pieces are ends of answers.
    pub fn has_upto(&self) -> u64 {
        self.ordinal.saturating_sub(u64::from(self.part > 0)).max(self.given)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.position, self.ordinal)?;
        self.texts
            .iter()
            .take(TEXTS_MAX)
            .try_for_each(|text| write!(f, ":{}.{}.{}", text.generation, text.attempt, text.offset))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        if text.len() > BYTES_MAX {
            return Err(InvalidCursor);
        }
        let mut parts = text.split(':');
        let (epoch, seq) = parts.next().and_then(|p| p.split_once('-')).ok_or(InvalidCursor)?;
        let position = Position { epoch: number(epoch)?, seq: number(seq)? };
        let ordinal = number(parts.next().ok_or(InvalidCursor)?)?;
        let texts = parts.map(text_cursor).collect::<Result<Vec<_>, _>>()?;
        if texts.len() > TEXTS_MAX {
            return Err(InvalidCursor);
        }
        Ok(Self { position, part: 0, ordinal, given: 0, texts })
    }
}

fn text_cursor(part: &str) -> Result<TextCursor, InvalidCursor> {
    let mut fields = part.split('.');
    let mut field = || fields.next().ok_or(InvalidCursor);
    let generation = field()?.parse().map_err(|_| InvalidCursor)?;
    let attempt = number(field()?)?.try_into().map_err(|_| InvalidCursor)?;
    let offset = number(field()?)?;
    if fields.next().is_some() {
        return Err(InvalidCursor);
    }
    Ok(TextCursor { generation, attempt, offset })
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Result<u64, InvalidCursor> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidCursor);
    }
    text.parse().map_err(|_| InvalidCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let position = Position { epoch: u64::MAX, seq: 7 };
        let text =
            |attempt, offset| TextCursor { generation: GenerationId::new(), attempt, offset };
        for texts in [vec![], vec![text(1, 0)], (0..64).map(|_| text(u32::MAX, u64::MAX)).collect()]
        {
            let cursor = Cursor { position, ordinal: u64::MAX, texts, ..Cursor::default() };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert_eq!("0-0:0".parse(), Ok(Cursor::default()));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let id = GenerationId::new();
        for bad in [
            String::new(),
            "1".to_owned(),
            "1-2".to_owned(),
            "1-2:".to_owned(),
            "-1-2:3".to_owned(),
            "+1-2:3".to_owned(),
            "1-2:3:".to_owned(),
            "1-18446744073709551616:3".to_owned(),
            format!("1-2:3:{id}"),
            format!("1-2:3:{id}.1"),
            format!("1-2:3:{id}.1.2.3"),
            format!("1-2:3:{id}.4294967296.2"),
            format!("1-2:3:{id}.1.-2"),
            format!("1-2:3{}", format!(":{id}.1.1").repeat(65)),
            "1".repeat(100_000),
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}
