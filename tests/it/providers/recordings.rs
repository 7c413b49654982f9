//! Recorded streams, what they mean, and how an answer is held against that.
//!
//! `tests/fixtures/llm/<provider>/<case>.sse` is what an upstream sends; `<case>.json` beside it
//! says what is read of it, as [`Meaning`] has it.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use tokencast::domain::{Aside, Usage};
use tokencast::llm::{Delta, ProviderError};

/// The providers behind HTTP, each a folder of recordings.
pub const PROVIDERS: [&str; 3] = ["anthropic", "openai", "openai-responses"];

/// All that a provider answered.
pub type Read = Vec<Result<Delta, ProviderError>>;

/// A stream as an upstream sends it, and what it means.
pub struct Recording {
    pub provider: &'static str,
    pub name: String,
    pub bytes: String,
    pub meaning: Meaning,
}

impl Recording {
    pub fn says_thinking(&self) -> bool {
        !self.meaning.thinking.is_empty()
    }

    pub fn says_tools(&self) -> bool {
        !self.meaning.tools.is_empty()
    }

    pub fn says_citations(&self) -> bool {
        !self.meaning.citations.is_empty()
    }

    pub fn says_cached(&self) -> bool {
        self.meaning.usage.as_ref().is_some_and(|usage| usage.cached_tokens > 0)
    }
}

/// What a recording means. Texts are joined.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Meaning {
    text: String,
    #[serde(default)]
    thinking: String,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    citations: Vec<Citation>,
    /// The last of them; none where the stream says nothing of it.
    usage: Option<Tokens>,
    pub end: End,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    id: String,
    name: String,
    input: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Citation {
    title: String,
    url: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tokens {
    input_tokens: u64,
    output_tokens: u64,
    cached_tokens: u64,
}

/// The reason to stop, or `overloaded`, `broken_off`, `protocol`, or the upstream's own word for
/// its error.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum End {
    Done(String),
    Failed { error: String },
}

/// All recordings of all providers.
pub fn recordings() -> Vec<Recording> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llm");
    let mut recordings = Vec::new();
    for provider in PROVIDERS {
        let files = fs::read_dir(fixtures.join(provider)).expect("each has recordings");
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        let (streams, meanings): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| path.extension().is_some_and(|end| end == "sse"));
        assert!(streams.len() >= 10, "{provider}");
        assert_eq!(streams.len(), meanings.len(), "{provider}: each has its meaning beside it");
        for path in streams {
            let name = format!("{provider}/{}", path.file_stem().unwrap().display());
            let meaning = fs::read(path.with_extension("json")).expect(&name);
            recordings.push(Recording {
                provider,
                bytes: fs::read_to_string(&path).expect(&name),
                meaning: serde_json::from_slice(&meaning).expect(&name),
                name,
            });
        }
    }
    recordings
}

pub fn text_of(delta: &Result<Delta, ProviderError>) -> Option<&str> {
    if let Ok(Delta::Text(text)) = delta { Some(text) } else { None }
}

/// What holds for each answer of each provider.
pub fn assert_conforms(read: &Read, context: &str) {
    let (last, before) = read.split_last().expect(context);
    assert!(matches!(last, Ok(Delta::Done(_)) | Err(_)), "{context}: ends with {last:?}");
    let mut output_tokens = 0;
    for delta in before {
        match delta {
            Ok(Delta::Done(_)) | Err(_) => panic!("{context}: goes on after {delta:?}"),
            Ok(Delta::Text(text) | Delta::Aside(Aside::Thinking { text })) => {
                assert_ne!(text, "", "{context}");
            }
            Ok(Delta::Usage(usage)) => {
                assert!(usage.output_tokens >= output_tokens, "{context}: it is cumulative");
                assert!(usage.cached_tokens <= usage.input_tokens, "{context}: a part of it");
                output_tokens = usage.output_tokens;
            }
            Ok(Delta::Aside(_)) => {}
        }
    }
    if let Err(error) = last {
        assert_tells_nothing(error, context);
    }
}

pub fn assert_is(recording: &Recording, read: &Read, context: &str) {
    assert_conforms(read, context);
    assert_eq!(meaning_of(read), recording.meaning, "{context}");
}

/// What `read`, which conforms, means.
fn meaning_of(read: &Read) -> Meaning {
    let mut meaning = Meaning {
        text: String::new(),
        thinking: String::new(),
        tools: Vec::new(),
        citations: Vec::new(),
        usage: None,
        end: End::Done(String::new()),
    };
    for delta in read {
        match delta {
            Ok(Delta::Text(text)) => meaning.text += text,
            Ok(Delta::Aside(Aside::Thinking { text })) => meaning.thinking += text,
            Ok(Delta::Aside(Aside::Tool { id, name, input })) => {
                let (id, name, input) = (id.clone(), name.clone(), input.clone());
                meaning.tools.push(Tool { id, name, input });
            }
            Ok(Delta::Aside(Aside::Citation { title, url })) => {
                meaning.citations.push(Citation { title: title.clone(), url: url.clone() });
            }
            Ok(Delta::Usage(usage)) => {
                let Usage { input_tokens, output_tokens, cached_tokens } = *usage;
                meaning.usage = Some(Tokens { input_tokens, output_tokens, cached_tokens });
            }
            Ok(Delta::Done(reason)) => meaning.end = End::Done(reason.as_str().to_owned()),
            Err(error) => meaning.end = End::Failed { error: word_of(error).to_owned() },
        }
    }
    meaning
}

fn word_of(error: &ProviderError) -> &str {
    match error {
        ProviderError::Overloaded { retry_after: None } => "overloaded",
        ProviderError::Reported(word) => word,
        ProviderError::BrokenOff(_) => "broken_off",
        ProviderError::Protocol(_) => "protocol",
        _ => "another",
    }
}

/// Neither a key nor an upstream's body nor its address.
pub fn assert_tells_nothing(error: &ProviderError, context: &str) {
    let told = format!("{error} {error:?}");
    for secret in ["hunter2", "/v1/"] {
        assert!(!told.contains(secret), "{context}: {told}");
    }
}
