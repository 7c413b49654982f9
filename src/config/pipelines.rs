//! Pipelines of the agents file, and what must hold between agents and pipelines.

use std::collections::HashSet;

use serde::Deserialize;
use toml::Value;

use super::agents::{Agents, Pipeline, PipelineStage};
use super::agents_file::{agent_id, check as expect, typed};
use crate::domain::AgentId;

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
            Some(name) => format!("stage {name:?}"),
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
    let is_name = !name.trim().is_empty() && name.chars().count() <= PipelineStage::NAME_CHARS_MAX;
    expect(is_name, "name", &wanted)?;
    let wanted = format!("1 to {} agents", PipelineStage::AGENTS_MAX);
    expect((1..=PipelineStage::AGENTS_MAX).contains(&agents.len()), "agents", &wanted)?;
    expect(!gate || agents.len() == 1, "agents", "one agent, since the stage is a gate")?;
    expect(!last || agents.len() == 1, "agents", "one agent, since the last stage is heard")?;
    expect(!(last && gate), "gate", "false in the last stage, after which nothing comes")?;
    let agents = agents.iter().map(|id| agent_id("agents", id)).collect::<Result<_, _>>()?;
    Ok(PipelineStage { name, agents, gate })
}

/// What is wrong between agents and pipelines, a line each.
pub(super) fn check(all: &Agents) -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    let agents = all.agents.iter().map(|agent| ("agent", &agent.id));
    for (kind, id) in agents.chain(all.pipelines.iter().map(|p| ("pipeline", &p.id))) {
        if !seen.insert(id) {
            errors.push(format!("{kind} {id}: there are two of this id"));
        }
    }
    for agent in &all.agents {
        if let Some(fallback) = &agent.fallback
            && let Err(error) = is_agent(all, fallback)
        {
            errors.push(format!("agent {}: fallback: {error}", agent.id));
        }
    }
    errors.extend(rounds(all));
    for pipeline in &all.pipelines {
        for stage in &pipeline.stages {
            for agent in &stage.agents {
                if let Err(error) = is_agent(all, agent) {
                    let name = &stage.name;
                    errors
                        .push(format!("pipeline {}: stage {name:?}: agents: {error}", pipeline.id));
                }
            }
        }
    }
    errors
}

fn is_agent(all: &Agents, id: &AgentId) -> Result<(), String> {
    if all.get(id).is_some() {
        Ok(())
    } else if all.pipelines.iter().any(|pipeline| pipeline.id == *id) {
        Err(format!("{id} is a pipeline, expected an agent"))
    } else {
        Err(format!("there is no agent {id:?}", id = id.as_str()))
    }
}

/// Each round of fallbacks once, by the first of its agents.
fn rounds(all: &Agents) -> Vec<String> {
    let mut errors = Vec::new();
    let mut known: HashSet<&AgentId> = HashSet::new();
    for agent in &all.agents {
        let mut path = vec![&agent.id];
        let mut next = agent.fallback.as_ref();
        while let Some(id) = next {
            if *id == agent.id && !path.iter().any(|id| known.contains(id)) {
                let path: Vec<_> = path.iter().map(|id| id.as_str()).collect();
                let path = path.join(", ");
                errors.push(format!("agent {}: fallback: {path} would ask in a round", agent.id));
                break;
            }
            if path.contains(&id) {
                break;
            }
            path.push(id);
            next = all.get(id).and_then(|agent| agent.fallback.as_ref());
        }
        known.insert(&agent.id);
    }
    errors
}
