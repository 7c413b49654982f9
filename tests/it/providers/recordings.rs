//! Recorded streams, what they mean, and how an answer is held against that.

use tokencast::domain::Usage;
use tokencast::llm::{Delta, ProviderError};

/// All that a provider answered.
pub type Read = Vec<Result<Delta, ProviderError>>;

/// A stream as an upstream sends it, and what it means.
pub struct Recording {
    pub provider: &'static str,
    pub name: &'static str,
    pub bytes: &'static str,
    pub text: &'static [&'static str],
    pub usage: Option<(u64, u64)>,
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    Done(&'static str),
    Overloaded,
    Reported(&'static str),
    BrokenOff,
    Protocol,
}

macro_rules! openai {
    ($name:literal, $text:expr, $usage:expr, $end:expr) => {
        Recording {
            provider: "openai",
            name: $name,
            bytes: include_str!(concat!("../../fixtures/llm/openai/", $name, ".sse")),
            text: &$text,
            usage: $usage,
            end: $end,
        }
    };
}

pub fn recordings() -> Vec<Recording> {
    vec![
        openai!(
            "answer",
            ["Hello", "!", " How can I help?"],
            Some((19, 10)),
            End::Done("end_turn")
        ),
        openai!(
            "multi_byte",
            ["é", "€ 東京", " 👩‍🚀", "\n\n🇨🇭", " 😀é"],
            Some((3, 5)),
            End::Done("end_turn")
        ),
        openai!("length", ["Once upon", " a"], Some((4, 2)), End::Done("max_tokens")),
        openai!("content_filter", ["Well"], None, End::Done("content_filter")),
        openai!("chatter", ["Hi"], Some((7, 2)), End::Done("end_turn")),
        openai!("no_terminator", ["Whole"], Some((1, 1)), End::Done("end_turn")),
        openai!("cut", ["Half an"], None, End::BrokenOff),
        openai!("not_json", ["Half an"], None, End::Protocol),
        openai!("error_after_200", ["Half an"], None, End::Reported("server_error")),
        openai!("overloaded_after_200", ["Half an"], None, End::Overloaded),
    ]
}

pub fn text_of(delta: &Result<Delta, ProviderError>) -> Option<&str> {
    if let Ok(Delta::Text(text)) = delta { Some(text) } else { None }
}

/// What holds for each answer of each provider.
pub fn assert_conforms(read: &Read, context: &str) {
    let (last, before) = read.split_last().expect(context);
    assert!(matches!(last, Ok(Delta::Done(_)) | Err(_)), "{context}: ends with {last:?}");
    for delta in before {
        assert!(
            !matches!(delta, Ok(Delta::Done(_)) | Err(_)),
            "{context}: goes on after {delta:?}"
        );
        assert_ne!(text_of(delta), Some(""), "{context}");
    }
}

pub fn assert_is(recording: &Recording, read: &Read, context: &str) {
    assert_conforms(read, context);
    let texts: Vec<_> = read.iter().filter_map(text_of).collect();
    assert_eq!(texts, recording.text, "{context}");
    let usage = read.iter().rev().find_map(|delta| match delta {
        Ok(Delta::Usage(Usage { input_tokens, output_tokens, .. })) => {
            Some((*input_tokens, *output_tokens))
        }
        _ => None,
    });
    assert_eq!(usage, recording.usage, "{context}");
    match (read.last().expect(context), recording.end) {
        (Ok(Delta::Done(reason)), End::Done(word)) => {
            assert_eq!(reason.as_str(), word, "{context}")
        }
        (Err(error), end) => {
            assert_tells_nothing(error, context);
            let is = match error {
                ProviderError::Overloaded { retry_after: None } => end == End::Overloaded,
                ProviderError::Reported(word) => end == End::Reported(word_of(word, end)),
                ProviderError::BrokenOff(_) => end == End::BrokenOff,
                ProviderError::Protocol(_) => end == End::Protocol,
                _ => false,
            };
            assert!(is, "{context}: {error:?} is not {end:?}");
        }
        other => panic!("{context}: {other:?}"),
    }
}

fn word_of(word: &str, end: End) -> &'static str {
    match end {
        End::Reported(expected) if expected == word => expected,
        _ => "another word",
    }
}

/// Neither a key nor an upstream's body nor its address.
pub fn assert_tells_nothing(error: &ProviderError, context: &str) {
    let told = format!("{error} {error:?}");
    for secret in ["hunter2", "/v1/"] {
        assert!(!told.contains(secret), "{context}: {told}");
    }
}
