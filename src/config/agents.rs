//! Who answers: agents, and pipelines made of them.

use std::time::Duration;

use crate::domain::{AgentId, OnTakeover};

/// Who answers. Never empty; every id is of one agent or one pipeline, and the default is one of
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct Agents {
    /// Who answers where nobody is named: an agent or a pipeline.
    pub default: AgentId,
    /// All agents, in the file's order.
    pub agents: Vec<Agent>,
    /// All pipelines, in the file's order.
    pub pipelines: Vec<Pipeline>,
}

impl Agents {
    /// The agent called `id`; a pipeline is none.
    pub fn get(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id == *id)
    }
}

/// A configured persona.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id, unique among agents and pipelines.
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
    /// Who is asked instead where it fails before the first visible token. An agent, and following
    /// fallbacks never comes back to the same one.
    pub fallback: Option<AgentId>,
    /// The longest wait for the first token and between tokens; `STREAM_TIMEOUT` where unset.
    pub timeout: Duration,
    /// How fast the scripted provider speaks, 50 by default; 0: all at once.
    pub tokens_per_second: f64,
    /// How much the scripted provider says, 120 by default.
    pub tokens: u32,
}

/// An agent made of agents, which speak in stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Its id, unique among agents and pipelines.
    pub id: AgentId,
    /// What people see.
    pub name: String,
    /// 1 to [`Pipeline::STAGES_MAX`], in their order. The last has one agent, which is heard, and
    /// is no gate.
    pub stages: Vec<PipelineStage>,
}

impl Pipeline {
    /// The most stages of a pipeline.
    pub const STAGES_MAX: usize = 16;
}

/// Agents that answer at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStage {
    /// What people see; unique in its pipeline, 1 to [`PipelineStage::NAME_CHARS_MAX`] characters.
    pub name: String,
    /// Who: 1 to [`PipelineStage::AGENTS_MAX`] agents, none a pipeline; one where it is a gate.
    pub agents: Vec<AgentId>,
    /// Whether its agent decides if the pipeline goes on.
    pub gate: bool,
}

impl PipelineStage {
    /// The most agents of a stage.
    pub const AGENTS_MAX: usize = 8;
    /// The most characters of a stage's name.
    pub const NAME_CHARS_MAX: usize = 64;
}

/// The LLM APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// None: a deterministic answer.
    Scripted,
    /// OpenAI's Chat Completions, which many servers speak.
    OpenAi,
    /// OpenAI's Responses.
    OpenAiResponses,
    /// Anthropic's Messages.
    Anthropic,
}

impl ProviderKind {
    /// Every provider, in the order in which errors list them.
    pub const ALL: [Self; 4] =
        [Self::Anthropic, Self::OpenAi, Self::OpenAiResponses, Self::Scripted];

    /// Its id in the agents file, which is also its metrics label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scripted => "scripted",
            Self::OpenAi => "openai",
            Self::OpenAiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
        }
    }

    /// The provider whose id is `word`.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == word)
    }
}
