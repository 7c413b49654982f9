//! What Redis can do to us: restart empty, cut subscriptions, forget, send garbage.

use std::time::Duration;

use tokencast::adapter::{Absence, Appended, Connected, Earlier, News, StoredAppended, Tally};
use tokencast::domain::{Budget, GenerationId, Rate};

use super::{Node, chunk, event, session, someone};
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

/// A cluster refuses a script whose keys do not share a hash tag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_on_a_cluster() {
    let redis = OwnRedis::start_cluster().await;
    let dead_after = Duration::from_millis(2_000);
    let start = || async { Node::redis_dead_after(&redis.url(), dead_after).await };
    let (a, b) = (start().await, start().await);
    let (session, ada, generation) = (session(), someone(), GenerationId::new());
    b.adapter.subscribe(&session).await.unwrap();
    let appended = a.adapter.append_chunk(&session, chunk(generation, 0, "ab")).await.unwrap();
    assert_eq!(appended, Appended::Done { heard: 1 });
    a.adapter.append_event(&session, event()).await.unwrap();
    let stored = a.adapter.append_stored(&session, 1, event(), Earlier::Required).await.unwrap();
    assert!(matches!(stored, StoredAppended::At(position) if position.seq == 2));
    let head = b.adapter.head(&session, &[(generation, 1)]).await.unwrap();
    assert_eq!((head.position.seq, head.text_lens), (2, vec![2]));
    assert_eq!(b.adapter.take_text(&session, generation, 3).await.unwrap(), "ab");
    b.adapter.drop_text(&session, generation, 3).await.unwrap();
    let late = a.adapter.append_chunk(&session, chunk(generation, 0, "ab")).await.unwrap();
    assert_eq!(late, Appended::Short { len: 0 });
    a.adapter.add_sent(&session, generation, 1).await.unwrap();
    a.adapter.tally(&session, generation, Tally::default()).await.unwrap();
    assert!(b.adapter.tallied(&session, generation).await.unwrap().is_some());
    let budget = Budget { tokens: 2, window: Duration::from_secs(1 << 38) };
    assert_eq!(a.adapter.spend(&ada, 1, budget).await, Ok(()));
    b.adapter.spend(&ada, 1, budget).await.unwrap_err();
    a.adapter.tell_all(News::Disconnect { user: ada.clone() }).await.unwrap();
    eventually("b hears the news", || async {
        (!b.heard.news.lock().unwrap().is_empty()).then_some(())
    })
    .await;
    assert_eq!(a.adapter.count(&ada, "send", Rate::per_minute(1)).await, Ok(()));
    b.adapter.count(&ada, "send", Rate::per_minute(1)).await.unwrap_err();

    assert_eq!(a.adapter.connect(&ada, 1).await.unwrap(), Connected::Yes { first: true });
    assert_eq!(b.adapter.connect(&ada, 1).await.unwrap(), Connected::TooMany);
    assert!(a.adapter.enter(&session, &ada).await.unwrap().first);
    assert!(b.adapter.was_in(&session, &ada, Duration::ZERO).await.unwrap());
    drop(a);
    let mut told = Vec::new();
    eventually("ada is taken out", || {
        told.extend(b.absences());
        let done = told.len() == 2;
        async move { done.then_some(()) }
    })
    .await;
    assert!(told.contains(&Absence::Offline { user: ada.clone() }), "{told:?}");
    assert_eq!(b.adapter.online(&session).await.unwrap().count, 0);
    assert!(!b.adapter.settle(&ada).await.unwrap());
}
