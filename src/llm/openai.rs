//! The Chat Completions API: OpenAI's own, and the servers that speak it (vLLM, Ollama,
//! llama.cpp, LM Studio, LiteLLM, …).
//!
//! Owns what is sent to `{base}/chat/completions` and how its chunks are read. Fields and types
//! that it does not know are passed over.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

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
use super::responses::Annotation;
use super::upstream::{self, Vocabulary};
use super::wire::{self, lenient};
use super::{Delta, Deltas, Provider, ProviderError, Request, SetupError};
use crate::domain::{StopReason, Usage};

/// Where it is asked unless told otherwise.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

const DONE: &str = "[DONE]";

/// A Chat Completions server.
pub struct OpenAi {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
    limit: Limit,
}

impl OpenAi {
    /// The server at `base_url`, which ends in `/v1` as a rule ([`DEFAULT_BASE_URL`] where
    /// unset). Without a key no `Authorization` is sent: local servers need none.
    ///
    /// # Errors
    /// [`SetupError`] where the URL or the key cannot be used or no client can be made.
    pub fn new(
        base_url: Option<&str>,
        api_key: Option<&SecretString>,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let base_url = base_url.unwrap_or(DEFAULT_BASE_URL);
        let url = upstream::endpoint(base_url, &["chat", "completions"])?;
        let authorization = match api_key {
            Some(key) => upstream::secret_header("Bearer ", key)?,
            None => None,
        };
        let limit = Limit::of(&url);
        Ok(Self { client: upstream::client(connect_timeout)?, url, authorization, limit })
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn id(&self) -> &'static str {
        "openai"
    }

    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError> {
        let conversation = Conversation::of(request, Resumption::Instruction);
        let seam = conversation.seam.to_owned();
        let mut post = self
            .client
            .post(self.url.clone())
            .header(header::ACCEPT, "text/event-stream")
            .json(&Body::of(request, &conversation, self.limit));
        if let Some(authorization) = &self.authorization {
            post = post.header(header::AUTHORIZATION, authorization.clone());
        }
        let response = upstream::send(post).await?;
        Ok(upstream::deltas(response, Answer::default(), seam))
    }
}

/// What the server calls the most tokens to answer with.
///
/// OpenAI's reasoning models refuse `max_tokens`, and its other models know the new name too;
/// compatible servers know the old name, several of them (Ollama, older llama.cpp and vLLM) only
/// that, and pass over the new one without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    MaxTokens,
    MaxCompletionTokens,
}

impl Limit {
    fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let is_openai = host == "api.openai.com"
            || [".api.openai.com", ".openai.azure.com"].iter().any(|end| host.ends_with(end));
        if is_openai { Self::MaxCompletionTokens } else { Self::MaxTokens }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Body<'a> {
    fn of(request: &'a Request, conversation: &'a Conversation<'_>, limit: Limit) -> Self {
        let system = conversation.system.iter();
        let system = system.map(|content| Message { role: "system", content });
        let turns = conversation.turns.iter();
        let turns = turns.map(|(speaker, content)| Message { role: role(*speaker), content });
        Self {
            model: &request.model,
            messages: system.chain(turns).collect(),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            temperature: request.temperature,
            max_tokens: request.max_tokens.filter(|_| limit == Limit::MaxTokens),
            max_completion_tokens: request
                .max_tokens
                .filter(|_| limit == Limit::MaxCompletionTokens),
        }
    }
}

/// What is known of an answer besides its text. The reason to stop comes before the usage and the
/// terminator, so it is kept until then.
#[derive(Default)]
pub(super) struct Answer {
    calls: Calls,
    usage: Option<Usage>,
    reason: Option<StopReason>,
}

impl Vocabulary for Answer {
    fn read(&mut self, data: &str, deltas: &mut VecDeque<Delta>) -> Result<(), ProviderError> {
        if data.trim() == DONE {
            deltas.extend(self.calls.end_all().map(Delta::Aside));
            let reason = self.reason.take().unwrap_or(StopReason::EndTurn);
            deltas.push_back(Delta::Done(reason));
            return Ok(());
        }
        let Some(chunk) = wire::object::<Chunk<'_>>(data)? else { return Ok(()) };
        if let Some(error) = chunk.error(data) {
            return Err(error);
        }
        if let Some(choice) = chunk.choices.into_iter().flatten().next() {
            self.hear(choice.delta.unwrap_or_default(), deltas);
            if let Some(word) = choice.finish_reason.filter(|word| !word.is_empty()) {
                deltas.extend(self.calls.end_all().map(Delta::Aside));
                self.reason = Some(stop_reason(&word));
            }
        }
        if let Some(usage) = chunk.usage.and_then(Tokens::usage)
            && self.usage != Some(usage)
        {
            self.usage = Some(usage);
            deltas.push_back(Delta::Usage(usage));
        }
        Ok(())
    }

    /// Some servers close after the reason and send no terminator.
    fn ended(&mut self) -> Option<StopReason> {
        self.reason.take()
    }
}

impl Answer {
    fn hear(&mut self, delta: ChoiceDelta<'_>, deltas: &mut VecDeque<Delta>) {
        // Some servers send both.
        let thinking = delta.reasoning_content.filter(|thinking| !thinking.is_empty());
        upstream::push_thinking(deltas, thinking.or(delta.reasoning));
        upstream::push_text(deltas, delta.content);
        // What the model says in place of an answer.
        upstream::push_text(deltas, delta.refusal);
        for fragment in delta.tool_calls.into_iter().flatten() {
            self.join(fragment);
        }
        let annotations = delta.annotations.into_iter().flatten();
        let sources = annotations.filter_map(|annotation| annotation.url_citation?.into_aside());
        deltas.extend(sources.map(Delta::Aside));
    }

    /// A call's first fragment has its id and name, the others more of its input. Servers that
    /// send whole calls may give all of them the index 0, or none.
    fn join(&mut self, fragment: Fragment<'_>) {
        let Fragment { index, id, function } = fragment;
        let function = function.unwrap_or_default();
        let id = id.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        if !name.is_empty() && (id.is_empty() || self.calls.id(index) != Some(&*id)) {
            self.calls.begin(index, &id, &name, "");
        }
        self.calls.add(index, &function.arguments.unwrap_or_default());
    }
}

fn stop_reason(raw: &str) -> StopReason {
    match raw {
        "stop" => StopReason::EndTurn,
        "length" => StopReason::MaxTokens,
        other => StopReason::Other(upstream::word(other).unwrap_or_else(|| "other".to_owned())),
    }
}

/// A chunk, as far as it is understood: what has another type than expected counts as absent.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    object: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<Tokens>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Chunk<'_> {
    /// The error that the chunk is: `{"error": {…}}`, or `{"object": "error", …}` as older vLLM
    /// sends it.
    fn error(&self, chunk: &str) -> Option<ProviderError> {
        let body = match self.error {
            Some(body) => body.get(),
            None if self.object.as_deref() == Some("error") => chunk,
            None => return None,
        };
        Some(wire::reported(body))
    }
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    delta: Option<ChoiceDelta<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct ChoiceDelta<'a> {
    #[serde(default, deserialize_with = "lenient")]
    content: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    refusal: Option<String>,
    /// DeepSeek's word for it, also of llama.cpp and LM Studio.
    #[serde(default, deserialize_with = "lenient")]
    reasoning_content: Option<String>,
    /// OpenRouter's word for it, also of Ollama and vLLM.
    #[serde(default, deserialize_with = "lenient")]
    reasoning: Option<String>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    tool_calls: Option<Vec<Fragment<'a>>>,
    #[serde(default, deserialize_with = "lenient")]
    annotations: Option<Vec<Annotated>>,
}

#[derive(Deserialize)]
struct Fragment<'a> {
    #[serde(default, deserialize_with = "lenient")]
    index: Option<u64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    function: Option<Function<'a>>,
}

#[derive(Default, Deserialize)]
struct Function<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    arguments: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default, deserialize_with = "lenient")]
    url_citation: Option<Annotation>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default, deserialize_with = "lenient")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    prompt_tokens_details: Option<PromptTokens>,
}

#[derive(Deserialize)]
struct PromptTokens {
    #[serde(default, deserialize_with = "lenient")]
    cached_tokens: Option<u64>,
}

impl Tokens {
    fn usage(self) -> Option<Usage> {
        let (input, output) = (self.prompt_tokens, self.completion_tokens);
        input.or(output)?;
        let cached = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        Some(Usage {
            input_tokens: input.unwrap_or_default(),
            output_tokens: output.unwrap_or_default(),
            cached_tokens: cached.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_itself_is_given_the_new_name_of_the_limit_and_others_the_old_one() {
        let limit = |base| OpenAi::new(Some(base), None, Duration::from_secs(1)).unwrap().limit;
        assert_eq!(limit(DEFAULT_BASE_URL), Limit::MaxCompletionTokens);
        assert_eq!(limit("https://eu.api.openai.com/v1/"), Limit::MaxCompletionTokens);
        assert_eq!(limit("https://x.openai.azure.com/openai/v1"), Limit::MaxCompletionTokens);
        assert_eq!(limit("http://localhost:11434/v1"), Limit::MaxTokens);
        assert_eq!(limit("https://api.openai.com.example/v1"), Limit::MaxTokens);
    }

    #[test]
    fn what_has_an_unexpected_type_is_passed_over() {
        for data in [
            r#"{"choices":{"0":1}}"#,
            r#"{"choices":[{"delta":"x","finish_reason":7}],"usage":"much"}"#,
            r#"{"choices":[{"delta":{"content":[1,2]}}],"usage":{"prompt_tokens":-1}}"#,
            r#"{"choices":[{"delta":{"content":null,"refusal":null,"tool_calls":[7]}}],"usage":null,"error":null}"#,
            r#"{"choices":[{"finish_reason":""}]}"#,
            r#"{"object":["error"]}"#,
            "{}",
            "  ",
        ] {
            let (mut answer, mut deltas) = (Answer::default(), VecDeque::new());
            answer.read(data, &mut deltas).expect(data);
            assert_eq!(deltas, [], "{data}");
            assert_eq!(answer.ended(), None, "{data}");
        }
    }

    #[test]
    fn errors_after_200_have_two_shapes() {
        for (data, word) in [
            (r#"{"error":{"message":"m","type":"server_error","code":null}}"#, "server_error"),
            (r#"{"object":"error","message":"m","type":"BadRequestError"}"#, "BadRequestError"),
            (r#"{"error":"a secret prompt"}"#, "error"),
        ] {
            let error = Answer::default().read(data, &mut VecDeque::new()).unwrap_err();
            assert!(matches!(error, ProviderError::Reported(w) if w == word), "{data}");
        }
    }
}
