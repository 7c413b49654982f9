//! What is asked has to be within the limits: how often, how much, and of what shape.

use super::{Answerer, Caller, Shared};
use crate::domain::command::{EMOJI_BYTES_MAX, Put};
use crate::domain::{Action, AgentId, Command, Error, ErrorCode};
use crate::telemetry::metrics::{self, Limit};

/// The most characters of a title.
const TITLE_CHARS_MAX: usize = 200;

impl Shared {
    /// Counts one `action` of the caller. Before anything else of it.
    ///
    /// # Errors
    /// `RATE_LIMIT` where it is one too many; it is not counted then.
    pub(super) async fn count(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        let (name, rate) = (action.name(), self.options.rates.of(action));
        if rate.count == 0 {
            return Ok(());
        }
        self.adapter.count(&caller.user, name, rate).await.map_err(|after| {
            metrics::rate_limited(name).increment(1);
            Error::new(ErrorCode::RateLimit, format!("Too many requests ({name})"))
                .retry_after(after)
        })
    }

    /// The caller has to have tokens left that an answer may take.
    ///
    /// # Errors
    /// `RATE_LIMIT` where there are none.
    pub(super) async fn check_budget(&self, caller: &Caller) -> Result<(), Error> {
        let Some(budget) = self.options.budget else { return Ok(()) };
        self.adapter.spend(&caller.user, 0, budget).await.map_err(|after| {
            metrics::rate_limited("token_budget").increment(1);
            budget.spent(after)
        })
    }

    pub(super) fn check_content(&self, field: &str, content: &str) -> Result<(), Error> {
        check_text(field, content, self.options.content_chars_max, Some(Limit::Content))
    }

    pub(super) fn check_query(&self, query: &str) -> Result<(), Error> {
        check_text("query", query, self.options.search_chars_max, Some(Limit::Search))
    }

    /// How many a page holds.
    ///
    /// # Errors
    /// `INVALID` where that is none, or more than a page may hold.
    pub(super) fn check_page(&self, limit: u32) -> Result<u32, Error> {
        let max = self.options.page_max;
        if limit > max {
            metrics::limited(Limit::Page).increment(1);
        }
        if (1..=max).contains(&limit) {
            return Ok(limit);
        }
        Err(Error::invalid(format!("limit: must be a whole number from 1 to {max}")))
    }

    /// The agent has to exist.
    pub(super) fn answerer(&self, agent: &AgentId) -> Result<&Answerer, Error> {
        self.answerers.by_agent.get(agent).ok_or_else(|| Error::not_found("agent"))
    }
}

/// What a command counts as that came in an event of this name: each name by itself, but none as
/// something else than it is. Of the actions that fit, the first is taken for a name that is none
/// of them. What is not counted at all has one, too: its own family's, or `Request`.
pub(super) fn counted_as(command: &Command, event: &str) -> Action {
    const MESSAGES: &[Action] = &[Action::Send, Action::ChatSend, Action::ChatMessage];
    let fitting: &[Action] = match command {
        Command::Identify { .. } => &[Action::ChatAuth],
        Command::Join(_) | Command::Leave { .. } => {
            &[Action::Join, Action::Subscribe, Action::ChatJoin]
        }
        Command::JoinPersona { .. } => &[Action::ChatJoin],
        Command::Send(_) => MESSAGES,
        Command::RequestStream(request) => match request.put {
            Put::AsMessage { .. } => MESSAGES,
            Put::AsRequest => &[Action::Request],
        },
        Command::StopStream { .. } => &[Action::Request],
        Command::Edit { .. } => &[Action::Edit],
        Command::Delete { .. } => &[Action::Delete],
        Command::See { .. } => &[Action::See],
        Command::React { .. } => &[Action::React],
        Command::Type { .. } => &[Action::Type, Action::ChatType],
    };
    Action::named(event).filter(|action| fitting.contains(action)).unwrap_or(fitting[0])
}

/// A title is taken as it is given.
pub(super) fn check_title(title: &str) -> Result<(), Error> {
    check_text("title", title, TITLE_CHARS_MAX, None)?;
    if title.chars().any(char::is_control) {
        return Err(Error::invalid("title must not contain control characters"));
    }
    Ok(())
}

pub(super) fn check_emoji(emoji: &str) -> Result<(), Error> {
    if emoji.is_empty() || emoji.len() > EMOJI_BYTES_MAX || emoji.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "emoji must have 1 to {EMOJI_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

/// PostgreSQL cannot store NUL in text. Counts what is too long under `limit`.
fn check_text(
    field: &str,
    text: &str,
    chars_max: usize,
    limit: Option<Limit>,
) -> Result<(), Error> {
    let is_long = text.chars().nth(chars_max).is_some();
    if let Some(limit) = limit.filter(|_| is_long) {
        metrics::limited(limit).increment(1);
    }
    if text.is_empty() || is_long {
        return Err(Error::invalid(format!("{field} must have 1 to {chars_max} characters")));
    }
    if text.contains('\0') {
        return Err(Error::invalid(format!("{field} must not contain NUL")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::RequestStream;
    use crate::domain::{GenerationConfig, GenerationId, MessageId, SessionId};

    #[test]
    fn an_event_counts_under_its_name_but_never_as_something_else() {
        let session = SessionId::new("s").unwrap();
        let request = |put| {
            Command::RequestStream(RequestStream {
                session: session.clone(),
                prompt: "why?".to_owned(),
                agent: None,
                config: GenerationConfig::default(),
                client_message_id: None,
                put,
            })
        };
        let types = Command::Type { session: session.clone(), name: None, active: true };
        let message = MessageId::new();
        let joins = vec![Action::Join, Action::Subscribe, Action::ChatJoin];
        let messages = vec![Action::Send, Action::ChatSend, Action::ChatMessage];
        let react = Command::React { message, emoji: "+".to_owned() };
        for (command, fitting) in [
            (Command::Leave { session: session.clone() }, joins),
            (request(Put::AsMessage { echo: true }), messages.clone()),
            (request(Put::AsMessage { echo: false }), messages),
            (request(Put::AsRequest), vec![Action::Request]),
            (Command::StopStream { generation: GenerationId::new() }, vec![Action::Request]),
            (Command::Delete { message }, vec![Action::Delete]),
            (Command::See { session: session.clone(), message }, vec![Action::See]),
            (react, vec![Action::React]),
            (types, vec![Action::Type, Action::ChatType]),
        ] {
            for action in Action::ALL {
                let fits = fitting.contains(action);
                let expected = if fits { *action } else { fitting[0] };
                assert_eq!(counted_as(&command, action.name()), expected, "{command:?}");
            }
            assert_eq!(counted_as(&command, "nonsense"), fitting[0], "{command:?}");
        }
    }

    #[test]
    fn a_title_has_up_to_200_characters_and_none_that_control() {
        for good in ["a", " ", "Ein Gespräch über 東京 👩‍👩‍👧", &"é".repeat(200)] {
            assert_eq!(check_title(good), Ok(()), "{good}");
        }
        for bad in ["", "a\0", "a\nb", "\u{7f}", "a\u{85}b", &"é".repeat(201)] {
            assert_eq!(check_title(bad).map_err(|e| e.code), Err(ErrorCode::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn a_text_is_counted_in_characters_and_has_no_nul() {
        assert_eq!(check_text("content", "😀😀\n", 3, None), Ok(()));
        for (bad, says) in [
            ("", "content must have 1 to 3 characters"),
            ("😀😀😀😀", "content must have 1 to 3 characters"),
            ("a\0b", "content must not contain NUL"),
        ] {
            assert_eq!(check_text("content", bad, 3, None), Err(Error::invalid(says)));
        }
    }

    #[test]
    fn an_emoji_is_short_and_controls_nothing() {
        assert_eq!(check_emoji("👩‍❤️‍💋‍👩"), Ok(()));
        assert_eq!(check_emoji(&"x".repeat(EMOJI_BYTES_MAX)), Ok(()));
        for bad in ["", "\0", "a\n", &"x".repeat(EMOJI_BYTES_MAX + 1)] {
            assert!(check_emoji(bad).is_err(), "{bad:?}");
        }
    }
}
