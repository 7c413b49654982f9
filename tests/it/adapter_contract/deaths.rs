//! Nodes that die, end, or only seemed to be dead.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::Duration;

use tokencast::adapter::{Absence, Connected, SharedMemory};
use tokencast::domain::{SessionId, UserId};
use tokio::runtime::Runtime;

use super::{Node, session, someone, user};
use crate::support::eventually;
use crate::support::redis::OwnRedis;

/// Short, and still longer than a busy machine keeps a node from saying that it lives.
const DEAD_AFTER: Duration = Duration::from_millis(2_500);

/// A node with a runtime of its own, which can be killed or stopped and let go on.
struct Mortal {
    node: Node,
    runtime: Option<Runtime>,
}

impl Mortal {
    async fn start(redis: &OwnRedis) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let url = redis.url();
        let node = runtime.spawn(async move { Node::redis_dead_after(&url, DEAD_AFTER).await });
        Self { node: node.await.unwrap(), runtime: Some(runtime) }
    }

    /// As `kill -9` does: nothing is said any more.
    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Nothing moves until what is returned is dropped.
    fn freeze(&self) -> mpsc::Sender<()> {
        let (thaw, thawed) = mpsc::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            let _ = thawed.recv();
        });
        thaw
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn living(redis: &OwnRedis) -> Node {
    Node::redis_dead_after(&redis.url(), DEAD_AFTER).await
}

async fn devices(node: &Node, user: &UserId) -> u64 {
    node.adapter.presence(std::slice::from_ref(user)).await.unwrap()[0].devices
}

/// What some nodes are told, until there is nothing more to take out.
async fn told(redis: &OwnRedis, nodes: &[&Node], at_least: usize) -> Vec<Absence> {
    let mut told = Vec::new();
    eventually("the dead node's users are taken out", || {
        told.extend(nodes.iter().flat_map(|node| node.absences()));
        let done = told.len() >= at_least
            && redis.cli(&["zcard", "tc:nodes"]) == nodes.len().to_string()
            && redis.cli(&["zcard", "tc:{tc:nodes}:dead"]) == "0";
        async move { done.then_some(()) }
    })
    .await;
    told.extend(nodes.iter().flat_map(|node| node.absences()));
    told
}

fn left(session: &SessionId, user: &UserId, online: u64) -> Absence {
    Absence::Left { session: session.clone(), user: user.clone(), online }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nodes_users_are_taken_out_once() {
    let redis = OwnRedis::start().await;
    let (a, b, c) = (Mortal::start(&redis).await, living(&redis).await, living(&redis).await);
    let (one, two, many) = (session(), session(), session());
    let (ada, bob, gone) = (someone(), someone(), someone());
    let crowd: Vec<UserId> = (0..300).map(|n| user(&format!("u{n}"))).collect();
    let mut expected = HashSet::new();
    for session in [&one, &two] {
        a.node.adapter.enter(session, &ada).await.unwrap();
    }
    expected.extend([left(&one, &ada, 1), left(&two, &ada, 0)].map(|a| format!("{a:?}")));
    for node in [&a.node, &b] {
        node.adapter.enter(&one, &bob).await.unwrap();
        node.adapter.connect(&bob, 0).await.unwrap();
    }
    for user in [&ada, &gone] {
        a.node.adapter.connect(user, 0).await.unwrap();
        expected.insert(format!("{:?}", Absence::Offline { user: user.clone() }));
    }
    a.node.adapter.disconnect(&gone).await.unwrap();
    let entering = crowd.iter().map(|user| async { a.node.adapter.enter(&many, user).await });
    futures::future::try_join_all(entering).await.unwrap();

    a.kill();
    let told = told(&redis, &[&b, &c], expected.len() + crowd.len()).await;

    let all: HashSet<String> = told.iter().map(|absence| format!("{absence:?}")).collect();
    assert_eq!(all.len(), told.len(), "told twice");
    assert_eq!(told.len(), expected.len() + crowd.len());
    assert!(expected.is_subset(&all), "{expected:?}");
    assert_eq!(devices(&c, &bob).await, 1, "b's");
    assert_eq!(devices(&c, &ada).await, 0);
    assert_eq!(c.adapter.online(&one).await.unwrap().users, [bob]);
    assert_eq!(c.adapter.online(&many).await.unwrap().count, 0);
    assert!(c.adapter.was_in(&one, &ada, Duration::from_secs(60)).await.unwrap());
    assert_eq!(redis.cli(&["keys", "tc:{node:*"]).lines().count(), 1, "only b's list is left");
}

/// Somebody claimed the dead node, and died as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_stopped_taking_out_another_goes_on() {
    let redis = OwnRedis::start().await;
    let (a, session, ada) = (Mortal::start(&redis).await, session(), someone());
    a.node.adapter.enter(&session, &ada).await.unwrap();
    let label = format!("{}.0", a.node.id);
    eventually("a lives", || async {
        (!redis.cli(&["zscore", "tc:nodes", &label]).is_empty()).then_some(())
    })
    .await;
    a.kill();
    redis.cli(&["zrem", "tc:nodes", &label]);
    let now: u64 = redis.cli(&["time"]).lines().next().unwrap().parse().unwrap();
    let until = ((now + 4) * 1000).to_string();
    redis.cli(&["zadd", "tc:{tc:nodes}:dead", &until, &label]);

    let b = living(&redis).await;
    assert_eq!(told(&redis, &[&b], 1).await, [left(&session, &ada, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_another_node_after_a_clean_end_was_never_away() {
    let redis = OwnRedis::start().await;
    let (a, b) = (Mortal::start(&redis).await, living(&redis).await);
    let (session, ada, bob) = (session(), someone(), someone());
    for user in [&ada, &bob] {
        a.node.adapter.connect(user, 0).await.unwrap();
        a.node.adapter.enter(&session, user).await.unwrap();
    }
    assert!(a.node.tasks.shutdown(Duration::from_secs(5)).await);
    assert_eq!(b.adapter.online(&session).await.unwrap().count, 2, "not yet");
    assert_eq!(b.adapter.connect(&ada, 0).await.unwrap(), Connected::Yes { first: false });
    assert!(!b.adapter.enter(&session, &ada).await.unwrap().first);

    let told = told(&redis, &[&b], 2).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&left(&session, &bob, 1)), "{told:?}");
    assert!(told.contains(&Absence::Offline { user: bob }), "{told:?}");
    assert_eq!(devices(&b, &ada).await, 1);
    assert_eq!(b.adapter.online(&session).await.unwrap().users, [ada]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_only_frozen_has_its_users_again() {
    let redis = OwnRedis::start().await;
    let (a, b) = (Mortal::start(&redis).await, living(&redis).await);
    let (session, ada) = (session(), someone());
    a.node.adapter.connect(&ada, 0).await.unwrap();
    a.node.adapter.enter(&session, &ada).await.unwrap();

    let frozen = a.freeze();
    let told = told(&redis, &[&b], 2).await;
    assert!(told.contains(&left(&session, &ada, 0)), "{told:?}");
    assert!(told.contains(&Absence::Offline { user: ada.clone() }), "{told:?}");
    assert_eq!(devices(&b, &ada).await, 0);
    drop(frozen);

    eventually("ada is back", || async {
        let online = b.adapter.online(&session).await.unwrap().users == [ada.clone()];
        (online && devices(&b, &ada).await == 1).then_some(())
    })
    .await;
    // What is left under the old name is taken out; that of the new one stays.
    let again = self::told(&redis, &[&b, &a.node], 0).await;
    assert_eq!(again, []);
    assert_eq!(devices(&b, &ada).await, 1);
    let departure = a.node.adapter.leave(&session, &ada).await.unwrap();
    assert_eq!((departure.last, departure.online), (true, 0));
    a.node.adapter.disconnect(&ada).await.unwrap();
    assert_eq!(devices(&b, &ada).await, 0, "a ghost");
    assert!(a.node.adapter.settle(&ada).await.unwrap());
}

/// All beats are old then, and everybody would take everybody for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_dead_because_redis_stood_still() {
    let redis = OwnRedis::start().await;
    let (a, b) = (living(&redis).await, living(&redis).await);
    let (session, ada) = (session(), someone());
    a.adapter.connect(&ada, 0).await.unwrap();
    a.adapter.enter(&session, &ada).await.unwrap();
    let now = || redis.cli(&["time"]).lines().next().unwrap().parse::<u64>().unwrap();
    let steady = now() + 4;
    eventually("the nodes may take others for dead", || async { (now() >= steady).then_some(()) })
        .await;
    redis.cli(&["client", "pause", "5000", "all"]);
    let resumed = now() + 3;
    eventually("somebody could have", || async { (now() >= resumed).then_some(()) }).await;
    assert_eq!((a.absences(), b.absences()), (vec![], vec![]));
    assert_eq!(redis.cli(&["zcard", "tc:nodes"]), "2");
    assert_eq!(redis.cli(&["exists", &format!("tc:{{node:{}.0}}:held", a.id)]), "1", "no new name");
    assert_eq!(devices(&b, &ada).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_is_said_again() {
    let mut redis = OwnRedis::start().await;
    let (a, b) = (living(&redis).await, living(&redis).await);
    let (session, ada, bob) = (session(), someone(), someone());
    for user in [&ada, &bob] {
        a.adapter.connect(user, 0).await.unwrap();
        a.adapter.enter(&session, user).await.unwrap();
    }
    redis.stop();
    a.adapter.disconnect(&bob).await.unwrap_err();
    a.adapter.leave(&session, &bob).await.unwrap_err();
    b.adapter.connect(&ada, 0).await.unwrap_err();
    redis.start_again().await;
    eventually("ada is there again", || async {
        let online = b.adapter.online(&session).await.ok()?;
        let presence = b.adapter.presence(std::slice::from_ref(&ada)).await.ok()?;
        (online.users == [ada.clone()] && presence[0].devices == 2).then_some(())
    })
    .await;
    assert_eq!(devices(&b, &bob).await, 0);
}

/// Nobody else says that they are gone, and whoever asked was told of a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_told_to_redis_is_told_later_and_its_answer_announced() {
    let redis = OwnRedis::start().await;
    let (a, session, ada) = (Node::redis(&redis.url()).await, session(), someone());
    a.adapter.connect(&ada, 0).await.unwrap();
    a.adapter.enter(&session, &ada).await.unwrap();
    redis.cli(&["acl", "setuser", "default", "-evalsha", "-spublish"]);
    eventually("a has noticed", || async { (!a.adapter.is_up()).then_some(()) }).await;
    a.adapter.leave(&session, &ada).await.unwrap_err();
    a.adapter.disconnect(&ada).await.unwrap_err();
    a.adapter.settle(&ada).await.unwrap_err();
    redis.cli(&["acl", "setuser", "default", "+@all"]);

    let mut told = Vec::new();
    eventually("both are announced", || {
        told.extend(a.absences());
        let done = told.len() == 2;
        async move { done.then_some(()) }
    })
    .await;
    assert!(told.contains(&left(&session, &ada, 0)), "{told:?}");
    assert!(told.contains(&Absence::Offline { user: ada.clone() }), "{told:?}");
    assert_eq!(a.adapter.online(&session).await.unwrap().count, 0);
    assert_eq!(devices(&a, &ada).await, 0);
}

#[tokio::test]
async fn in_one_process_a_dropped_node_is_a_dead_one() {
    let shared = SharedMemory::default();
    let (a, b) = (Node::memory(&shared), Node::memory(&shared));
    let (session, ada, bob, gone) = (session(), someone(), someone(), someone());
    for user in [&ada, &bob, &gone] {
        a.adapter.connect(user, 0).await.unwrap();
    }
    a.adapter.disconnect(&gone).await.unwrap();
    b.adapter.connect(&bob, 0).await.unwrap();
    b.adapter.enter(&session, &bob).await.unwrap();
    for user in [&ada, &bob] {
        a.adapter.enter(&session, user).await.unwrap();
    }
    drop(a);
    let told = b.absences();
    assert_eq!(told.len(), 3, "{told:?}");
    for absence in
        [left(&session, &ada, 1), Absence::Offline { user: ada }, Absence::Offline { user: gone }]
    {
        assert!(told.contains(&absence), "{absence:?}");
    }
    assert_eq!(devices(&b, &bob).await, 1);
    assert_eq!(b.adapter.online(&session).await.unwrap().users, [bob]);
}
