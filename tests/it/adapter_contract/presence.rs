//! Who is connected and who is in a session, across the nodes.

use std::time::Duration;

use futures::future::join_all;
use tokencast::adapter::{Connected, Online};
use tokencast::domain::{Timestamp, UserId};

use super::{Node, on_every_backend, session, someone, user};
use crate::support::eventually;

on_every_backend!(
    a_user_comes_and_goes_once_whatever_nodes_they_are_on,
    many_users_are_counted,
    who_is_there_and_who_was_is_known_on_every_node,
    devices_are_counted_over_the_nodes,
    a_user_is_taken_offline_once,
    one_device_too_many_is_refused_also_in_a_race,
    devices_that_come_and_go_at_once_are_counted_right,
    presence_is_answered_in_the_order_of_the_question,
);

const MINUTE: Duration = Duration::from_secs(60);

async fn devices(node: &Node, user: &UserId) -> u64 {
    node.adapter.presence(std::slice::from_ref(user)).await.unwrap()[0].devices
}

async fn a_user_comes_and_goes_once_whatever_nodes_they_are_on(a: Node, b: Node) {
    let session = session();
    let (ada, bob) = (user("ada=1;x"), user("bob"));

    let arrival = a.adapter.enter(&session, &ada).await.unwrap();
    assert!(arrival.first);
    assert_eq!((arrival.online.users, arrival.online.count), (vec![ada.clone()], 1));
    assert!(!a.adapter.enter(&session, &ada).await.unwrap().first, "repeated");
    let arrival = b.adapter.enter(&session, &ada).await.unwrap();
    assert!(!arrival.first, "on another node already");
    assert_eq!(arrival.online.count, 1);
    assert!(b.adapter.enter(&session, &bob).await.unwrap().first);

    let departure = a.adapter.leave(&session, &ada).await.unwrap();
    assert_eq!((departure.last, departure.online), (false, 2), "still on b");
    let departure = b.adapter.leave(&session, &ada).await.unwrap();
    assert_eq!((departure.last, departure.online), (true, 1));
    let departure = b.adapter.leave(&session, &ada).await.unwrap();
    assert_eq!((departure.last, departure.online), (false, 1), "left before");
}

async fn many_users_are_counted(a: Node, b: Node) {
    let session = session();
    let mut last = None;
    for n in 0..450 {
        let node = if n % 2 == 0 { &a } else { &b };
        last = Some(node.adapter.enter(&session, &user(&format!("u{n}"))).await.unwrap());
    }
    let online = last.unwrap().online;
    assert_eq!((online.users.len(), online.count), (200, 450));
}

async fn who_is_there_and_who_was_is_known_on_every_node(a: Node, b: Node) {
    let (session, ada, bob) = (session(), someone(), someone());
    assert_eq!(a.adapter.online(&session).await.unwrap(), Online::default());
    assert!(!a.adapter.was_in(&session, &ada, MINUTE).await.unwrap());
    a.adapter.enter(&session, &ada).await.unwrap();
    b.adapter.enter(&session, &bob).await.unwrap();
    let online = b.adapter.online(&session).await.unwrap();
    assert!(online.users.contains(&ada) && online.users.contains(&bob), "{online:?}");
    assert_eq!((online.users.len(), online.count), (2, 2));
    assert!(b.adapter.was_in(&session, &ada, Duration::ZERO).await.unwrap(), "is still");

    a.adapter.leave(&session, &ada).await.unwrap();
    let online = a.adapter.online(&session).await.unwrap();
    assert_eq!(online, Online { users: vec![bob], count: 1 });
    assert!(b.adapter.was_in(&session, &ada, MINUTE).await.unwrap());
    eventually("it was longer ago than nothing", || async {
        let was = b.adapter.was_in(&session, &ada, Duration::from_millis(1)).await.unwrap();
        (!was).then_some(())
    })
    .await;
    assert!(!b.adapter.was_in(&super::session(), &ada, MINUTE).await.unwrap(), "elsewhere");
}

async fn devices_are_counted_over_the_nodes(a: Node, b: Node) {
    let ada = someone();
    let unknown = &a.adapter.presence(std::slice::from_ref(&ada)).await.unwrap()[0];
    assert_eq!((unknown.devices, unknown.last_seen_at), (0, None));

    let before = Timestamp::now();
    assert_eq!(a.adapter.connect(&ada, 0).await.unwrap(), Connected::Yes { first: true });
    assert_eq!(a.adapter.connect(&ada, 0).await.unwrap(), Connected::Yes { first: false });
    assert_eq!(b.adapter.connect(&ada, 0).await.unwrap(), Connected::Yes { first: false });
    let seen = a.adapter.presence(std::slice::from_ref(&ada)).await.unwrap().remove(0);
    assert_eq!((seen.user, seen.devices), (ada.clone(), 3));
    // Both clocks are this machine's.
    assert!(seen.last_seen_at.unwrap() >= before);

    a.adapter.disconnect(&ada).await.unwrap();
    assert_eq!(devices(&b, &ada).await, 2);
    b.adapter.disconnect(&ada).await.unwrap();
    b.adapter.disconnect(&ada).await.unwrap();
    assert_eq!(devices(&b, &ada).await, 1, "b had no other");
    a.adapter.disconnect(&ada).await.unwrap();
    assert_eq!(devices(&b, &ada).await, 0);
}

async fn a_user_is_taken_offline_once(a: Node, b: Node) {
    let ada = someone();
    assert!(!a.adapter.settle(&ada).await.unwrap(), "was not there");
    a.adapter.connect(&ada, 0).await.unwrap();
    b.adapter.connect(&ada, 0).await.unwrap();
    a.adapter.disconnect(&ada).await.unwrap();
    assert!(!a.adapter.settle(&ada).await.unwrap(), "is on b");
    b.adapter.disconnect(&ada).await.unwrap();
    let again = a.adapter.connect(&ada, 0).await.unwrap();
    assert_eq!(again, Connected::Yes { first: false }, "not settled, so still online");
    assert!(!b.adapter.settle(&ada).await.unwrap(), "came back");
    a.adapter.disconnect(&ada).await.unwrap();

    let (on_a, on_b) = tokio::join!(a.adapter.settle(&ada), b.adapter.settle(&ada));
    assert!(on_a.unwrap() ^ on_b.unwrap());
    assert!(!a.adapter.settle(&ada).await.unwrap());
    let gone = a.adapter.presence(std::slice::from_ref(&ada)).await.unwrap().remove(0);
    assert_eq!(gone.devices, 0);
    assert!(gone.last_seen_at.is_some());
    assert_eq!(b.adapter.connect(&ada, 0).await.unwrap(), Connected::Yes { first: true });
}

async fn one_device_too_many_is_refused_also_in_a_race(a: Node, b: Node) {
    let ada = someone();
    let connects = (0..20).map(|n| if n % 2 == 0 { &a } else { &b });
    let connected: Vec<Connected> =
        join_all(connects.map(|node| async { node.adapter.connect(&ada, 7).await.unwrap() })).await;
    let of = |what: Connected| connected.iter().filter(|c| **c == what).count();
    assert_eq!(of(Connected::Yes { first: true }), 1);
    assert_eq!(of(Connected::Yes { first: false }), 6);
    assert_eq!(devices(&a, &ada).await, 7);
    for node in [&a, &b] {
        assert_eq!(node.adapter.connect(&ada, 7).await.unwrap(), Connected::TooMany);
    }
    let on_a = connected.iter().step_by(2).filter(|c| **c != Connected::TooMany).count();
    let node = if on_a > 0 { &a } else { &b };
    node.adapter.disconnect(&ada).await.unwrap();
    assert_eq!(devices(&a, &ada).await, 6, "the refused left no trace");
    assert_ne!(node.adapter.connect(&ada, 7).await.unwrap(), Connected::TooMany);
    assert_ne!(b.adapter.connect(&ada, 0).await.unwrap(), Connected::TooMany, "no limit");
    assert_eq!(devices(&b, &ada).await, 8);
}

async fn devices_that_come_and_go_at_once_are_counted_right(a: Node, b: Node) {
    let ada = someone();
    let coming = (0..60).map(|n| {
        let (node, ada) = (if n % 2 == 0 { &a } else { &b }, &ada);
        async move {
            if node.adapter.connect(ada, 4).await.unwrap() == Connected::TooMany {
                return 0;
            }
            if n % 3 == 0 {
                return 1;
            }
            node.adapter.disconnect(ada).await.unwrap();
            0
        }
    });
    let stayed: u64 = join_all(coming).await.into_iter().sum();
    assert!(stayed >= 1);
    assert_eq!(devices(&a, &ada).await, stayed);
}

async fn presence_is_answered_in_the_order_of_the_question(a: Node, b: Node) {
    let users: Vec<UserId> = (0..300).map(|_| someone()).collect();
    for ada in users.iter().step_by(7) {
        a.adapter.connect(ada, 0).await.unwrap();
    }
    let found = b.adapter.presence(&users).await.unwrap();
    assert_eq!(found.len(), users.len());
    for (n, (found, user)) in found.iter().zip(&users).enumerate() {
        assert_eq!((&found.user, found.devices), (user, u64::from(n % 7 == 0)));
    }
    assert_eq!(b.adapter.presence(&[]).await.unwrap(), []);
}
