//! What a build does not know, and what changes a message that a reader has.

use std::sync::Arc;
use std::time::Duration;

use tokencast::adapter::{Redis, RedisOptions, SharedMemory};
use tokencast::dialect::Dialects;
use tokencast::domain::{
    Author, EventId, EventKind, MessageId, NodeId, Position, Timestamp, UserId,
};
use tokencast::hub::{FromStore, Standing, Start};
use tokencast::lifecycle::Tasks;

use super::reader::TestReader;
use super::{happens, live, memory, message, node, node_on, plain, said, session, watch};
use crate::support::redis::OwnRedis;

#[tokio::test]
async fn what_is_not_known_holds_its_place_and_is_shown_to_nobody() {
    let (shared, session) = (SharedMemory::default(), session());
    let (dialects, _) = plain::two();
    let plain = dialects.by_name("plain").unwrap();
    let (a, b) = (node(&shared), node_on(memory(&shared), dialects));
    let (quick, slow) = (TestReader::of("ada", plain), TestReader::of("ada", plain));
    for reader in [&quick, &slow] {
        watch(&b, &session, reader, Standing::Belongs).await;
    }
    slow.full.store(true, std::sync::atomic::Ordering::SeqCst);
    happens(&a, &session, said(&session, "before")).await;
    happens(&a, &session, EventKind::Unknown).await;
    happens(&a, &session, said(&session, "after")).await;
    slow.full.store(false, std::sync::atomic::Ordering::SeqCst);
    b.hub.resume(slow.number(), [&session]);
    // At once: an event that held no place would have left a gap.
    assert_eq!(quick.names(), ["new", "new"]);
    assert_eq!(slow.names(), ["new", "new"]);
}

/// One entry that could not be read made every page with it unreadable: no reader of the session
/// was shown anything any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_entries_of_a_newer_build_and_with_garbage_is_read_past_them() {
    let redis = OwnRedis::start().await;
    let options = RedisOptions {
        url: redis.url().into(),
        command_timeout: Duration::from_secs(5),
        command_queue_max: 100,
        log_events_max: 100,
        log_ttl: Duration::from_secs(60),
        dead_after: Duration::from_secs(5),
    };
    let tasks = Tasks::new();
    let adapter = Redis::connect(NodeId::new(), options, &tasks).await.unwrap();
    let node = node_on(Arc::new(adapter), Dialects::new(false));
    let session = session();
    let key = format!("tc:{{{session}}}:log");
    let first = happens(&node, &session, said(&session, "before")).await;
    let newer = EventId::new();
    let unknown = format!(r#"{{"v":1,"id":"{newer}","at":7,"event":{{"newer":{{}}}}}}"#);
    let at = node.adapter.head(&session, &[]).await.unwrap().position;
    for (n, body) in (1..).zip([unknown.as_str(), r#"{"v":9}"#, "garbage", ""]) {
        let id = format!("{}-{}", at.epoch, at.seq + n);
        assert_eq!(redis.cli(&["xadd", &key, &id, "e", body]), id);
    }
    let last = happens(&node, &session, said(&session, "after")).await;

    let page = node.adapter.read(&session, Position::default(), 100).await.unwrap();
    assert!(page.contiguous);
    let kinds: Vec<_> = page.events.iter().map(|(_, event)| &event.kind).collect();
    let unknown = &EventKind::Unknown;
    assert_eq!(kinds, [&first.kind, unknown, unknown, unknown, unknown, &last.kind]);
    assert_eq!((page.events[1].1.id, page.events[1].1.at), (newer, Timestamp::from_millis(7)));
    let seqs: Vec<u64> = page.events.iter().map(|(at, _)| at.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "each at its place");
    live(&node, &session).await;
    tasks.stopping().cancel();
}

#[tokio::test]
async fn what_changes_a_message_is_shown_also_to_who_was_given_it_from_the_store() {
    let session = session();
    let (dialects, _) = plain::two();
    let plain = dialects.by_name("plain").unwrap();
    let node = node_on(memory(&SharedMemory::default()), dialects);
    let reader = TestReader::of("ada", plain);
    node.hub.join(&session, reader.clone(), Standing::Belongs, Start::Now(&[]), 0).await.unwrap();
    let stored = message(&session, MessageId::new(), Author::User, "hi");
    let (id, user, at) = (stored.id, UserId::new("bob").unwrap(), Timestamp::now());
    let changes = [
        EventKind::MessageNew(Arc::new(stored.clone())),
        EventKind::MessageEdited(Arc::new(stored)),
        EventKind::ReactionChanged {
            message: id,
            user: user.clone(),
            emoji: "👍".to_owned(),
            added: true,
            counts: Vec::new(),
        },
        EventKind::MessageSeen { message: id, user: user.clone(), at },
        EventKind::MessageDeleted { message: id, by: user, at },
    ];
    for kind in &changes {
        happens(&node, &session, kind.clone()).await;
    }
    node.hub.go_live(
        &session,
        reader.number(),
        FromStore { known: [id].into(), ..FromStore::default() },
    );
    let shown = ["edited", "reaction", "seen", "deleted"];
    assert_eq!(reader.names(), shown, "what came before it went live");
    for kind in &changes {
        happens(&node, &session, kind.clone()).await;
    }
    assert_eq!(reader.names()[4..], shown, "and after");
}
