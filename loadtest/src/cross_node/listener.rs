//! One socket: it asks, where it is told to, and notes when it had what.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Packet, Socket, granted, packet, payload};

const CHUNK: &str = r#"["stream:chunk","#;

/// A question, and when it is put.
pub struct Ask {
    /// When.
    pub at: Instant,
    /// What.
    pub payload: Value,
}

/// New text, as a socket got it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    /// When it was read, from the beginning of the run on.
    pub at: Duration,
    /// Where the text behind it starts, in UTF-16 code units.
    pub end: u64,
    /// How many tokens came before it.
    pub tokens_before: u64,
}

/// What a socket heard of its session's answer.
#[derive(Debug, Default)]
pub struct Heard {
    /// The answer's id.
    pub stream: String,
    /// Its text.
    pub pieces: Vec<Piece>,
    /// Text that did not begin where the text before it ended, and whole texts that were not what
    /// had come before.
    pub out_of_place: u64,
    /// Whether the end was heard.
    pub complete: bool,
    /// What ended it before.
    pub error: Option<String>,
    /// Where the text ends so far, in UTF-16 code units.
    pub end: u64,
    /// How many tokens it has so far.
    pub tokens: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    stream_id: &'a str,
    offset: u64,
    #[serde(borrow)]
    delta: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
    tokens: u64,
    is_complete: bool,
}

/// Asks, and listens to the end of the answer, or to the deadline.
pub async fn listen(
    mut socket: Socket,
    ask: Option<Ask>,
    begin: Instant,
    deadline: Instant,
) -> Heard {
    let mut heard = Heard::default();
    let listening = timeout_at(deadline, hear(&mut socket, ask, begin, &mut heard)).await;
    heard.error = match listening {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("the answer did not end in time".to_owned()),
    };
    heard
}

async fn hear(
    socket: &mut Socket,
    ask: Option<Ask>,
    begin: Instant,
    heard: &mut Heard,
) -> anyhow::Result<()> {
    if let Some(ask) = ask {
        sleep_until(ask.at).await;
        socket.emit("stream:request", &ask.payload).await?;
    }
    while !heard.complete {
        let text = socket.receive().await?;
        let at = begin.elapsed();
        match packet(&text) {
            Packet::Event(event) if event.starts_with(CHUNK) => {
                let (_, chunk): (_, Chunk<'_>) = payload(event)?;
                heard.take(at, &chunk);
            }
            Packet::Event(event)
                if event.starts_with(r#"["stream:error""#) || event.starts_with(r#"["error""#) =>
            {
                bail!("{event}");
            }
            Packet::Ack(ack) => granted(ack)?,
            Packet::Event(_) | Packet::Other => {}
        }
    }
    Ok(())
}

impl Heard {
    fn take(&mut self, at: Duration, chunk: &Chunk<'_>) {
        if self.stream.is_empty() {
            chunk.stream_id.clone_into(&mut self.stream);
        }
        self.complete = chunk.is_complete;
        if chunk.offset != self.end || chunk.stream_id != self.stream {
            self.out_of_place += 1;
        }
        if !chunk.delta.is_empty() {
            self.end = chunk.offset + utf16_len(&chunk.delta);
            self.pieces.push(Piece { at, end: self.end, tokens_before: self.tokens });
            self.tokens = chunk.tokens;
        }
        if chunk.is_complete && utf16_len(&chunk.content) != self.end {
            self.out_of_place += 1;
        }
    }
}

fn utf16_len(text: &str) -> u64 {
    text.chars().map(|c| c.len_utf16() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, delta: &'static str, whole: Option<&'static str>) -> Chunk<'static> {
        Chunk {
            stream_id: "s",
            offset,
            delta: delta.into(),
            content: whole.unwrap_or_default().into(),
            tokens: offset + 1,
            is_complete: whole.is_some(),
        }
    }

    #[test]
    fn text_in_place_is_noted_with_its_end() {
        let mut heard = Heard::default();
        heard.take(Duration::from_millis(1), &chunk(0, "a😀", None));
        heard.take(Duration::from_millis(2), &chunk(3, "b", None));
        heard.take(Duration::from_millis(3), &chunk(4, "", Some("a😀b")));
        assert!(heard.complete);
        assert_eq!(heard.out_of_place, 0);
        let noted: Vec<_> = heard.pieces.iter().map(|p| (p.end, p.tokens_before)).collect();
        assert_eq!(noted, [(3, 0), (4, 1)]);
    }

    #[test]
    fn a_gap_a_repetition_and_another_whole_are_out_of_place() {
        for (second, whole) in [(2, "abc"), (0, "a"), (1, "other")] {
            let mut heard = Heard::default();
            heard.take(Duration::ZERO, &chunk(0, "a", None));
            heard.take(Duration::ZERO, &chunk(second, "b", Some(whole)));
            assert_eq!(heard.out_of_place, 1, "{second} {whole}");
        }
    }
}
