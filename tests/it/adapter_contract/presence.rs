//! Who is in a session, across the nodes.

use tokencast::domain::UserId;

use super::{Node, on_every_backend, session};

on_every_backend!(a_user_comes_and_goes_once_whatever_nodes_they_are_on, many_users_are_counted);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
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
