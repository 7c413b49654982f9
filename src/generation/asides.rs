//! What a model does beside its text, joined and bounded on its way to the log.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Aside;

/// How long thinking is joined at least.
const JOINED_FOR: Duration = Duration::from_millis(250);
/// The most bytes kept of a generation's asides.
const BYTES_MAX: usize = 256 * 1024;
/// The most events made of them.
const EVENTS_MAX: usize = 500;

/// The asides of an attempt. Beyond its bounds nothing is kept, and the answer goes on.
#[derive(Default)]
pub(super) struct Asides {
    thinking: String,
    /// When the thinking that is being joined began.
    since: Option<Instant>,
    bytes: usize,
    events: usize,
}

impl Asides {
    /// Takes a piece; what is to be appended now, in order.
    pub(super) fn push(&mut self, aside: Aside) -> Vec<Aside> {
        let size = bytes_in(&aside);
        if self.bytes + size > BYTES_MAX || self.events >= EVENTS_MAX {
            return Vec::new();
        }
        self.bytes += size;
        if let Aside::Thinking { text } = aside {
            self.thinking.push_str(&text);
            if !self.thinking.is_empty() {
                self.since.get_or_insert_with(Instant::now);
            }
            return Vec::new();
        }
        let mut due = self.flush();
        if self.events < EVENTS_MAX {
            self.events += 1;
            due.push(aside);
        }
        due
    }

    /// When [`Asides::flush`] has to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + JOINED_FOR)
    }

    /// What waited to be joined with more.
    pub(super) fn flush(&mut self) -> Vec<Aside> {
        if self.since.take().is_none() {
            return Vec::new();
        }
        self.events += 1;
        vec![Aside::Thinking { text: std::mem::take(&mut self.thinking) }]
    }
}

/// How long an aside is.
pub(super) fn bytes_in(aside: &Aside) -> usize {
    match aside {
        Aside::Thinking { text } => text.len(),
        Aside::Tool { id, name, input } => id.len() + name.len() + input.len(),
        Aside::Citation { title, url } => title.len() + url.as_ref().map_or(0, String::len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thinking(text: &str) -> Aside {
        Aside::Thinking { text: text.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn thinking_is_joined_and_comes_before_what_follows_it() {
        let mut asides = Asides::default();
        assert_eq!(asides.due(), None);
        let begun = Instant::now();
        assert_eq!(asides.push(thinking("a")), []);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(asides.push(thinking("b")), []);
        assert_eq!(asides.due(), Some(begun + JOINED_FOR));
        assert_eq!(asides.flush(), [thinking("ab")]);
        assert_eq!((asides.due(), asides.flush()), (None, Vec::new()));
        let cited = Aside::Citation { title: "t".to_owned(), url: None };
        asides.push(thinking("c"));
        assert_eq!(asides.push(cited.clone()), [thinking("c"), cited]);
    }

    #[tokio::test]
    async fn they_are_bounded_in_bytes_and_number() {
        let mut asides = Asides::default();
        asides.push(thinking(&"x".repeat(BYTES_MAX)));
        assert_eq!(asides.push(thinking("y")), []);
        assert_eq!(asides.flush(), [thinking(&"x".repeat(BYTES_MAX))]);

        let mut asides = Asides::default();
        let tool = || Aside::Tool { id: String::new(), name: "t".to_owned(), input: String::new() };
        let kept: usize = (0..EVENTS_MAX + 5).map(|_| asides.push(tool()).len()).sum();
        assert_eq!(kept, EVENTS_MAX);
        asides.push(thinking("late"));
        assert_eq!(asides.flush(), []);
    }
}
