//! How often users have asked. Where Redis does not answer in time, this node's own count decides:
//! a limit must neither hold a command up nor fail it.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::super::gcra::each;
use super::super::spent::window_ms;
use super::super::{Limits, Registry};
use super::log::number;
use super::scripts::call;
use super::{Redis, limit_key, spent_key};
use crate::domain::{Budget, Rate, UserId};

/// How long Redis may take.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

#[async_trait]
impl Limits for Redis {
    async fn count(&self, user: &UserId, action: &'static str, rate: Rate) -> Result<(), Duration> {
        let Some(each) = each(rate) else { return Ok(()) };
        let shared = &self.shared;
        if self.is_up() {
            let each = u64::try_from(each.as_micros()).unwrap_or(u64::MAX);
            let asked = call(
                &shared.commands,
                &shared.scripts.count,
                vec![limit_key(user, action)],
                vec![number(each), number(u64::from(rate.count))],
            );
            match timeout(ANSWERED_WITHIN, asked).await {
                Ok(Ok(0_u64)) => return Ok(()),
                Ok(Ok(wait)) => return Err(Duration::from_micros(wait)),
                Ok(Err(error)) => tracing::debug!(%error, action, "count in Redis"),
                Err(_) => tracing::debug!(action, "Redis is late; counting here"),
            }
        }
        shared.limits.count(user, action, rate)
    }

    async fn spend(&self, user: &UserId, tokens: u64, budget: Budget) -> Result<(), Duration> {
        let shared = &self.shared;
        // Always, so that an outage does not give back what was spent here.
        let here = shared.spent.spend(user, tokens, budget);
        if self.is_up() {
            let window = window_ms(budget);
            let asked = call(
                &shared.commands,
                &shared.scripts.spend,
                vec![spent_key(user, window)],
                // Redis counts up to 2^63.
                [window, tokens, budget.tokens].map(|n| number(n.min(1 << 52))).to_vec(),
            );
            match timeout(ANSWERED_WITHIN, asked).await {
                Ok(Ok(0_u64)) => return Ok(()),
                Ok(Ok(wait)) => return Err(Duration::from_millis(wait)),
                Ok(Err(error)) => tracing::debug!(%error, "spend in Redis"),
                Err(_) => tracing::debug!("Redis is late; spending here"),
            }
        }
        here
    }
}
