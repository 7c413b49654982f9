//! Pages of a session's messages, and threads.

use tokencast::domain::{Message, MessageId};
use tokencast::store::{FOUND_MAX, Found, History, HistoryPage, SharedStore};

use super::database::{Database, messages, said, session, with_sessions};

pub(super) async fn pages_are_counted_from_the_newest_or_after_a_message(database: &Database) {
    let store = with_sessions(database, &["empty", "other", "s"]).await;
    for at in 1..=9 {
        said(&store, "other", "elsewhere").await;
        said(&store, "s", &format!("m{at}")).await;
    }
    let all = messages(&store, "s").await;
    let at = |ordinal: Option<usize>| ordinal.map(|ordinal| all[ordinal - 1].id);
    // before, after, limit, offset; the first and the last of the page, and whether there are more.
    type Case = (Option<usize>, Option<usize>, u32, u64, Option<(usize, usize)>, bool);
    let cases: &[Case] = &[
        (None, None, 4, 0, Some((6, 9)), true),
        (None, None, 4, 4, Some((2, 5)), true),
        (None, None, 4, 5, Some((1, 4)), false),
        (None, None, 4, 8, Some((1, 1)), false),
        (None, None, 4, 9, None, false),
        (None, None, 9, 0, Some((1, 9)), false),
        (None, None, u32::MAX, u64::MAX, None, false),
        (None, None, 0, 0, None, true),
        (Some(6), None, 2, 0, Some((4, 5)), true),
        (Some(6), None, 2, 2, Some((2, 3)), true),
        (Some(6), None, 2, 3, Some((1, 2)), false),
        (Some(1), None, 2, 0, None, false),
        (None, Some(3), 2, 0, Some((4, 5)), true),
        (None, Some(3), 2, 2, Some((6, 7)), true),
        (None, Some(3), 2, 4, Some((8, 9)), false),
        (None, Some(3), 2, 6, None, false),
        (None, Some(9), 2, 0, None, false),
        (Some(8), Some(2), 3, 0, Some((5, 7)), true),
        (Some(8), Some(2), 3, 2, Some((3, 5)), false),
        (Some(8), Some(2), 3, 4, Some((3, 3)), false),
        (Some(4), Some(3), 3, 0, None, false),
        (Some(3), Some(7), 3, 0, None, false),
        (Some(3), Some(3), 3, 0, None, false),
    ];
    for case in cases {
        let &(before, after, limit, offset, expected, has_more) = case;
        let page =
            HistoryPage { parent: None, before: at(before), after: at(after), limit, offset };
        let expected = expected.map_or(&[][..], |(first, last)| &all[first - 1..last]);
        let expected = History { messages: expected.to_vec(), total: 9, has_more };
        assert_eq!(store.history(&session("s"), &page).await.unwrap(), Some(expected), "{case:?}");
    }
    let page = HistoryPage { limit: 5, ..HistoryPage::default() };
    for id in ["empty", "unknown"] {
        let nothing = store.history(&session(id), &page).await.unwrap();
        assert_eq!(nothing, Some(History::default()));
    }
}

pub(super) async fn a_page_of_replies_has_the_direct_ones_alone(database: &Database) {
    let (store, all) = tree(database).await;
    let at = |ordinal: Option<usize>| ordinal.map(|ordinal| all[ordinal - 1].id);
    // Of message 1: before, after, limit, offset; the page, and whether there are more.
    type Case<'a> = (Option<usize>, Option<usize>, u32, u64, &'a [usize], bool);
    let cases: &[Case<'_>] = &[
        (None, None, 9, 0, &[2, 3, 6, 8], false),
        (None, None, 3, 0, &[3, 6, 8], true),
        (None, None, 3, 1, &[2, 3, 6], false),
        (None, None, 2, 1, &[3, 6], true),
        (None, None, 2, 4, &[], false),
        (Some(7), None, 2, 0, &[3, 6], true),
        (Some(6), None, 2, 0, &[2, 3], false),
        (None, Some(2), 2, 0, &[3, 6], true),
        (None, Some(2), 2, 1, &[6, 8], false),
        (Some(8), Some(2), 1, 0, &[6], true),
        (Some(8), Some(2), 1, 1, &[3], false),
        (Some(1), None, 2, 0, &[], false),
    ];
    for case in cases {
        let &(before, after, limit, offset, expected, has_more) = case;
        let parent = at(Some(1));
        let page = HistoryPage { parent, before: at(before), after: at(after), limit, offset };
        let messages = expected.iter().map(|ordinal| all[ordinal - 1].clone()).collect();
        let expected = History { messages, total: 4, has_more };
        assert_eq!(store.history(&session("s"), &page).await.unwrap(), Some(expected), "{case:?}");
    }
    let childless = HistoryPage { parent: at(Some(9)), limit: 5, ..HistoryPage::default() };
    let nothing = store.history(&session("s"), &childless).await.unwrap();
    assert_eq!(nothing, Some(History::default()));
}

pub(super) async fn a_page_beside_an_unknown_message_is_none(database: &Database) {
    let store = with_sessions(database, &["other", "s"]).await;
    let here = said(&store, "s", "here").await.id;
    let there = said(&store, "other", "there").await.id;
    let named = [Some(here), None];
    for unknown in [there, MessageId::new()] {
        let unknown = Some(unknown);
        for known in named {
            for (parent, before, after) in
                [(unknown, known, known), (known, unknown, known), (known, known, unknown)]
            {
                let page = HistoryPage { parent, before, after, limit: 5, offset: 0 };
                assert_eq!(store.history(&session("s"), &page).await.unwrap(), None, "{page:?}");
            }
        }
    }
}

pub(super) async fn a_page_has_deleted_messages_blank_and_others_whole(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let first = said(&store, "s", "reacted").await;
    let second = said(&store, "s", "deleted").await;
    let (at, id) = (database.at(5), database.id(second.id.0));
    let reaction = database.id(MessageId::new().0);
    database
        .execute(&format!(
            "UPDATE message SET deleted_at = {at} WHERE id = {id}; \
             INSERT INTO message_reaction (id, message_id, user_id, emoji, created_at) \
             VALUES ({reaction}, {}, 'bob', '👍', {at})",
            database.id(first.id.0),
        ))
        .await;
    let page = HistoryPage { limit: 5, ..HistoryPage::default() };
    let page = store.history(&session("s"), &page).await.unwrap().unwrap();
    assert_eq!((page.messages.len(), page.total), (2, 2));
    assert_eq!(page.messages[0].reactions[0].emoji, "👍");
    assert_eq!((page.messages[1].id, page.messages[1].content.as_str()), (second.id, ""));
    assert!(page.messages[1].deleted_at.is_some());
}

pub(super) async fn a_thread_has_the_replies_to_replies(database: &Database) {
    let (store, all) = tree(database).await;
    let cases: &[(usize, u32, u64, &[usize], u64)] = &[
        (1, 20, 0, &[2, 3, 4, 5, 6, 8], 6),
        (1, 2, 0, &[2, 3], 6),
        (1, 3, 2, &[4, 5, 6], 6),
        (1, 3, 6, &[], 6),
        (1, 0, 0, &[], 6),
        (2, 20, 0, &[4, 5], 2),
        (7, 20, 0, &[9], 1),
        (9, 20, 0, &[], 0),
    ];
    for case in cases {
        let &(of, limit, offset, expected, total) = case;
        let messages = expected.iter().map(|ordinal| all[ordinal - 1].clone()).collect();
        let found = store.thread(all[of - 1].id, limit, offset).await.unwrap();
        assert_eq!(found, Found { messages, total }, "{case:?}");
    }
    assert_eq!(store.thread(MessageId::new(), 5, 0).await.unwrap(), Found::default());
}

pub(super) async fn a_thread_in_a_circle_ends(database: &Database) {
    let (store, all) = tree(database).await;
    let (first, fifth) = (database.id(all[0].id.0), database.id(all[4].id.0));
    database
        .execute(&format!("UPDATE message SET parent_message_id = {fifth} WHERE id = {first}"))
        .await;
    let found = store.thread(all[0].id, 20, 0).await.unwrap();
    let ordinals: Vec<u64> = found.messages.iter().map(|message| message.ordinal).collect();
    assert_eq!((ordinals, found.total), (vec![1, 2, 3, 4, 5, 6, 8], 7));
}

pub(super) async fn no_more_replies_are_counted_than_the_most(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let said = said(&store, "s", "reply").await;
    let id = database.id(said.id.0);
    database.execute(&format!("UPDATE message SET parent_message_id = id WHERE id = {id}")).await;
    database.copy_message(said.id.0, FOUND_MAX + 1).await;
    let thread = store.thread(said.id, 1, 0).await.unwrap();
    assert_eq!((thread.total, thread.messages.len()), (u64::from(FOUND_MAX), 1));
    let page = HistoryPage {
        parent: Some(said.id),
        limit: 1,
        offset: u64::from(FOUND_MAX),
        ..HistoryPage::default()
    };
    let page = store.history(&session("s"), &page).await.unwrap().unwrap();
    let ordinals: Vec<u64> = page.messages.iter().map(|message| message.ordinal).collect();
    assert_eq!((page.total, ordinals, page.has_more), (u64::from(FOUND_MAX), vec![2], true));
}

/// Nine messages: 2, 3, 6 and 8 reply to 1, 4 to 2, 5 to 4, and 9 to 7.
async fn tree(database: &Database) -> (SharedStore, Vec<Message>) {
    let store = with_sessions(database, &["s"]).await;
    for at in 1..=9 {
        said(&store, "s", &format!("m{at}")).await;
    }
    let all = messages(&store, "s").await;
    for (reply, parent) in [(2, 1), (3, 1), (6, 1), (8, 1), (4, 2), (5, 4), (9, 7)] {
        let (reply, parent) = (database.id(all[reply - 1].id.0), database.id(all[parent - 1].id.0));
        database
            .execute(&format!("UPDATE message SET parent_message_id = {parent} WHERE id = {reply}"))
            .await;
    }
    let all = messages(&store, "s").await;
    (store, all)
}
