//! The Chat Completions API: OpenAI's own, and the servers that speak it (vLLM, Ollama,
//! llama.cpp, LM Studio, LiteLLM, …).
//!
//! Owns what is sent to `{base}/chat/completions` and how its chunks are read. Fields and types
//! that it does not know are passed over, refusals, reasoning and tool calls too for now.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, header};
use reqwest::{Client, Url};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::upstream::{self, Vocabulary};
use super::{Delta, Deltas, Provider, ProviderError, Request, SetupError, Speaker};
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
        let mut post = self
            .client
            .post(self.url.clone())
            .header(header::ACCEPT, "text/event-stream")
            .json(&Body::of(request, self.limit));
        if let Some(authorization) = &self.authorization {
            post = post.header(header::AUTHORIZATION, authorization.clone());
        }
        let response = upstream::send(post).await?;
        Ok(upstream::deltas(response, Answer::default()))
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
    fn of(request: &'a Request, limit: Limit) -> Self {
        let system = request.system.iter().map(|content| Message { role: "system", content });
        let turns = request.turns.iter().map(|turn| Message {
            role: match turn.speaker {
                Speaker::User => "user",
                Speaker::Assistant => "assistant",
            },
            content: &turn.content,
        });
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
struct Answer {
    usage: Option<Usage>,
    reason: Option<StopReason>,
}

impl Vocabulary for Answer {
    fn read(&mut self, data: &str, deltas: &mut VecDeque<Delta>) -> Result<(), ProviderError> {
        let data = data.trim();
        if data.is_empty() {
            return Ok(());
        }
        if data == DONE {
            let reason = self.reason.take().unwrap_or(StopReason::EndTurn);
            deltas.push_back(Delta::Done(reason));
            return Ok(());
        }
        if !data.starts_with('{') {
            return Err(ProviderError::Protocol("a chunk that is not a JSON object"));
        }
        let chunk: Chunk<'_> = serde_json::from_str(data)
            .map_err(|_| ProviderError::Protocol("a chunk that is not JSON"))?;
        if let Some(error) = chunk.error(data) {
            return Err(error);
        }
        if let Some(choice) = chunk.choices.into_iter().flatten().next() {
            let content = choice.delta.and_then(|delta| delta.content).unwrap_or_default();
            if !content.is_empty() {
                deltas.push_back(Delta::Text(content.into_owned()));
            }
            if let Some(word) = choice.finish_reason.filter(|word| !word.is_empty()) {
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
        let reported: Reported<'_> = serde_json::from_str(body).unwrap_or_default();
        Some(reported.into_error())
    }
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    delta: Option<ChoiceDelta<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ChoiceDelta<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default, deserialize_with = "lenient")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    completion_tokens: Option<u64>,
}

impl Tokens {
    fn usage(self) -> Option<Usage> {
        let (input, output) = (self.prompt_tokens, self.completion_tokens);
        input.or(output)?;
        Some(Usage {
            input_tokens: input.unwrap_or_default(),
            output_tokens: output.unwrap_or_default(),
            cached_tokens: 0,
        })
    }
}

#[derive(Default, Deserialize)]
struct Reported<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    code: Option<serde_json::Value>,
}

impl Reported<'_> {
    fn into_error(self) -> ProviderError {
        let code = match self.code {
            Some(serde_json::Value::String(code)) => code,
            Some(serde_json::Value::Number(code)) => code.to_string(),
            _ => String::new(),
        };
        let kind = self.r#type.as_deref().unwrap_or_default();
        if is_overload(kind) || is_overload(&code) {
            return ProviderError::Overloaded { retry_after: None };
        }
        let word = upstream::word(kind).or_else(|| upstream::word(&code));
        ProviderError::Reported(word.unwrap_or_else(|| "error".to_owned()))
    }
}

fn is_overload(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    matches!(word.as_str(), "429" | "503" | "529")
        || ["overload", "rate_limit", "ratelimit", "unavailable"].iter().any(|w| word.contains(w))
}

/// A value where it has the type asked for, else `None`.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = <&'de RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
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
            r#"{"choices":[{"delta":{"content":null,"refusal":"no"}}],"usage":null,"error":null}"#,
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
    fn errors_after_200_are_told_apart_and_never_quoted() {
        let error = |data| Answer::default().read(data, &mut VecDeque::new()).unwrap_err();
        for data in [
            r#"{"error":{"message":"m","type":"overloaded_error"}}"#,
            r#"{"error":{"message":"m","type":"requests","code":"rate_limit_exceeded"}}"#,
            r#"{"error":{"message":"m","type":"None","code":"429"}}"#,
            r#"{"object":"error","message":"m","type":"ServiceUnavailableError","code":503}"#,
        ] {
            assert!(
                matches!(error(data), ProviderError::Overloaded { retry_after: None }),
                "{data}"
            );
        }
        for (data, word) in [
            (r#"{"error":{"message":"m","type":"server_error","code":null}}"#, "server_error"),
            (r#"{"object":"error","message":"m","type":"BadRequestError"}"#, "BadRequestError"),
            (r#"{"error":{"message":"secret","type":"a secret prompt","code":500}}"#, "500"),
            (r#"{"error":{"message":"secret","type":"a secret prompt"}}"#, "error"),
            (r#"{"error":"a secret prompt"}"#, "error"),
        ] {
            assert!(matches!(error(data), ProviderError::Reported(w) if w == word), "{data}");
        }
        for data in ["nonsense", "[1]", "{\"choices\":", "\"x\""] {
            assert!(matches!(error(data), ProviderError::Protocol(_)), "{data}");
        }
    }
}
