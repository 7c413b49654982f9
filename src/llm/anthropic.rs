//! The Messages API of Anthropic, and the gateways that speak it.
//!
//! Owns what is sent to `{base}/v1/messages` and how its events are read. Events, blocks, deltas
//! and fields that it does not know are passed over.
//! <https://platform.claude.com/docs/en/build-with-claude/streaming>

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, header};
use reqwest::{Client, Url};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::calls::Calls;
use super::conversation::{Conversation, Resumption, role};
use super::upstream::{self, Vocabulary};
use super::wire::{self, lenient};
use super::{Delta, Deltas, Provider, ProviderError, Request, SetupError};
use crate::domain::{Aside, StopReason, Usage};

/// Where it is asked unless told otherwise.
pub const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// The most tokens to answer with where the request says nothing: the API has no default of its
/// own. Every model since Claude 3.5 can answer with as many.
pub const MAX_TOKENS: u32 = 8192;

/// The version of the API that is spoken here.
const VERSION: &str = "2023-06-01";
/// The API refuses a higher temperature.
const TEMPERATURE_MAX: f64 = 1.0;
/// The first version whose models refuse an answer that was begun for them.
const WITHOUT_PREFILL: (u32, u32) = (4, 6);

/// A server of the Messages API.
pub struct Anthropic {
    client: Client,
    url: Url,
    key: Option<HeaderValue>,
}

impl Anthropic {
    /// The server at `base_url`, without `/v1` ([`DEFAULT_BASE_URL`] where unset). Without a key
    /// no `x-api-key` is sent: a gateway may need none.
    ///
    /// # Errors
    /// [`SetupError`] where the URL or the key cannot be used or no client can be made.
    pub fn new(
        base_url: Option<&str>,
        api_key: Option<&SecretString>,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let base_url = base_url.unwrap_or(DEFAULT_BASE_URL);
        let url = upstream::endpoint(base_url, &["v1", "messages"])?;
        let key = match api_key {
            Some(key) => upstream::secret_header("", key)?,
            None => None,
        };
        Ok(Self { client: upstream::client(connect_timeout)?, url, key })
    }
}

#[async_trait]
impl Provider for Anthropic {
    fn id(&self) -> &'static str {
        "anthropic"
    }

    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError> {
        let conversation = Conversation::of(request, resumption(&request.model)).alternating();
        let seam = conversation.seam.to_owned();
        let mut post = self
            .client
            .post(self.url.clone())
            .header(header::ACCEPT, "text/event-stream")
            .header("anthropic-version", VERSION)
            .json(&Body::of(request, &conversation));
        if let Some(key) = &self.key {
            post = post.header("x-api-key", key.clone());
        }
        let response = upstream::send(post).await?;
        Ok(upstream::deltas(response, Answer::default(), seam))
    }
}

/// How `model` goes on with an answer: a prefill where its name says that it is of a version that
/// takes one, such as `claude-3-5-haiku-latest`, `claude-sonnet-4-20250514` or, at a gateway,
/// `anthropic/claude-opus-4.5`.
fn resumption(model: &str) -> Resumption {
    let Some((_, name)) = model.rsplit_once("claude-") else { return Resumption::Instruction };
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let is_known = words().any(|word| matches!(word, "opus" | "sonnet" | "haiku"));
    // A date is no version, and ends one.
    let mut version = words()
        .skip_while(|word| word.parse::<u32>().is_err())
        .map_while(|word| word.parse().ok().filter(|number: &u32| *number < 100));
    let version = version.next().map(|major| (major, version.next().unwrap_or(0)));
    match version {
        Some(version) if is_known && version < WITHOUT_PREFILL => Resumption::Prefill,
        _ => Resumption::Instruction,
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    stream: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> Body<'a> {
    fn of(request: &'a Request, conversation: &'a Conversation<'_>) -> Self {
        let turns = conversation.turns.iter();
        Self {
            model: &request.model,
            max_tokens: request.max_tokens.unwrap_or(MAX_TOKENS),
            // The API refuses a blank one.
            system: conversation.system.as_deref().filter(|system| !system.trim().is_empty()),
            messages: turns
                .map(|(speaker, content)| Message { role: role(*speaker), content })
                .collect(),
            temperature: request.temperature.map(|temperature| temperature.min(TEMPERATURE_MAX)),
            stream: true,
        }
    }
}

/// What is known of an answer besides its text.
#[derive(Default)]
pub(super) struct Answer {
    calls: Calls,
    tokens: Tokens,
    usage: Option<Usage>,
    reason: Option<StopReason>,
}

impl Vocabulary for Answer {
    fn read(&mut self, data: &str, deltas: &mut VecDeque<Delta>) -> Result<(), ProviderError> {
        let Some(event) = wire::object::<Event<'_>>(data)? else { return Ok(()) };
        let delta = event.delta.unwrap_or_default();
        match event.r#type.as_deref().unwrap_or_default() {
            "message_start" => {
                self.count(event.message.and_then(|message| message.usage), deltas);
            }
            "content_block_start" => {
                self.begin(event.index, event.content_block.unwrap_or_default(), deltas);
            }
            "content_block_delta" => self.go_on(event.index, delta, deltas),
            "content_block_stop" => {
                // Without an index it would end all that are open.
                let ended = event.index.map(|index| self.calls.end(Some(index)));
                deltas.extend(ended.into_iter().flatten().map(Delta::Aside));
            }
            "message_delta" => {
                if let Some(word) = delta.stop_reason {
                    self.reason = Some(stop_reason(&word));
                }
                self.count(event.usage, deltas);
            }
            "message_stop" => {
                deltas.extend(self.calls.end_all().map(Delta::Aside));
                deltas.push_back(Delta::Done(self.reason.take().unwrap_or(StopReason::EndTurn)));
            }
            "error" => return Err(wire::reported(event.error.map_or("", RawValue::get))),
            _ => {}
        }
        Ok(())
    }

    /// The terminator always comes with a whole answer.
    fn ended(&mut self) -> Option<StopReason> {
        None
    }
}

impl Answer {
    fn begin(&mut self, index: Option<u64>, block: Block<'_>, deltas: &mut VecDeque<Delta>) {
        match block.r#type.as_deref().unwrap_or_default() {
            "text" => upstream::push_text(deltas, block.text),
            "thinking" => upstream::push_thinking(deltas, block.thinking),
            // Those that the API runs itself, too: `server_tool_use`, `mcp_tool_use`.
            kind if kind.ends_with("tool_use") => {
                let (id, name) = (block.id.unwrap_or_default(), block.name.unwrap_or_default());
                self.calls.begin(index, &id, &name, block.input.map_or("{}", RawValue::get));
            }
            _ => {}
        }
    }

    fn go_on(&mut self, index: Option<u64>, delta: BlockDelta<'_>, deltas: &mut VecDeque<Delta>) {
        match delta.r#type.as_deref().unwrap_or_default() {
            "text_delta" => upstream::push_text(deltas, delta.text),
            "thinking_delta" => upstream::push_thinking(deltas, delta.thinking),
            "input_json_delta" => {
                self.calls.add(index, &delta.partial_json.unwrap_or_default());
            }
            "citations_delta" => {
                let source = delta.citation.and_then(Citation::into_aside);
                deltas.extend(source.map(Delta::Aside));
            }
            _ => {}
        }
    }

    fn count(&mut self, tokens: Option<Tokens>, deltas: &mut VecDeque<Delta>) {
        let Some(tokens) = tokens else { return };
        self.tokens = self.tokens.and(tokens);
        let usage = self.tokens.usage();
        if usage.is_some() && self.usage != usage {
            self.usage = usage;
            deltas.extend(usage.map(Delta::Usage));
        }
    }
}

fn stop_reason(raw: &str) -> StopReason {
    match raw {
        "end_turn" => StopReason::EndTurn,
        "max_tokens" => StopReason::MaxTokens,
        // `stop_sequence`, `tool_use`, `pause_turn`, `refusal`, …
        other => StopReason::Other(upstream::word(other).unwrap_or_else(|| "other".to_owned())),
    }
}

/// An event, as far as it is understood: what has another type than expected counts as absent.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    index: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<Started>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    delta: Option<BlockDelta<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<Tokens>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Started {
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<Tokens>,
}

#[derive(Default, Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    thinking: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// What is new of a block, or of the message.
#[derive(Default, Deserialize)]
struct BlockDelta<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    thinking: Option<String>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    partial_json: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    citation: Option<Citation>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    stop_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Citation {
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    document_title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    cited_text: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    url: Option<String>,
}

impl Citation {
    fn into_aside(self) -> Option<Aside> {
        let titles = [self.title, self.document_title, self.cited_text];
        let title = titles.into_iter().flatten().find(|title| !title.is_empty());
        if title.is_none() && self.url.is_none() {
            return None;
        }
        Some(Aside::Citation { title: title.unwrap_or_default(), url: self.url })
    }
}

/// Each count is cumulative, and absent where an event does not repeat it.
#[derive(Clone, Copy, Default, Deserialize)]
struct Tokens {
    #[serde(default, deserialize_with = "lenient")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    output_tokens: Option<u64>,
}

impl Tokens {
    /// With a later event's counts.
    fn and(self, later: Self) -> Self {
        // Gateways send zeros for what they do not know; a count that has grown does not shrink.
        Self {
            input_tokens: self.input_tokens.max(later.input_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .max(later.cache_creation_input_tokens),
            cache_read_input_tokens: self
                .cache_read_input_tokens
                .max(later.cache_read_input_tokens),
            output_tokens: self.output_tokens.max(later.output_tokens),
        }
    }

    /// `input_tokens` does not count what was written to the cache or read from it.
    fn usage(self) -> Option<Usage> {
        self.input_tokens.or(self.output_tokens)?;
        let created = self.cache_creation_input_tokens.unwrap_or_default();
        let cached_tokens = self.cache_read_input_tokens.unwrap_or_default();
        let input = self.input_tokens.unwrap_or_default();
        Some(Usage {
            input_tokens: input.saturating_add(created).saturating_add(cached_tokens),
            output_tokens: self.output_tokens.unwrap_or_default(),
            cached_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_models_known_to_take_a_prefill_are_given_one() {
        for model in [
            "claude-3-haiku-20240307",
            "claude-3-5-sonnet-20241022",
            "claude-3-7-sonnet-latest",
            "claude-sonnet-4-20250514",
            "claude-opus-4-0",
            "claude-opus-4-1-20250805",
            "claude-sonnet-4-5",
            "claude-haiku-4-5@20251001",
            "anthropic/claude-opus-4.5",
            "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ] {
            assert_eq!(resumption(model), Resumption::Prefill, "{model}");
        }
        for model in [
            "claude-opus-4-6",
            "claude-sonnet-4-6-20260217",
            "anthropic/claude-opus-4.7",
            "claude-opus-4-10",
            "claude-haiku-5",
            "claude-sonnet-20290101",
            "claude-novel-4-5",
            "claude-opus-latest",
            "gpt-4.1",
            "sonnet-3",
            "",
        ] {
            assert_eq!(resumption(model), Resumption::Instruction, "{model}");
        }
    }

    #[test]
    fn what_has_an_unexpected_type_is_passed_over() {
        for data in [
            r#"{"type":["message_stop"]}"#,
            r#"{"type":"content_block_delta","index":"0","delta":"x"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#,
            r#"{"type":"content_block_delta","delta":{"type":"citations_delta","citation":{}}}"#,
            r#"{"type":"content_block_stop"}"#,
            r#"{"type":"message_start","message":{"usage":{"input_tokens":-1}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":null}"#,
            r#"{"text":"x"}"#,
            "",
        ] {
            let (mut answer, mut deltas) = (Answer::default(), VecDeque::new());
            answer.read(data, &mut deltas).expect(data);
            assert_eq!(deltas, [], "{data}");
        }
    }
}
