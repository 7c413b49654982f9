//! A user's own session with an agent, and the answers that ended.

use std::time::Duration;

use futures::future::join_all;
use tokencast::domain::{
    AgentId, Author, Error, ErrorCode, Membership, Outcome, SessionChange, StopReason, Visibility,
};
use tokencast::store::{Finish, Kept, SharedStore};
use uuid::Uuid;

use super::database::{
    Database, accepted, completed, finished, messages, new_session, note, prompt, sent, session,
    stored, user, with_sessions,
};

fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

pub(super) async fn a_user_has_one_session_with_each_agent(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let (ada, parrot) = (user("ada"), agent("parrot"));
    let first = store.persona_session(&ada, &parrot).await.unwrap();
    let made = first.access.clone().unwrap();
    assert!(first.created);
    let id = made.session.id.clone();
    assert_eq!(Uuid::parse_str(id.as_str()).unwrap().get_version_num(), 7);
    assert_eq!((&made.session.owner, &made.session.agent), (&ada, &Some(parrot.clone())));
    assert_eq!((made.session.visibility, &made.session.title), (Visibility::Private, &None));
    assert_eq!((made.session.member_count, made.membership), (1, Some(Membership::Owner)));
    let found = store.access(&id, &ada).await.unwrap();
    assert_eq!(found, first.access, "as it is stored, its membership with it");
    assert_eq!(store.members(&id, 9).await.unwrap().len(), 1);

    let again = store.persona_session(&ada, &parrot).await.unwrap();
    assert_eq!((again.created, again.access), (false, found));
    for (owner, agent) in [("ada", agent("helper")), ("bob", parrot.clone())] {
        let other = store.persona_session(&user(owner), &agent).await.unwrap();
        assert!(other.created, "{owner}'s own with {agent}");
        assert_ne!(other.access.unwrap().session.id, id);
    }
    // Whoever answers in it by now, it stays the one that was made for that agent.
    let change = SessionChange { agent: Some(None), ..Default::default() };
    store.update_session(&id, &change).await.unwrap().unwrap();
    let changed = store.persona_session(&ada, &parrot).await.unwrap();
    assert_eq!((changed.created, changed.access.unwrap().session.id), (false, id.clone()));

    store.delete_session(&id, &ada).await.unwrap().unwrap();
    let next = store.persona_session(&ada, &parrot).await.unwrap();
    assert!(next.created, "a deleted one does not count");
    assert_ne!(next.access.unwrap().session.id, id);
}

pub(super) async fn of_racing_makers_all_get_the_same_session(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    for round in 0..5 {
        let parrot = agent(&format!("parrot{round}"));
        let asked = (0..6).map(|at| {
            let (node, parrot) = (nodes[at % 2].clone(), parrot.clone());
            async move { node.persona_session(&user("ada"), &parrot).await.unwrap() }
        });
        let found = join_all(asked).await;
        assert_eq!(found.iter().filter(|found| found.created).count(), 1);
        let access: Vec<_> = found.into_iter().map(|found| found.access.unwrap()).collect();
        assert!(access.iter().all(|other| *other == access[0]));
    }
}

async fn answered(store: &SharedStore, ordinal: u64, limit: u32) -> Vec<u64> {
    let found = store.answers_after(&session("s"), ordinal, limit).await.unwrap();
    found.iter().map(|answered| answered.message.ordinal).collect()
}

pub(super) async fn answers_are_found_with_how_they_ended(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let error = Error::new(ErrorCode::Timeout, "it took too long: 😀")
        .retry_after(Duration::from_millis(1_500));
    let outcomes = [
        Outcome::Completed { reason: StopReason::EndTurn },
        Outcome::Stopped { by: user("bob") },
        Outcome::Failed { error },
        Outcome::Failed { error: Error::new(ErrorCode::Provider, "no") },
    ];
    let mut ended = Vec::new();
    for outcome in outcomes {
        let (generation, ..) = accepted(&store, &prompt("s", "hello")).await;
        let finish = Finish { outcome: outcome.clone(), ..completed(&generation) };
        let (answer, _) = finished(&store, &finish).await;
        ended.push((generation.id, outcome, finish.usage, answer));
    }
    let found = store.answers_after(&session("s"), 0, 9).await.unwrap();
    let found: Vec<_> = found
        .into_iter()
        .map(|answered| (answered.generation, answered.outcome, answered.usage, answered.message))
        .collect();
    assert_eq!(found, ended);
    assert!(store.answers_after(&session("t"), 0, 9).await.unwrap().is_empty());

    // One who asked to stop it is the one who did, whoever's word came through.
    let (generation, ..) = accepted(&store, &prompt("t", "hello")).await;
    store.request_stop(generation.id, &user("ada")).await.unwrap();
    let outcome = Outcome::Stopped { by: user("bob") };
    finished(&store, &Finish { outcome, ..completed(&generation) }).await;
    let found = store.answers_after(&session("t"), 0, 9).await.unwrap();
    assert_eq!(found[0].outcome, Outcome::Stopped { by: user("ada") });
    // A reason is not kept.
    let (generation, ..) = accepted(&store, &prompt("t", "hello")).await;
    let outcome = Outcome::Completed { reason: StopReason::MaxTokens };
    finished(&store, &Finish { outcome, ..completed(&generation) }).await;
    let found = store.answers_after(&session("t"), 2, 9).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].outcome, Outcome::Completed { reason: StopReason::EndTurn });
    // As they are now, with what others gave them.
    let id = found[0].message.id;
    store.react(id, &user("ada"), "+", 9).await.unwrap();
    let found = store.answers_after(&session("t"), 2, 9).await.unwrap();
    assert_eq!(found[0].message, stored(&store, id).await);
    assert_eq!(found[0].message.reactions.len(), 1);
    store.delete_message(id, &user("ada")).await.unwrap().unwrap();
    let found = store.answers_after(&session("t"), 2, 9).await.unwrap();
    assert_eq!((&*found[0].message.content, found[0].message.id), ("", id));
}

pub(super) async fn the_newest_answers_after_an_ordinal_come_in_their_order(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    store.create_session(&new_session("other", "ada")).await.unwrap();
    let (first, ..) = accepted(&store, &prompt("s", "1")).await;
    let (second, ..) = accepted(&store, &prompt("s", "2")).await;
    let (foreign, ..) = accepted(&store, &prompt("other", "1")).await;
    finished(&store, &completed(&foreign)).await;
    // The later one ends first: 3, then 5, with a message between and one after.
    finished(&store, &completed(&second)).await;
    sent(&store, &note("s", "4")).await;
    finished(&store, &completed(&first)).await;
    sent(&store, &note("s", "6")).await;
    let (running, ..) = accepted(&store, &prompt("s", "7")).await;
    assert!(store.begin(running.id, running.owner, 1).await.unwrap());
    assert_eq!(answered(&store, 0, 9).await, [3, 5]);
    assert_eq!(answered(&store, 2, 9).await, [3, 5]);
    assert_eq!(answered(&store, 3, 9).await, [5]);
    assert_eq!(answered(&store, 5, 9).await, [0; 0]);
    assert_eq!(answered(&store, u64::MAX, 9).await, [0; 0]);
    assert_eq!(answered(&store, 0, 1).await, [5], "the newest");
    finished(&store, &completed(&running)).await;
    assert_eq!(answered(&store, 3, 9).await, [5, 8]);
    // No further back than the last ten thousand messages.
    database.execute("UPDATE session SET last_ordinal = 10003 WHERE id = 's'").await;
    assert_eq!(answered(&store, 0, 9).await, [5, 8]);
}

/// The ordinals; those of answers are negative.
async fn kept(store: &SharedStore, after: u64, limit: u32, answers_only: bool) -> Vec<i64> {
    let found = store.messages_after(&session("s"), after, limit, answers_only).await.unwrap();
    let ordinal = |kept: &Kept| i64::try_from(kept.message().ordinal).unwrap();
    found
        .iter()
        .map(|kept| match kept {
            Kept::Said(message) => {
                assert_eq!(message.author, Author::User);
                ordinal(kept)
            }
            Kept::Answer(answered) => {
                assert_eq!((answered.attempt, answered.message.author), (1, Author::Assistant));
                -ordinal(kept)
            }
        })
        .collect()
}

pub(super) async fn messages_after_an_ordinal_come_oldest_first_with_their_ends(
    database: &Database,
) {
    let store = with_sessions(database, &["s"]).await;
    store.create_session(&new_session("other", "ada")).await.unwrap();
    let (first, ..) = accepted(&store, &prompt("s", "1")).await;
    let (second, ..) = accepted(&store, &prompt("s", "2")).await;
    let (foreign, ..) = accepted(&store, &prompt("other", "1")).await;
    finished(&store, &completed(&foreign)).await;
    finished(&store, &completed(&second)).await;
    sent(&store, &note("s", "4")).await;
    finished(&store, &completed(&first)).await;
    sent(&store, &note("s", "6")).await;
    let (running, ..) = accepted(&store, &prompt("s", "7")).await;
    assert!(store.begin(running.id, running.owner, 1).await.unwrap());
    assert_eq!(kept(&store, 0, 9, false).await, [1, 2, -3, 4, -5, 6, 7]);
    assert_eq!(kept(&store, 2, 3, false).await, [-3, 4, -5]);
    assert_eq!(kept(&store, 3, 9, true).await, [-5]);
    assert_eq!(kept(&store, 0, 1, true).await, [-3], "the oldest");
    assert_eq!(kept(&store, 7, 9, false).await, [0; 0]);
    assert_eq!(kept(&store, u64::MAX, 9, false).await, [0; 0]);
    // Of deleted ones only answers are left, whose generations have ended.
    let all = messages(&store, "s").await;
    for message in [&all[3], &all[4]] {
        store.delete_message(message.id, &user("ada")).await.unwrap().unwrap();
    }
    assert_eq!(kept(&store, 2, 9, false).await, [-3, -5, 6, 7]);
    // As they are now, with what others gave them.
    store.react(all[5].id, &user("ada"), "+", 9).await.unwrap();
    let found = store.messages_after(&session("s"), 4, 9, false).await.unwrap();
    assert_eq!(found[1].message(), &stored(&store, all[5].id).await);
    assert_eq!(found[0].message().content, "");
}
