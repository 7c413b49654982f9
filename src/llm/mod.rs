//! Language models: what is asked of one, what comes back, and the providers.
//!
//! A provider turns a [`Request`] into a stream of [`Delta`]s. It must not know sessions, readers
//! or storage, and it neither joins, retries nor times out between tokens: `generation` does.
//! A new provider is one file, a line each in [`provider`] and [`replay`], and its recordings for the
//! shared suite.

pub mod anthropic;
mod calls;
mod conversation;
pub mod openai;
mod prose;
pub mod responses;
pub mod scripted;
mod sse;
mod upstream;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use secrecy::SecretString;

pub use self::anthropic::Anthropic;
pub use self::conversation::{GATE, GO_ON};
pub use self::openai::OpenAi;
pub use self::responses::Responses;
pub use self::scripted::{Scripted, script};
use crate::domain::{Aside, StopReason, Usage};

/// Who speaks in a turn of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A person.
    User,
    /// The model.
    Assistant,
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who.
    pub speaker: Speaker,
    /// What they said.
    pub content: String,
}

/// What is asked of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model's name at the provider.
    pub model: String,
    /// The agent's instructions.
    pub system: Option<String>,
    /// The conversation, oldest first; the last turn is the prompt.
    pub turns: Vec<Turn>,
    /// The beginning of the answer, written by an earlier attempt: only what follows it is to be
    /// said. Given back to the model as the provider allows: as its own turn to go on with, else
    /// as its turn and an instruction, [`GO_ON`]. `max_tokens` still counts the whole answer where
    /// the provider can, which of those here only the scripted one does.
    pub partial: Option<String>,
    /// The answer decides whether a pipeline goes on: a JSON object
    /// `{ "proceed": bool, "output": string }`. Models are told so by an instruction, [`GATE`], and
    /// may still say anything else.
    pub is_gate: bool,
    /// 0 to 2; the provider's default where unset.
    pub temperature: Option<f64>,
    /// The most tokens to answer with; the provider's default where unset.
    pub max_tokens: Option<u32>,
}

/// Something new from a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// New text, never empty.
    Text(String),
    /// Something beside the text, each piece as it comes.
    Aside(Aside),
    /// What it cost so far: cumulative, a later one replaces an earlier one.
    Usage(Usage),
    /// The answer is whole. Nothing follows but, with some providers, a last `Usage` before it.
    Done(StopReason),
}

/// Why a model gave no answer, or only a part of one. No variant's text holds a key, a prompt or
/// an upstream's body.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider could not be reached.
    #[error("connect to the provider")]
    Connect(#[source] reqwest::Error),
    /// It refused for now (429, 503, 529, or an `overloaded` error after HTTP 200).
    #[error("the provider is overloaded")]
    Overloaded {
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// It refused the request or failed (any other status).
    #[error("the provider answered HTTP {0}")]
    Status(u16),
    /// It sent an error after HTTP 200; the word is its error type, cut to 64 characters.
    #[error("the provider broke off with an error: {0}")]
    Reported(String),
    /// The stream ended without its terminator, or broke.
    #[error("the provider's stream broke off")]
    BrokenOff(#[source] Option<reqwest::Error>),
    /// The stream held something that is not of the protocol, or too large.
    #[error("the provider's stream is not understood: {0}")]
    Protocol(&'static str),
}

impl ProviderError {
    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Overloaded { .. } | Self::BrokenOff(_) => true,
            Self::Status(status) => *status == 408 || *status >= 500,
            Self::Reported(word) => PASSING.contains(&word.as_str()),
            Self::Protocol(_) => false,
        }
    }
}

/// What servers report when it is not the request's fault.
const PASSING: [&str; 8] = [
    "api_error",
    "server_error",
    "internal_error",
    "internal_server_error",
    "InternalServerError",
    "timeout_error",
    "500",
    "504",
];

/// A model's answer as it comes. Dropping it closes the upstream connection.
pub type Deltas = BoxStream<'static, Result<Delta, ProviderError>>;

/// An LLM API.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its id in the agents file, which is also its metrics label.
    fn id(&self) -> &'static str;

    /// Asks a model. Answers once the provider has accepted the request.
    ///
    /// # Errors
    /// [`ProviderError`], here or as the stream's last item. A stream that ends without
    /// [`Delta::Done`] or an error does not exist: that end is [`ProviderError::BrokenOff`].
    ///
    /// # Cancel safety
    /// Dropping the future or the stream closes the upstream connection.
    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError>;
}

/// A provider, whichever it is.
pub type SharedProvider = Arc<dyn Provider>;

/// What a provider is made from. Each takes what it needs and passes over the rest.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is; the provider's own address where unset.
    pub base_url: Option<String>,
    /// What it is asked with; a local server needs none.
    pub api_key: Option<SecretString>,
    /// The most time to spend on connecting, names and TLS included. 10 s.
    pub connect_timeout: Duration,
    /// The scripted provider's pace; 0 = at once. 50.
    pub tokens_per_second: f64,
    /// The length of the scripted provider's answers. 120.
    pub tokens: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_url: None,
            api_key: None,
            connect_timeout: Duration::from_secs(10),
            tokens_per_second: 50.0,
            tokens: 120,
        }
    }
}

/// Why a provider could not be made. No variant's text holds a key or an address.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is none of this id.
    #[error("there is no provider {0:?}")]
    Unknown(String),
    /// The base URL is no `http` or `https` URL.
    #[error("the provider's base URL is not an http or https URL")]
    BaseUrl,
    /// The key cannot stand in an HTTP header.
    #[error("the provider's API key holds characters that no HTTP header can")]
    ApiKey,
    /// No HTTP client could be made.
    #[error("make the provider's HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Makes the provider that the agents file calls `id`.
///
/// # Errors
/// [`SetupError`], for a person to read at the start.
pub fn provider(id: &str, settings: &Settings) -> Result<SharedProvider, SetupError> {
    let Settings { base_url, api_key, connect_timeout, tokens_per_second, tokens } = settings;
    let base_url = base_url.as_deref();
    Ok(match id {
        "anthropic" => Arc::new(Anthropic::new(base_url, api_key.as_ref(), *connect_timeout)?),
        "openai" => Arc::new(OpenAi::new(base_url, api_key.as_ref(), *connect_timeout)?),
        "openai-responses" => {
            Arc::new(Responses::new(base_url, api_key.as_ref(), *connect_timeout)?)
        }
        "scripted" => Arc::new(Scripted::new(*tokens_per_second, *tokens)),
        unknown => return Err(SetupError::Unknown(unknown.to_owned())),
    })
}

/// What the provider `id` makes of a response that was recorded, in `pieces` as they are cut: the
/// same as of one that comes over HTTP. `None` where there is no such provider, or it asks nobody.
pub fn replay(id: &str, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Option<Deltas> {
    let pieces = pieces.map(Ok);
    let seam = String::new();
    Some(match id {
        "anthropic" => upstream::read(pieces, anthropic::Answer::default(), seam),
        "openai" => upstream::read(pieces, openai::Answer::default(), seam),
        "openai-responses" => upstream::read(pieces, responses::Answer::default(), seam),
        _ => return None,
    })
}
