//! Members, and how far they have read.

use futures::future::join_all;
use tokencast::domain::{
    EventKind, Member, Membership, MessageId, Revoked, SessionChange, Visibility,
};
use tokencast::store::{MemberAdded, Seen, SharedStore};

use super::database::{Database, outbox, revisions, said, session, user, with_sessions};

async fn added(store: &SharedStore, who: &str) -> Member {
    match store.add_member(&session("s"), &user(who), 99).await.unwrap() {
        MemberAdded::New(member) => member,
        other => panic!("expected a new member, got {other:?}"),
    }
}

async fn count(store: &SharedStore) -> u32 {
    store.access(&session("s"), &user("ada")).await.unwrap().unwrap().session.member_count
}

pub(super) async fn a_member_is_added_once_and_removed_once(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let (id, bob) = (session("s"), user("bob"));
    let member = added(&store, "bob").await;
    assert_eq!((&member.user, member.membership), (&bob, Membership::Member));
    assert_eq!(member.last_seen, None);
    let access = store.access(&id, &bob).await.unwrap().unwrap();
    assert_eq!((access.membership, access.session.member_count), (Some(Membership::Member), 2));

    let message = said(&store, "s", "hello").await.id;
    store.see(&id, message, &bob).await.unwrap();
    // Known comes before the limit.
    let again = store.add_member(&id, &bob, 1).await.unwrap();
    let seen = Member { last_seen: Some(message), ..member.clone() };
    assert_eq!(again, MemberAdded::Already(seen.clone()));
    let cyd = added(&store, "cyd").await;
    let full = store.add_member(&id, &user("dan"), 3).await.unwrap();
    assert_eq!(full, MemberAdded::TooMany);
    let all = store.members(&id, 9).await.unwrap();
    assert_eq!((&all[0].user, all[0].membership), (&user("ada"), Membership::Owner));
    assert_eq!(all[1..], [seen, cyd]);
    assert_eq!(store.members(&id, 2).await.unwrap(), all[..2]);
    assert!(matches!(
        store.add_member(&id, &user("ada"), 9).await.unwrap(),
        MemberAdded::Already(Member { membership: Membership::Owner, .. })
    ));

    let told = store.remove_member(&id, &bob).await.unwrap().unwrap();
    assert_eq!(told.event.kind, EventKind::AccessRevoked(Revoked::User(bob.clone())));
    assert_eq!((told.revision, outbox(&store).await.last()), (3, Some(&told)));
    for nobody in ["bob", "dan", "ada"] {
        assert_eq!(store.remove_member(&id, &user(nobody)).await.unwrap(), None, "{nobody}");
    }
    assert_eq!(store.remove_member(&session("t"), &user("cyd")).await.unwrap(), None);
    assert_eq!((count(&store).await, store.members(&id, 9).await.unwrap().len()), (2, 2));
    assert_eq!(added(&store, "bob").await.last_seen, None);
    assert_eq!(revisions(&store).await, 3);

    store.delete_session(&id, &user("ada")).await.unwrap().unwrap();
    for id in [id, session("missing")] {
        let refused = store.add_member(&id, &user("eve"), 9).await.unwrap();
        assert_eq!(refused, MemberAdded::NoSession);
        assert_eq!(store.remove_member(&id, &bob).await.unwrap(), None);
        assert_eq!(store.members(&id, 9).await.unwrap(), []);
    }
}

pub(super) async fn racing_members_fill_a_session_to_its_limit(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    // Each comes twice.
    let tries = join_all((0..16).map(|at| {
        let (node, who) = (nodes[at % 2].clone(), user(&format!("user{}", at / 2)));
        async move { node.add_member(&session("s"), &who, 5).await.unwrap() }
    }))
    .await;
    let new = tries.iter().filter(|tried| matches!(tried, MemberAdded::New(_))).count();
    let already = tries.iter().filter(|tried| matches!(tried, MemberAdded::Already(_))).count();
    assert_eq!((new, already), (4, 4));
    assert_eq!(nodes[0].members(&session("s"), 99).await.unwrap().len(), 5);
    assert_eq!(count(&nodes[0]).await, 5);
}

pub(super) async fn members_come_and_go_at_once_and_are_counted_right(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    let removed = join_all((0..16).map(|at| {
        let (node, who) = (nodes[at % 2].clone(), user(&format!("user{}", at % 3)));
        async move {
            node.add_member(&session("s"), &who, 99).await.unwrap();
            node.remove_member(&session("s"), &who).await.unwrap().is_some()
        }
    }))
    .await;
    let told = removed.into_iter().filter(|removed| *removed).count();
    assert_eq!(revisions(&nodes[0]).await, told as u64);
    let members = nodes[0].members(&session("s"), 99).await.unwrap().len();
    assert_eq!(count(&nodes[0]).await as usize, members);
}

async fn last_seen(store: &SharedStore, who: &str) -> Option<MessageId> {
    let members = store.members(&session("s"), 99).await.unwrap();
    members.into_iter().find(|member| member.user == user(who)).unwrap().last_seen
}

pub(super) async fn a_read_position_moves_only_on(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let (id, ada) = (session("s"), user("ada"));
    let mut all = Vec::new();
    for text in ["1", "2", "3"] {
        all.push(said(&store, "s", text).await.id);
    }
    added(&store, "bob").await;
    let elsewhere = said(&store, "t", "elsewhere").await.id;
    // A clock that went back must not matter: the session's order does.
    let (last, at) = (database.id(all[2].0), database.at(1));
    database.execute(&format!("UPDATE message SET created_at = {at} WHERE id = {last}")).await;

    let Seen::Moved { outgoing } = store.see(&id, all[1], &ada).await.unwrap() else {
        panic!("it did not move");
    };
    let told = outgoing.event.at;
    let kind = EventKind::MessageSeen { message: all[1], user: ada.clone(), at: told };
    assert_eq!((outgoing.event.kind.clone(), outgoing.revision), (kind, 4));
    assert_eq!(outbox(&store).await.last(), Some(&outgoing));
    for behind in [all[1], all[0]] {
        let already = store.see(&id, behind, &ada).await.unwrap();
        assert!(matches!(already, Seen::Already), "{already:?}");
    }
    assert_eq!(last_seen(&store, "ada").await, Some(all[1]));
    assert_eq!(last_seen(&store, "bob").await, None);
    // A deleted message keeps its place, so it can be the last one seen.
    store.delete_message(all[2], &ada).await.unwrap();
    let moved = store.see(&id, all[2], &ada).await.unwrap();
    assert!(matches!(moved, Seen::Moved { .. }), "{moved:?}");
    assert_eq!(last_seen(&store, "ada").await, Some(all[2]));
    for missing in [elsewhere, MessageId::new()] {
        let missing = store.see(&id, missing, &ada).await.unwrap();
        assert!(matches!(missing, Seen::NoMessage), "{missing:?}");
    }
    store.delete_session(&id, &ada).await.unwrap().unwrap();
    let gone = store.see(&id, all[2], &user("bob")).await.unwrap();
    assert!(matches!(gone, Seen::NoMessage), "{gone:?}");
}

pub(super) async fn racing_read_positions_end_at_the_furthest(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(said(&nodes[0], "s", "hello").await.id);
    }
    let moved = join_all((0..16).map(|at| {
        let (node, message) = (nodes[at % 2].clone(), all[(at * 5) % 8]);
        async move { node.see(&session("s"), message, &user("ada")).await.unwrap() }
    }))
    .await;
    assert_eq!(last_seen(&nodes[0], "ada").await, Some(all[7]));
    let moved = moved.iter().filter(|seen| matches!(seen, Seen::Moved { .. })).count();
    assert_eq!(revisions(&nodes[0]).await, 8 + moved as u64);
    // What is told moves on as well.
    let told: Vec<usize> = outbox(&nodes[0])
        .await
        .iter()
        .filter_map(|outgoing| match &outgoing.event.kind {
            EventKind::MessageSeen { message, .. } => all.iter().position(|id| id == message),
            _ => None,
        })
        .collect();
    assert!(told.is_sorted_by(|before, after| before < after), "{told:?}");
}

pub(super) async fn a_guest_is_heard_though_nothing_keeps_their_position(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let open = SessionChange { visibility: Some(Visibility::Open), ..SessionChange::default() };
    store.update_session(&session("s"), &open).await.unwrap().unwrap();
    let message = said(&store, "s", "hello").await.id;
    for _ in 0..2 {
        let moved = store.see(&session("s"), message, &user("guest")).await.unwrap();
        assert!(matches!(moved, Seen::Moved { .. }), "{moved:?}");
    }
    assert_eq!(store.members(&session("s"), 99).await.unwrap().len(), 1);
    assert_eq!((count(&store).await, revisions(&store).await), (1, 3));
}
