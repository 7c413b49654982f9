//! What users may spend: held before an answer is accepted, and while it runs.

use std::time::Duration;

use tokencast::adapter::Limits;
use tokencast::domain::{Aside, Budget, ErrorCode, Status, Usage};
use tokencast::llm::Delta;

use super::asking::{SHOWN, generation, request};
use super::{Cluster, Node, caller, messages};
use crate::support::eventually;

/// Ten tokens in a window that does not end during a test.
const TEN: Budget = Budget { tokens: 10, window: Duration::from_secs(1 << 38) };

fn node(cluster: &Cluster) -> Node {
    cluster.node_with(|options| options.budget = Some(TEN))
}

/// Whether ada has spent exactly so many.
async fn has_spent(node: &Node, tokens: u64) -> bool {
    let ada = caller("ada").user;
    let left = async |tokens| node.adapter.spend(&ada, 0, Budget { tokens, ..TEN }).await;
    left(tokens).await.is_err() && left(tokens + 1).await.is_ok()
}

#[tokio::test]
async fn what_the_provider_counted_is_spent_at_the_end_and_then_nothing_is_accepted() {
    let cluster = Cluster::new().await;
    let (a, b) = (node(&cluster), node(&cluster));
    let session = a.open_session().await;
    let (_reading, reads) = a.joined("ada", &session).await;
    let first = a.asked("ada", &session).await;
    a.say("one ");
    a.say("two");
    let usage = Usage { input_tokens: 1_000, output_tokens: 9, cached_tokens: 0 };
    a.says.send(Delta::Usage(usage)).unwrap();
    a.end();
    eventually("all is spent", || async { has_spent(&a, 9).await.then_some(()) }).await;
    let stored = eventually("the first is stored", || async {
        let stored = cluster.store.generation(first).await.unwrap().unwrap();
        stored.status.is_final().then_some(stored)
    })
    .await;
    assert_eq!(stored.status, Status::Completed);

    // One is left: enough to be accepted.
    b.asked("ada", &session).await;
    b.say("three");
    b.end();
    eventually("nothing is left", || async { has_spent(&b, 10).await.then_some(()) }).await;
    for node in [&a, &b] {
        let refused = node.chat.request(&caller("ada"), request(&session, SHOWN)).await;
        let error = refused.unwrap_err();
        assert_eq!(error.code, ErrorCode::RateLimit, "{error}");
        assert!(error.retry_after.is_some() && error.message.contains("ask again in"), "{error}");
    }
    assert_eq!(messages(&reads), 2, "what was refused is not stored");
    let bob = a.chat.request(&caller("bob"), request(&crate::hub::session(), SHOWN)).await;
    assert!(bob.is_ok(), "another user");
}

#[tokio::test]
async fn an_answer_ends_where_nothing_is_left_and_what_it_said_is_kept() {
    let cluster = Cluster::new().await;
    let (a, b) = (node(&cluster), node(&cluster));
    let session = crate::hub::session();
    let (other, (_reading, reads)) = (crate::hub::session(), b.joined("ada", &session).await);
    let (_also_reading, other_reads) = a.joined("ada", &other).await;
    let running = a.asked("ada", &session).await;
    let elsewhere = b.asked("ada", &other).await;
    for n in 0..6 {
        a.say(&format!("{n} "));
        b.say(&format!("{n} "));
    }
    // Neither alone is over; nor does either end by itself.
    let ended = eventually("one of them ends", || async {
        for id in [running, elsewhere] {
            let stored = cluster.store.generation(id).await.unwrap().unwrap();
            if stored.status.is_final() {
                return Some(stored);
            }
        }
        None
    })
    .await;
    assert_eq!(ended.status, Status::Failed);
    let reads = if ended.id == running { &reads } else { &other_reads };
    let told = eventually("readers are told", || async {
        reads.shown().into_iter().find(|(name, _)| name == "stream:error")
    })
    .await;
    assert_eq!(told.1["error"]["code"], ErrorCode::RateLimit.as_str(), "{told:?}");
    assert!(told.1["error"]["message"].as_str().unwrap().contains("ask again in"), "{told:?}");
    let stored = cluster.store.message(ended.message, &caller("ada").user).await.unwrap().unwrap();
    assert_eq!(stored.message.content, "0 1 2 3 4 5 ");
    assert_eq!(reads.text(ended.id), stored.message.content);
    eventually("all that was said is spent", || async { has_spent(&a, 12).await.then_some(()) })
        .await;
}

#[tokio::test]
async fn thinking_is_spent_before_the_provider_counts_it() {
    let cluster = Cluster::new().await;
    let node = node(&cluster);
    let id = node.asked("ada", &crate::hub::session()).await;
    for _ in 0..11 {
        let thinking = Aside::Thinking { text: "hm ".to_owned() };
        node.says.send(Delta::Aside(thinking)).unwrap();
    }
    let ended = eventually("it ends", || async {
        let stored = cluster.store.generation(id).await.unwrap().unwrap();
        stored.status.is_final().then_some(stored)
    })
    .await;
    assert_eq!(ended.status, Status::Failed);
    assert!(has_spent(&node, 11).await);
}

#[tokio::test]
async fn without_a_budget_nothing_is_spent() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = crate::hub::session();
    let id = node.asked("ada", &session).await;
    let asked =
        generation(&node.chat.request(&caller("ada"), request(&session, SHOWN)).await.unwrap());
    assert_ne!(id, asked);
    for _ in 0..20 {
        node.say("word ");
    }
    node.end();
    // Both take what is said by turns, and one of them the end.
    eventually("one is stored", || async {
        let one = cluster.store.generation(id).await.unwrap().unwrap();
        let other = cluster.store.generation(asked).await.unwrap().unwrap();
        (one.status.is_final() || other.status.is_final()).then_some(())
    })
    .await;
    assert!(has_spent(&node, 0).await);
}

/// Providers say the sum last, and a first count at the beginning.
#[tokio::test]
async fn what_is_stopped_counts_at_least_what_it_said() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = node.open_session().await;
    let (_reading, reads) = node.joined("ada", &session).await;
    let id = node.asked("ada", &session).await;
    let usage = Usage { input_tokens: 7, output_tokens: 1, cached_tokens: 0 };
    node.says.send(Delta::Usage(usage)).unwrap();
    for n in 0..4 {
        node.say(&format!("{n} "));
    }
    eventually("all is shown", || async { (reads.text(id) == "0 1 2 3 ").then_some(()) }).await;
    node.chat.stop(&caller("ada"), id).await.unwrap();
    let stored = eventually("it is stored", || async {
        let stored = cluster.store.generation(id).await.unwrap().unwrap();
        stored.status.is_final().then_some(stored)
    })
    .await;
    assert_eq!((stored.status, stored.tokens), (Status::Stopped, Some(4)));
}
