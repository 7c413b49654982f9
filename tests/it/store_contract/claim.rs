//! Generations that nobody runs: finding, claiming and releasing them.

use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::{Generation, GenerationId, NodeId, Status, Timestamp};
use tokencast::store::{Finish, Finished, NewGeneration, SharedStore};
use uuid::Uuid;

use super::database::{
    Database, accepted, beat, completed, finished, messages, prompt, user, with_sessions,
};

/// Longer than any test runs.
const HOUR: Duration = Duration::from_secs(3600);
/// Where only a released generation is found.
const NEVER: Duration = Duration::MAX;
const NOBODY: NodeId = NodeId(Uuid::nil());

/// A generation in session `s`, of a node.
async fn of(store: &SharedStore, owner: NodeId) -> Generation {
    accepted(store, &NewGeneration { owner, ..prompt("s", "hello") }).await.0
}

/// As [`of`], begun.
async fn running(store: &SharedStore, owner: NodeId) -> Generation {
    let generation = of(store, owner).await;
    assert!(store.begin(generation.id, owner, 1).await.unwrap());
    found(store, generation.id).await
}

async fn found(store: &SharedStore, id: GenerationId) -> Generation {
    store.generation(id).await.unwrap().unwrap()
}

async fn claimable(store: &SharedStore, dead: Duration, unclaimed: Duration) -> Vec<GenerationId> {
    let found = store.claimable(dead, unclaimed, 10).await.unwrap();
    let mut ids: Vec<_> = found.into_iter().map(|generation| generation.id).collect();
    ids.sort();
    ids
}

/// Makes what is stored of a column lie two hours back, by the database's clock.
async fn age(database: &Database, table: &str, column: &str, id: Uuid) {
    let (id, ago) = (database.id(id), database.ago(7_200));
    database.execute(&format!("UPDATE {table} SET {column} = {ago} WHERE id = {id}")).await;
}

pub(super) async fn generations_are_claimable_when_nobody_runs_them(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (alive, dead, unknown) = (NodeId::new(), NodeId::new(), NodeId::new());
    for node in [alive, dead] {
        store.heartbeat(&beat(node, "10.0.0.1:3000", true)).await.unwrap();
    }
    age(database, "node", "heartbeat_at", dead.0).await;
    let pending = of(&store, alive).await.id;
    let of_alive = running(&store, alive).await.id;
    let of_dead = running(&store, dead).await.id;
    let of_unknown = running(&store, unknown).await.id;
    let of_nobody = of(&store, NOBODY).await.id;
    let over = running(&store, dead).await;
    let ended_released = of(&store, NOBODY).await;
    for ended in [&over, &ended_released] {
        finished(&store, &completed(ended)).await;
    }
    assert_eq!(claimable(&store, HOUR, HOUR).await, [of_nobody], "the others are young");
    assert_eq!(claimable(&store, NEVER, NEVER).await, [of_nobody]);

    for id in [of_alive, of_dead, of_unknown, over.id, ended_released.id] {
        age(database, "stream", "created_at", id.0).await;
    }
    assert_eq!(claimable(&store, HOUR, HOUR).await, [of_dead, of_unknown, of_nobody]);
    age(database, "stream", "created_at", pending.0).await;
    assert_eq!(claimable(&store, HOUR, HOUR).await, [pending, of_dead, of_unknown, of_nobody]);
    assert_eq!(claimable(&store, HOUR, NEVER).await, [of_dead, of_unknown, of_nobody]);
    assert_eq!(claimable(&store, NEVER, HOUR).await, [pending, of_nobody]);
    store.request_stop(of_dead, &user("ada")).await.unwrap();
    assert!(claimable(&store, HOUR, HOUR).await.contains(&of_dead), "to be ended as stopped");
    store.heartbeat(&beat(dead, "10.0.0.1:3000", true)).await.unwrap();
    assert_eq!(claimable(&store, HOUR, HOUR).await, [pending, of_unknown, of_nobody]);
}

pub(super) async fn the_oldest_claimable_come_first(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(of(&store, NOBODY).await.id);
    }
    for (at, seconds) in [(0, 3), (1, 1), (2, 4), (3, 2)] {
        let (id, at) = (database.id(ids[at].0), database.at(seconds));
        database.execute(&format!("UPDATE stream SET created_at = {at} WHERE id = {id}")).await;
    }
    let first = store.claimable(HOUR, HOUR, 3).await.unwrap();
    let first: Vec<_> = first.into_iter().map(|generation| generation.id).collect();
    assert_eq!(first, [ids[1], ids[3], ids[0]]);
}

pub(super) async fn a_claim_begins_the_next_attempt_and_ends_the_one_before(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (dead, claimer) = (NodeId::new(), NodeId::new());
    store.heartbeat(&beat(claimer, "10.0.0.2:3000", true)).await.unwrap();
    for begun in [false, true] {
        let before = if begun { running(&store, dead).await } else { of(&store, dead).await };
        age(database, "stream", "created_at", before.id.0).await;
        if begun {
            age(database, "stream", "started_at", before.id.0).await;
        }
        let before = found(&store, before.id).await;
        let claimed = store.claim(&before, claimer, HOUR, HOUR).await.unwrap().unwrap();
        let expected = Generation {
            owner: claimer,
            attempt: 2,
            losses: 1,
            status: Status::Streaming,
            started_at: claimed.started_at,
            ..before.clone()
        };
        assert_eq!(claimed, expected);
        assert!(claimed.started_at.unwrap() > before.created_at);
        assert!(claimed.started_at > before.started_at, "this attempt's");
        assert_eq!(found(&store, before.id).await, claimed);
        assert_eq!(claimable(&store, HOUR, HOUR).await, [], "it is run again");

        assert!(!store.owns(before.id, dead, 1).await.unwrap());
        assert!(store.owns(before.id, claimer, 2).await.unwrap());
        assert!(!store.begin(before.id, dead, 1).await.unwrap());
        assert!(store.begin(before.id, claimer, 2).await.unwrap());
        assert_eq!(found(&store, before.id).await, claimed);
        assert!(matches!(store.finish(&completed(&before)).await.unwrap(), Finished::NotOwner));
        finished(&store, &completed(&claimed)).await;
        assert_eq!(found(&store, before.id).await.attempt, 2, "how many it took");
    }
}

pub(super) async fn of_racing_claims_one_succeeds(database: &Database) {
    let mut nodes = vec![with_sessions(database, &["s"]).await];
    for _ in 0..3 {
        nodes.push(database.open().await);
    }
    let claimers: Vec<NodeId> = (0..24).map(|_| NodeId::new()).collect();
    for claimer in &claimers {
        nodes[0].heartbeat(&beat(*claimer, "10.0.0.2:3000", true)).await.unwrap();
    }
    for _ in 0..8 {
        let before = running(&nodes[0], NodeId::new()).await;
        age(database, "stream", "created_at", before.id.0).await;
        let before = found(&nodes[0], before.id).await;
        let claims = join_all(claimers.iter().enumerate().map(|(at, claimer)| {
            let (node, before) = (nodes[at % nodes.len()].clone(), before.clone());
            async move { node.claim(&before, *claimer, HOUR, HOUR).await.unwrap() }
        }))
        .await;
        let mut won =
            claims.iter().zip(&claimers).filter_map(|(claim, by)| Some((claim.as_ref()?, by)));
        let (claimed, winner) = won.next().expect("one of them");
        assert!(won.next().is_none(), "no other");
        assert_eq!((claimed.owner, claimed.attempt), (*winner, 2));
        assert_eq!(&found(&nodes[0], before.id).await, claimed);
    }
}

pub(super) async fn a_claim_that_comes_too_late_changes_nothing(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (owner, claimer) = (NodeId::new(), NodeId::new());
    let refused = async |seen: &Generation| {
        let stored = found(&store, seen.id).await;
        assert_eq!(store.claim(seen, claimer, HOUR, HOUR).await.unwrap(), None);
        assert_eq!(found(&store, seen.id).await, stored);
    };
    // Its owner is heard again.
    let mut seen = running(&store, owner).await;
    age(database, "stream", "created_at", seen.id.0).await;
    seen = found(&store, seen.id).await;
    assert_eq!(store.claimable(HOUR, HOUR, 10).await.unwrap(), [seen.clone()]);
    store.heartbeat(&beat(owner, "10.0.0.1:3000", true)).await.unwrap();
    refused(&seen).await;
    // It began after all.
    let pending = of(&store, owner).await;
    age(database, "stream", "created_at", pending.id.0).await;
    let pending = store.claimable(HOUR, HOUR, 10).await.unwrap().remove(0);
    store.begin(pending.id, owner, 1).await.unwrap();
    refused(&pending).await;
    // It has ended.
    let released = of(&store, NOBODY).await;
    finished(&store, &completed(&released)).await;
    refused(&released).await;
    // It was claimed, and released again.
    let released = of(&store, NOBODY).await;
    let claimed = store.claim(&released, owner, HOUR, HOUR).await.unwrap().unwrap();
    refused(&released).await;
    refused(&claimed).await;
    assert!(store.release(claimed.id, owner, 2).await.unwrap());
    refused(&released).await;
    // It is young, and whoever looked thought otherwise.
    refused(&running(&store, NodeId::new()).await).await;
    refused(&of(&store, NodeId::new()).await).await;
}

pub(super) async fn a_released_generation_is_claimed_at_once(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (owner, claimer) = (NodeId::new(), NodeId::new());
    for node in [owner, claimer] {
        store.heartbeat(&beat(node, "10.0.0.1:3000", true)).await.unwrap();
    }
    let generation = running(&store, owner).await;
    let other = running(&store, owner).await;
    let id = generation.id;
    assert!(!store.release(id, claimer, 1).await.unwrap());
    assert!(!store.release(id, owner, 2).await.unwrap());
    assert!(!store.release(GenerationId::new(), owner, 1).await.unwrap());
    assert_eq!(claimable(&store, HOUR, HOUR).await, []);
    assert!(store.release(id, owner, 1).await.unwrap());
    assert!(!store.release(id, owner, 1).await.unwrap(), "it is not the owner any more");
    assert!(!store.owns(id, owner, 1).await.unwrap());
    assert!(store.owns(other.id, owner, 1).await.unwrap());

    let released = store.claimable(HOUR, HOUR, 10).await.unwrap();
    assert_eq!(released, [Generation { owner: NOBODY, ..generation }]);
    let claimed = store.claim(&released[0], claimer, HOUR, HOUR).await.unwrap().unwrap();
    assert_eq!((claimed.owner, claimed.attempt, claimed.losses), (claimer, 2, 0));
    assert!(!store.lose(id, owner, 1).await.unwrap(), "it is not the owner any more");
    assert!(store.lose(id, claimer, 2).await.unwrap());
    let released = found(&store, id).await;
    let claimed = store.claim(&released, claimer, HOUR, HOUR).await.unwrap().unwrap();
    assert_eq!((claimed.attempt, claimed.losses), (3, 1));
    finished(&store, &completed(&claimed)).await;
    assert!(!store.release(id, claimer, 3).await.unwrap(), "it has ended");
    assert!(!store.lose(id, claimer, 3).await.unwrap());
}

pub(super) async fn a_stop_and_the_first_token_outlive_a_takeover(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let generation = of(&store, NOBODY).await;
    store.request_stop(generation.id, &user("bob")).await.unwrap();
    let id = database.id(generation.id.0);
    let at = database.at(1_700_000_000);
    database.execute(&format!("UPDATE stream SET first_token_at = {at} WHERE id = {id}")).await;

    let claimer = NodeId::new();
    let claimed = store.claim(&generation, claimer, HOUR, HOUR).await.unwrap().unwrap();
    let first = Some(Timestamp::from_millis(1_700_000_000_000));
    assert_eq!((&claimed.stop_requested, claimed.first_token_at), (&Some(user("bob")), first));
    assert_eq!(store.stop_requests(claimer).await.unwrap(), [(claimed.id, user("bob"))]);
    assert!(!store.begin(claimed.id, claimer, 2).await.unwrap(), "it is to stop");
    let later = Some(Timestamp::from_millis(1_800_000_000_000));
    finished(&store, &Finish { first_token_at: later, ..completed(&claimed) }).await;
    assert_eq!(found(&store, generation.id).await.first_token_at, first);
}

/// Whatever comes first, the generation has one owner, and one answer at the end.
pub(super) async fn a_claim_an_end_and_a_release_may_race(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    for _ in 0..10 {
        let before = running(&nodes[0], NodeId::new()).await;
        age(database, "stream", "created_at", before.id.0).await;
        let (claimer, finish) = (NodeId::new(), completed(&before));
        let (claimed, ended, released) = tokio::join!(
            nodes[1].claim(&before, claimer, HOUR, HOUR),
            nodes[0].finish(&finish),
            nodes[0].release(before.id, before.owner, 1),
        );
        let (claimed, released) = (claimed.unwrap(), released.unwrap());
        let ended = matches!(ended.unwrap(), Finished::Stored { .. });
        assert_eq!(u8::from(claimed.is_some()) + u8::from(ended) + u8::from(released), 1);
        let stored = found(&nodes[0], before.id).await;
        assert_eq!(stored.completed_at.is_some(), ended);
        if released {
            let again = nodes[1].claim(&stored, claimer, HOUR, HOUR).await.unwrap();
            finished(&nodes[0], &completed(&again.unwrap())).await;
        } else if let Some(claimed) = claimed {
            finished(&nodes[0], &completed(&claimed)).await;
        }
    }
    assert_eq!(messages(&nodes[0], "s").await.len(), 20);
}
