//! Who is shown to be typing, and until when.

use std::sync::Arc;
use std::time::Duration;

use tokencast::adapter::{Feed, SharedMemory};
use tokencast::domain::event::TYPING_TTL;
use tokencast::domain::{SessionId, Signal, UserId};
use tokencast::hub::Standing;
use tokio::time::sleep;

use super::reader::TestReader;
use super::{Node, memory, node_on, plain, session, watch};

fn starts(user: &str) -> Signal {
    Signal::TypingStarted { user: UserId::new(user).unwrap(), name: Some("N".to_owned()) }
}

fn stops(user: &str) -> Signal {
    Signal::TypingStopped { user: UserId::new(user).unwrap(), name: None }
}

/// What a reader was shown since it was last asked: words and users.
fn heard(reader: &TestReader) -> Vec<String> {
    let words = reader.take().into_iter();
    words.map(|(word, body)| format!("{word} {}", body["user"].as_str().unwrap())).collect()
}

/// A node where ada and bob watch a session.
async fn two_watch(
    shared: &SharedMemory,
    session: &SessionId,
) -> (Node, Arc<TestReader>, Arc<TestReader>) {
    let (dialects, _) = plain::two();
    let plain = dialects.by_name("plain").unwrap();
    let node = node_on(memory(shared), dialects);
    let (ada, bob) = (TestReader::of("ada", plain), TestReader::of("bob", plain));
    watch(&node, session, &ada, Standing::Belongs).await;
    watch(&node, session, &bob, Standing::Guest).await;
    (node, ada, bob)
}

#[tokio::test]
async fn others_are_shown_who_types_each_time_it_is_said_and_once_that_it_ended() {
    let session = session();
    let (node, ada, bob) = two_watch(&SharedMemory::default(), &session).await;
    for signal in [stops("ada"), starts("ada"), starts("ada"), stops("bob"), stops("ada")] {
        node.adapter.signal(&session, signal).await.unwrap();
    }
    node.adapter.signal(&session, stops("ada")).await.unwrap();
    assert_eq!(heard(&bob), ["typing ada", "typing ada", "stopped ada"]);
    assert!(heard(&ada).is_empty(), "not one's own devices");
}

#[tokio::test]
async fn whoever_leaves_has_stopped_typing() {
    let session = session();
    let (node, ada, bob) = two_watch(&SharedMemory::default(), &session).await;
    let left = |user| Signal::UserLeft { user: UserId::new(user).unwrap(), name: None, online: 1 };
    for signal in [starts("ada"), left("ada"), left("ada"), stops("ada")] {
        node.adapter.signal(&session, signal).await.unwrap();
    }
    assert_eq!(heard(&bob), ["typing ada", "stopped ada", "left ada", "left ada"]);
    assert!(heard(&ada).is_empty());
}

/// Also where the node of whoever types is gone, which says nothing any more.
#[tokio::test(start_paused = true)]
async fn typing_that_is_not_renewed_ends_by_itself_on_every_node() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, _, here) = two_watch(&shared, &session).await;
    let (_b, ada, there) = two_watch(&shared, &session).await;
    a.adapter.signal(&session, starts("ada")).await.unwrap();
    let most = TYPING_TTL - Duration::from_secs(1);
    sleep(most).await;
    a.adapter.signal(&session, starts("ada")).await.unwrap();
    sleep(most).await;
    for reader in [&here, &there] {
        assert_eq!(heard(reader), ["typing ada", "typing ada"], "renewed in time");
    }
    drop(a);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(heard(&there), ["stopped ada"]);
    sleep(TYPING_TTL * 2).await;
    assert!(heard(&there).is_empty(), "once");
    assert!(heard(&ada).is_empty(), "not one's own devices");
}

#[tokio::test(start_paused = true)]
async fn so_many_are_shown_to_type_and_no_more_until_one_has_stopped() {
    let session = session();
    let (node, _, bob) = two_watch(&SharedMemory::default(), &session).await;
    for n in 0..300 {
        node.lossy.signal(&session, starts(&format!("u{n}")));
    }
    assert_eq!(heard(&bob).len(), 256);
    node.lossy.signal(&session, starts("u0"));
    node.lossy.signal(&session, starts("u299"));
    node.lossy.signal(&session, stops("u299"));
    node.lossy.signal(&session, stops("u1"));
    node.lossy.signal(&session, starts("u299"));
    assert_eq!(heard(&bob), ["typing u0", "stopped u1", "typing u299"]);
    sleep(TYPING_TTL * 2).await;
    let mut ended = heard(&bob);
    ended.sort();
    ended.dedup();
    assert_eq!(ended.len(), 256, "each who was shown to type, and no other");
}
