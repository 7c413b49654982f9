//! Listing, changing and deleting sessions.

use futures::future::join_all;
use tokencast::domain::{
    AgentId, EventKind, Membership, Message, MessageId, Revoked, Session, SessionChange, SessionId,
    Timestamp, Visibility,
};
use tokencast::store::{NewSession, Sent, SessionPage, SharedStore, StopRequested};

use super::database::{
    Database, accepted, completed, finished, messages, new_session, note, outbox, prompt,
    revisions, said, sent, session, stored, user, with_sessions,
};

fn ids(page: &SessionPage) -> Vec<&str> {
    page.sessions.iter().map(|access| access.session.id.as_str()).collect()
}

pub(super) async fn sessions_are_listed_last_active_first_in_pages(database: &Database) {
    let store = with_sessions(database, &["a", "b", "c", "d", "e", "gone"]).await;
    let ada = user("ada");
    store.create_session(&new_session("bobs", "bob")).await.unwrap();
    store.create_session(&new_session("foreign", "bob")).await.unwrap();
    store.add_member(&session("bobs"), &ada, 9).await.unwrap();
    store.delete_session(&session("gone"), &ada).await.unwrap().unwrap();
    // Made at 5; the last messages at: none, 9, 7, 7, 7.
    let (made, early, late) = (database.at(5), database.at(7), database.at(9));
    database
        .execute(&format!(
            "UPDATE session SET created_at = {made}, last_message_at = NULL; \
             UPDATE session SET last_message_at = {late} WHERE id IN ('b', 'foreign', 'gone'); \
             UPDATE session SET last_message_at = {early} WHERE id IN ('c', 'd', 'e'); \
             UPDATE session SET created_at = {late} WHERE id = 'e'"
        ))
        .await;
    let all = ["b", "e", "d", "c", "bobs", "a"];
    let whole = store.sessions(&ada, None, 6).await.unwrap();
    assert_eq!((ids(&whole), &whole.next), (all.to_vec(), &None));
    let of_bobs = store.access(&session("bobs"), &ada).await.unwrap().unwrap();
    assert_eq!((&whole.sessions[4], of_bobs.membership), (&of_bobs, Some(Membership::Member)));
    assert_eq!(whole.sessions[0].membership, Some(Membership::Owner));
    for limit in 1..=5 {
        let (mut found, mut after) = (Vec::new(), None);
        for _ in 0..all.len() {
            let page = store.sessions(&ada, after.as_ref(), limit).await.unwrap();
            assert!(page.sessions.len() <= limit as usize);
            found.extend(page.sessions);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, whole.sessions, "in pages of {limit}");
    }
    let expected: Vec<SessionId> = all.iter().map(|id| session(id)).collect();
    assert_eq!(store.session_ids(&ada, 9).await.unwrap(), expected);
    assert_eq!(store.session_ids(&ada, 2).await.unwrap(), expected[..2]);
    assert_eq!(store.sessions(&user("cyd"), None, 9).await.unwrap(), SessionPage::default());
    assert_eq!(store.session_ids(&user("cyd"), 9).await.unwrap(), []);

    // Who says something brings theirs to the front.
    said(&store, "a", "hello").await;
    assert_eq!(store.session_ids(&ada, 1).await.unwrap(), [session("a")]);
    store.remove_member(&session("bobs"), &ada).await.unwrap().unwrap();
    assert_eq!(store.session_ids(&ada, 9).await.unwrap().len(), 5);
}

async fn change(store: &SharedStore, change: &SessionChange) -> Session {
    let changed = store.update_session(&session("s"), change).await.unwrap().unwrap();
    assert_eq!(changed.outgoing, None);
    let access = store.access(&session("s"), &user("ada")).await.unwrap().unwrap();
    assert_eq!(access.session, changed.session);
    changed.session
}

pub(super) async fn a_session_is_changed_in_what_is_named(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    said(&store, "s", "hello").await;
    let long_ago = database.at(1);
    database.execute(&format!("UPDATE session SET updated_at = {long_ago}")).await;
    let was = store.access(&session("s"), &user("ada")).await.unwrap().unwrap().session;
    assert_eq!(change(&store, &SessionChange::default()).await, was);

    let title = SessionChange { title: Some(Some("new".to_owned())), ..Default::default() };
    let titled = change(&store, &title).await;
    assert!(titled.updated_at > was.updated_at);
    let expected =
        Session { title: Some("new".to_owned()), updated_at: titled.updated_at, ..was.clone() };
    assert_eq!(titled, expected);
    let agent = AgentId::new("other").unwrap();
    let agent = SessionChange { agent: Some(Some(agent)), ..Default::default() };
    let other = change(&store, &agent).await;
    assert_eq!((other.title, other.agent.unwrap().as_str()), (Some("new".to_owned()), "other"));
    let none =
        SessionChange { title: Some(None), agent: Some(None), visibility: Some(Visibility::Open) };
    let bare = change(&store, &none).await;
    assert_eq!((bare.title, bare.agent, bare.visibility), (None, None, Visibility::Open));
    let other = store.access(&session("t"), &user("ada")).await.unwrap().unwrap().session;
    assert_eq!((other.title, other.updated_at), (was.title, Timestamp::from_millis(1_000)));

    store.delete_session(&session("s"), &user("ada")).await.unwrap().unwrap();
    for id in ["s", "missing"] {
        assert!(store.update_session(&session(id), &none).await.unwrap().is_none());
    }
}

const PRIVATE: SessionChange =
    SessionChange { title: None, agent: None, visibility: Some(Visibility::Private) };

pub(super) async fn a_session_that_is_open_no_more_revokes_its_guests(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    assert_eq!(change(&store, &PRIVATE).await.visibility, Visibility::Private);
    let open = SessionChange { visibility: Some(Visibility::Open), ..Default::default() };
    change(&store, &open).await;
    assert_eq!(change(&store, &open).await.visibility, Visibility::Open);
    let titled = SessionChange { title: Some(Some("new".to_owned())), ..PRIVATE };
    let closed = store.update_session(&session("s"), &titled).await.unwrap().unwrap();
    assert_eq!(closed.session.visibility, Visibility::Private);
    assert_eq!(closed.session.title.as_deref(), Some("new"));
    let told = closed.outgoing.unwrap();
    assert_eq!(told.event.kind, EventKind::AccessRevoked(Revoked::Guests));
    assert_eq!(outbox(&store).await, [told]);
    change(&store, &PRIVATE).await;
    assert_eq!(revisions(&store).await, 1);
}

pub(super) async fn of_racing_closers_one_revokes(database: &Database) {
    let store = database.open().await;
    let new = NewSession { visibility: Visibility::Open, ..new_session("s", "ada") };
    store.create_session(&new).await.unwrap();
    let nodes = [store, database.open().await];
    let told = join_all((0..8).map(|at| {
        let node = nodes[at % 2].clone();
        async move { node.update_session(&session("s"), &PRIVATE).await.unwrap().unwrap() }
    }))
    .await;
    assert_eq!(told.into_iter().filter_map(|changed| changed.outgoing).count(), 1);
    assert_eq!(revisions(&nodes[0]).await, 1);
}

pub(super) async fn a_deleted_session_stops_its_generations_and_is_gone(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let (id, ada) = (session("s"), user("ada"));
    let (ended, ..) = accepted(&store, &prompt("s", "1")).await;
    finished(&store, &completed(&ended)).await;
    let (running, asked, _) = accepted(&store, &prompt("s", "2")).await;
    let (stopped, ..) = accepted(&store, &prompt("s", "3")).await;
    let stop = store.request_stop(stopped.id, &user("bob")).await.unwrap();
    assert_eq!(stop, StopRequested::Stored { owner: stopped.owner });
    let (elsewhere, ..) = accepted(&store, &prompt("t", "4")).await;

    let told = store.delete_session(&id, &ada).await.unwrap().unwrap();
    assert_eq!(told.event.kind, EventKind::AccessRevoked(Revoked::Everyone));
    assert_eq!((&told.session, told.revision), (&id, 5));
    assert_eq!(outbox(&store).await.last(), Some(&told));
    let mut stops = Vec::new();
    for generation in [&ended, &running, &stopped, &elsewhere] {
        stops.push(store.generation(generation.id).await.unwrap().unwrap().stop_requested);
    }
    assert_eq!(stops, [None, Some(ada.clone()), Some(user("bob")), None]);

    assert_eq!(store.access(&id, &ada).await.unwrap(), None);
    assert_eq!(store.message(asked.id, &ada).await.unwrap(), None);
    assert!(store.edit(asked.id, "x").await.unwrap().is_none());
    assert_eq!(store.delete_message(asked.id, &ada).await.unwrap(), None);
    for id in [&id, &session("missing")] {
        assert_eq!(store.delete_session(id, &ada).await.unwrap(), None);
    }
    let taken = store.create_session(&new_session("s", "ada")).await.unwrap();
    assert_eq!((taken.created, taken.access), (false, None));
    // What ran is still stored, and told in its turn.
    assert_eq!(finished(&store, &completed(&running)).await.1.revision, 6);
}

/// Whatever is accepted is stopped or was too late, and nobody waits for ever.
pub(super) async fn a_session_may_be_deleted_while_much_happens_in_it(database: &Database) {
    for round in 0..5 {
        let id = format!("s{round}");
        let nodes = [with_sessions(database, &[&id]).await, database.open().await];
        let (first, ..) = accepted(&nodes[0], &prompt(&id, "first")).await;
        let busy = join_all((0..12).map(|at| {
            let (node, id, first) = (nodes[at % 2].clone(), &*id, &first);
            async move {
                match at {
                    4 | 5 => drop(node.delete_session(&session(id), &user("ada")).await.unwrap()),
                    6 => drop(node.finish(&completed(first)).await.unwrap()),
                    7 => drop(node.send(&note(id, "hello")).await.unwrap()),
                    _ => drop(node.accept(&prompt(id, "hello")).await.unwrap()),
                }
            }
        }));
        busy.await;
        let running = "SELECT count(*) FROM stream WHERE completed_at IS NULL \
                       AND stop_requested IS NULL";
        assert_eq!(database.number(running).await, 0);
        let revisions = format!("SELECT last_revision FROM session WHERE id = '{id}'");
        let told = format!("SELECT count(*) FROM outbox WHERE session_id = '{id}'");
        assert_eq!(database.number(&revisions).await, database.number(&told).await);
        let late = nodes[0].send(&note(&id, "late")).await.unwrap();
        assert!(matches!(late, Sent::NoSession), "{late:?}");
    }
}

pub(super) async fn a_message_is_found_with_ones_part_in_its_session(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    store.add_member(&session("s"), &user("bob"), 9).await.unwrap();
    let (generation, asked, _) = accepted(&store, &prompt("s", "ask")).await;
    let (answer, _) = finished(&store, &completed(&generation)).await;
    let (message, _) = sent(&store, &note("s", "hello")).await;
    store.react(message.id, &user("bob"), "👍", 9).await.unwrap();
    let find = async |id: MessageId, who: &str| {
        let found = store.message(id, &user(who)).await.unwrap().unwrap();
        let access = store.access(&session("s"), &user(who)).await.unwrap().unwrap();
        assert_eq!(found.access, access);
        (found.message, found.access.membership)
    };
    let reacted: Message = stored(&store, message.id).await;
    assert_eq!(reacted.reactions[0].users, [user("bob")]);
    assert_eq!(find(asked.id, "ada").await, (asked.clone(), Some(Membership::Owner)));
    assert_eq!(find(answer.id, "bob").await, (answer.clone(), Some(Membership::Member)));
    assert_eq!(find(message.id, "cyd").await, (reacted.clone(), None));
    assert_eq!(messages(&store, "s").await, [asked, answer, reacted]);
    assert_eq!(store.message(MessageId::new(), &user("ada")).await.unwrap(), None);
}
