//! The Responses API of OpenAI, and the servers that speak it.
//!
//! Owns what is sent to `{base}/responses` and how its events are read. Events, items and fields
//! that it does not know are passed over. Nothing is stored at OpenAI: each request tells the
//! whole conversation.
//! <https://platform.openai.com/docs/api-reference/responses-streaming>

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
use super::openai::DEFAULT_BASE_URL;
use super::upstream::{self, Vocabulary};
use super::wire::{self, lenient};
use super::{Delta, Deltas, Provider, ProviderError, Request, SetupError};
use crate::domain::{Aside, StopReason, Usage};

/// A Responses server.
pub struct Responses {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
}

impl Responses {
    /// The server at `base_url`, which ends in `/v1` as a rule ([`DEFAULT_BASE_URL`] where
    /// unset). Without a key no `Authorization` is sent.
    ///
    /// # Errors
    /// [`SetupError`] where the URL or the key cannot be used or no client can be made.
    pub fn new(
        base_url: Option<&str>,
        api_key: Option<&SecretString>,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let url = upstream::endpoint(base_url.unwrap_or(DEFAULT_BASE_URL), &["responses"])?;
        let authorization = match api_key {
            Some(key) => upstream::secret_header("Bearer ", key)?,
            None => None,
        };
        Ok(Self { client: upstream::client(connect_timeout)?, url, authorization })
    }
}

#[async_trait]
impl Provider for Responses {
    fn id(&self) -> &'static str {
        "openai-responses"
    }

    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError> {
        let conversation = Conversation::of(request, Resumption::Instruction);
        let seam = conversation.seam.to_owned();
        let mut post = self
            .client
            .post(self.url.clone())
            .header(header::ACCEPT, "text/event-stream")
            .json(&Body::of(request, &conversation));
        if let Some(authorization) = &self.authorization {
            post = post.header(header::AUTHORIZATION, authorization.clone());
        }
        let response = upstream::send(post).await?;
        Ok(upstream::deltas(response, Answer::default(), seam))
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    input: Vec<Message<'a>>,
    stream: bool,
    store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
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
            instructions: conversation.system.as_deref(),
            input: turns
                .map(|(speaker, content)| Message { role: role(*speaker), content })
                .collect(),
            stream: true,
            store: false,
            temperature: request.temperature,
            max_output_tokens: request.max_tokens,
        }
    }
}

/// What is known of an answer besides its text: the calls that have begun.
#[derive(Default)]
pub(super) struct Answer {
    calls: Calls,
}

impl Vocabulary for Answer {
    fn read(&mut self, data: &str, deltas: &mut VecDeque<Delta>) -> Result<(), ProviderError> {
        if data.trim() == "[DONE]" {
            // Some gateways add it after the terminator, or in place of one that never came.
            return Ok(());
        }
        let Some(event) = wire::object::<Event<'_>>(data)? else { return Ok(()) };
        let index = event.output_index;
        match event.r#type.as_deref().unwrap_or_default() {
            // A refusal is what the model says.
            "response.output_text.delta" | "response.refusal.delta" => {
                upstream::push_text(deltas, event.delta);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                upstream::push_thinking(deltas, event.delta);
            }
            "response.output_text.annotation.added" => {
                let source = event.annotation.and_then(Annotation::into_aside);
                deltas.extend(source.map(Delta::Aside));
            }
            "response.output_item.added" => {
                let call = event.item.filter(Item::is_call).unwrap_or_default();
                if let (Some(_), Some(name)) = (index, call.name) {
                    self.calls.begin(index, &call.call_id.unwrap_or_default(), &name, "");
                }
            }
            "response.function_call_arguments.done" => {
                self.end(index, event.arguments.as_deref(), deltas);
            }
            "response.custom_tool_call_input.done" => {
                self.end(index, event.input.as_deref(), deltas);
            }
            // Holds the call too, for servers that send no more of it than this.
            "response.output_item.done" => {
                let call = event.item.filter(Item::is_call).unwrap_or_default();
                self.end(index, call.arguments.or(call.input).as_deref(), deltas);
            }
            "response.completed" => deltas.extend(event.ended(StopReason::EndTurn)),
            "response.incomplete" => {
                let reason = event.response.as_ref().and_then(Response::incomplete);
                deltas
                    .extend(event.ended(reason.unwrap_or(StopReason::Other("incomplete".into()))));
            }
            "response.failed" => {
                let error = event.response.and_then(|response| response.error);
                return Err(wire::reported(error.map_or("", RawValue::get)));
            }
            "error" => return Err(wire::reported(event.error.map_or(data, RawValue::get))),
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
    /// The call at `index` is whole, where one has begun there and not ended.
    fn end(&mut self, index: Option<u64>, input: Option<&str>, deltas: &mut VecDeque<Delta>) {
        // Without an index it would end all that are open.
        let Some(index) = index else { return };
        self.calls.add(Some(index), input.unwrap_or_default());
        deltas.extend(self.calls.end(Some(index)).map(Delta::Aside));
    }
}

/// An event, as far as it is understood: what has another type than expected counts as absent.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    output_index: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    delta: Option<String>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    arguments: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    input: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    annotation: Option<Annotation>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    item: Option<Item<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    response: Option<Response<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Event<'_> {
    /// What ends a whole answer, its cost first.
    fn ended(self, reason: StopReason) -> impl Iterator<Item = Delta> {
        let tokens = self.response.and_then(|response| response.usage);
        let usage = tokens.and_then(Tokens::usage).map(Delta::Usage);
        usage.into_iter().chain([Delta::Done(reason)])
    }
}

/// A part of the output.
#[derive(Default, Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    arguments: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    input: Option<Cow<'a, str>>,
}

impl Item<'_> {
    /// Whether a tool is called that OpenAI does not run itself.
    fn is_call(&self) -> bool {
        matches!(self.r#type.as_deref(), Some("function_call" | "custom_tool_call"))
    }
}

/// A source of what was said. Files have a name, places in the web an address.
#[derive(Deserialize)]
pub(super) struct Annotation {
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    filename: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    url: Option<String>,
}

impl Annotation {
    pub(super) fn into_aside(self) -> Option<Aside> {
        let title = self.title.or(self.filename);
        if title.is_none() && self.url.is_none() {
            return None;
        }
        Some(Aside::Citation { title: title.unwrap_or_default(), url: self.url })
    }
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<Tokens>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    incomplete_details: Option<Incomplete<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Response<'_> {
    fn incomplete(&self) -> Option<StopReason> {
        match self.incomplete_details.as_ref()?.reason.as_deref()? {
            "max_output_tokens" => Some(StopReason::MaxTokens),
            other => upstream::word(other).map(StopReason::Other),
        }
    }
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    reason: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Deserialize)]
struct Tokens {
    #[serde(default, deserialize_with = "lenient")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    input_tokens_details: Option<InputTokens>,
    #[serde(default, deserialize_with = "lenient")]
    output_tokens: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
struct InputTokens {
    #[serde(default, deserialize_with = "lenient")]
    cached_tokens: Option<u64>,
}

impl Tokens {
    fn usage(self) -> Option<Usage> {
        let (input, output) = (self.input_tokens, self.output_tokens);
        input.or(output)?;
        let cached = self.input_tokens_details.and_then(|details| details.cached_tokens);
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

    fn read(data: &str) -> VecDeque<Delta> {
        let mut deltas = VecDeque::new();
        Answer::default().read(data, &mut deltas).expect(data);
        deltas
    }

    #[test]
    fn what_has_an_unexpected_type_is_passed_over() {
        for data in [
            r#"{"type":["response.completed"]}"#,
            r#"{"type":"response.output_text.delta","delta":{"text":"x"}}"#,
            r#"{"type":"response.output_text.delta","delta":""}"#,
            r#"{"type":"response.output_text.annotation.added","annotation":"x"}"#,
            r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"x"}}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":7}"#,
            r#"{"type":"response.function_call_arguments.done","arguments":"{}"}"#,
            r#"{"delta":"x"}"#,
            "[DONE]",
            "",
        ] {
            assert_eq!(read(data), [], "{data}");
        }
    }

    #[test]
    fn an_end_without_its_details_is_an_end() {
        let done = |reason| [Delta::Done(reason)];
        assert_eq!(read(r#"{"type":"response.completed"}"#), done(StopReason::EndTurn));
        let incomplete = StopReason::Other("incomplete".into());
        for response in ["null", "{}", r#"{"incomplete_details":{"reason":"two words"}}"#] {
            let data = format!(r#"{{"type":"response.incomplete","response":{response}}}"#);
            assert_eq!(read(&data), done(incomplete.clone()), "{data}");
        }
    }
}
