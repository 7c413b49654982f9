//! Sending messages.

use std::sync::Arc;

use futures::future::join_all;
use tokencast::domain::{Attachment, Author, EventKind, MessageId};
use tokencast::store::{NewMessage, Sent, StoreError};

use super::database::{
    Database, accepted, file, messages, note, outbox, prompt, revisions, said, sent, session,
    stored, user, with_sessions,
};

pub(super) async fn a_message_is_stored_with_its_files_and_its_event(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let parent = said(&store, "s", "first").await;
    let new = NewMessage {
        parent: Some(parent.id),
        attachments: vec![file("b.png"), file("a.png")],
        client_message_id: Some("c".to_owned()),
        ..note("s", "hello")
    };
    let (message, outgoing) = sent(&store, &new).await;
    assert_eq!((message.ordinal, message.author), (2, Author::User));
    assert_eq!((message.user.as_ref(), &*message.content), (Some(&user("ada")), "hello"));
    assert_eq!((message.parent, message.edited_at), (Some(parent.id), None));
    assert_eq!(message.client_message_id.as_deref(), Some("c"));
    assert_eq!(names(&message.attachments), ["b.png", "a.png"]);
    let wanted = file("b.png");
    let kept = &message.attachments[0];
    assert_eq!((&kept.file_url, &kept.mime_type), (&wanted.file_url, &wanted.mime_type));
    assert_eq!((kept.file_size, &kept.metadata), (wanted.file_size, &wanted.metadata));

    assert_eq!(stored(&store, message.id).await, message);
    assert_eq!(messages(&store, "s").await, [parent, message.clone()]);
    assert_eq!((&outgoing.session, outgoing.revision), (&session("s"), 2));
    assert_eq!(outgoing.event.kind, EventKind::MessageNew(Arc::new(message.clone())));
    assert_eq!(outbox(&store).await[1], outgoing);
    let access = store.access(&session("s"), &user("ada")).await.unwrap().unwrap();
    assert_eq!(access.session.last_message_at, Some(message.created_at));
    assert_eq!((access.session.last_ordinal, message.ordinal), (2, 2));

    let (bare, _) = sent(&store, &note("s", "")).await;
    assert_eq!((bare.ordinal, stored(&store, bare.id).await), (3, bare));
}

fn names(attachments: &[Attachment]) -> Vec<&str> {
    attachments.iter().map(|attachment| &*attachment.file_name).collect()
}

pub(super) async fn a_repeated_send_answers_with_the_message_as_it_is_now(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let parent = said(&store, "s", "parent").await;
    let new = NewMessage {
        parent: Some(parent.id),
        attachments: vec![file("a.png")],
        client_message_id: Some("c".to_owned()),
        ..note("s", "hello")
    };
    let (first, _) = sent(&store, &new).await;
    store.react(first.id, &user("bob"), "👍", 9).await.unwrap();
    store.edit(first.id, "better").await.unwrap();
    // Known comes before the parent, which is gone by now.
    store.delete_message(parent.id, &user("ada")).await.unwrap();
    let again = NewMessage { content: "other".to_owned(), ..new.clone() };
    let known = known(&store.send(&again).await.unwrap());
    assert_eq!((known.id, &*known.content), (first.id, "better"));
    assert_eq!((known.reactions.len(), known.attachments.len()), (1, 1));
    assert_eq!(messages(&store, "s").await.len(), 2);
    assert_eq!(revisions(&store).await, 5, "a retry takes no revision");

    // The id is the session's and the user's, and a prompt's as well as a message's.
    sent(&store, &NewMessage { session: session("t"), parent: None, ..new.clone() }).await;
    sent(&store, &NewMessage { user: user("bob"), parent: None, ..new.clone() }).await;
    let asked = prompt("s", "ask");
    let asked =
        tokencast::store::NewGeneration { client_message_id: Some("p".to_owned()), ..asked };
    let (_, asked, _) = accepted(&store, &asked).await;
    let new = NewMessage { client_message_id: Some("p".to_owned()), ..note("s", "ask") };
    assert_eq!(self::known(&store.send(&new).await.unwrap()).id, asked.id);
    assert_eq!(sent(&store, &note("s", "next")).await.0.ordinal, 5, "a retry takes no ordinal");
}

fn known(sent: &Sent) -> tokencast::domain::Message {
    match sent {
        Sent::Known { message } => message.clone(),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn concurrent_duplicates_are_one_message(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    for round in 0..5 {
        let tries = join_all((0..8).map(|at| {
            let node = nodes[at % 2].clone();
            let client_message_id = Some(format!("c{round}"));
            async move {
                let attachments = vec![file("a.png")];
                let new = NewMessage { client_message_id, attachments, ..note("s", "hello") };
                node.send(&new).await.unwrap()
            }
        }))
        .await;
        let made = tries.iter().filter(|sent| matches!(sent, Sent::New { .. })).count();
        let mut answers: Vec<_> = tries
            .into_iter()
            .map(|sent| match sent {
                Sent::New { message, .. } | Sent::Known { message } => message,
                other => panic!("{other:?}"),
            })
            .collect();
        answers.dedup();
        assert_eq!((made, answers.len()), (1, 1));
    }
    let ordinals: Vec<u64> = messages(&nodes[0], "s").await.iter().map(|m| m.ordinal).collect();
    assert_eq!(ordinals, [1, 2, 3, 4, 5]);
    assert_eq!(revisions(&nodes[0]).await, 5);
    assert_eq!(database.number("SELECT count(*) FROM message_attachment").await, 5);
}

pub(super) async fn a_reply_needs_a_parent_that_its_session_has(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let elsewhere = said(&store, "t", "elsewhere").await.id;
    let deleted = said(&store, "s", "deleted").await.id;
    store.delete_message(deleted, &user("ada")).await.unwrap().unwrap();
    for parent in [elsewhere, deleted, MessageId::new()] {
        let new = NewMessage { parent: Some(parent), ..note("s", "reply") };
        let refused = store.send(&new).await.unwrap();
        assert!(matches!(refused, Sent::NoParent), "{refused:?}");
    }
    let parent = sent(&store, &note("s", "parent")).await.0;
    assert_eq!(parent.ordinal, 2, "what was refused takes no ordinal");
    let reply = NewMessage { parent: Some(parent.id), ..note("s", "reply") };
    assert_eq!(sent(&store, &reply).await.1.revision, 4);
}

pub(super) async fn a_send_to_a_session_that_is_missing_or_deleted_stores_nothing(
    database: &Database,
) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewMessage { client_message_id: Some("c".to_owned()), ..note("s", "hello") };
    sent(&store, &new).await;
    store.delete_session(&session("s"), &user("ada")).await.unwrap().unwrap();
    for new in [new, note("s", "more"), note("missing", "hello")] {
        let refused = store.send(&new).await.unwrap();
        assert!(matches!(refused, Sent::NoSession), "{refused:?}");
    }
    assert_eq!(database.number("SELECT count(*) FROM message").await, 1);
    assert_eq!(revisions(&store).await, 2);
}

/// PostgreSQL holds U+0000 neither in text nor in JSON: both refuse it, rather than one of them.
pub(super) async fn nothing_with_nul_is_stored(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (message, _) = sent(&store, &note("s", "hello")).await;
    let nul = || "a\0b".to_owned();
    let of = |metadata: serde_json::Value| metadata.as_object().unwrap().clone();
    let mut files = vec![file("a.png"); 6];
    files[0].file_name = nul();
    files[1].file_url = nul();
    files[2].mime_type = nul();
    files[3].metadata = of(serde_json::json!({"a\0": 1}));
    files[4].metadata = of(serde_json::json!({"a": [1, {"b": "\0"}]}));
    files[5].metadata = of(serde_json::json!({"a": {"\0": true}}));
    let mut refused = Vec::new();
    for file in files {
        let files = [file];
        refused.push(store.attach(message.id, &files, 9).await.map(drop));
        let new = NewMessage { attachments: files.to_vec(), ..note("s", "x") };
        refused.push(store.send(&new).await.map(drop));
    }
    refused.push(store.send(&note("s", "a\0b")).await.map(drop));
    let new = NewMessage { client_message_id: Some(nul()), ..note("s", "x") };
    refused.push(store.send(&new).await.map(drop));
    refused.push(store.edit(message.id, "a\0b").await.map(drop));
    refused.push(store.react(message.id, &user("ada"), "\0", 9).await.map(drop));
    let title = tokencast::domain::SessionChange {
        title: Some(Some(nul())),
        ..tokencast::domain::SessionChange::default()
    };
    refused.push(store.update_session(&session("s"), &title).await.map(drop));
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::Unexpected { .. })), "{refused:?}");
    }
    assert_eq!(messages(&store, "s").await, [message]);
    assert_eq!(revisions(&store).await, 1);
}
