//! How often users have asked, over the nodes of one process.

use std::time::Duration;

use async_trait::async_trait;

use super::super::Limits;
use super::Memory;
use crate::domain::{Budget, Rate, UserId};

#[async_trait]
impl Limits for Memory {
    async fn count(&self, user: &UserId, action: &'static str, rate: Rate) -> Result<(), Duration> {
        self.shared.limits.count(user, action, rate)
    }

    async fn spend(&self, user: &UserId, tokens: u64, budget: Budget) -> Result<(), Duration> {
        self.shared.spent.spend(user, tokens, budget)
    }
}
