//! What Redis can do to us: restart empty, cut subscriptions, forget, send garbage.

use tokencast::adapter::{Appended, Earlier, StoredAppended};
use tokencast::domain::GenerationId;

use super::{Node, chunk, event, session};
use crate::support::eventually;
use crate::support::redis::OwnRedis;

/// fred's own `manage_subscriptions` restored nothing after a reconnect; ours has to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_subscriptions_are_restored_and_a_new_epoch_begins() {
    let mut redis = OwnRedis::start().await;
    let (a, b) = (Node::redis(&redis.url()).await, Node::redis(&redis.url()).await);
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.subscribe(&session).await.unwrap();
    b.adapter.subscribe(&session).await.unwrap();
    let before = a.adapter.append_event(&session, event()).await.unwrap();
    a.adapter.append_chunk(&session, chunk(generation, 0, "ab")).await.unwrap();

    redis.restart().await;

    let short = eventually("Redis takes commands again", || async {
        a.adapter.append_chunk(&session, chunk(generation, 2, "c")).await.ok()
    })
    .await;
    assert_eq!(short, Appended::Short { len: 0 }, "the text was lost, and nobody pretends");
    let after = a.adapter.append_event(&session, event()).await.unwrap();
    assert!(after.epoch > before.epoch, "{before} then {after}");
    assert_eq!(after.seq, 1);
    let marker = event();
    eventually("b hears again", || async {
        a.adapter.append_event(&session, marker.clone()).await.unwrap();
        let heard = b.heard.events.lock().unwrap();
        heard.iter().any(|(_, event)| event.id == marker.id).then_some(())
    })
    .await;
    assert!(*b.heard.dirty.lock().unwrap() > 0, "b was told to compare heads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_subscriptions_are_restored_and_make_the_node_dirty() {
    let redis = OwnRedis::start().await;
    let (a, b) = (Node::redis(&redis.url()).await, Node::redis(&redis.url()).await);
    let session = session();
    b.adapter.subscribe(&session).await.unwrap();
    redis.cli(&["client", "kill", "type", "pubsub"]);
    eventually("b is dirty", || async { (*b.heard.dirty.lock().unwrap() > 0).then_some(()) }).await;
    let marker = event();
    eventually("b hears again", || async {
        a.adapter.append_event(&session, marker.clone()).await.unwrap();
        let heard = b.heard.events.lock().unwrap();
        heard.iter().any(|(_, event)| event.id == marker.id).then_some(())
    })
    .await;
}

/// A replica that is promoted without the newest entries has a shorter log than a node knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_tail_begins_a_new_epoch() {
    let redis = OwnRedis::start().await;
    let a = Node::redis(&redis.url()).await;
    let session = session();
    let mut last = a.adapter.append_event(&session, event()).await.unwrap();
    for _ in 0..4 {
        last = a.adapter.append_event(&session, event()).await.unwrap();
    }
    // As the promoted replica has it: the first two entries and nothing of the others.
    let log = format!("tc:{{{session}}}:log");
    redis.cli(&["del", &log]);
    for seq in 1..=2 {
        let id = format!("{}-{seq}", last.epoch);
        redis.cli(&["xadd", &log, &id, "e", "x"]);
    }
    let next = a.adapter.append_event(&session, event()).await.unwrap();
    assert!(next.epoch > last.epoch, "{last} then {next}: a silent hole");
    assert_eq!(next.seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_a_channel_is_passed_over() {
    let redis = OwnRedis::start().await;
    let (a, b) = (Node::redis(&redis.url()).await, Node::redis(&redis.url()).await);
    let session = session();
    b.adapter.subscribe(&session).await.unwrap();
    let channel = format!("tc:{{{session}}}");
    for garbage in ["", "C1", "E1", "E11-1 {}", "Z9", "C1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]
    {
        redis.cli(&["spublish", &channel, garbage]);
        redis.cli(&["spublish", &format!("tc:node:{{{}}}", b.id), garbage]);
    }
    let marker = event();
    a.adapter.append_event(&session, marker.clone()).await.unwrap();
    eventually("b goes on hearing", || async {
        let heard = b.heard.events.lock().unwrap();
        heard.iter().any(|(_, event)| event.id == marker.id).then_some(())
    })
    .await;
}

/// Scripts are known by their hashes, which Redis forgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_given_again() {
    let redis = OwnRedis::start().await;
    let a = Node::redis(&redis.url()).await;
    let session = session();
    let first = a.adapter.append_event(&session, event()).await.unwrap();
    redis.cli(&["script", "flush"]);
    let second = a.adapter.append_event(&session, event()).await.unwrap();
    assert!(second.follows(first));
}

/// An expired log must not end in positions that were used before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_log_begins_a_new_epoch_also_for_a_node_that_never_knew_it() {
    let redis = OwnRedis::start().await;
    let a = Node::redis(&redis.url()).await;
    let session = session();
    let before = a.adapter.append_event(&session, event()).await.unwrap();
    redis.cli(&["del", &format!("tc:{{{session}}}:log")]);
    let b = Node::redis(&redis.url()).await;
    let after = b.adapter.append_event(&session, event()).await.unwrap();
    assert!(after.epoch > before.epoch && after.seq == 1, "{before} then {after}");
}

/// The key that remembers the highest revision may be lost by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_not_known_which_stored_events_the_log_has_the_earlier_ones_come_first() {
    let redis = OwnRedis::start().await;
    let a = Node::redis(&redis.url()).await;
    let session = session();
    let append = async |revision, earlier| {
        a.adapter.append_stored(&session, revision, event(), earlier).await.unwrap()
    };
    for revision in 1..=3 {
        append(revision, Earlier::Required).await;
    }
    let (revision, log) = (format!("tc:{{{session}}}:rev"), format!("tc:{{{session}}}:log"));
    let ttl: i64 = redis.cli(&["pttl", &revision]).parse().unwrap();
    assert!(ttl > 0, "it would stay for ever");
    redis.cli(&["del", &revision]);
    assert_eq!(append(4, Earlier::Required).await, StoredAppended::Early { last: 0 });
    assert_eq!(redis.cli(&["xlen", &log]), "3");
    append(4, Earlier::SeenTo).await;
    assert!(matches!(append(5, Earlier::Required).await, StoredAppended::At(_)));

    // The periodic check renews it with the log.
    redis.cli(&["pexpire", &revision, "30000"]);
    append(5, Earlier::SeenTo).await;
    eventually("it lives as long as the log", || async {
        let ttl: i64 = redis.cli(&["pttl", &revision]).parse().unwrap();
        (ttl > 30_000).then_some(())
    })
    .await;
}
