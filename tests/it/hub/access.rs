//! Whose access was revoked hears nothing more of a session, wherever they stood.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokencast::adapter::SharedMemory;
use tokencast::domain::{Event, EventKind, Revoked, SessionId, UserId};
use tokencast::hub::{Standing, Start};

use super::reader::TestReader;
use super::{Answer, Node, happens, memory, node_on, plain, said, session, watch};
use crate::support::eventually;
use crate::support::faulty::Faulty;

fn of(user: &str) -> EventKind {
    EventKind::AccessRevoked(Revoked::User(UserId::new(user).unwrap()))
}

/// A node with two dialects that have a word for what nobody may be shown.
fn plain_node(shared: &SharedMemory) -> Node {
    node_on(memory(shared), plain::two().0)
}

fn reader(user: &str) -> Arc<TestReader> {
    TestReader::of(user, plain::two().0.by_name("plain").unwrap())
}

async fn watching(node: &Node, session: &SessionId, user: &str) -> Arc<TestReader> {
    let reader = reader(user);
    watch(node, session, &reader, Standing::Belongs).await;
    reader
}

/// Nothing reaches it, whatever happens.
async fn is_out(node: &Node, session: &SessionId, reader: &TestReader) {
    assert_eq!(reader.revoked(), std::slice::from_ref(session), "told once");
    reader.take();
    reader.full.store(false, Ordering::SeqCst);
    node.hub.go_live(session, reader.number(), Default::default());
    node.hub.resume(reader.number(), [session]);
    happens(node, session, said(session, "a secret")).await;
    assert!(reader.names().is_empty(), "{:?}", reader.names());
    let waits = node.hub.is_suspended(session, reader.number());
    assert!(waits || !node.hub.leave(session, reader.number()), "it is no member");
}

#[tokio::test]
async fn each_revocation_removes_those_it_is_about_and_shows_the_others_nothing() {
    let everybody = ["bob", "guest"];
    for (revoked, out) in [
        (Revoked::User(UserId::new("bob").unwrap()), &everybody[..1]),
        (Revoked::Guests, &everybody[1..]),
        (Revoked::Everyone, &everybody[..]),
    ] {
        let (node, session) = (plain_node(&SharedMemory::default()), session());
        let bob = watching(&node, &session, "bob").await;
        let phone = watching(&node, &session, "bob").await;
        let guest = reader("guest");
        watch(&node, &session, &guest, Standing::Guest).await;
        // Has become a member meanwhile, and said so by joining again.
        let grown = reader("eve");
        watch(&node, &session, &grown, Standing::Guest).await;
        watch(&node, &session, &grown, Standing::Belongs).await;
        happens(&node, &session, EventKind::AccessRevoked(revoked.clone())).await;
        let waits = |reader: &TestReader| node.hub.is_suspended(&session, reader.number());
        assert!(!waits(&bob) && !waits(&grown));
        assert_eq!(waits(&guest), revoked == Revoked::Guests);
        for member in [&bob, &phone, &guest, &grown] {
            let user = tokencast::hub::Reader::user(&**member).as_str();
            if out.contains(&user) || revoked == Revoked::Everyone {
                is_out(&node, &session, member).await;
            } else {
                assert!(member.revoked().is_empty(), "{revoked:?}: {user}");
                member.take();
                happens(&node, &session, said(&session, "hi")).await;
                assert_eq!(member.names(), ["new"], "{revoked:?}: {user}");
            }
        }
        for member in [&bob, &guest, &grown] {
            assert!(!member.names().iter().any(|name| name == "revoked!"));
        }
    }
}

#[tokio::test]
async fn a_guest_that_has_become_a_member_goes_on_where_it_stood() {
    let (node, session) = (plain_node(&SharedMemory::default()), session());
    let [live, slow, held] = ["bob", "eve", "dan"].map(reader);
    watch(&node, &session, &live, Standing::Guest).await;
    watch(&node, &session, &slow, Standing::Guest).await;
    slow.full.store(true, Ordering::SeqCst);
    happens(&node, &session, said(&session, "hi")).await;
    node.hub.join(&session, held.clone(), Standing::Guest, Start::Now(&[]), 0).await.unwrap();
    assert!(!node.hub.keep(&session, live.number()), "it does not wait");
    happens(&node, &session, EventKind::AccessRevoked(Revoked::Guests)).await;
    slow.full.store(false, Ordering::SeqCst);
    let mut answer = Answer::new(&session);
    answer.start(&*node.adapter).await;
    answer.grow(&*node.adapter, "more").await;
    node.hub.resume(slow.number(), [&session]);
    node.hub.go_live(&session, held.number(), Default::default());
    assert_eq!((live.names().len(), slow.names().len(), held.names().len()), (1, 0, 0));
    for reader in [&live, &slow, &held] {
        assert_eq!(reader.revoked(), std::slice::from_ref(&session), "asked once");
        assert!(node.hub.keep(&session, reader.number()));
        assert!(!node.hub.keep(&session, reader.number()), "it does not wait any more");
    }
    // It is no guest any more.
    happens(&node, &session, EventKind::AccessRevoked(Revoked::Guests)).await;
    happens(&node, &session, said(&session, "hi")).await;
    assert_eq!(live.names(), ["new", "generation", "text", "new"]);
    assert_eq!(slow.names(), ["new", "generation", "text", "new"]);
    assert_eq!(held.names(), ["generation", "text", "new"]);
    assert_eq!(live.revoked().len(), 1);
}

#[tokio::test]
async fn a_member_that_is_held_slow_or_behind_is_removed_when_it_happens() {
    let (node, session) = (plain_node(&SharedMemory::default()), session());
    let held = reader("bob");
    node.hub.join(&session, held.clone(), Standing::Belongs, Start::Now(&[]), 0).await.unwrap();
    let slow = watching(&node, &session, "bob").await;
    slow.full.store(true, Ordering::SeqCst);
    let (ada, late) =
        (watching(&node, &session, "ada").await, watching(&node, &session, "ada").await);
    late.full.store(true, Ordering::SeqCst);
    let mut answer = Answer::new(&session);
    answer.start(&*node.adapter).await;
    answer.grow(&*node.adapter, "before").await;
    happens(&node, &session, of("bob")).await;
    for reader in [&held, &slow] {
        assert_eq!(reader.revoked(), std::slice::from_ref(&session), "at once");
        is_out(&node, &session, reader).await;
    }
    // Whoever may stay is caught up over it, and shown nothing of it.
    late.full.store(false, Ordering::SeqCst);
    node.hub.resume(late.number(), [&session]);
    assert_eq!(ada.names(), ["generation", "text", "new", "new"]);
    assert_eq!(late.names(), ["generation", "new", "new", "text"]);
}

#[tokio::test]
async fn a_revocation_that_was_missed_counts_once_it_is_read() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (plain_node(&shared), plain_node(&shared));
    let bob = watching(&b, &session, "bob").await;
    b.lossy.deaf.store(true, Ordering::SeqCst);
    happens(&a, &session, of("bob")).await;
    assert!(bob.revoked().is_empty());
    b.lossy.deaf.store(false, Ordering::SeqCst);
    happens(&a, &session, said(&session, "a secret")).await;
    eventually("it is read", || async { (!bob.revoked().is_empty()).then_some(()) }).await;
    assert!(bob.names().is_empty(), "what came after it was not shown");
    is_out(&b, &session, &bob).await;
}

/// The gap may stay for as long as Redis is away; a node shows its own readers text all the same.
#[tokio::test]
async fn a_revocation_does_not_wait_for_a_gap_to_be_filled() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = plain_node(&shared);
    let faulty = Faulty::around(memory(&shared), &Default::default());
    let b = node_on(faulty.clone(), plain::two().0);
    let (bob, ada) = (watching(&b, &session, "bob").await, watching(&b, &session, "ada").await);
    faulty.unreadable.store(true, Ordering::SeqCst);
    b.lossy.deaf.store(true, Ordering::SeqCst);
    happens(&a, &session, said(&session, "lost")).await;
    b.lossy.deaf.store(false, Ordering::SeqCst);
    happens(&a, &session, said(&session, "heard")).await;
    happens(&a, &session, of("bob")).await;
    assert_eq!(bob.revoked(), std::slice::from_ref(&session));
    // They were made a member again.
    let again = watching(&b, &session, "bob").await;
    faulty.unreadable.store(false, Ordering::SeqCst);
    for reader in [&ada, &again] {
        eventually("the gap is filled", || async { (reader.names().len() == 2).then_some(()) })
            .await;
    }
    assert!(again.revoked().is_empty(), "the old one, applied in its place");
    is_out(&b, &session, &bob).await;
}

#[tokio::test]
async fn a_revocation_that_the_log_does_not_have_yet_counts_once() {
    let (node, session) = (plain_node(&SharedMemory::default()), session());
    let bob = watching(&node, &session, "bob").await;
    let revoked = Arc::new(Event::new(of("bob")));
    node.adapter.show_event(&session, revoked.clone());
    is_out(&node, &session, &bob).await;
    let again = watching(&node, &session, "bob").await;
    for _ in 0..2 {
        node.adapter.append_event(&session, revoked.clone()).await.unwrap();
    }
    assert!(again.revoked().is_empty());
    happens(&node, &session, said(&session, "hi again")).await;
    assert_eq!(again.names(), ["new"]);
}

#[tokio::test]
async fn whoever_joins_after_a_revocation_is_not_concerned_by_it() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = plain_node(&shared);
    let slow = watching(&a, &session, "ada").await;
    slow.full.store(true, Ordering::SeqCst);
    happens(&a, &session, said(&session, "hi")).await;
    happens(&a, &session, of("bob")).await;
    let again = watching(&a, &session, "bob").await;
    // A tail that is opened reads it, and one that catches up passes over it.
    let b = plain_node(&shared);
    let elsewhere = watching(&b, &session, "bob").await;
    slow.full.store(false, Ordering::SeqCst);
    a.hub.resume(slow.number(), [&session]);
    happens(&a, &session, said(&session, "hi again")).await;
    for reader in [&again, &elsewhere] {
        assert!(reader.revoked().is_empty());
        assert_eq!(reader.names(), ["new"]);
    }
    assert_eq!(slow.names(), ["new", "new"]);
}
