//! Pipelines of the agents file, and what must hold between agents and pipelines.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use toml::Value;

use super::agents::{Agents, Pipeline, PipelineStage};
use super::agents_file::{agent_id, check as expect, typed};
use super::reader::quoted;
use crate::domain::AgentId;

/// The most agents of a round that are named.
const ROUND_SHOWN: usize = 8;

/// A pipeline as the file writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPipeline {
    id: String,
    name: Option<String>,
    #[serde(default)]
    stage: Vec<Value>,
}

/// A stage as the file writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStage {
    name: String,
    agents: Vec<String>,
    #[serde(default)]
    gate: bool,
}

/// A pipeline by itself: whom it names is checked when all are read.
pub(super) fn read(item: Value) -> Result<Pipeline, String> {
    let raw: RawPipeline = typed(item)?;
    let id = agent_id("id", &raw.id)?;
    let count = raw.stage.len();
    let wanted = format!("1 to {} of [[pipeline.stage]]", Pipeline::STAGES_MAX);
    expect((1..=Pipeline::STAGES_MAX).contains(&count), "stage", &wanted)?;
    let mut stages: Vec<PipelineStage> = Vec::new();
    for (index, item) in raw.stage.into_iter().enumerate() {
        let label = match item.get("name").and_then(Value::as_str) {
            Some(name) => format!("stage {}", quoted(name)),
            None => format!("stage #{}", index + 1),
        };
        let stage = read_stage(item, index + 1 == count).map_err(|e| format!("{label}: {e}"))?;
        if stages.iter().any(|other| other.name == stage.name) {
            return Err(format!("{label}: name: there are two of this name"));
        }
        stages.push(stage);
    }
    Ok(Pipeline { name: raw.name.unwrap_or(raw.id), id, stages })
}

fn read_stage(item: Value, last: bool) -> Result<PipelineStage, String> {
    let RawStage { name, agents, gate } = typed(item)?;
    let wanted = format!("1 to {} characters", PipelineStage::NAME_CHARS_MAX);
    let is_name = !name.trim().is_empty()
        && name.chars().count() <= PipelineStage::NAME_CHARS_MAX
        && !name.contains(char::is_control);
    expect(is_name, "name", &wanted)?;
    let wanted = format!("1 to {} agents", PipelineStage::AGENTS_MAX);
    expect((1..=PipelineStage::AGENTS_MAX).contains(&agents.len()), "agents", &wanted)?;
    expect(!gate || agents.len() == 1, "agents", "one agent, since the stage is a gate")?;
    expect(!last || agents.len() == 1, "agents", "one agent, since the last stage is heard")?;
    expect(!(last && gate), "gate", "false in the last stage, after which nothing comes")?;
    let agents = agents.iter().map(|id| agent_id("agents", id)).collect::<Result<_, _>>()?;
    Ok(PipelineStage { name, agents, gate })
}

#[derive(Clone, Copy)]
enum Kind {
    Agent,
    Pipeline,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Pipeline => "pipeline",
        }
    }
}

/// What each id is of.
type Ids<'a> = HashMap<&'a AgentId, Kind>;

/// What is wrong between agents and pipelines, a line each.
pub(super) fn check(all: &Agents) -> Vec<String> {
    let mut errors = Vec::new();
    let mut ids = Ids::new();
    let agents = all.agents.iter().map(|agent| (Kind::Agent, &agent.id));
    for (kind, id) in agents.chain(all.pipelines.iter().map(|p| (Kind::Pipeline, &p.id))) {
        match ids.entry(id) {
            Entry::Vacant(free) => {
                free.insert(kind);
            }
            Entry::Occupied(_) => {
                let kind = kind.as_str();
                errors.push(format!("{kind} {id}: there are two of this id"));
            }
        }
    }
    for agent in &all.agents {
        if let Some(fallback) = &agent.fallback
            && let Err(error) = is_agent(&ids, fallback)
        {
            errors.push(format!("agent {}: fallback: {error}", agent.id));
        }
    }
    errors.extend(rounds(all));
    for pipeline in &all.pipelines {
        for stage in &pipeline.stages {
            for agent in &stage.agents {
                if let Err(error) = is_agent(&ids, agent) {
                    let name = &stage.name;
                    errors
                        .push(format!("pipeline {}: stage {name:?}: agents: {error}", pipeline.id));
                }
            }
        }
    }
    errors
}

fn is_agent(all: &Ids<'_>, id: &AgentId) -> Result<(), String> {
    match all.get(id) {
        Some(Kind::Agent) => Ok(()),
        Some(Kind::Pipeline) => Err(format!("{id} is a pipeline, expected an agent")),
        None => Err(format!("there is no agent {id:?}", id = id.as_str())),
    }
}

/// Each round of fallbacks once, by the first of its agents.
fn rounds(all: &Agents) -> Vec<String> {
    let fallbacks: HashMap<&AgentId, &AgentId> =
        all.agents.iter().filter_map(|agent| Some((&agent.id, agent.fallback.as_ref()?))).collect();
    let mut errors = Vec::new();
    let mut known: HashSet<&AgentId> = HashSet::new();
    for agent in &all.agents {
        let mut path = Vec::new();
        let mut next = Some(&agent.id);
        // Each agent is gone through once, however they hang together.
        while let Some(id) = next
            && known.insert(id)
        {
            path.push(id);
            next = fallbacks.get(id).copied();
        }
        let Some(first) = next.and_then(|id| path.iter().position(|on| *on == id)) else {
            continue;
        };
        let round = &path[first..];
        let shown: Vec<_> = round.iter().take(ROUND_SHOWN).map(|id| id.as_str()).collect();
        let more = if round.len() > ROUND_SHOWN { ", …" } else { "" };
        let (id, shown) = (round[0], shown.join(", "));
        errors.push(format!("agent {id}: fallback: {shown}{more} would ask in a round"));
    }
    errors
}
