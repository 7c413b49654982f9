//! The outbox, the nodes, and opening and closing a database.

use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::EventId;
use tokencast::store::{NewGeneration, StoreError, StoreOptions, connect, migrate};

use super::database::{
    Database, accepted, completed, finished, messages, new_session, outbox, prompt, said, session,
    user, with_sessions,
};

pub(super) async fn the_outbox_is_read_by_age_and_in_order_and_emptied(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let mut stored = Vec::new();
    for id in ["s", "t", "s"] {
        let (generation, _, outgoing) = accepted(&store, &prompt(id, "hello")).await;
        stored.extend(outgoing);
        stored.push(finished(&store, &completed(&generation)).await.1);
    }
    assert_eq!(outbox(&store).await, stored);
    assert_eq!(store.outbox(Duration::ZERO, None, 4).await.unwrap().rows, stored[..4]);
    assert_eq!(store.outbox(Duration::from_secs(60), None, 10).await.unwrap().rows, []);
    assert_eq!(store.outbox(Duration::MAX, None, 10).await.unwrap().rows, []);
    // A minute and more ago, by the database's clock.
    let at = database.at(1_000_000_000);
    let id = database.id(stored[2].event.id.0);
    database.execute(&format!("UPDATE outbox SET created_at = {at} WHERE id = {id}")).await;
    assert_eq!(store.outbox(Duration::from_secs(60), None, 10).await.unwrap().rows, stored[2..3]);

    store.delete_outgoing(&[]).await.unwrap();
    let gone = [stored[0].event.id, stored[3].event.id, EventId::new()];
    store.delete_outgoing(&gone).await.unwrap();
    store.delete_outgoing(&gone).await.unwrap();
    let left = [1, 2, 4, 5].map(|at: usize| stored[at].clone());
    assert_eq!(outbox(&store).await, left);
    let many: Vec<EventId> = (0..40_000).map(|_| EventId::new()).collect();
    store.delete_outgoing(&many).await.unwrap();
    assert_eq!(outbox(&store).await, left);
}

pub(super) async fn what_was_told_is_kept_for_a_minute(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let mut stored = Vec::new();
    for id in ["s", "s", "s", "t"] {
        let (_, _, outgoing) = accepted(&store, &prompt(id, "hello")).await;
        stored.extend(outgoing);
    }
    let (s, t) = (session("s"), session("t"));
    let ids: Vec<EventId> = stored.iter().map(|told| told.event.id).collect();
    store.delete_outgoing(&[ids[0], ids[1], ids[3]]).await.unwrap();
    store.delete_outgoing(&ids[..2]).await.unwrap();
    assert_eq!(outbox(&store).await, stored[2..3]);
    // Those that are not told yet have their places among them.
    let told = |after, before| store.told_between(&s, after, before);
    assert_eq!(told(0, u64::MAX).await.unwrap(), stored[..3]);
    assert_eq!(told(1, 3).await.unwrap(), stored[1..2]);
    assert_eq!(store.told_between(&t, 0, u64::MAX).await.unwrap(), stored[3..]);
    let mut last = store.last_told(10).await.unwrap();
    last.sort();
    assert_eq!(last, [(s.clone(), 2), (t, 1)], "what the outbox holds is not told");
    assert_eq!(store.last_told(1).await.unwrap().len(), 1);
    let (at, id) = (database.at(1_000_000_000), database.id(ids[0].0));
    database.execute(&format!("UPDATE outbox_told SET told_at = {at} WHERE id = {id}")).await;
    store.delete_outgoing(&ids[2..3]).await.unwrap();
    assert_eq!(told(0, u64::MAX).await.unwrap(), stored[1..3], "a minute later it is forgotten");
}

pub(super) async fn an_event_of_another_version_is_left_in_the_outbox(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    said(&store, "s", "hello").await;
    let (id, hex) = (database.id(uuid::Uuid::now_v7()), "7b2276223a327d"); // {"v":2}
    let bytes = if database.url.starts_with("sqlite") { "x'" } else { "'\\x" };
    let at = database.at(1);
    let insert = format!(
        "INSERT INTO outbox (id, session_id, event, created_at) VALUES ({id}, 's', {bytes}{hex}', {at})"
    );
    database.execute(&insert).await;
    said(&store, "s", "after").await;
    assert_eq!(outbox(&store).await.len(), 2);
    assert_eq!(database.number("SELECT count(*) FROM outbox").await, 3);
}

pub(super) async fn what_was_acknowledged_outlives_a_restart(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewGeneration { client_message_id: Some("c".to_owned()), ..prompt("s", "hello") };
    let (generation, ..) = accepted(&store, &new).await;
    finished(&store, &completed(&generation)).await;
    let before = (messages(&store, "s").await, outbox(&store).await);
    store.close().await;

    let store = database.open().await;
    assert_eq!((messages(&store, "s").await, outbox(&store).await), before);
    let made = store.create_session(&new_session("s", "ada")).await.unwrap();
    assert!(!made.created);
    assert_eq!(said(&store, "s", "next").await.ordinal, 3);
}

pub(super) async fn nodes_may_start_together(database: &Database) {
    let nodes = join_all((0..4).map(|_| database.open())).await;
    join_all(nodes.iter().map(|node| async { node.ping().await.unwrap() })).await;
    assert!(nodes[0].create_session(&new_session("s", "ada")).await.unwrap().created);
    for node in &nodes {
        assert!(node.access(&session("s"), &user("ada")).await.unwrap().is_some());
    }
    migrate(&database.url, &StoreOptions::default()).await.unwrap();
    let applied = "SELECT count(*) FROM _sqlx_migrations WHERE success";
    let kind = if database.url.starts_with("sqlite") { "sqlite" } else { "postgres" };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let each_once = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(usize::try_from(database.number(applied).await).unwrap(), each_once);
}

pub(super) async fn a_closed_store_is_unavailable(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    store.close().await;
    let refused =
        [store.ping().await.unwrap_err(), store.accept(&prompt("s", "hello")).await.unwrap_err()];
    for error in refused {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}

/// A statement that another's lock holds up gives up by itself, and nothing of it stays.
pub(super) async fn a_lock_that_is_not_given_back_is_unavailable(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let options =
        StoreOptions { statement_timeout: Duration::from_millis(100), ..StoreOptions::default() };
    let hurried = connect(&database.url, &options).await.unwrap();
    let held = database.lock_session("s").await;
    let refused = hurried.accept(&prompt("s", "hello")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert_eq!(messages(&hurried, "s").await, [], "who reads need not wait");
    held.release().await;
    assert_eq!(said(&hurried, "s", "hello").await.ordinal, 1);
    assert_eq!(said(&store, "s", "hello").await.ordinal, 2);
}

/// A caller may stop waiting at any point: what it asked for has happened whole or not at all.
pub(super) async fn a_call_that_is_dropped_leaves_nothing_half_done(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    for micros in (0..4_000).step_by(100) {
        let new = prompt("s", "hello");
        let patience = Duration::from_micros(micros);
        drop(tokio::time::timeout(patience, store.accept(&new)).await);
    }
    said(&store, "s", "last").await;
    let ordinals: Vec<u64> = messages(&store, "s").await.iter().map(|m| m.ordinal).collect();
    assert!(ordinals.iter().copied().eq(1..=ordinals.len() as u64), "{ordinals:?}");
    let generations = database.number("SELECT count(*) FROM stream").await;
    assert_eq!(generations, i64::try_from(ordinals.len()).unwrap());
    assert_eq!(outbox(&store).await.len(), ordinals.len());
}

#[tokio::test]
async fn a_database_in_memory_works_and_is_each_ones_own() {
    let options = StoreOptions::default();
    let stores = [
        connect("sqlite::memory:", &options).await.unwrap(),
        connect("sqlite::memory:", &options).await.unwrap(),
    ];
    for store in &stores {
        assert!(store.create_session(&new_session("s", "ada")).await.unwrap().created);
        let prompts = (0..8).map(|_| said(store, "s", "hello"));
        join_all(prompts).await;
        assert_eq!(messages(store, "s").await.len(), 8);
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_unavailable_and_a_wrong_url_unexpected() {
    let options =
        StoreOptions { acquire_timeout: Duration::from_millis(500), ..StoreOptions::default() };
    let away = connect("postgres://nobody:secret@127.0.0.1:1/none", &options).await.err().unwrap();
    assert!(matches!(away, StoreError::Unavailable { .. }), "{away:?}");
    for url in ["mysql://root:secret@h/d", "nonsense", "postgres://h:port/d", "sqlite:a?mode=x"] {
        let refused = connect(url, &options).await.err().unwrap();
        assert!(matches!(refused, StoreError::Unexpected { .. }), "{refused:?}");
        assert!(!format!("{refused:?}").contains("secret"));
    }
}
