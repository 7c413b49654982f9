//! Editing and deleting messages, their files and their emojis.

use std::sync::Arc;

use futures::future::join_all;
use tokencast::domain::{AttachmentId, EventKind, MessageId};
use tokencast::store::{Attached, EMOJIS_OWN_MAX, NewMessage, Outgoing, Reacted, SharedStore};

use super::database::{
    Database, accepted, completed, file, finished, messages, note, outbox, prompt, revisions, said,
    sent, session, stored, user, with_sessions,
};

pub(super) async fn an_edit_changes_the_text_and_tells_of_the_whole_message(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewMessage { attachments: vec![file("a.png")], ..note("s", "hello") };
    let (before, _) = sent(&store, &new).await;
    let other = said(&store, "s", "other").await;
    store.react(before.id, &user("bob"), "👍", 9).await.unwrap();

    let changed = store.edit(before.id, "better").await.unwrap().unwrap();
    let message = stored(&store, before.id).await;
    assert_eq!(changed.message, message);
    assert_eq!(message.content, "better");
    assert_eq!(message.edited_at, Some(message.updated_at));
    assert!(message.updated_at >= before.created_at);
    assert_eq!((message.created_at, message.ordinal), (before.created_at, 1));
    assert_eq!((message.reactions.len(), &message.attachments), (1, &before.attachments));
    assert_eq!(changed.outgoing.event.kind, EventKind::MessageEdited(Arc::new(message.clone())));
    assert_eq!(changed.outgoing.event.at, message.updated_at);
    assert_eq!(outbox(&store).await[3], changed.outgoing);
    assert_eq!(stored(&store, other.id).await, other);
    assert!(store.edit(MessageId::new(), "x").await.unwrap().is_none());
    assert_eq!(revisions(&store).await, 4);
}

pub(super) async fn racing_edits_have_rising_revisions_and_the_last_one_stands(
    database: &Database,
) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    let (message, _) = sent(&nodes[0], &note("s", "hello")).await;
    let mut edits = join_all((0..16).map(|at| {
        let node = nodes[at % 2].clone();
        async move { node.edit(message.id, &format!("{at}")).await.unwrap().unwrap() }
    }))
    .await;
    edits.sort_by_key(|edit| edit.outgoing.revision);
    let told: Vec<Outgoing> = edits.iter().map(|edit| edit.outgoing.clone()).collect();
    assert_eq!(outbox(&nodes[0]).await[1..], told);
    assert!(told.is_sorted_by_key(|outgoing| outgoing.event.at));
    assert_eq!(revisions(&nodes[0]).await, 17);
    assert_eq!(stored(&nodes[0], message.id).await, edits[15].message);
}

pub(super) async fn a_deleted_message_is_read_without_what_it_had_and_changed_no_more(
    database: &Database,
) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewMessage { attachments: vec![file("a.png")], ..note("s", "hello") };
    let (message, _) = sent(&store, &new).await;
    let kept = said(&store, "s", "kept").await;
    for id in [message.id, kept.id] {
        store.react(id, &user("bob"), "👍", 9).await.unwrap();
    }
    let told = store.delete_message(message.id, &user("bob")).await.unwrap().unwrap();

    let deleted = stored(&store, message.id).await;
    let at = deleted.deleted_at.unwrap();
    assert_eq!(
        told.event.kind,
        EventKind::MessageDeleted { message: message.id, by: user("bob"), at }
    );
    assert_eq!((told.revision, deleted.updated_at), (5, at));
    assert_eq!((&*deleted.content, deleted.ordinal), ("", 1));
    assert_eq!((deleted.reactions.len(), deleted.attachments.len()), (0, 0));
    let page = messages(&store, "s").await;
    assert_eq!(page[0], deleted);
    assert_eq!(page[1].reactions.len(), 1);
    assert_eq!(outbox(&store).await[4], told);

    let attachment = message.attachments[0].id;
    assert!(store.edit(message.id, "x").await.unwrap().is_none());
    assert!(store.delete_message(message.id, &user("ada")).await.unwrap().is_none());
    assert!(store.delete_message(MessageId::new(), &user("ada")).await.unwrap().is_none());
    let reacted = store.react(message.id, &user("bob"), "👍", 9).await.unwrap();
    assert!(matches!(reacted, Reacted::Gone), "{reacted:?}");
    let attached = store.attach(message.id, &[file("b.png")], 9).await.unwrap();
    assert!(matches!(attached, Attached::Gone), "{attached:?}");
    assert_eq!(store.attachment(attachment).await.unwrap(), None);
    assert!(store.detach(attachment).await.unwrap().is_none());
    assert_eq!(revisions(&store).await, 5, "what was refused takes no revision");
    assert_eq!(stored(&store, message.id).await, deleted);
}

pub(super) async fn of_racing_deletes_one_deletes(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    let message = said(&nodes[0], "s", "hello").await.id;
    let told = join_all((0..8).map(|at| {
        let node = nodes[at % 2].clone();
        async move { node.delete_message(message, &user("ada")).await.unwrap() }
    }))
    .await;
    assert_eq!(told.into_iter().flatten().count(), 1);
    assert_eq!(revisions(&nodes[0]).await, 2);
}

pub(super) async fn files_are_added_up_to_a_limit_and_taken_away(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let new = NewMessage { attachments: vec![file("a.png")], ..note("s", "hello") };
    let (message, _) = sent(&store, &new).await;
    let more = [file("c.png"), file("b.png")];
    let too_many = store.attach(message.id, &more, 2).await.unwrap();
    assert!(matches!(too_many, Attached::TooMany), "{too_many:?}");
    let Attached::Done { attachments, outgoing } =
        store.attach(message.id, &more, 3).await.unwrap()
    else {
        panic!("they were not attached");
    };
    let changed = stored(&store, message.id).await;
    assert_eq!(changed.attachments[0], message.attachments[0]);
    assert_eq!(changed.attachments[1..], attachments);
    assert_eq!((&*attachments[0].file_name, &*attachments[1].file_name), ("c.png", "b.png"));
    assert_eq!((changed.edited_at, changed.updated_at), (None, outgoing.event.at));
    assert_eq!(changed.content, "hello");
    assert_eq!(outgoing.event.kind, EventKind::MessageEdited(Arc::new(changed)));

    let first = message.attachments[0].id;
    assert_eq!(store.attachment(first).await.unwrap(), Some(message.id));
    let detached = store.detach(first).await.unwrap().unwrap();
    assert_eq!(detached.message, stored(&store, message.id).await);
    assert_eq!((&detached.message.attachments, detached.message.edited_at), (&attachments, None));
    assert_eq!(
        detached.outgoing.event.kind,
        EventKind::MessageEdited(Arc::new(detached.message.clone()))
    );
    for gone in [first, AttachmentId::new()] {
        assert_eq!(store.attachment(gone).await.unwrap(), None);
        assert!(store.detach(gone).await.unwrap().is_none());
    }
    let gone = store.attach(MessageId::new(), &more, 9).await.unwrap();
    assert!(matches!(gone, Attached::Gone), "{gone:?}");
    assert_eq!(revisions(&store).await, 3);
}

pub(super) async fn racing_files_stay_within_the_limit(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    let message = said(&nodes[0], "s", "hello").await.id;
    let tries = join_all((0..8).map(|at| {
        let node = nodes[at % 2].clone();
        async move { node.attach(message, &[file("a.png"), file("b.png")], 5).await.unwrap() }
    }))
    .await;
    let done = tries.iter().filter(|tried| matches!(tried, Attached::Done { .. })).count();
    let attachments = stored(&nodes[0], message).await.attachments;
    assert_eq!((done, attachments.len()), (2, 4));
    // And each is taken away once.
    let taken = join_all((0..8).map(|at| {
        let (node, id) = (nodes[at % 2].clone(), attachments[at / 2].id);
        async move { node.detach(id).await.unwrap() }
    }))
    .await;
    assert_eq!(taken.into_iter().flatten().count(), 4);
    assert_eq!(stored(&nodes[0], message).await.attachments, []);
    assert_eq!(revisions(&nodes[0]).await, 7);
}

async fn react(
    store: &SharedStore,
    id: MessageId,
    who: &str,
    emoji: &str,
) -> (bool, Vec<(String, u64)>) {
    match store.react(id, &user(who), emoji, 3).await.unwrap() {
        Reacted::Done { added, counts, outgoing } => {
            let kind = EventKind::ReactionChanged {
                message: id,
                user: user(who),
                emoji: emoji.to_owned(),
                added,
                counts: counts.clone(),
            };
            assert_eq!(outgoing.event.kind, kind);
            (added, counts)
        }
        other => panic!("{other:?}"),
    }
}

fn counted(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|&(emoji, count)| (emoji.to_owned(), count)).collect()
}

pub(super) async fn an_emoji_is_given_and_taken_back(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let message = said(&store, "s", "hello").await.id;
    let other = said(&store, "s", "other").await;
    assert_eq!(react(&store, message, "ada", "👍").await, (true, counted(&[("👍", 1)])));
    assert_eq!(react(&store, message, "bob", "👍").await, (true, counted(&[("👍", 2)])));
    assert_eq!(react(&store, message, "ada", "👍🏽").await, (true, counted(&[("👍", 2), ("👍🏽", 1)])));
    assert_eq!(
        react(&store, message, "ada", "👍").await,
        (false, counted(&[("👍", 1), ("👍🏽", 1)]))
    );
    assert_eq!(react(&store, message, "ada", "👍🏽").await, (false, counted(&[("👍", 1)])));
    assert_eq!(react(&store, message, "bob", "👍").await, (false, Vec::new()));
    assert_eq!(stored(&store, message).await.reactions, []);
    assert_eq!(stored(&store, other.id).await, other);
    let gone = store.react(MessageId::new(), &user("ada"), "👍", 3).await.unwrap();
    assert!(matches!(gone, Reacted::Gone), "{gone:?}");
    assert_eq!(revisions(&store).await, 8);
}

pub(super) async fn one_user_leaves_emojis_to_the_others(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let message = said(&store, "s", "hello").await.id;
    let max = EMOJIS_OWN_MAX + 1;
    let give = |who, emoji: u32| {
        let (store, emoji) = (store.clone(), emoji.to_string());
        async move { store.react(message, &user(who), &emoji, max).await.unwrap() }
    };
    for emoji in 0..EMOJIS_OWN_MAX {
        assert!(matches!(give("bob", emoji).await, Reacted::Done { added: true, .. }));
    }
    assert!(matches!(give("bob", EMOJIS_OWN_MAX).await, Reacted::TooMany));
    assert!(matches!(give("ada", EMOJIS_OWN_MAX).await, Reacted::Done { added: true, .. }));
    assert!(matches!(give("bob", EMOJIS_OWN_MAX).await, Reacted::TooMany), "a known one neither");
    assert!(matches!(give("bob", 0).await, Reacted::Done { added: false, .. }));
    assert!(matches!(give("bob", EMOJIS_OWN_MAX).await, Reacted::Done { added: true, .. }));
}

pub(super) async fn emojis_are_counted_in_the_order_in_which_they_were_first_given(
    database: &Database,
) {
    let store = with_sessions(database, &["s"]).await;
    let message = said(&store, "s", "hello").await.id;
    for (who, emoji) in [("ada", "c"), ("ada", "a"), ("bob", "b"), ("bob", "a"), ("cyd", "c")] {
        react(&store, message, who, emoji).await;
    }
    let too_many = store.react(message, &user("ada"), "d", 3).await.unwrap();
    assert!(matches!(too_many, Reacted::TooMany), "{too_many:?}");
    let (_, counts) = react(&store, message, "cyd", "b").await;
    assert_eq!(counts, counted(&[("c", 2), ("a", 2), ("b", 2)]));
    // Who gave "c" first takes it back: it counts from the next who gave it.
    let (_, counts) = react(&store, message, "ada", "c").await;
    assert_eq!(counts, counted(&[("a", 2), ("b", 2), ("c", 1)]));
    let reactions = stored(&store, message).await.reactions;
    let shown: Vec<(String, u64)> = reactions
        .iter()
        .map(|reaction| (reaction.emoji.clone(), reaction.users.len() as u64))
        .collect();
    assert_eq!(shown, counts);
    assert_eq!(reactions[0].users, [user("ada"), user("bob")]);
    // One of them goes, and there is room.
    react(&store, message, "cyd", "c").await;
    react(&store, message, "cyd", "d").await;
    assert_eq!(revisions(&store).await, 10);
}

pub(super) async fn racing_toggles_take_turns(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    let message = said(&nodes[0], "s", "hello").await.id;
    let toggles = join_all((0..9).map(|at| {
        let node = nodes[at % 2].clone();
        async move { react(&node, message, "ada", "👍").await }
    }))
    .await;
    assert_eq!(toggles.iter().filter(|(added, _)| *added).count(), 5);
    assert_eq!(stored(&nodes[0], message).await.reactions[0].users, [user("ada")]);
    let told = outbox(&nodes[0]).await;
    for (at, outgoing) in told[1..].iter().enumerate() {
        let EventKind::ReactionChanged { added, .. } = outgoing.event.kind else { panic!() };
        assert_eq!(added, at % 2 == 0);
    }
    // Of many new ones at once, no more than fit.
    let emojis = join_all((0..8).map(|at| {
        let node = nodes[at % 2].clone();
        async move { node.react(message, &user("bob"), &at.to_string(), 3).await.unwrap() }
    }))
    .await;
    let done = emojis.iter().filter(|done| matches!(done, Reacted::Done { .. })).count();
    assert_eq!((done, stored(&nodes[0], message).await.reactions.len()), (2, 3));
    assert_eq!(revisions(&nodes[0]).await, 12);
}

pub(super) async fn what_is_stored_in_a_session_has_dense_revisions(database: &Database) {
    let nodes = [with_sessions(database, &["s"]).await, database.open().await];
    join_all((0..8).map(|at| {
        let node = nodes[at % 2].clone();
        async move {
            let who = user(&format!("user{at}"));
            let (message, _) = sent(&node, &note("s", "hello")).await;
            let (generation, ..) = accepted(&node, &prompt("s", "ask")).await;
            node.edit(message.id, "better").await.unwrap().unwrap();
            node.react(message.id, &who, "👍", 9).await.unwrap();
            node.attach(message.id, &[file("a.png")], 9).await.unwrap();
            node.see(&session("s"), message.id, &who).await.unwrap();
            node.add_member(&session("s"), &who, 99).await.unwrap();
            finished(&node, &completed(&generation)).await;
            node.delete_message(message.id, &who).await.unwrap().unwrap();
            node.remove_member(&session("s"), &who).await.unwrap().unwrap();
        }
    }))
    .await;
    assert_eq!(revisions(&nodes[0]).await, 8 * 9);
    assert!(outbox(&nodes[1]).await.is_sorted_by_key(|outgoing| outgoing.event.at));
}
