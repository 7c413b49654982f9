//! Joins and recoveries go a bounded number at a time: where all clients come back at once, they
//! stand in line for the store instead of overrunning it and being refused.
//!
//! It must not know what is done in a turn.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The most that have a turn at once on a node: some more than the store's connections are by
/// default, so that none of these is idle, and few enough that whoever has a turn, or sends a
/// message meanwhile, does not wait long for one.
pub(super) const TURNS: usize = 16;

/// How long whoever has a turn keeps it while they wait for something else than the store.
const KEPT_FOR: Duration = Duration::from_millis(250);

/// The turns of a node. Whoever waits for one gets it in the order of asking, however long that
/// takes; those who wait are bounded by the node's connections, since each carries out one command
/// after the other.
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(TURNS))
    }
}

impl Turns {
    /// Waits for a turn, which ends when it is dropped. Nobody may ask for a second one.
    ///
    /// # Cancel safety
    /// Dropped, the place in the line is lost.
    pub(super) async fn take(&self) -> Turn<'_> {
        Turn { turns: self, permit: Some(self.permit().await) }
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        self.0.acquire().await.expect("the semaphore is never closed")
    }
}

/// One turn.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    permit: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    /// Waits for something else than the store. Where that takes long, because Redis is away or
    /// somebody else reads a long log, the turn is the next one's meanwhile: who waits for a
    /// session that cannot be heard does not hold up the others.
    ///
    /// # Cancel safety
    /// That of `awaited`.
    pub(super) async fn lend<T>(&mut self, awaited: impl Future<Output = T>) -> T {
        let mut awaited = pin!(awaited);
        if let Ok(done) = timeout(KEPT_FOR, &mut awaited).await {
            return done;
        }
        self.permit = None;
        let done = awaited.await;
        self.permit = Some(self.turns.permit().await);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_at_a_time_and_in_order() {
        let turns = Turns::default();
        let done = Mutex::new((0, 0, Vec::new()));
        join_all((0..1_000).map(async |n| {
            let _turn = turns.take().await;
            {
                let mut done = done.lock().unwrap();
                done.0 += 1;
                done.1 = done.1.max(done.0);
                done.2.push(n);
            }
            sleep(Duration::from_millis(1)).await;
            done.lock().unwrap().0 -= 1;
        }))
        .await;
        let (left, most, order) = done.into_inner().unwrap();
        assert_eq!((left, most), (0, TURNS));
        assert!(order.is_sorted() && order.len() == 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_something_else_holds_up_nobody_and_is_bounded_again_afterwards() {
        let turns = Arc::new(Turns::default());
        let back = Arc::new(Semaphore::new(0));
        let stuck = join_all((0..TURNS * 3).map(async |_| {
            let mut turn = turns.take().await;
            let awaited = back.acquire();
            turn.lend(awaited).await.unwrap().forget();
            assert!(turn.permit.is_some());
        }));
        let others = async {
            sleep(Duration::from_millis(1)).await;
            assert_eq!(turns.0.available_permits(), 0, "all are taken");
            drop(turns.take().await);
            back.add_permits(TURNS * 3);
        };
        let both = async { tokio::join!(stuck, others) };
        timeout(KEPT_FOR * 10, both).await.expect("nobody is held up");
        assert_eq!(turns.0.available_permits(), TURNS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_quick_keeps_its_turn_and_whoever_gives_up_leaves_the_line() {
        let turns = Turns::default();
        let mut turn = turns.take().await;
        turn.lend(sleep(KEPT_FOR / 2)).await;
        assert!(turn.permit.is_some());
        let given_up = timeout(KEPT_FOR * 2, turn.lend(pending::<()>())).await;
        assert!(given_up.is_err());
        assert_eq!(turns.0.available_permits(), TURNS);
        drop(turn);
        assert_eq!(turns.0.available_permits(), TURNS);
    }
}
