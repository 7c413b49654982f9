//! The agents file: who answers. TOML; a key that is not known is refused by its name.

use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use super::agents::{Agent, Agents, ProviderKind};
use super::reader::quoted;
use super::{Providers, Upstream, parse, pipelines};
use crate::domain::{AgentId, OnTakeover};

/// Where Anthropic itself is.
pub(super) const ANTHROPIC_BASE_URL: &str = "https://api.anthropic.com";
/// The model asked of Anthropic itself where none is named.
const ANTHROPIC_MODEL: &str = "claude-sonnet-4-5";
/// Where OpenAI itself is.
pub(super) const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// The model asked of OpenAI itself where none is named.
const OPENAI_MODEL: &str = "gpt-4.1";
/// What the scripted provider calls its model.
const SCRIPTED_MODEL: &str = "scripted";
const TOKENS_PER_SECOND: f64 = 50.0;
const TOKENS: u32 = 120;
/// The most characters of what the parser says that are shown.
const MESSAGE_CHARS_MAX: usize = 400;

/// What an agent inherits where it says nothing.
pub(super) struct Inherited<'a> {
    pub(super) providers: &'a Providers,
    pub(super) stream_timeout: Duration,
}

impl Inherited<'_> {
    /// The agents and pipelines that `text` describes. Errors: one line each, saying which and key.
    pub(super) fn parse(&self, text: &str) -> Result<Agents, Vec<String>> {
        let table: Table = text.parse().map_err(|error| vec![syntax_error(text, &error)])?;
        let mut errors = Vec::new();
        let mut default = None;
        let (mut agents, mut pipelines) = (Vec::new(), Vec::new());
        for (key, value) in table {
            match (key.as_str(), value) {
                ("default", Value::String(id)) => default = Some(id),
                ("default", _) => errors.push("default: expected an agent's id".to_owned()),
                ("agent", Value::Array(items)) => {
                    agents = read_each("agent", items, |item| self.read_agent(item), &mut errors);
                }
                ("pipeline", Value::Array(items)) => {
                    pipelines = read_each("pipeline", items, pipelines::read, &mut errors);
                }
                ("agent", _) => errors.push("agent: write [[agent]]".to_owned()),
                ("pipeline", _) => errors.push("pipeline: write [[pipeline]]".to_owned()),
                (key, _) => errors.push(format!(
                    "{}: unknown key, there are default, agent and pipeline",
                    shown(key)
                )),
            }
        }
        if errors.is_empty() && agents.is_empty() {
            errors.push("agent: there is none".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let Some(first) = agents.first().map(|agent: &Agent| agent.id.clone()) else {
            return Err(errors);
        };
        let mut read = Agents { default: first, agents, pipelines };
        errors = pipelines::check(&read);
        if let Some(default) = default {
            let ids = read.agents.iter().map(|agent| &agent.id);
            match ids.chain(read.pipelines.iter().map(|p| &p.id)).find(|id| id.as_str() == default)
            {
                Some(id) => read.default = id.clone(),
                None => errors.push(format!("default: there is no agent {}", quoted(&default))),
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    fn read_agent(&self, item: Value) -> Result<Agent, String> {
        self.agent(typed(item)?)
    }

    /// An agent by itself: whom it names is checked when all are read.
    pub(super) fn agent(&self, raw: RawAgent) -> Result<Agent, String> {
        let id = agent_id("id", &raw.id)?;
        let provider = ProviderKind::named(&raw.provider).ok_or_else(|| {
            let known = ProviderKind::ALL.map(ProviderKind::as_str).join(", ");
            format!("provider: {} is unknown, there are {known}", quoted(&raw.provider))
        })?;
        let fallback = raw.fallback.as_deref().map(|id| agent_id("fallback", id)).transpose()?;
        let providers = self.providers;
        let (base_url, model) = match provider {
            ProviderKind::Scripted => {
                (None, raw.model.unwrap_or_else(|| SCRIPTED_MODEL.to_owned()))
            }
            ProviderKind::OpenAi | ProviderKind::OpenAiResponses => {
                OPENAI.place(&providers.openai, raw.base_url, raw.model)?
            }
            ProviderKind::Anthropic => {
                ANTHROPIC.place(&providers.anthropic, raw.base_url, raw.model)?
            }
        };
        check(!model.is_empty(), "model", "a name")?;
        check(raw.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)), "temperature", "0 to 2")?;
        check(raw.max_tokens != Some(0), "max_tokens", "at least 1")?;
        let tokens_per_second = raw.tokens_per_second.unwrap_or(TOKENS_PER_SECOND);
        check((0.0..=1e6).contains(&tokens_per_second), "tokens_per_second", "0 to 1000000")?;
        let tokens = raw.tokens.unwrap_or(TOKENS);
        check((1..=1_000_000).contains(&tokens), "tokens", "1 to 1000000")?;
        let on_takeover = match raw.on_takeover.as_deref() {
            None | Some("continue") => OnTakeover::Continue,
            Some("restart") => OnTakeover::Restart,
            Some(_) => return Err("on_takeover: expected continue or restart".to_owned()),
        };
        let timeout = match raw.timeout {
            None => self.stream_timeout,
            Some(text) => parse::interval(&text).map_err(|e| format!("timeout: expected {e}"))?,
        };
        Ok(Agent {
            name: raw.name.unwrap_or_else(|| raw.id.clone()),
            id,
            provider,
            model,
            base_url,
            system: raw.system,
            temperature: raw.temperature,
            max_tokens: raw.max_tokens,
            on_takeover,
            fallback,
            timeout,
            tokens_per_second,
            tokens,
        })
    }
}

/// A company's own API, and what is assumed there.
struct Own {
    base_url: &'static str,
    model: &'static str,
    /// The variables' common beginning.
    prefix: &'static str,
}

const ANTHROPIC: Own =
    Own { base_url: ANTHROPIC_BASE_URL, model: ANTHROPIC_MODEL, prefix: "ANTHROPIC" };
const OPENAI: Own = Own { base_url: OPENAI_BASE_URL, model: OPENAI_MODEL, prefix: "OPENAI" };

impl Own {
    /// Where an agent's API is, and the model asked of it. A key is needed at the company itself
    /// only.
    fn place(
        &self,
        upstream: &Upstream,
        base_url: Option<String>,
        model: Option<String>,
    ) -> Result<(Option<String>, String), String> {
        let Self { prefix, .. } = self;
        let base_url = match base_url {
            Some(url) => parse::base_url(&url).map_err(|e| format!("base_url: expected {e}"))?,
            None => upstream.base_url.clone(),
        };
        let is_own = base_url == self.base_url;
        if is_own && upstream.api_key.is_none() {
            return Err(format!("{prefix}_API_KEY is not set"));
        }
        let model = model
            .or_else(|| upstream.model.clone())
            .or_else(|| is_own.then(|| self.model.to_owned()))
            .ok_or_else(|| format!("no model: set it, or {prefix}_MODEL"))?;
        Ok((Some(base_url), model))
    }
}

/// An agent as the file writes it. Numbers stand as `f64` where the file may write either.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    pub(super) id: String,
    pub(super) provider: String,
    pub(super) name: Option<String>,
    pub(super) model: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) system: Option<String>,
    pub(super) temperature: Option<f64>,
    pub(super) max_tokens: Option<u32>,
    pub(super) on_takeover: Option<String>,
    pub(super) fallback: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) tokens: Option<u32>,
}

/// Reads the items of `[[key]]`; what is wrong is said of the item by its id, or else its number.
fn read_each<T>(
    key: &str,
    items: Vec<Value>,
    read: impl Fn(Value) -> Result<T, String>,
    errors: &mut Vec<String>,
) -> Vec<T> {
    let mut all = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let label = match item.get("id").and_then(Value::as_str) {
            Some(id) => format!("{key} {}", shown(id)),
            None => format!("{key} #{}", index + 1),
        };
        match read(item) {
            Ok(item) => all.push(item),
            Err(error) => errors.push(format!("{label}: {error}")),
        }
    }
    all
}

/// A table as a type of ours.
pub(super) fn typed<T: for<'de> Deserialize<'de>>(item: Value) -> Result<T, String> {
    item.try_into().map_err(|error: toml::de::Error| one_line(error.message()))
}

/// The id that stands at `key`.
pub(super) fn agent_id(key: &str, text: &str) -> Result<AgentId, String> {
    AgentId::new(text).map_err(|error| error.to_string().replace("agentId", key))
}

pub(super) fn check(holds: bool, key: &str, expected: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{key}: expected {expected}")) }
}

/// The parser's message on one line, with the line it means.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or(text);
        before.matches('\n').count() + 1
    });
    match line {
        Some(line) => format!("line {line}: {}", one_line(error.message())),
        None => one_line(error.message()),
    }
}

/// What stands as an id or key, fit for a terminal: no control characters, and not without end.
fn shown(id: &str) -> String {
    let begin: String = id.chars().take(64).collect();
    let more = if begin.len() < id.len() { "…" } else { "" };
    format!("{}{more}", begin.escape_debug())
}

/// The parser's words, as fit for a terminal: they quote what stands in the file.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = line.chars().take(MESSAGE_CHARS_MAX);
    plain.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
