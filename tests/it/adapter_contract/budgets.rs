//! What users may spend, across the nodes; and who counts when Redis does not.

use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::Budget;

use super::{Node, on_every_backend, someone};
use crate::support::eventually;
use crate::support::redis::OwnRedis;

on_every_backend!(
    nodes_spend_from_one_budget,
    spending_in_parallel_loses_nothing,
    asking_spends_nothing,
    the_next_window_has_a_budget_of_its_own,
);

/// A window that does not end during a test: thousands of years.
const LONG: Duration = Duration::from_secs(1 << 38);

async fn nodes_spend_from_one_budget(a: Node, b: Node) {
    let (ada, bob) = (someone(), someone());
    let budget = Budget { tokens: 100, window: LONG };
    assert_eq!(a.adapter.spend(&ada, 60, budget).await, Ok(()));
    assert_eq!(b.adapter.spend(&ada, 39, budget).await, Ok(()));
    assert_eq!(a.adapter.spend(&ada, 0, budget).await, Ok(()), "one is left");
    let wait = b.adapter.spend(&ada, 5, budget).await.unwrap_err();
    assert!(wait > Duration::ZERO && wait <= LONG, "{wait:?}");
    assert!(a.adapter.spend(&ada, 0, budget).await.is_err(), "all nodes know");
    assert_eq!(a.adapter.spend(&bob, 0, budget).await, Ok(()), "another user");
    // What was spent is spent, also where it was too much.
    let larger = Budget { tokens: 104, ..budget };
    assert!(a.adapter.spend(&ada, 0, larger).await.is_err());
    assert_eq!(a.adapter.spend(&ada, 0, Budget { tokens: 105, ..budget }).await, Ok(()));
}

async fn spending_in_parallel_loses_nothing(a: Node, b: Node) {
    let ada = someone();
    let budget = Budget { tokens: 1000, window: LONG };
    let spends = (0..100).map(|n| if n % 2 == 0 { &a } else { &b });
    join_all(spends.map(|node| node.adapter.spend(&ada, 9, budget))).await;
    assert_eq!(a.adapter.spend(&ada, 99, budget).await, Ok(()));
    assert!(b.adapter.spend(&ada, 1, budget).await.is_err());
}

async fn asking_spends_nothing(a: Node, b: Node) {
    let (ada, budget) = (someone(), Budget { tokens: 1, window: LONG });
    for _ in 0..3 {
        assert_eq!(a.adapter.spend(&ada, 0, budget).await, Ok(()));
    }
    assert!(b.adapter.spend(&ada, 1, budget).await.is_err());
}

async fn the_next_window_has_a_budget_of_its_own(a: Node, b: Node) {
    let ada = someone();
    let budget = Budget { tokens: 10, window: Duration::from_millis(700) };
    let wait = eventually("the budget is spent within one window", || async {
        a.adapter.spend(&ada, 10, budget).await.err()
    })
    .await;
    assert!(wait <= budget.window, "{wait:?}");
    eventually("there is a budget again", || async { b.adapter.spend(&ada, 0, budget).await.ok() })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spent_is_forgotten_with_its_window() {
    let redis = OwnRedis::start().await;
    let (a, ada) = (Node::redis(&redis.url()).await, someone());
    let hour = Duration::from_secs(3_600);
    a.adapter.spend(&ada, 1, Budget { tokens: 10, window: hour }).await.unwrap();
    a.adapter.spend(&ada, 1, Budget { tokens: 10, window: hour }).await.unwrap();
    let keys = redis.cli(&["keys", "*:spent:3600000"]);
    let ttl: i64 = redis.cli(&["pttl", &keys]).parse().unwrap();
    assert!(ttl > 0 && ttl <= 3_600_000, "{keys}: {ttl}");
    let ends: i64 = redis.cli(&["pexpiretime", &keys]).parse().unwrap();
    assert_eq!(ends % 3_600_000, 0, "with the hour of the clock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_node_holds_against_a_user_what_they_spent_there() {
    let mut redis = OwnRedis::start().await;
    let (a, b) = (Node::redis(&redis.url()).await, Node::redis(&redis.url()).await);
    let (ada, budget) = (someone(), Budget { tokens: 10, window: LONG });
    assert_eq!(a.adapter.spend(&ada, 8, budget).await, Ok(()));
    assert!(b.adapter.spend(&ada, 2, budget).await.is_err());

    redis.stop();
    assert_eq!(a.adapter.spend(&ada, 1, budget).await, Ok(()), "8 and 1 were spent here");
    assert!(a.adapter.spend(&ada, 1, budget).await.is_err());
    assert_eq!(b.adapter.spend(&ada, 7, budget).await, Ok(()), "2 and 7 were spent here");
    assert!(b.adapter.spend(&ada, 1, budget).await.is_err());

    redis.start_again().await;
    // Redis has forgotten all.
    eventually("Redis decides", || async { a.adapter.spend(&ada, 0, budget).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_late_does_not_hold_up_who_spends() {
    let redis = OwnRedis::start().await;
    let a = Node::redis(&redis.url()).await;
    let (ada, budget) = (someone(), Budget { tokens: 10, window: LONG });
    redis.cli(&["client", "pause", "1000", "all"]);
    // The command's own time is two seconds.
    assert_eq!(a.adapter.spend(&ada, 9, budget).await, Ok(()));
    assert!(a.adapter.spend(&ada, 1, budget).await.is_err());
}
