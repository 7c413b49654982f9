//! The agents file: who answers. TOML; a key that is not known is refused by its name.

use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use super::OpenAi;
use super::parse;
use crate::domain::{AgentId, OnTakeover};

/// Where OpenAI itself is.
pub(super) const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// The model asked of OpenAI itself where none is named.
const OPENAI_MODEL: &str = "gpt-4.1";
/// What the scripted provider calls its model.
const SCRIPTED_MODEL: &str = "scripted";
const TOKENS_PER_SECOND: f64 = 50.0;
const TOKENS: u32 = 120;

/// Who answers. Never empty, and the default is one of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Agents {
    /// Who answers where nobody is named.
    pub default: AgentId,
    /// All, in the file's order.
    pub agents: Vec<Agent>,
}

impl Agents {
    /// The agent called `id`.
    pub fn get(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id == *id)
    }
}

/// A configured persona.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id, unique among the agents.
    pub id: AgentId,
    /// What people see.
    pub name: String,
    /// Which API it asks.
    pub provider: ProviderKind,
    /// The model's name there.
    pub model: String,
    /// Where the API is, without a trailing slash; `None` for the scripted provider.
    pub base_url: Option<String>,
    /// Its instructions.
    pub system: Option<String>,
    /// 0 to 2; the provider's default where unset.
    pub temperature: Option<f64>,
    /// The most tokens to answer with; the provider's default where unset.
    pub max_tokens: Option<u32>,
    /// How another node goes on after its node died.
    pub on_takeover: OnTakeover,
    /// The longest wait for the first token and between tokens; `STREAM_TIMEOUT` where unset.
    pub timeout: Duration,
    /// How fast the scripted provider speaks, 50 by default; 0: all at once.
    pub tokens_per_second: f64,
    /// How much the scripted provider says, 120 by default.
    pub tokens: u32,
}

/// The LLM APIs of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// None: a deterministic answer.
    Scripted,
    /// Chat Completions.
    OpenAi,
}

impl ProviderKind {
    /// Its id in the agents file, which is also its metrics label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scripted => "scripted",
            Self::OpenAi => "openai",
        }
    }
}

/// What an agent inherits where it says nothing.
pub(super) struct Inherited<'a> {
    pub(super) openai: &'a OpenAi,
    pub(super) stream_timeout: Duration,
}

impl Inherited<'_> {
    /// The one agent there is without a file. An error is of `OPENAI_MODEL`.
    pub(super) fn built_in(&self, provider: ProviderKind) -> Result<Agents, String> {
        let id = AgentId::new("assistant").expect("it follows the rule");
        let raw = RawAgent {
            id: id.to_string(),
            provider: provider.as_str().to_owned(),
            name: Some("Assistant".to_owned()),
            ..RawAgent::default()
        };
        Ok(Agents { default: id, agents: vec![self.agent(raw)?] })
    }

    /// The agents that `text` describes. Errors: one line each, saying which agent and key.
    pub(super) fn parse(&self, text: &str) -> Result<Agents, Vec<String>> {
        let table: Table = text.parse().map_err(|error| vec![syntax_error(text, &error)])?;
        let mut errors = Vec::new();
        let mut default = None;
        let mut agents: Vec<Agent> = Vec::new();
        for (key, value) in table {
            match (key.as_str(), value) {
                ("default", Value::String(id)) => default = Some(id),
                ("default", _) => errors.push("default: expected an agent's id".to_owned()),
                ("agent", Value::Array(items)) => {
                    for (index, item) in items.into_iter().enumerate() {
                        match self.read_agent(index, item) {
                            Ok(agent) if agents.iter().any(|a| a.id == agent.id) => {
                                errors
                                    .push(format!("agent {}: there are two of this id", agent.id));
                            }
                            Ok(agent) => agents.push(agent),
                            Err(error) => errors.push(error),
                        }
                    }
                }
                ("agent", _) => errors.push("agent: write [[agent]]".to_owned()),
                ("pipeline", _) => {
                    errors.push("pipeline: pipelines do not exist in this version".to_owned());
                }
                (key, _) => errors.push(format!("{key}: unknown key, there are default and agent")),
            }
        }
        if errors.is_empty() && agents.is_empty() {
            errors.push("agent: there is none".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let default = default.unwrap_or_else(|| agents[0].id.to_string());
        match agents.iter().find(|agent| agent.id.as_str() == default) {
            Some(agent) => Ok(Agents { default: agent.id.clone(), agents }),
            None => Err(vec![format!("default: there is no agent {default:?}")]),
        }
    }

    fn read_agent(&self, index: usize, item: Value) -> Result<Agent, String> {
        let named = |id: Option<&str>| match id {
            Some(id) => format!("agent {id}"),
            None => format!("agent #{}", index + 1),
        };
        let label = named(item.get("id").and_then(Value::as_str));
        let raw: RawAgent = item
            .try_into()
            .map_err(|error: toml::de::Error| format!("{label}: {}", one_line(error.message())))?;
        self.agent(raw).map_err(|error| format!("{label}: {error}"))
    }

    fn agent(&self, raw: RawAgent) -> Result<Agent, String> {
        let id =
            AgentId::new(&raw.id).map_err(|error| error.to_string().replace("agentId", "id"))?;
        let provider = match raw.provider.as_str() {
            "scripted" => ProviderKind::Scripted,
            "openai" => ProviderKind::OpenAi,
            missing @ ("anthropic" | "openai-responses") => {
                return Err(format!("provider: {missing} does not exist in this version"));
            }
            other => {
                return Err(format!(
                    "provider: {other:?} is unknown, there are openai and scripted"
                ));
            }
        };
        if raw.fallback.is_some() {
            return Err("fallback: fallbacks do not exist in this version".to_owned());
        }
        let (base_url, model) = match provider {
            ProviderKind::Scripted => {
                (None, raw.model.unwrap_or_else(|| SCRIPTED_MODEL.to_owned()))
            }
            ProviderKind::OpenAi => {
                let (base_url, model) = self.openai(raw.base_url, raw.model)?;
                (Some(base_url), model)
            }
        };
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
            timeout,
            tokens_per_second,
            tokens,
        })
    }

    /// Where an agent's API is, and the model asked of it.
    fn openai(
        &self,
        base_url: Option<String>,
        model: Option<String>,
    ) -> Result<(String, String), String> {
        let base_url = match base_url {
            Some(url) => parse::base_url(&url).map_err(|e| format!("base_url: expected {e}"))?,
            None => self.openai.base_url.clone(),
        };
        let is_openai = base_url == OPENAI_BASE_URL;
        if is_openai && self.openai.api_key.is_none() {
            return Err("OPENAI_API_KEY is not set".to_owned());
        }
        let default = is_openai.then(|| OPENAI_MODEL.to_owned());
        let model = model
            .or_else(|| self.openai.model.clone())
            .or(default)
            .ok_or("no model: set it, or OPENAI_MODEL")?;
        check(!model.is_empty(), "model", "a name")?;
        Ok((base_url, model))
    }
}

/// An agent as the file writes it. Numbers stand as `f64` where the file may write either.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    id: String,
    provider: String,
    name: Option<String>,
    model: Option<String>,
    base_url: Option<String>,
    system: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    on_takeover: Option<String>,
    fallback: Option<Value>,
    timeout: Option<String>,
    tokens_per_second: Option<f64>,
    tokens: Option<u32>,
}

fn check(holds: bool, key: &str, expected: &str) -> Result<(), String> {
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

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
