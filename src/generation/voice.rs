//! Who can answer, and how it is asked: an agent, or a pipeline of agents.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AgentId, OnTakeover};
use crate::llm::SharedProvider;

/// Whoever answers.
#[derive(Clone)]
pub enum Voice {
    /// An agent by itself.
    Solo(Solo),
    /// An agent made of agents.
    Pipeline(Pipeline),
}

/// An agent, ready to answer.
#[derive(Clone)]
pub struct Solo {
    /// Its provider.
    pub provider: SharedProvider,
    /// The model's name there, where the request names none.
    pub model: String,
    /// Its instructions.
    pub system: Option<String>,
    /// Its settings where the request says nothing.
    pub temperature: Option<f64>,
    /// The most tokens where the request says nothing.
    pub max_tokens: Option<u32>,
    /// The longest wait for the first token, and between tokens.
    pub timeout: Duration,
    /// How another node goes on after its node died.
    pub on_takeover: OnTakeover,
    /// Who is asked instead where it fails before the first visible token. Never a pipeline, and
    /// following fallbacks never comes back to the same agent.
    pub fallback: Option<AgentId>,
}

/// Stages of agents; the last stage has one, and it is heard.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// At least one, in their order.
    pub stages: Vec<PipelineStage>,
}

/// Agents that answer at the same time.
#[derive(Debug, Clone)]
pub struct PipelineStage {
    /// What people see.
    pub name: String,
    /// Who; none of them is a pipeline. One in the last stage and where it is a gate.
    pub agents: Vec<AgentId>,
    /// Whether its agent decides if the pipeline goes on. Never the last stage.
    pub gate: bool,
}

/// How often an agent is asked again where nothing else is said.
const RETRIES: u32 = 2;

/// Everybody who can answer on this node.
#[derive(Clone)]
pub struct Voices {
    by_agent: Arc<HashMap<AgentId, Voice>>,
    retries: u32,
}

impl Voices {
    /// These.
    pub fn new(by_agent: HashMap<AgentId, Voice>) -> Self {
        Self { by_agent: Arc::new(by_agent), retries: RETRIES }
    }

    /// The same, each asked again at most `retries` times where it fails before the first visible
    /// token; 2 where unset.
    pub fn retrying(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// How often each is asked again.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Who is called so.
    pub fn get(&self, agent: &AgentId) -> Option<&Voice> {
        self.by_agent.get(agent)
    }

    /// The agent whose words readers see: itself, or that of a pipeline's last stage.
    pub fn speaker(&self, agent: &AgentId) -> Option<&Solo> {
        match self.get(agent)? {
            Voice::Solo(solo) => Some(solo),
            Voice::Pipeline(pipeline) => {
                match self.get(pipeline.stages.last()?.agents.first()?)? {
                    Voice::Solo(solo) => Some(solo),
                    Voice::Pipeline(_) => None,
                }
            }
        }
    }
}
