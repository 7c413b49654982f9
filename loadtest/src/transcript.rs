//! What a reader was told of one session: answers, put together, and numbered messages.

use std::borrow::Cow;

use anyhow::bail;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::payload;

/// New text, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// When it was read.
    pub at: Instant,
    /// Where the text before it ended, in UTF-16 code units.
    pub from: u64,
    /// Where the text behind it starts.
    pub end: u64,
    /// Of the whole packet.
    pub bytes: usize,
}

/// One answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// The message that it becomes.
    pub message: String,
    /// All its text so far, in the order in which it came.
    pub text: String,
    /// How it came; nothing of it where it came from the history.
    pub pieces: Vec<Piece>,
    /// Whether the end was told.
    pub is_complete: bool,
    end: u64,
}

impl Answer {
    /// Where the text ends so far, in UTF-16 code units.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The text before this place.
    pub fn text_to(&self, end: u64) -> String {
        let mut units = 0;
        let before = self.text.chars().take_while(|c| {
            units += c.len_utf16() as u64;
            units <= end
        });
        before.collect()
    }
}

/// What one reader was told.
#[derive(Debug, Default)]
pub struct Transcript {
    /// In the order of their first words.
    pub answers: Vec<Answer>,
    /// The numbers of the messages, in the order in which they came, and when.
    pub messages: Vec<(usize, Instant)>,
    /// Text that did not begin where the text before it ended, or an end that was told twice.
    pub out_of_place: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    message_id: &'a str,
    offset: u64,
    #[serde(borrow)]
    delta: Cow<'a, str>,
}

impl Transcript {
    /// Adds what an event says, whose packet has so many bytes.
    ///
    /// # Errors
    /// Where it cannot be read, or says that something failed.
    pub fn take(&mut self, event: &str, bytes: usize, at: Instant) -> anyhow::Result<()> {
        let name = event.strip_prefix("[\"").and_then(|rest| Some(rest.split_once('"')?.0));
        match name {
            Some("stream:chunk") => {
                let (_, Chunk { message_id, offset, delta }) = payload(event)?;
                self.text(message_id, offset, &delta, bytes, at);
            }
            Some("stream:complete") => {
                let (_, said) = payload::<Value>(event)?;
                self.ended(said["messageId"].as_str().unwrap_or_default());
            }
            Some("message:new") => self.message(&payload(event)?.1, at),
            Some("messages:missed") => {
                let (_, said) = payload::<Value>(event)?;
                for message in said["messages"].as_array().into_iter().flatten() {
                    self.message(message, at);
                }
            }
            Some("stream:error" | "stream:stopped" | "stream:reset" | "error") => bail!("{event}"),
            _ => {}
        }
        Ok(())
    }

    /// The answer that becomes this message.
    pub fn answer(&self, message: &str) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.message == message)
    }

    /// How many messages are missing of the first `sent`, how many came twice, and how many after
    /// a later one.
    pub fn faults(&self, sent: usize) -> [usize; 3] {
        let mut had = vec![false; sent];
        let (mut doubled, mut late, mut next) = (0, 0, 0);
        for (number, _) in &self.messages {
            match had.get_mut(*number) {
                Some(had) if !*had => {
                    *had = true;
                    late += usize::from(*number < next);
                }
                _ => doubled += 1,
            }
            next = next.max(number + 1);
        }
        [had.iter().filter(|had| !**had).count(), doubled, late]
    }

    fn text(&mut self, message: &str, offset: u64, delta: &str, bytes: usize, at: Instant) {
        let answer = self.of(message);
        let is_next = offset == answer.end && !answer.is_complete;
        if !delta.is_empty() {
            answer.text.push_str(delta);
            let end = offset + utf16_len(delta);
            answer.pieces.push(Piece { at, from: offset, end, bytes });
            answer.end = end;
        }
        self.out_of_place += u64::from(!is_next);
    }

    fn ended(&mut self, message: &str) {
        let answer = self.of(message);
        let again = std::mem::replace(&mut answer.is_complete, true);
        self.out_of_place += u64::from(again);
    }

    /// A stored message: a numbered one, or an answer.
    fn message(&mut self, message: &Value, at: Instant) {
        let number = message["clientMessageId"].as_str().and_then(|id| id.parse().ok());
        if let Some(number) = number {
            self.messages.push((number, at));
        }
        if message["role"] == "assistant" {
            let id = message["id"].as_str().unwrap_or_default();
            let answer = self.of(id);
            let content = message["content"].as_str().unwrap_or_default();
            if content.starts_with(&answer.text) {
                content.clone_into(&mut answer.text);
            }
            self.ended(id);
        }
    }

    fn of(&mut self, message: &str) -> &mut Answer {
        let found = self.answers.iter().position(|answer| answer.message == message);
        let at = found.unwrap_or_else(|| {
            self.answers.push(Answer { message: message.to_owned(), ..Answer::default() });
            self.answers.len() - 1
        });
        &mut self.answers[at]
    }
}

/// Its length in UTF-16 code units.
pub fn utf16_len(text: &str) -> u64 {
    text.chars().map(|c| c.len_utf16() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        for event in events {
            transcript.take(event, event.len(), Instant::now()).unwrap();
        }
        transcript
    }

    fn chunk(offset: u64, delta: &str) -> String {
        format!(
            r#"["stream:chunk",{{"messageId":"m","offset":{offset},"delta":"{delta}"}},"place"]"#
        )
    }

    #[test]
    fn text_is_put_together_and_what_is_out_of_place_counted() {
        let end = r#"["stream:complete",{"messageId":"m"}]"#;
        let good = told(&[&chunk(0, "a😀"), &chunk(3, "b"), &chunk(4, ""), end]);
        let answer = good.answer("m").unwrap();
        assert_eq!(
            (answer.text.as_str(), answer.is_complete, answer.pieces.len()),
            ("a😀b", true, 2)
        );
        assert_eq!(good.out_of_place, 0);
        assert_eq!((answer.text_to(3), answer.end()), ("a😀".to_owned(), 4));
        for wrong in [chunk(2, "b"), chunk(0, "a"), chunk(5, "")] {
            assert_eq!(told(&[&chunk(0, "a😀"), &wrong]).out_of_place, 1, "{wrong}");
        }
        assert_eq!(told(&[&chunk(0, "a"), end, end]).out_of_place, 1);
        assert_eq!(told(&[&chunk(0, "a"), end, &chunk(1, "b")]).out_of_place, 1);
    }

    #[test]
    fn messages_are_counted_by_their_numbers() {
        let new = |n: usize| format!(r#"["message:new",{{"clientMessageId":"{n}"}},"place"]"#);
        let missed = r#"["messages:missed",{"messages":[{"clientMessageId":"1"},{"id":"m","role":"assistant","content":"x"}]}]"#;
        let transcript = told(&[&new(0), missed, &new(2)]);
        assert_eq!(transcript.faults(3), [0, 0, 0]);
        assert_eq!(transcript.faults(4), [1, 0, 0]);
        assert_eq!(transcript.answer("m").unwrap().text, "x");
        assert_eq!(told(&[&new(1), &new(0), &new(1)]).faults(2), [0, 1, 1]);
    }
}
