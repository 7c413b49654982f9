//! Accepting prompts.

use std::sync::Arc;

use futures::future::join_all;
use tokencast::domain::{Author, EventKind, MessageId, Status};
use tokencast::store::{Accepted, NewGeneration, StoreError};

use super::database::{
    Database, accepted, completed, finished, messages, outbox, prompt, said, session, user,
    with_sessions,
};

pub(super) async fn a_prompt_is_stored_with_its_generation_and_its_event(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewGeneration { client_message_id: Some("c".to_owned()), ..prompt("s", "hello") };
    let (generation, prompt, outgoing) = accepted(&store, &new).await;

    assert_eq!((prompt.ordinal, prompt.author), (1, Author::User));
    assert_eq!((prompt.user.as_ref(), &*prompt.content), (Some(&user("ada")), "hello"));
    assert_eq!(prompt.client_message_id.as_deref(), Some("c"));
    assert_eq!(messages(&store, "s").await, std::slice::from_ref(&prompt));

    assert_eq!((generation.status, generation.attempt), (Status::Pending, 1));
    assert_eq!((generation.prompt, generation.owner), (prompt.id, new.owner));
    assert_eq!(generation.config, new.config);
    assert_eq!(store.generation(generation.id).await.unwrap(), Some(generation));

    assert_eq!(outbox(&store).await, outgoing);
    let [told] = &*outgoing else { panic!("{outgoing:?}") };
    assert_eq!(told.session, session("s"));
    assert_eq!(told.event.kind, EventKind::MessageNew(Arc::new(prompt.clone())));

    let access = store.access(&session("s"), &user("ada")).await.unwrap().unwrap();
    assert_eq!(access.session.last_message_at, Some(prompt.created_at));
    assert_eq!(access.session.last_ordinal, prompt.ordinal);

    let begun = NewGeneration { begun: true, ..super::database::prompt("s", "and this?") };
    let (generation, asked, _) = accepted(&store, &begun).await;
    assert_eq!(generation.status, Status::Streaming);
    assert_eq!(generation.started_at, Some(asked.created_at));
    assert_eq!(store.generation(generation.id).await.unwrap(), Some(generation));
}

pub(super) async fn a_repeated_client_id_answers_with_what_it_started(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewGeneration {
        client_message_id: Some("c".to_owned()),
        user_generations_max: 1,
        ..prompt("s", "hello")
    };
    let (first, first_prompt, _) = accepted(&store, &new).await;
    // Known comes before the limit, and what else the retry says does not matter.
    let again = NewGeneration { prompt: "other".to_owned(), ..new.clone() };
    match store.accept(&again).await.unwrap() {
        Accepted::Known { generation, prompt } => {
            assert_eq!((generation, prompt), (first.clone(), first_prompt));
        }
        other => panic!("{other:?}"),
    }
    // Still so once it has ended.
    finished(&store, &completed(&first)).await;
    match store.accept(&new).await.unwrap() {
        Accepted::Known { generation, .. } => assert_eq!(generation.status, Status::Completed),
        other => panic!("{other:?}"),
    }
    assert_eq!(said(&store, "s", "next").await.ordinal, 3, "a retry takes no ordinal");
}

pub(super) async fn a_client_id_belongs_to_its_session_and_user(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let new = NewGeneration { client_message_id: Some("c".to_owned()), ..prompt("s", "hello") };
    accepted(&store, &new).await;
    let other = || NewGeneration { prompt_id: MessageId::new(), ..new.clone() };
    accepted(&store, &NewGeneration { session: session("t"), ..other() }).await;
    accepted(&store, &NewGeneration { user: user("bob"), ..other() }).await;
    let upper = Some("C".to_owned());
    accepted(&store, &NewGeneration { client_message_id: upper, ..other() }).await;
    accepted(&store, &prompt("s", "no id")).await;
    accepted(&store, &prompt("s", "no id")).await;
}

pub(super) async fn a_client_id_of_a_message_without_generation_is_no_prompt(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewGeneration { client_message_id: Some("c".to_owned()), ..prompt("s", "hello") };
    accepted(&store, &new).await;
    database.execute("DELETE FROM stream").await;
    assert!(matches!(store.accept(&new).await.unwrap(), Accepted::NotAPrompt));
    assert_eq!(messages(&store, "s").await.len(), 1);
}

pub(super) async fn concurrent_duplicates_start_one_generation(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    for round in 0..5 {
        let tries = join_all((0..8).map(|at| {
            let node = nodes[at % 2].clone();
            let client_message_id = Some(format!("c{round}"));
            async move {
                let new = NewGeneration { client_message_id, ..prompt("s", "hello") };
                node.accept(&new).await.unwrap()
            }
        }))
        .await;
        let mut ids = Vec::new();
        let mut made = 0;
        for accepted in tries {
            match accepted {
                Accepted::New { generation, .. } => {
                    made += 1;
                    ids.push(generation.id);
                }
                Accepted::Known { generation, .. } => ids.push(generation.id),
                other => panic!("{other:?}"),
            }
        }
        ids.dedup();
        assert_eq!((made, ids.len()), (1, 1));
    }
    assert_eq!(messages(&nodes[0], "s").await.len(), 5);
    assert_eq!(outbox(&nodes[0]).await.len(), 5);
}

pub(super) async fn ordinals_are_dense_and_in_time_under_concurrency(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    // Prompts and answers, and refusals among them, which must leave no holes.
    join_all((0..12).map(|at| {
        let node = nodes[at % 2].clone();
        async move {
            let (generation, ..) = accepted(&node, &prompt("s", "hello")).await;
            let full = NewGeneration { user_generations_max: 1, ..prompt("s", "too many") };
            assert!(matches!(node.accept(&full).await.unwrap(), Accepted::TooMany));
            finished(&node, &completed(&generation)).await;
            drop(node.finish(&completed(&generation)).await.unwrap());
            // Another's, so that ada always has one too many.
            accepted(&node, &prompt("s", "stays")).await;
        }
    }))
    .await;
    let all = messages(&nodes[0], "s").await;
    let ordinals: Vec<u64> = all.iter().map(|message| message.ordinal).collect();
    assert_eq!(ordinals, (1..=36).collect::<Vec<u64>>());
    assert!(all.is_sorted_by_key(|message| message.created_at));
    let told: Vec<u64> = outbox(&nodes[0]).await.iter().map(ordinal).collect();
    assert_eq!(told, ordinals, "the outbox has the session's order");
}

fn ordinal(outgoing: &tokencast::store::Outgoing) -> u64 {
    match &outgoing.event.kind {
        EventKind::MessageNew(message) => message.ordinal,
        kind => kind.answer().unwrap().ordinal,
    }
}

pub(super) async fn the_limit_of_generations_holds_across_sessions_and_nodes(database: &Database) {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let nodes = [with_sessions(database, &names).await, database.open().await];
    let limited = |name: &str| NewGeneration { user_generations_max: 3, ..prompt(name, "hello") };
    let tries = join_all(names.iter().enumerate().map(|(at, name)| {
        let (node, new) = (nodes[at % 2].clone(), limited(name));
        async move { node.accept(&new).await.unwrap() }
    }))
    .await;
    let mut running = Vec::new();
    for accepted in tries {
        match accepted {
            Accepted::New { generation, .. } => running.push(generation),
            Accepted::TooMany => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(running.len(), 3);
    let bob = NewGeneration { user: user("bob"), ..limited("a") };
    accepted(&nodes[0], &bob).await;
    finished(&nodes[0], &completed(&running[0])).await;
    accepted(&nodes[1], &limited("a")).await;
    assert!(matches!(nodes[0].accept(&limited("b")).await.unwrap(), Accepted::TooMany));
    assert_eq!(database.number("SELECT count(*) FROM stream").await, 5);
}

pub(super) async fn a_session_that_is_missing_or_deleted_takes_nothing(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let at = database.at(1);
    database.execute(&format!("UPDATE session SET deleted_at = {at} WHERE id = 's'")).await;
    for id in ["s", "missing"] {
        let refused = store.accept(&prompt(id, "hello")).await.unwrap();
        assert!(matches!(refused, Accepted::NoSession), "{refused:?}");
    }
    assert_eq!(database.number("SELECT count(*) FROM message").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM outbox").await, 0);
}

pub(super) async fn long_and_odd_text_is_kept_as_it_is(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let odd = "'; DROP TABLE message; -- \" \\ \u{1}\u{7f}\u{2028}\u{feff}\u{fffd}\r\n\té e\u{301}";
    for text in ["😀".repeat(32_000), odd.to_owned(), " ".to_owned()] {
        let (generation, prompt, _) = accepted(&store, &prompt("s", &text)).await;
        assert_eq!(prompt.content, text);
        let mut finish = completed(&generation);
        finish.content = text.clone();
        let mut metadata = serde_json::Map::new();
        metadata.insert(odd.to_owned(), serde_json::json!({"a": [1, null, 2.5, text]}));
        finish.metadata = metadata;
        let (answer, _) = finished(&store, &finish).await;
        let stored = store.context(&session("s"), answer.id, 2).await.unwrap();
        assert_eq!(stored, [prompt, answer]);
    }
    assert_eq!(outbox(&store).await.len(), 6);
}

/// PostgreSQL's text cannot hold U+0000: both refuse it, rather than one of them.
pub(super) async fn text_with_nul_is_refused_and_stores_nothing(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (generation, ..) = accepted(&store, &prompt("s", "hello")).await;
    let with_id = NewGeneration { client_message_id: Some("\0".to_owned()), ..prompt("s", "x") };
    for new in [prompt("s", "a\0b"), with_id] {
        let refused = store.accept(&new).await;
        assert!(matches!(refused, Err(StoreError::Unexpected { .. })), "{refused:?}");
    }
    let mut finish = completed(&generation);
    finish.content = "a\0b".to_owned();
    let refused = store.finish(&finish).await;
    assert!(matches!(refused, Err(StoreError::Unexpected { .. })), "{refused:?}");
    assert_eq!(messages(&store, "s").await.len(), 1);
    finish.content = "ab".to_owned();
    assert_eq!(finished(&store, &finish).await.0.ordinal, 2);
}
