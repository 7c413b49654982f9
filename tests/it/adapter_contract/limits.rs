//! How often users have asked, across the nodes; and who counts when Redis does not.

use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::Rate;

use super::{Node, on_every_backend, someone};
use crate::support::eventually;
use crate::support::redis::OwnRedis;

on_every_backend!(
    nodes_count_together_and_refuse_what_is_too_much,
    what_was_refused_is_not_counted,
    nothing_is_limited_to_none,
);

async fn nodes_count_together_and_refuse_what_is_too_much(a: Node, b: Node) {
    let (ada, bob) = (someone(), someone());
    let rate = Rate::per_minute(9);
    let counts = (0..30).map(|n| if n % 2 == 0 { &a } else { &b });
    let counted = join_all(counts.map(|node| node.adapter.count(&ada, "send", rate))).await;
    assert_eq!(counted.iter().filter(|counted| counted.is_ok()).count(), 9);
    let wait = a.adapter.count(&ada, "send", rate).await.unwrap_err();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(60) / 9 + Duration::from_millis(1)
    );
    assert_eq!(a.adapter.count(&ada, "edit", rate).await, Ok(()), "another action");
    assert_eq!(b.adapter.count(&bob, "send", rate).await, Ok(()), "another user");
}

async fn what_was_refused_is_not_counted(a: Node, b: Node) {
    let ada = someone();
    let rate = Rate { count: 2, window: Duration::from_millis(600) };
    assert!(a.adapter.count(&ada, "send", rate).await.is_ok());
    assert!(b.adapter.count(&ada, "send", rate).await.is_ok());
    // Were it counted, asking on and on would never be allowed.
    eventually("it is allowed again", || async {
        match a.adapter.count(&ada, "send", rate).await {
            Ok(()) => Some(()),
            Err(wait) => {
                assert!(wait <= Duration::from_millis(301), "{wait:?}");
                None
            }
        }
    })
    .await;
}

async fn nothing_is_limited_to_none(a: Node, _b: Node) {
    let ada = someone();
    for _ in 0..100 {
        assert_eq!(a.adapter.count(&ada, "send", Rate::per_minute(0)).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_node_counts_for_itself_and_with_it_redis_decides_again() {
    let mut redis = OwnRedis::start().await;
    let (a, b) = (Node::redis(&redis.url()).await, Node::redis(&redis.url()).await);
    let (ada, rate) = (someone(), Rate::per_minute(1));
    assert!(a.adapter.count(&ada, "send", rate).await.is_ok());
    assert!(b.adapter.count(&ada, "send", rate).await.is_err());

    redis.stop();
    for node in [&a, &b] {
        assert!(node.adapter.count(&ada, "send", rate).await.is_ok(), "its own count");
        assert!(node.adapter.count(&ada, "send", rate).await.is_err(), "is a limit too");
    }

    redis.start_again().await;
    // Redis has forgotten all; a's own count would refuse for a minute.
    eventually("Redis decides", || async { a.adapter.count(&ada, "send", rate).await.ok() }).await;
    eventually("b knows", || async { b.adapter.is_up().then_some(()) }).await;
    assert!(b.adapter.count(&ada, "send", rate).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_late_is_not_waited_for() {
    let redis = OwnRedis::start().await;
    let a = Node::redis(&redis.url()).await;
    let (ada, rate) = (someone(), Rate::per_minute(1));
    assert!(a.adapter.count(&ada, "send", rate).await.is_ok());
    redis.cli(&["client", "pause", "1000", "all"]);
    // Redis would refuse, and before the command's own time is up.
    assert!(a.adapter.count(&ada, "send", rate).await.is_ok());
}
