//! From configured agents to agents that answer: each with its provider.

use std::collections::HashMap;

use crate::chat::{Answerer, Answerers};
use crate::config::{Agent, Config, ProviderKind};
use crate::generation::{Solo, Voice, Voices};
use crate::llm::{self, Settings, SharedProvider};

/// Every configured agent: as it is asked, and as clients know it.
///
/// # Errors
/// A provider that cannot be set up.
pub(super) fn answerers(config: &Config) -> anyhow::Result<(Voices, Answerers)> {
    let mut voices = HashMap::new();
    let mut by_agent = HashMap::new();
    for agent in &config.agents.agents {
        let solo = Solo {
            provider: provider(agent, config)?,
            model: agent.model.clone(),
            system: agent.system.clone(),
            temperature: agent.temperature,
            max_tokens: agent.max_tokens,
            timeout: agent.timeout,
            on_takeover: agent.on_takeover,
            fallback: None,
        };
        let answerer = Answerer {
            name: agent.name.clone(),
            provider: solo.provider.id().to_owned(),
            model: agent.model.clone(),
        };
        by_agent.insert(agent.id.clone(), answerer);
        voices.insert(agent.id.clone(), Voice::Solo(solo));
    }
    Ok((Voices::new(voices), Answerers { by_agent, default: config.agents.default.clone() }))
}

fn provider(agent: &Agent, config: &Config) -> anyhow::Result<SharedProvider> {
    let openai = &config.providers.openai;
    let settings = match agent.provider {
        ProviderKind::Scripted => Settings {
            tokens_per_second: agent.tokens_per_second,
            tokens: agent.tokens,
            ..Settings::default()
        },
        ProviderKind::OpenAi => Settings {
            base_url: Some(agent.base_url.clone().unwrap_or_else(|| openai.base_url.clone())),
            api_key: openai.api_key.clone(),
            ..Settings::default()
        },
    };
    Ok(llm::provider(agent.provider.as_str(), &settings)?)
}
