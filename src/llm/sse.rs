//! Server-sent events, read from the body of an HTTP response.
//!
//! Owns the limit on an event's size and the grammar (through `sseer`, which has no limit of its
//! own: one that a server never ends would fill the memory). It must not know what the events
//! say. <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use sseer::errors::EventStreamError;
use sseer::event::Event;
use sseer::event_stream::EventStream;

/// The most bytes between two blank lines. A larger event ends the stream with
/// [`SseError::TooLarge`]. Some APIs repeat a whole answer in its last events, where JSON can take
/// six bytes for a character.
pub(super) const EVENT_BYTES_MAX: usize = 4 << 20;

/// Why a stream of events ended other than by its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SseError<E> {
    /// Its bytes stopped coming.
    Transport(E),
    /// An event passed the limit.
    TooLarge,
    /// A line was not UTF-8.
    NotUtf8,
}

/// The events in `bytes`, however these were cut. A first byte-order mark is passed over, and so
/// is an event at the end without its blank line. Each event holds at most [`EVENT_BYTES_MAX`].
/// After an error nothing else is meaningful.
///
/// # Cancel safety
/// Safe: an event half read stays in the stream.
pub(super) fn events<S, E>(bytes: S) -> impl Stream<Item = Result<Event, SseError<E>>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Send,
{
    events_of_at_most(bytes, EVENT_BYTES_MAX)
}

fn events_of_at_most<S, E>(
    bytes: S,
    event_bytes_max: usize,
) -> impl Stream<Item = Result<Event, SseError<E>>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Send,
{
    let mut meter = Meter::new(event_bytes_max);
    let metered = bytes.flat_map(move |read| {
        let pieces = match read {
            Ok(piece) => meter.admit(piece),
            Err(error) => [Some(Err(SseError::Transport(error))), None],
        };
        stream::iter(pieces.into_iter().flatten())
    });
    EventStream::new(metered).map(|event| {
        event.map_err(|error| match error {
            EventStreamError::Transport(error) => error,
            EventStreamError::Utf8Error(_) => SseError::NotUtf8,
        })
    })
}

/// Counts the bytes of the event that is being read.
struct Meter {
    event_bytes_max: usize,
    event_bytes: usize,
    line_is_empty: bool,
    after_cr: bool,
}

impl Meter {
    fn new(event_bytes_max: usize) -> Self {
        Self { event_bytes_max, event_bytes: 0, line_is_empty: true, after_cr: false }
    }

    /// `piece` where all its events are small enough, else those before the one that is not, and
    /// the error.
    fn admit<E>(&mut self, mut piece: Bytes) -> [Option<Result<Bytes, SseError<E>>>; 2] {
        let mut whole_to = 0;
        for (at, byte) in piece.iter().enumerate() {
            self.event_bytes += 1;
            let ends_line = match byte {
                b'\r' => true,
                b'\n' => !self.after_cr,
                _ => false,
            };
            // The line feed of a CRLF belongs to the line that its CR has ended.
            let ends_blank_crlf = *byte == b'\n' && self.after_cr && self.event_bytes == 1;
            if ends_line && self.line_is_empty || ends_blank_crlf {
                self.event_bytes = 0;
                whole_to = at + 1;
            }
            self.line_is_empty = ends_line || (*byte == b'\n' && self.line_is_empty);
            self.after_cr = *byte == b'\r';
            if self.event_bytes > self.event_bytes_max {
                let before = piece.split_to(whole_to);
                return [Some(Ok(before)), Some(Err(SseError::TooLarge))];
            }
        }
        [Some(Ok(piece)), None]
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    type Read = Vec<Result<(String, String), SseError<&'static str>>>;

    /// What is read of `pieces`, up to the first error.
    fn read(pieces: &[&[u8]], event_bytes_max: usize) -> Read {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let events = events_of_at_most(stream::iter(pieces), event_bytes_max);
        let mut all: Read = events
            .map(|event| event.map(|e| (e.event.to_string(), e.data.to_string())))
            .collect()
            .now_or_never()
            .expect("a stream in memory never waits");
        if let Some(at) = all.iter().position(Result::is_err) {
            all.truncate(at + 1);
        }
        all
    }

    fn message(data: &str) -> Result<(String, String), SseError<&'static str>> {
        Ok(("message".into(), data.into()))
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let lines = "\u{feff}: hi\ndata: a\ndata: é€\n\nevent: ping\ndata:\n\nid: 7\ndata: 👩‍🚀\n\n\ndata: cut";
        let expected =
            vec![message("a\né€"), Ok(("ping".to_owned(), String::new())), message("👩‍🚀")];
        for ending in ["\n", "\r\n", "\r"] {
            let text = lines.replace('\n', ending);
            let bytes = text.as_bytes();
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(read(&[head, tail], 64), expected, "{ending:?} cut at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(&single, 64), expected, "{ending:?} byte by byte");
        }
    }

    #[test]
    fn an_event_past_the_limit_ends_the_stream_after_those_before_it() {
        for ending in ["\n", "\r\n"] {
            // 18 bytes with CRLF and the blank line; the limit counts per event.
            let fits = format!("data: 12345678{ending}{ending}").repeat(5);
            assert_eq!(read(&[fits.as_bytes()], 18), vec![message("12345678"); 5], "{ending:?}");

            let grows = format!("{fits}data: 1{ending}data: 2{ending}data: 3");
            let mut expected = vec![message("12345678"); 5];
            expected.push(Err(SseError::TooLarge));
            assert_eq!(read(&[grows.as_bytes()], 18), expected, "{ending:?}");
            let single: Vec<&[u8]> = grows.as_bytes().chunks(1).collect();
            assert_eq!(read(&single, 18), expected, "{ending:?} byte by byte");
        }
    }

    #[test]
    fn a_line_without_end_stops_at_the_limit() {
        assert_eq!(read(&[&[b'x'; 18]], 18), []);
        assert_eq!(read(&[&[b'x'; 19]], 18), [Err(SseError::TooLarge)]);
    }

    #[test]
    fn what_is_not_utf8_is_an_error() {
        assert_eq!(
            read(&[b"data: a\n\ndata: \xff\n\n"], 64),
            [message("a"), Err(SseError::NotUtf8)]
        );
    }
}
