//! Spends what a generation says from its user's token budget.

use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::adapter::SharedAdapter;
use crate::domain::{Budget, Error, UserId};
use crate::telemetry::metrics;

/// How often what was newly said is spent: a user gets at most what is said in this time beyond
/// their budget, and one request to Redis is made for it.
const SPEND_EVERY: Duration = Duration::from_secs(1);

/// Tokens are rarely longer than this many bytes. Some gateways send many in one piece.
const BYTES_OF_TOKEN: usize = 16;

/// What one attempt spends. What earlier attempts said, their nodes have spent.
pub(super) struct Spender {
    adapter: SharedAdapter,
    user: UserId,
    budget: Option<Budget>,
    said: u64,
    /// Of what was said; what is being spent included.
    spent: u64,
    due: Instant,
    spending: Option<BoxFuture<'static, Result<(), Duration>>>,
}

impl Spender {
    /// Spends from `user`'s budget; without one nothing is ever over.
    pub(super) fn new(adapter: SharedAdapter, user: UserId, budget: Option<Budget>) -> Self {
        let due = Instant::now() + SPEND_EVERY;
        Self { adapter, user, budget, said: 0, spent: 0, due, spending: None }
    }

    /// A piece of so many bytes more was said: a token, or as many as it has at least.
    pub(super) fn said(&mut self, bytes: usize) {
        let tokens = (bytes / BYTES_OF_TOKEN).max(1) as u64;
        self.said = self.said.saturating_add(tokens);
    }

    /// The provider has counted so many tokens of this attempt until now. What was said is not
    /// less than that.
    pub(super) fn counted(&mut self, tokens: u64) {
        self.said = self.said.max(tokens);
    }

    /// Spends what was said, about once a second. Comes back only where nothing is left of the
    /// budget, with what the user is told. To be called again after [`Spender::said`] and
    /// [`Spender::counted`].
    ///
    /// # Cancel safety
    /// Safe: what is being spent goes on with the next call, or in [`Spender::rest`].
    pub(super) async fn over(&mut self) -> Error {
        let Some(budget) = self.budget else { return pending().await };
        loop {
            let spending = match &mut self.spending {
                Some(spending) => spending,
                None if self.said == self.spent => return pending().await,
                None => {
                    sleep_until(self.due).await;
                    self.due = Instant::now() + SPEND_EVERY;
                    let spending = self.spend(budget);
                    self.spending.insert(spending)
                }
            };
            let left = spending.await;
            self.spending = None;
            if let Err(after) = left {
                metrics::rate_limited("token_budget").increment(1);
                return budget.spent(after);
            }
        }
    }

    /// Spends all that is not spent yet.
    pub(super) fn rest(&mut self) -> BoxFuture<'static, ()> {
        let before = self.spending.take();
        let rest = self.budget.filter(|_| self.said > self.spent).map(|budget| self.spend(budget));
        async move {
            for spending in [before, rest].into_iter().flatten() {
                // Nothing of this generation is left to be refused.
                let _ = spending.await;
            }
        }
        .boxed()
    }

    fn spend(&mut self, budget: Budget) -> BoxFuture<'static, Result<(), Duration>> {
        let tokens = self.said - self.spent;
        self.spent = self.said;
        let (adapter, user) = (self.adapter.clone(), self.user.clone());
        async move { adapter.spend(&user, tokens, budget).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::timeout;

    use super::*;
    use crate::adapter::{Memory, SharedMemory};
    use crate::domain::{ErrorCode, NodeId};

    /// A window that does not end during a test.
    const WINDOW: Duration = Duration::from_secs(1 << 38);
    const BUDGET: Budget = Budget { tokens: 10, window: WINDOW };

    fn adapter() -> SharedAdapter {
        let ttl = Duration::from_secs(60);
        Arc::new(Memory::new(NodeId::new(), 16, ttl, SharedMemory::default()))
    }

    fn ada() -> UserId {
        UserId::new("ada").unwrap()
    }

    /// What is over within so many milliseconds.
    async fn over(spender: &mut Spender, ms: u64) -> Option<Error> {
        timeout(Duration::from_millis(ms), spender.over()).await.ok()
    }

    /// Whether the user has spent exactly so many.
    async fn has_spent(adapter: &SharedAdapter, tokens: u64) -> bool {
        let user = ada();
        let asked = |tokens| adapter.spend(&user, 0, Budget { tokens, window: WINDOW });
        asked(tokens).await.is_err() && asked(tokens + 1).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_is_spent_once_a_second_until_nothing_is_left() {
        let adapter = adapter();
        let mut spender = Spender::new(adapter.clone(), ada(), Some(BUDGET));
        spender.said(4 * BYTES_OF_TOKEN);
        assert_eq!(over(&mut spender, 900).await, None);
        assert!(has_spent(&adapter, 0).await, "not yet");
        spender.said(2 * BYTES_OF_TOKEN);
        assert_eq!(over(&mut spender, 200).await, None);
        assert!(has_spent(&adapter, 6).await);
        spender.said(4 * BYTES_OF_TOKEN);
        assert_eq!(over(&mut spender, 800).await, None, "a second after the last time");
        let error = over(&mut spender, 300).await.expect("nothing is left");
        assert_eq!(error.code, ErrorCode::RateLimit);
        assert!(error.retry_after.is_some_and(|after| !after.is_zero() && after <= WINDOW));
        assert!(error.message.contains("10 tokens") && error.message.contains("ask again in"));
        assert!(has_spent(&adapter, 10).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_nothing_is_spent_nor_over() {
        let adapter = adapter();
        let mut spender = Spender::new(adapter.clone(), ada(), None);
        spender.said(1_000_000);
        assert_eq!(over(&mut spender, 10_000).await, None);
        spender.rest().await;
        assert!(has_spent(&adapter, 0).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_what_the_provider_counted_and_was_not_spent() {
        let adapter = adapter();
        let mut spender = Spender::new(adapter.clone(), ada(), Some(BUDGET));
        spender.said(3 * BYTES_OF_TOKEN);
        assert_eq!(over(&mut spender, 1_100).await, None);
        spender.counted(7);
        spender.rest().await;
        assert!(has_spent(&adapter, 7).await);
        spender.counted(5);
        spender.rest().await;
        assert!(has_spent(&adapter, 7).await, "what is spent is spent");
        assert_eq!(over(&mut spender, 5_000).await, None, "nor is it spent again");
        assert!(has_spent(&adapter, 7).await);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_new_was_said_nothing_is_asked() {
        let adapter = adapter();
        let _ = adapter.spend(&ada(), 10, BUDGET).await;
        let mut spender = Spender::new(adapter, ada(), Some(BUDGET));
        assert_eq!(over(&mut spender, 5_000).await, None);
        spender.said(1);
        assert!(over(&mut spender, 1).await.is_some(), "it is due since long");
    }
}
