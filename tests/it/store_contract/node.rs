//! What nodes say of themselves, and how they are forgotten.

use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::{NodeId, Role};
use tokencast::store::{Heartbeat, NewGeneration};
use uuid::Uuid;

use super::database::{Database, accepted, beat, completed, finished, prompt, said, with_sessions};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn a_heartbeat_makes_and_renews_the_nodes_row(database: &Database) {
    let store = database.open().await;
    let (node, other) = (NodeId::new(), NodeId::new());
    store.heartbeat(&beat(node, "10.0.0.1:3000", true)).await.unwrap();
    store.heartbeat(&beat(other, "10.0.0.2:3000", true)).await.unwrap();
    let long_ago = database.at(1);
    database.execute(&format!("UPDATE node SET heartbeat_at = {long_ago}")).await;
    store.heartbeat(&beat(node, "10.0.0.3:3000", false)).await.unwrap();
    let renewed = format!(
        "SELECT count(*) FROM node WHERE id = {} AND address = '10.0.0.3:3000' \
         AND NOT redis_up AND heartbeat_at >= started_at",
        database.id(node.0)
    );
    assert_eq!(database.number(&renewed).await, 1);
    let kept = format!("SELECT count(*) FROM node WHERE redis_up AND heartbeat_at = {long_ago}");
    assert_eq!(database.number(&kept).await, 1);
}

pub(super) async fn nodes_are_those_that_were_heard_lately(database: &Database) {
    let store = database.open().await;
    assert_eq!(store.nodes(HOUR).await.unwrap(), []);
    let ids = [NodeId::new(), NodeId::new(), NodeId::new()];
    let [edge, generator, silent] = ids;
    for node in ids {
        store.heartbeat(&beat(node, "10.0.0.1:3000", true)).await.unwrap();
    }
    let ago = database.ago(7_200);
    let id = database.id(silent.0);
    database.execute(&format!("UPDATE node SET heartbeat_at = {ago} WHERE id = {id}")).await;
    let said = [
        Heartbeat { role: Role::Edge, redis_up: false, ..beat(edge, "10.0.0.2:3000", true) },
        Heartbeat {
            role: Role::Generator,
            running: 7,
            running_max: u32::MAX,
            draining: true,
            ..beat(generator, "10.0.0.3:3000", true)
        },
    ];
    for beat in &said {
        store.heartbeat(beat).await.unwrap();
    }
    assert_eq!(store.nodes(HOUR).await.unwrap(), said);
    assert_eq!(store.nodes(Duration::MAX).await.unwrap().len(), 3);
    assert_eq!(store.nodes(Duration::ZERO).await.unwrap(), []);
}

/// While a cluster is brought to a new version, nodes of the old one and of the next may be there.
pub(super) async fn nodes_of_other_versions_are_understood(database: &Database) {
    let store = database.open().await;
    let [old, next] = [NodeId::new(), NodeId::new()];
    let ago = database.ago(0);
    for (id, columns, values) in [(old, "", ""), (next, ", role", ", 'keeper'")] {
        let id = database.id(id.0);
        let insert = format!(
            "INSERT INTO node (id, address, started_at, heartbeat_at, redis_up{columns}) \
             VALUES ({id}, '10.0.0.1:3000', {ago}, {ago}, TRUE{values})"
        );
        database.execute(&insert).await;
    }
    let known = Heartbeat { running_max: 0, ..beat(old, "10.0.0.1:3000", true) };
    assert_eq!(store.nodes(HOUR).await.unwrap(), [known], "with no room, and not the other's");
}

pub(super) async fn a_node_that_is_silent_for_an_hour_is_forgotten(database: &Database) {
    let before = database.open().await;
    let [young, old] = [NodeId::new(), NodeId::new()];
    for (node, seconds) in [(young, 3_500), (old, 3_700)] {
        before.heartbeat(&beat(node, "10.0.0.1:3000", true)).await.unwrap();
        let (id, ago) = (database.id(node.0), database.ago(seconds));
        let silence = format!("UPDATE node SET heartbeat_at = {ago} WHERE id = {id}");
        database.execute(&silence).await;
    }
    // A node's first heartbeat.
    let (store, node) = (database.open().await, NodeId::new());
    store.heartbeat(&beat(node, "10.0.0.1:3000", true)).await.unwrap();
    let left = store.nodes(Duration::MAX).await.unwrap();
    let left: Vec<Uuid> = left.into_iter().map(|beat| beat.node.0).collect();
    assert_eq!(left, [young.0, node.0]);
}

pub(super) async fn a_node_that_retires_leaves_what_it_owned(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let [gone, stays] = [NodeId::new(), NodeId::new()];
    let mut left = Vec::new();
    for owner in [gone, stays, gone, gone] {
        store.heartbeat(&beat(owner, "10.0.0.1:3000", true)).await.unwrap();
        let new = NewGeneration { owner, ..prompt("s", "hello") };
        let (generation, ..) = accepted(&store, &new).await;
        store.begin(generation.id, owner, 1).await.unwrap();
        left.push(generation);
    }
    let (over, other) = (left.pop().unwrap(), left.remove(1));
    finished(&store, &completed(&over)).await;
    store.retire(gone).await.unwrap();
    store.retire(gone).await.unwrap();
    let alive = store.nodes(Duration::MAX).await.unwrap();
    assert_eq!(alive, [beat(stays, "10.0.0.1:3000", true)]);
    let found = store.claimable(HOUR, HOUR, 10).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|generation| generation.id).collect();
    assert_eq!(found, [left[0].id, left[1].id], "young as they are");
    assert!(store.owns(other.id, stays, 1).await.unwrap());
    let over = store.generation(over.id).await.unwrap().unwrap();
    assert_eq!(over.owner, gone, "it says who ended it");
}

/// However many operations wait for a lock or a connection.
pub(super) async fn a_heartbeat_waits_for_nothing_else(database: &Database) {
    if database.url.starts_with("sqlite") {
        // It has one writer, and one node, which nobody takes for dead.
        return;
    }
    let store = with_sessions(database, &["s"]).await;
    let held = database.lock_session("s").await;
    let sends = join_all((0..10).map(|_| said(&store, "s", "hello")));
    tokio::pin!(sends);
    let beat = beat(NodeId::new(), "10.0.0.1:3000", true);
    tokio::select! {
        biased;
        _ = &mut sends => panic!("the session is locked"),
        given = store.heartbeat(&beat) => given.unwrap(),
    }
    held.release().await;
    assert_eq!(sends.await.len(), 10);
}
