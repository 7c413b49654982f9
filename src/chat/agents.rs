//! Who answers, as clients may know it.

use super::Chat;
use crate::domain::AgentId;

/// An agent that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// Its id.
    pub id: AgentId,
    /// What people see.
    pub name: String,
    /// Whether it answers where nobody is named.
    pub is_default: bool,
}

impl Chat {
    /// Every agent, by id.
    pub fn agents(&self) -> Vec<AgentInfo> {
        let answerers = &self.shared.answerers;
        let mut agents: Vec<_> = answerers
            .by_agent
            .iter()
            .map(|(id, answerer)| AgentInfo {
                id: id.clone(),
                name: answerer.name.clone(),
                is_default: *id == answerers.default,
            })
            .collect();
        agents.sort_by(|a, b| a.id.cmp(&b.id));
        agents
    }
}
