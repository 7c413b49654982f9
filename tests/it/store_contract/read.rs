//! Sessions, and reading their messages.

use futures::future::join_all;
use tokencast::domain::{
    Attachment, Membership, Message, MessageId, Reaction, Session, Visibility,
};
use tokencast::store::{CreatedSession, NewSession};
use uuid::Uuid;

use super::database::{
    Database, accepted, completed, finished, messages, new_session, prompt, said, session, user,
    with_sessions,
};

pub(super) async fn a_session_is_made_once_and_seen_with_ones_own_part_in_it(database: &Database) {
    let store = database.open().await;
    assert_eq!(store.access(&session("s"), &user("ada")).await.unwrap(), None);
    let new = NewSession { visibility: Visibility::Open, ..new_session("s", "ada") };
    let CreatedSession { created: true, access: Some(made) } =
        store.create_session(&new).await.unwrap()
    else {
        panic!("it was not made");
    };
    let Session { created_at, .. } = made.session;
    let expected = Session {
        id: new.id.clone(),
        owner: new.owner.clone(),
        title: new.title.clone(),
        agent: new.agent.clone(),
        visibility: Visibility::Open,
        member_count: 1,
        last_ordinal: 0,
        last_message_at: None,
        created_at,
        updated_at: created_at,
    };
    assert_eq!((&made.session, made.membership), (&expected, Some(Membership::Owner)));
    assert_eq!(store.access(&new.id, &user("ada")).await.unwrap(), Some(made.clone()));
    let bobs = store.access(&new.id, &user("bob")).await.unwrap().unwrap();
    assert_eq!((&bobs.session, bobs.membership), (&expected, None));

    let again = store.create_session(&new).await.unwrap();
    assert_eq!(again, CreatedSession { created: false, access: Some(made) });
    let bob = store.create_session(&new_session("s", "bob")).await.unwrap();
    assert_eq!(bob, CreatedSession { created: false, access: Some(bobs) });
    let bare = NewSession { title: None, agent: None, ..new_session("t", "bob") };
    let bare = store.create_session(&bare).await.unwrap().access.unwrap();
    assert_eq!(store.access(&session("t"), &user("bob")).await.unwrap(), Some(bare));
}

pub(super) async fn of_racing_makers_one_makes_the_session(database: &Database) {
    let nodes = [database.open().await, database.open().await];
    for id in ["a", "b", "c"] {
        let made = join_all((0..6).map(|at| {
            let (node, new) = (nodes[at % 2].clone(), new_session(id, &format!("user{at}")));
            async move { node.create_session(&new).await.unwrap() }
        }))
        .await;
        let (winners, others): (Vec<_>, Vec<_>) = made.into_iter().partition(|one| one.created);
        assert_eq!(winners.len(), 1);
        let winner = winners[0].access.as_ref().unwrap();
        assert_eq!(winner.membership, Some(Membership::Owner));
        for other in others {
            let access = other.access.unwrap();
            assert_eq!((access.session, access.membership), (winner.session.clone(), None));
        }
    }
    assert_eq!(database.number("SELECT count(*) FROM session_member").await, 3);
}

pub(super) async fn a_deleted_session_is_absent_but_its_id_stays_taken(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let at = database.at(1);
    database.execute(&format!("UPDATE session SET deleted_at = {at}")).await;
    assert_eq!(store.access(&session("s"), &user("ada")).await.unwrap(), None);
    for owner in ["ada", "bob"] {
        let taken = store.create_session(&new_session("s", owner)).await.unwrap();
        assert_eq!(taken, CreatedSession { created: false, access: None });
    }
}

fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| &*message.content).collect()
}

pub(super) async fn missed_messages_come_in_pages(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let mut all = Vec::new();
    for text in ["1", "2", "3", "4", "5"] {
        all.push(said(&store, "s", text).await);
        said(&store, "t", "elsewhere").await;
    }
    let page = store.missed(&session("s"), all[0].id, 2).await.unwrap();
    assert_eq!((texts(&page.messages), page.has_more), (vec!["2", "3"], true));
    let page = store.missed(&session("s"), page.messages[1].id, 2).await.unwrap();
    assert_eq!((texts(&page.messages), page.has_more), (vec!["4", "5"], false));
    let page = store.missed(&session("s"), all[4].id, 2).await.unwrap();
    assert_eq!((page.messages, page.has_more), (Vec::new(), false));
    let page = store.missed(&session("s"), all[0].id, 0).await.unwrap();
    assert_eq!((page.messages, page.has_more), (Vec::new(), true));
}

pub(super) async fn missed_without_a_known_last_is_the_newest_page(database: &Database) {
    let store = with_sessions(database, &["s", "t", "empty"]).await;
    for text in ["1", "2", "3"] {
        said(&store, "s", text).await;
    }
    let elsewhere = said(&store, "t", "elsewhere").await.id;
    for last in [MessageId::new(), elsewhere] {
        let page = store.missed(&session("s"), last, 2).await.unwrap();
        assert_eq!((texts(&page.messages), page.has_more), (vec!["2", "3"], true));
        let page = store.missed(&session("s"), last, 3).await.unwrap();
        assert_eq!((texts(&page.messages), page.has_more), (vec!["1", "2", "3"], false));
    }
    for id in ["empty", "missing"] {
        let page = store.missed(&session(id), elsewhere, 2).await.unwrap();
        assert_eq!((page.messages, page.has_more), (Vec::new(), false));
    }
}

pub(super) async fn a_deleted_message_keeps_its_place_without_its_text(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let mut all = Vec::new();
    for text in ["1", "2", "3"] {
        all.push(said(&store, "s", text).await);
    }
    let (id, at) = (database.id(all[1].id.0), database.at(7));
    database.execute(&format!("UPDATE message SET deleted_at = {at} WHERE id = {id}")).await;
    let page = store.missed(&session("s"), all[0].id, 5).await.unwrap();
    assert_eq!(texts(&page.messages), ["", "3"]);
    assert_eq!(page.messages[0].deleted_at.unwrap().as_millis(), 7_000);
    let page = store.missed(&session("s"), all[1].id, 5).await.unwrap();
    assert_eq!(texts(&page.messages), ["3"], "it can still be the last one seen");
    let context = store.context(&session("s"), all[2].id, 5).await.unwrap();
    assert_eq!(texts(&context), ["1", "3"]);
    let context = store.context(&session("s"), all[1].id, 5).await.unwrap();
    assert_eq!(texts(&context), ["1"]);
    assert_eq!(database.number("SELECT count(*) FROM message WHERE NOT is_deleted").await, 2);
}

pub(super) async fn context_is_what_was_said_up_to_a_message(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let (first, ..) = accepted(&store, &prompt("s", "1")).await;
    finished(&store, &completed(&first)).await;
    let third = said(&store, "s", "3").await;
    said(&store, "s", "4").await;
    let context = store.context(&session("s"), third.id, 10).await.unwrap();
    assert_eq!(texts(&context), ["1", "the answer", "3"]);
    let context = store.context(&session("s"), third.id, 2).await.unwrap();
    assert_eq!(texts(&context), ["the answer", "3"]);
    assert_eq!(store.context(&session("t"), third.id, 10).await.unwrap(), []);
    assert_eq!(store.context(&session("s"), MessageId::new(), 10).await.unwrap(), []);
}

pub(super) async fn reactions_and_attachments_come_with_their_message(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let bare = said(&store, "s", "bare").await;
    let full = said(&store, "s", "full").await;
    let message = database.id(full.id.0);
    for (at, who, emoji) in [(3, "cyd", "👍"), (1, "ada", "👍"), (2, "bob", "🎉")] {
        let (id, at) = (database.id(Uuid::now_v7()), database.at(at));
        let insert = format!(
            "INSERT INTO message_reaction (id, message_id, user_id, emoji, created_at) \
             VALUES ({id}, {message}, '{who}', '{emoji}', {at})"
        );
        database.execute(&insert).await;
    }
    let (id, at) = (database.id(Uuid::now_v7()), database.at(1));
    let insert = format!(
        "INSERT INTO message_attachment (id, message_id, file_name, file_url, mime_type, \
         file_size, metadata, created_at) VALUES ({id}, {message}, 'a.png', \
         'https://example.org/a.png', 'image/png', 5000000000, '{{\"w\": 2}}', {at})"
    );
    database.execute(&insert).await;
    let stored = messages(&store, "s").await;
    assert_eq!(stored[0], bare);
    let reaction = |emoji: &str, users: &[&str]| Reaction {
        emoji: emoji.to_owned(),
        users: users.iter().map(|id| user(id)).collect(),
    };
    assert_eq!(stored[1].reactions, [reaction("👍", &["ada", "cyd"]), reaction("🎉", &["bob"])]);
    let attachment = Attachment {
        id: stored[1].attachments[0].id,
        file_name: "a.png".to_owned(),
        file_url: "https://example.org/a.png".to_owned(),
        mime_type: "image/png".to_owned(),
        file_size: 5_000_000_000,
        metadata: serde_json::json!({"w": 2}).as_object().unwrap().clone(),
    };
    assert_eq!(stored[1].attachments, [attachment]);
}
