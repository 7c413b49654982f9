//! From the store to the log, whatever is away, dies, or comes first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::Connection;
use tempfile::TempDir;
use tokencast::adapter::SharedMemory;
use tokencast::dialect::Dialects;
use tokencast::domain::{
    AgentId, EventId, GenerationConfig, MessageId, NodeId, Position, SessionId, UserId, Visibility,
};
use tokencast::lifecycle::Tasks;
use tokencast::outbox::{Delivered, Outbox};
use tokencast::store::{
    Accepted, NewGeneration, NewSession, Outgoing, SharedStore, StoreOptions, connect,
};

use crate::hub::reader::{Random, TestReader};
use crate::hub::{self, live, memory, node_on};
use crate::support::faulty::{Faulty, Revisions};
use crate::support::{eventually, seeds};

/// A database and a log, and the nodes on both.
struct Cluster {
    store: SharedStore,
    url: String,
    log: SharedMemory,
    revisions: Revisions,
    _folder: TempDir,
}

struct Node {
    adapter: Arc<Faulty>,
    hub: hub::Node,
    outbox: Outbox,
    tasks: Tasks,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Cluster {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tokencast.db").display());
        let store = connect(&url, &StoreOptions::default()).await.unwrap();
        let (log, revisions) = (SharedMemory::default(), Revisions::default());
        Self { store, url, log, revisions, _folder: folder }
    }

    fn node(&self) -> Node {
        let adapter = Faulty::around(memory(&self.log), &self.revisions);
        let hub = node_on(adapter.clone(), Dialects::new(false));
        let tasks = Tasks::new();
        let outbox = Outbox::start(self.store.clone(), adapter.clone(), &tasks);
        Node { adapter, hub, outbox, tasks }
    }

    async fn session(&self) -> SessionId {
        let id = hub::session();
        let new = NewSession {
            id: id.clone(),
            owner: UserId::new("ada").unwrap(),
            title: None,
            agent: None,
            visibility: Visibility::Private,
        };
        assert!(self.store.create_session(&new).await.unwrap().created);
        id
    }

    /// Stores `n` messages.
    async fn said(&self, session: &SessionId, n: usize) -> Vec<Outgoing> {
        let mut stored = Vec::new();
        for _ in 0..n {
            let new = NewGeneration {
                session: session.clone(),
                user: UserId::new("ada").unwrap(),
                prompt_id: MessageId::new(),
                prompt: "hi".to_owned(),
                client_message_id: None,
                agent: AgentId::new("helper").unwrap(),
                provider: "scripted".to_owned(),
                model: "parrot-1".to_owned(),
                config: GenerationConfig::default(),
                owner: NodeId::new(),
                begun: false,
                user_generations_max: 0,
            };
            match self.store.accept(&new).await.unwrap() {
                Accepted::New { outgoing, .. } => stored.extend(outgoing),
                other => panic!("{other:?}"),
            }
        }
        stored
    }

    /// How many rows the outbox holds.
    async fn rows(&self) -> i64 {
        let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
        let rows = sqlx::query_scalar("SELECT count(*) FROM outbox");
        rows.fetch_one(&mut connection).await.unwrap()
    }

    async fn is_empty(&self) {
        eventually("the outbox is empty", || async { (self.rows().await == 0).then_some(()) })
            .await;
    }
}

impl Node {
    /// The events of a session's log, as a reader that knows them by their ids takes them.
    async fn log(&self, session: &SessionId) -> Vec<EventId> {
        let page = self.hub.adapter.read(session, Position::default(), 10_000).await.unwrap();
        let mut ids = Vec::new();
        for (_, event) in page.events {
            if !ids.contains(&event.id) {
                ids.push(event.id);
            }
        }
        ids
    }
}

fn ids(stored: &[Outgoing]) -> Vec<EventId> {
    stored.iter().map(|outgoing| outgoing.event.id).collect()
}

fn shown(reader: &TestReader) -> usize {
    reader.names().iter().filter(|name| *name == "message:new").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_event_that_comes_first_brings_those_before_it() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = cluster.session().await;
    let reader = live(&a.hub, &session).await;
    let stored = cluster.said(&session, 3).await;
    b.outbox.deliver(&stored[2]).await.unwrap();
    assert_eq!(b.log(&session).await, ids(&stored), "before the others are delivered");
    a.outbox.deliver(&stored[0]).await.unwrap();
    a.outbox.deliver(&stored[1]).await.unwrap();
    assert_eq!(a.log(&session).await, ids(&stored));
    assert_eq!(shown(&reader), 3, "each once");
    cluster.is_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_log_has_lost_is_appended_again_after_a_reconnect_or_before_what_follows() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = cluster.session().await;
    let reader = live(&node.hub, &session).await;
    let stored = cluster.said(&session, 3).await;
    for outgoing in &stored {
        node.outbox.deliver(outgoing).await.unwrap();
    }
    cluster.is_empty().await;
    let appended = || async {
        let log = node.hub.adapter.read(&session, Position::default(), 100).await.unwrap();
        log.events.iter().map(|(_, event)| event.id).collect::<Vec<_>>()
    };
    let all = ids(&stored);
    assert_eq!(appended().await, all);
    // A replica that had the first only.
    cluster.revisions.lock().await.insert(session.clone(), 1);
    node.adapter.reconnects.fetch_add(1, Ordering::SeqCst);
    let expected = [&all[..], &all[1..]].concat();
    eventually("it is appended again", || async { (appended().await == expected).then_some(()) })
        .await;
    // And one that had none, where something is said before anybody looks.
    cluster.revisions.lock().await.insert(session.clone(), 0);
    let next = cluster.said(&session, 1).await;
    node.outbox.deliver(&next[0]).await.unwrap();
    assert_eq!(appended().await, [&expected[..], &all, &ids(&next)].concat());
    assert_eq!(shown(&reader), 4, "each once");
}

/// Prints its seeds; `SEED` tries another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_nodes_deliver_at_once_stand_in_the_order_of_their_revisions() {
    for seed in seeds(&[1, 2, 3]) {
        let mut random = Random(seed);
        let cluster = Cluster::new().await;
        let nodes = [cluster.node(), cluster.node(), cluster.node()];
        for _ in 0..5 {
            let session = cluster.session().await;
            let stored = cluster.said(&session, 20).await;
            let mut order: Vec<usize> = (0..stored.len()).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, random.below(at + 1));
            }
            let delivered = order.iter().map(|at| {
                let node = &nodes[random.below(nodes.len())];
                async { node.outbox.deliver(&stored[*at]).await.unwrap() }
            });
            futures::future::join_all(delivered.collect::<Vec<_>>()).await;
            assert_eq!(nodes[0].log(&session).await, ids(&stored), "seed {seed}");
        }
        cluster.is_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_stored_and_did_not_live_to_append_is_appended_by_another_in_order() {
    let cluster = Cluster::new().await;
    let session = cluster.session().await;
    let stored = cluster.said(&session, 3).await;
    let node = cluster.node();
    let reader = live(&node.hub, &session).await;
    cluster.is_empty().await;
    assert_eq!(node.log(&session).await, ids(&stored));
    assert_eq!(shown(&reader), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_appended_is_shown_here_after_what_others_stored_before() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = cluster.session().await;
    let reader = live(&node.hub, &session).await;
    node.adapter.down.store(true, Ordering::SeqCst);
    let stored = cluster.said(&session, 3).await;
    let later = node.outbox.deliver_or_show(&stored[2], Duration::from_secs(1)).await;
    assert_eq!((later, shown(&reader)), (Delivered::HereOnly, 3), "the ones before it, too");
    node.outbox.deliver_or_show(&stored[0], Duration::from_secs(1)).await;
    assert_eq!(shown(&reader), 3, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_busy_session_nothing_is_shown_twice_here() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = cluster.session().await;
    let reader = live(&node.hub, &session).await;
    for outgoing in cluster.said(&session, 600).await {
        node.outbox.deliver(&outgoing).await.unwrap();
    }
    cluster.is_empty().await;
    assert_eq!(shown(&reader), 600);
    node.adapter.down.store(true, Ordering::SeqCst);
    let next = cluster.said(&session, 1).await;
    node.outbox.deliver_or_show(&next[0], Duration::from_secs(1)).await;
    assert_eq!(shown(&reader), 601);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_is_away_a_nodes_own_readers_are_shown_it_and_the_others_later() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = cluster.session().await;
    let (here, there) = (live(&a.hub, &session).await, live(&b.hub, &session).await);
    for node in [&a, &b] {
        node.adapter.down.store(true, Ordering::SeqCst);
    }
    let stored = cluster.said(&session, 2).await;
    for outgoing in &stored {
        let delivered = a.outbox.deliver_or_show(outgoing, Duration::MAX).await;
        assert_eq!(delivered, Delivered::HereOnly);
    }
    assert_eq!((shown(&here), shown(&there)), (2, 0));
    assert_eq!(cluster.rows().await, 2);
    for node in [&a, &b] {
        node.adapter.down.store(false, Ordering::SeqCst);
    }
    cluster.is_empty().await;
    eventually("the others hear of it", || async { (shown(&there) == 2).then_some(()) }).await;
    assert_eq!(a.log(&session).await, ids(&stored));
    assert_eq!(shown(&here), 2, "once, although it was appended since");
    // And as ever.
    let next = cluster.said(&session, 1).await;
    let delivered = b.outbox.deliver_or_show(&next[0], Duration::from_secs(20)).await;
    assert_eq!(delivered, Delivered::Everywhere);
    assert_eq!((shown(&here), shown(&there)), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_long_is_not_waited_for_and_a_caller_that_is_gone_loses_nothing() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = cluster.session().await;
    let reader = live(&node.hub, &session).await;
    node.adapter.stuck.store(true, Ordering::SeqCst);
    let stored = cluster.said(&session, 2).await;
    let within = Duration::from_millis(20);
    let delivered = node.outbox.deliver_or_show(&stored[0], within).await;
    assert_eq!(delivered, Delivered::HereOnly);
    assert_eq!(shown(&reader), 1);
    let dropped = node.outbox.deliver_or_show(&stored[1], Duration::MAX);
    assert!(tokio::time::timeout(within, dropped).await.is_err());
    node.adapter.stuck.store(false, Ordering::SeqCst);
    cluster.is_empty().await;
    assert_eq!(node.log(&session).await, ids(&stored));
    assert_eq!(shown(&reader), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_session_that_fails_nor_rows_that_nobody_can_read_hold_up_the_rest() {
    let cluster = Cluster::new().await;
    let [broken, odd, sound] =
        [cluster.session().await, cluster.session().await, cluster.session().await];
    let refused = cluster.said(&broken, 2).await;
    // More than a page of them, of a newer build and broken, before the others.
    let mut connection = sqlx::SqliteConnection::connect(&cluster.url).await.unwrap();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) \
                INSERT INTO outbox (id, session_id, revision, event, created_at) \
                SELECT randomblob(16), $1, i, CASE i % 2 WHEN 0 THEN $2 ELSE $3 END, 1000 FROM n";
    let newer = format!(r#"{{"v":1,"id":"{}","at":1,"event":{{"newer":{{}}}}}}"#, EventId::new());
    sqlx::query(rows)
        .bind(odd.as_str())
        .bind(newer.into_bytes())
        .bind(b"garbage".as_slice())
        .execute(&mut connection)
        .await
        .unwrap();
    let stored = cluster.said(&sound, 2).await;
    let node = cluster.node();
    node.adapter.refused.lock().unwrap().insert(broken.clone());
    eventually("the rest is appended", || async {
        (node.log(&sound).await == ids(&stored)).then_some(())
    })
    .await;
    assert!(node.log(&broken).await.is_empty());
    node.adapter.refused.lock().unwrap().clear();
    eventually("it is tried again, in order", || async {
        (node.log(&broken).await == ids(&refused)).then_some(())
    })
    .await;
    eventually("what nobody can read is left", || async {
        (cluster.rows().await == 600).then_some(())
    })
    .await;
    assert!(node.log(&odd).await.is_empty());
}
