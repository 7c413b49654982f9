//! Who answers without an agents file.

use super::agents::{Agents, Pipeline, PipelineStage, ProviderKind};
use super::agents_file::{Inherited, RawAgent};
use crate::domain::AgentId;

/// The agent's id.
const ASSISTANT: &str = "assistant";
/// The pipeline's id, and its name.
const PANEL: (&str, &str) = ("demo-panel", "Demo panel");
/// Its stages: name, whether it is a gate, and the agents with their names and instructions.
const STAGES: [(&str, bool, &[DemoAgent]); 3] = [
    ("host", true, &[("demo-host", "Host", "Say whether the panel should hear this.")]),
    (
        "panel",
        false,
        &[
            ("demo-optimist", "Optimist", "Say what speaks for it."),
            ("demo-sceptic", "Sceptic", "Say what speaks against it."),
        ],
    ),
    ("friend", false, &[("demo-friend", "Friend", "Weigh what the others said, and answer.")]),
];
/// So long are the answers of its agents, but for the last one's, which is the default.
const TOKENS: u32 = 40;

/// Id, name, instructions.
type DemoAgent = (&'static str, &'static str, &'static str);

impl Inherited<'_> {
    /// The agent that asks `provider`, and a small pipeline of scripted agents for a try.
    ///
    /// # Errors
    /// The provider's model is not named.
    pub(super) fn built_in(&self, provider: ProviderKind) -> Result<Agents, String> {
        let mut agents = vec![self.agent(raw(ASSISTANT, "Assistant", provider))?];
        let mut stages = Vec::new();
        for (index, (name, gate, members)) in STAGES.into_iter().enumerate() {
            for (id, name, system) in members {
                let mut raw = raw(id, name, ProviderKind::Scripted);
                raw.system = Some((*system).to_owned());
                // The scripted provider's words follow from the model's name: each has its own.
                raw.model = Some((*id).to_owned());
                raw.tokens = (index + 1 < STAGES.len()).then_some(TOKENS);
                agents.push(self.agent(raw)?);
            }
            let members = members.iter().map(|(id, ..)| built_in_id(id)).collect();
            stages.push(PipelineStage { name: name.to_owned(), agents: members, gate });
        }
        let (id, name) = PANEL;
        let panel = Pipeline { id: built_in_id(id), name: name.to_owned(), stages };
        Ok(Agents { default: built_in_id(ASSISTANT), agents, pipelines: vec![panel] })
    }
}

fn raw(id: &str, name: &str, provider: ProviderKind) -> RawAgent {
    RawAgent {
        id: id.to_owned(),
        provider: provider.as_str().to_owned(),
        name: Some(name.to_owned()),
        ..RawAgent::default()
    }
}

fn built_in_id(id: &str) -> AgentId {
    AgentId::new(id).expect("it follows the rule")
}
