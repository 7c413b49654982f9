//! Running, stopping and ending generations.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::{
    Author, Error, ErrorCode, EventKind, GenerationId, NodeId, Outcome, Status, StopReason,
    Timestamp, Usage,
};
use tokencast::store::{Finish, Finished, StopRequested};

use super::database::{
    Database, accepted, completed, finished, messages, outbox, prompt, user, with_sessions,
};

/// What the message of [`completed`] keeps of its usage: not what came out of a cache.
const KEPT_USAGE: Usage = Usage { input_tokens: 3, output_tokens: 5, cached_tokens: 0 };

pub(super) async fn an_answer_is_stored_with_the_event_that_ends_it(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (generation, prompt, before) = accepted(&store, &prompt("s", "hello")).await;
    let first_token_at = Some(Timestamp::from_millis(1_767_323_045_678));
    let mut metadata = serde_json::Map::new();
    metadata.insert("partial".to_owned(), true.into());
    let usage = Usage { cached_tokens: 2, ..completed(&generation).usage };
    let answered_by = Some(("second".to_owned(), "parrot-3".to_owned()));
    let finish = Finish {
        first_token_at,
        metadata,
        usage,
        answered_by,
        errors: 3,
        ..completed(&generation)
    };
    let (answer, outgoing) = finished(&store, &finish).await;

    assert_eq!((answer.id, answer.ordinal), (generation.message, 2));
    let access = store.access(&answer.session, &user("ada")).await.unwrap().unwrap();
    assert_eq!(access.session.last_ordinal, 2);
    assert_eq!((answer.author, &*answer.content), (Author::Assistant, "the answer"));
    assert_eq!((answer.user.as_ref(), answer.agent.as_ref()), (None, Some(&generation.agent)));
    assert_eq!((answer.parent, answer.tokens), (Some(prompt.id), Some(4)));
    assert_eq!((answer.usage, &answer.metadata), (Some(KEPT_USAGE), &finish.metadata));
    assert_eq!(messages(&store, "s").await, [prompt, answer.clone()]);
    let kept: Vec<_> = outbox(&store).await.iter().map(|row| row.event.id).collect();
    assert_eq!(kept, [before[0].event.id, outgoing.event.id]);
    let kind = EventKind::GenerationCompleted {
        generation: generation.id,
        message: Arc::new(answer.clone()),
        reason: StopReason::EndTurn,
        usage,
    };
    assert_eq!(outgoing.event.kind, kind);

    assert_eq!((generation.tokens, generation.errors), (None, 0));
    let stored = store.generation(generation.id).await.unwrap().unwrap();
    assert_eq!((stored.status, stored.first_token_at), (Status::Completed, first_token_at));
    assert!(stored.completed_at.unwrap() >= stored.created_at);
    assert_eq!((stored.tokens, stored.errors, stored.attempt), (Some(4), 3, 1));
    assert_eq!((&*stored.provider, &*stored.model), ("second", "parrot-3"));
    let session = &generation.session;
    let answers = store.answers_after(session, 0, 10).await.unwrap();
    assert_eq!((answers[0].usage, answers[0].message.usage), (usage, Some(KEPT_USAGE)));
    // As a node of the version before stores it.
    database.execute("UPDATE stream SET usage = '{\"inputTokens\":1,\"outputTokens\":2}'").await;
    let answers = store.answers_after(session, 0, 10).await.unwrap();
    assert_eq!(answers[0].usage, Usage { input_tokens: 1, output_tokens: 2, cached_tokens: 0 });
}

pub(super) async fn each_outcome_has_its_status_and_event(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let error = Error::new(ErrorCode::Timeout, "it took too long")
        .retry_after(Duration::from_millis(1_500));
    let outcomes = [
        Outcome::Completed { reason: StopReason::Other("refusal".to_owned()) },
        Outcome::Stopped { by: user("bob") },
        Outcome::Failed { error: error.clone() },
    ];
    for outcome in outcomes {
        let (generation, ..) = accepted(&store, &prompt("s", "hello")).await;
        let finish = Finish {
            content: String::new(),
            outcome: outcome.clone(),
            tokens: u64::MAX,
            ..completed(&generation)
        };
        let (_, outgoing) = finished(&store, &finish).await;
        match (&outgoing.event.kind, &outcome) {
            (
                EventKind::GenerationCompleted { reason, .. },
                Outcome::Completed { reason: ended },
            ) => {
                assert_eq!(reason, ended);
            }
            (EventKind::GenerationStopped { by, .. }, Outcome::Stopped { by: stopper }) => {
                assert_eq!(by, stopper);
            }
            (EventKind::GenerationFailed { error: told, .. }, Outcome::Failed { .. }) => {
                assert_eq!(*told, error);
            }
            other => panic!("{other:?}"),
        }
        let stored = store.generation(generation.id).await.unwrap().unwrap();
        assert_eq!(stored.status, outcome.status());
        assert_eq!((&*stored.provider, &*stored.model), ("scripted", "parrot-1"));
        assert_eq!(stored.tokens, Some(i64::MAX.unsigned_abs()), "as many as are kept");
        assert!(!store.owns(generation.id, generation.owner, 1).await.unwrap());
    }
    let failed = "SELECT count(*) FROM stream WHERE error IS NOT NULL AND status = 'failed'";
    assert_eq!(database.number(failed).await, 1);
}

pub(super) async fn racing_ends_store_one_answer(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    for _ in 0..5 {
        let (generation, ..) = accepted(&nodes[0], &prompt("s", "hello")).await;
        let ends = join_all((0..6).map(|at| {
            let (node, finish) = (nodes[at % 2].clone(), completed(&generation));
            async move { node.finish(&finish).await.unwrap() }
        }))
        .await;
        let stored = ends.iter().filter(|end| matches!(end, Finished::Stored { .. })).count();
        let over = ends.iter().filter(|end| matches!(end, Finished::AlreadyFinal)).count();
        assert_eq!((stored, over), (1, 5));
    }
    let ordinals: Vec<u64> = messages(&nodes[0], "s").await.iter().map(|m| m.ordinal).collect();
    assert_eq!(ordinals, (1..=10).collect::<Vec<u64>>());
    assert_eq!(outbox(&nodes[0]).await.len(), 10);
}

pub(super) async fn only_the_running_attempt_of_the_owner_ends_it(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (generation, ..) = accepted(&store, &prompt("s", "hello")).await;
    let mine = completed(&generation);
    let foreign = [
        Finish { owner: NodeId::new(), ..mine.clone() },
        Finish { attempt: 2, ..mine.clone() },
        Finish { generation: GenerationId::new(), ..mine.clone() },
    ];
    for finish in &foreign {
        assert!(matches!(store.finish(finish).await.unwrap(), Finished::NotOwner));
    }
    let (id, owner) = (generation.id, generation.owner);
    assert!(store.owns(id, owner, 1).await.unwrap());
    assert!(!store.owns(id, owner, 2).await.unwrap());
    assert!(!store.owns(id, NodeId::new(), 1).await.unwrap());
    assert!(!store.owns(GenerationId::new(), owner, 1).await.unwrap());
    // Another node has taken over.
    database.execute("UPDATE stream SET attempt = 2").await;
    assert!(matches!(store.finish(&mine).await.unwrap(), Finished::NotOwner));
    finished(&store, &foreign[1]).await;
    assert!(matches!(store.finish(&mine).await.unwrap(), Finished::AlreadyFinal));
    assert_eq!(messages(&store, "s").await.len(), 2);
}

pub(super) async fn a_generation_begins_for_its_owner_unless_it_is_to_stop(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (first, ..) = accepted(&store, &prompt("s", "hello")).await;
    assert!(!store.begin(first.id, NodeId::new(), 1).await.unwrap());
    assert!(!store.begin(first.id, first.owner, 2).await.unwrap());
    assert_eq!(store.generation(first.id).await.unwrap(), Some(first.clone()));
    assert!(store.begin(first.id, first.owner, 1).await.unwrap());
    let begun = store.generation(first.id).await.unwrap().unwrap();
    assert_eq!(begun.status, Status::Streaming);
    assert!(begun.started_at.unwrap() >= begun.created_at);
    assert!(store.begin(first.id, first.owner, 1).await.unwrap(), "a lost answer, asked again");
    assert_eq!(store.generation(first.id).await.unwrap(), Some(begun));
    finished(&store, &completed(&first)).await;
    assert!(!store.begin(first.id, first.owner, 1).await.unwrap());

    let (second, ..) = accepted(&store, &prompt("s", "hello")).await;
    store.request_stop(second.id, &user("ada")).await.unwrap();
    assert!(!store.begin(second.id, second.owner, 1).await.unwrap());
}

pub(super) async fn a_stop_request_is_kept_until_the_end(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (stopped, ..) = accepted(&store, &prompt("s", "hello")).await;
    let (other, ..) = accepted(&store, &prompt("s", "hello")).await;
    let requested = StopRequested::Stored { owner: stopped.owner };
    assert_eq!(store.request_stop(stopped.id, &user("ada")).await.unwrap(), requested);
    assert_eq!(store.request_stop(stopped.id, &user("bob")).await.unwrap(), requested);
    let found = store.stop_requests(stopped.owner).await.unwrap();
    assert_eq!(found, [(stopped.id, user("ada"))], "the first one's");
    assert_eq!(store.stop_requests(other.owner).await.unwrap(), []);
    let stored = store.generation(stopped.id).await.unwrap().unwrap();
    assert_eq!(stored.stop_requested, Some(user("ada")));

    finished(&store, &completed(&stopped)).await;
    let over = store.request_stop(stopped.id, &user("ada")).await.unwrap();
    assert_eq!(over, StopRequested::AlreadyFinal);
    assert_eq!(store.stop_requests(stopped.owner).await.unwrap(), []);
    let unknown = store.request_stop(GenerationId::new(), &user("ada")).await.unwrap();
    assert_eq!(unknown, StopRequested::Unknown);
}

pub(super) async fn a_stop_and_an_end_may_race(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    for _ in 0..10 {
        let (generation, ..) = accepted(&nodes[0], &prompt("s", "hello")).await;
        let (finish, ada) = (completed(&generation), user("ada"));
        let (asked, ended) =
            tokio::join!(nodes[1].request_stop(generation.id, &ada), nodes[0].finish(&finish));
        assert!(matches!(ended.unwrap(), Finished::Stored { .. }));
        let stored = nodes[0].generation(generation.id).await.unwrap().unwrap();
        match asked.unwrap() {
            StopRequested::Stored { owner } => {
                assert_eq!((owner, stored.stop_requested), (generation.owner, Some(ada)));
            }
            StopRequested::AlreadyFinal => assert_eq!(stored.stop_requested, None),
            StopRequested::Unknown => panic!("it is known"),
        }
    }
}
