//! Who answers, as clients may know it.

use super::{Caller, Chat};
use crate::domain::{Action, AgentId, Error};

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
    ///
    /// # Errors
    /// `RATE_LIMIT`.
    pub async fn agents(&self, caller: &Caller) -> Result<Vec<AgentInfo>, Error> {
        self.shared.count(caller, Action::Read).await?;
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
        Ok(agents)
    }
}
