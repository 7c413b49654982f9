//! From configured agents and pipelines to those that answer: each agent with its provider.

use std::collections::HashMap;

use anyhow::Context;

use crate::chat::{Answerer, Answerers};
use crate::config::{self, Agent, Agents, Config, Pipeline, ProviderKind, Providers};
use crate::generation::{self, Solo, Voice, Voices};
use crate::llm::{self, Settings, SharedProvider};

/// Every configured agent and pipeline: as it is asked, and as clients know it.
///
/// # Errors
/// A provider that cannot be set up.
pub(super) fn answerers(config: &Config) -> anyhow::Result<(Voices, Answerers)> {
    let Agents { default, agents, pipelines } = &config.agents;
    let mut voices = HashMap::new();
    let mut by_agent = HashMap::new();
    for agent in agents {
        let solo = solo(agent, config)?;
        let provider = solo.provider.id().to_owned();
        let (name, model) = (agent.name.clone(), agent.model.clone());
        by_agent.insert(agent.id.clone(), Answerer { name, provider, model });
        voices.insert(agent.id.clone(), Voice::Solo(solo));
    }
    for Pipeline { id, name, stages } in pipelines {
        // Known by whoever is heard.
        let last = stages.last().and_then(|stage| stage.agents.first());
        let heard = last.and_then(|agent| by_agent.get(agent));
        let heard = heard.with_context(|| format!("pipeline {id}: nobody speaks last"))?;
        let answerer = Answerer { name: name.clone(), ..heard.clone() };
        by_agent.insert(id.clone(), answerer);
        let stages = stages.iter().cloned().map(stage).collect();
        voices.insert(id.clone(), Voice::Pipeline(generation::Pipeline { stages }));
    }
    let voices = Voices::new(voices).retrying(config.streams.retries);
    Ok((voices, Answerers { by_agent, default: default.clone() }))
}

fn solo(agent: &Agent, config: &Config) -> anyhow::Result<Solo> {
    Ok(Solo {
        provider: provider(agent, config).with_context(|| format!("agent {}", agent.id))?,
        model: agent.model.clone(),
        system: agent.system.clone(),
        temperature: agent.temperature,
        max_tokens: agent.max_tokens,
        timeout: agent.timeout,
        on_takeover: agent.on_takeover,
        fallback: agent.fallback.clone(),
    })
}

fn stage(stage: config::PipelineStage) -> generation::PipelineStage {
    let config::PipelineStage { name, agents, gate } = stage;
    generation::PipelineStage { name, agents, gate }
}

fn provider(agent: &Agent, config: &Config) -> anyhow::Result<SharedProvider> {
    let Providers { anthropic, openai, connect_timeout } = &config.providers;
    let upstream = match agent.provider {
        ProviderKind::Scripted => None,
        ProviderKind::OpenAi | ProviderKind::OpenAiResponses => Some(openai),
        ProviderKind::Anthropic => Some(anthropic),
    };
    let settings = Settings {
        base_url: agent.base_url.clone(),
        api_key: upstream.and_then(|upstream| upstream.api_key.clone()),
        connect_timeout: *connect_timeout,
        tokens_per_second: agent.tokens_per_second,
        tokens: agent.tokens,
    };
    Ok(llm::provider(agent.provider.as_str(), &settings)?)
}
