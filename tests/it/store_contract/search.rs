//! Finding messages by their words.

use std::collections::HashMap;

use tokencast::domain::{Message, MessageId};
use tokencast::store::{FOUND_MAX, SharedStore};

use super::database::{
    Database, accepted, completed, finished, note, prompt, said, sent, session, user, with_sessions,
};

/// A text, queries that find it, and queries that do not.
const CASES: &[(&str, &[&str], &[&str])] = &[
    ("Hello brave new world", &["hello", "WORLD", "new hello", " world\n"], &["hell", "worlds"]),
    ("one half only", &["one", "only half"], &["one two", "two"]),
    // Accents, composed and not, and letters that decompose into none.
    ("Café crème brûlée", &["cafe", "CAFE\u{301}", "Café", "creme brulee"], &["caf"]),
    ("Cafe\u{301} au lait", &["café", "cafe lait"], &["cafés"]),
    ("Straße und Größe", &["strasse", "STRASSE", "straße", "STRAẞE", "grosse", "größe"], &["gros"]),
    ("Smørrebrød på Łódź", &["smorrebrod", "SMØRREBRØD", "lodz", "pa"], &["smrrebrd"]),
    ("DİYARBAKIR ısparta", &["diyarbakır", "diyarbakir", "ISPARTA", "Isparta"], &["dyarbakr"]),
    ("Ο ΟΔΥΣΣΕΥΣ ήρθε", &["οδυσσευς", "ΟΔΥΣΣΕΎΣ", "Οδυσσεύσ", "ηρθε"], &["οδυσσευ"]),
    ("Ёлка и Привет", &["елка", "ЁЛКА", "привет", "ПРИВЕТ"], &["прив"]),
    ("السَّلَامُ عليكم أحمد", &["السلام", "عليكم", "احمد", "الســلام"], &["سلام"]),
    ("שָׁלוֹם עולם", &["שלום", "עולם"], &["שלו"]),
    ("नमस्ते दुनिया", &["नमस्ते", "दुनिया"], &["नमसत", "दनय"]),
    (
        "안녕하세요 세계",
        &["세계", "\u{1109}\u{1166}\u{1100}\u{1168}", "안녕하세요"],
        &["안녕", "계"],
    ),
    // Scripts without spaces: what stands together.
    (
        "我们明天去北京大学",
        &["北", "北京", "北京大学", "明天 大学", "我们"],
        &["京北", "上海", "明去"],
    ),
    ("東京でRustを学ぶ", &["東京", "rust", "学ぶ", "東京 rust", "で"], &["京東", "東で", "rus"]),
    ("ガラスとｶﾞﾗｽ", &["ガラス", "ｶﾞﾗｽ", "と"], &["カラス"]),
    ("สวัสดีครับ", &["สวัสดี", "ครับ", "ส"], &["ครบ"]),
    ("ສະບາຍດີ", &["ສະບາຍ"], &["ບສ"]),
    ("សួស្តី", &["សួ"], &["តស"]),
    ("𠮷野家で食べる", &["𠮷野家", "𠮷"], &["野𠮷"]),
    // Compatibility forms.
    ("Ｆｕｌｌ ﬁne ①", &["full", "FINE", "1", "ｆｉｎｅ"], &["ful"]),
    ("soft\u{ad}hyphen zero\u{200b}width", &["softhyphen", "zero", "width"], &["soft"]),
    ("🎉🎉 👩\u{200d}👩\u{200d}👧", &[], &["🎉", "👩", "👩\u{200d}👩\u{200d}👧"]),
    // What divides words.
    (
        "l'amour, aujourd’hui: can't!",
        &["amour", "l’amour", "aujourd'hui", "can't", "can"],
        &["lamour"],
    ),
    (
        "Mail ada.lovelace@example.com",
        &["ada.lovelace@example.com", "lovelace", "EXAMPLE"],
        &["adalovelace"],
    ),
    (
        "see https://docs.rs/x_y?q=1#top",
        &["https://docs.rs/x_y?q=1#top", "docs.rs", "x_y", "top"],
        &["http"],
    ),
    ("pi is 3.14, not 3,15", &["3.14", "14", "3,15", "3"], &["314", "4"]),
    ("C++ and C# in `code`", &["c++", "C#", "code"], &["++"]),
    ("a\tb\r\nlines", &["b lines", "b\0lines"], &["ab"]),
    // What a database would read as more than words.
    (
        "AND OR NOT NEAR",
        &["AND", "or", "not", "NOT near", "and OR"],
        &["an", "AN*", "\"AN\"", "AND OR NEW"],
    ),
    (
        "quoted say-so",
        &["\"quoted\"", "'quoted'", "quoted*", "-say", "(say", "\"so", "^so", "{so}"],
        &["quote*", "words:quoted", "say NOT so", "say OR no"],
    ),
];

/// Without a word.
const EMPTY: &[&str] =
    &["", " ", "\0", "\"", "'", "''", "\"\"", "*", "( )", ":", "\\", "!&|<->", "…", "\u{301}", "%"];

pub(super) async fn words_are_found_in_any_script_and_spelling(database: &Database) {
    let store = with_sessions(database, &["other", "s"]).await;
    let mut ids = HashMap::new();
    for (text, ..) in CASES {
        said(&store, "other", text).await;
        ids.insert(*text, said(&store, "s", text).await.id);
    }
    for (text, finding, missing) in CASES {
        for query in *finding {
            let found = found(&store, "s", query).await;
            assert!(found.contains(&ids[text]), "{query:?} does not find {text:?}");
            assert!(found.iter().all(|id| ids.values().any(|own| own == id)), "{query:?}");
        }
        for query in *missing {
            let found = found(&store, "s", query).await;
            assert!(!found.contains(&ids[text]), "{query:?} finds {text:?}");
        }
    }
    for query in EMPTY {
        let nothing = store.search(&session("s"), query, 10, 0).await.unwrap();
        assert_eq!((nothing.messages, nothing.total), (vec![], 0), "{query:?}");
    }
}

pub(super) async fn a_session_finds_its_own_messages_alone(database: &Database) {
    // Ids that a database might take for one another, or for more than a word.
    let sessions = ["s", "S", "s.", "s:s", "s-s", "ss"];
    let store = with_sessions(database, &sessions).await;
    let mut said_there = Vec::new();
    for id in sessions {
        said_there.push(said(&store, id, "the same words s").await.id);
    }
    for (id, there) in sessions.iter().zip(said_there) {
        for query in ["words", "s", "same s"] {
            assert_eq!(found(&store, id, query).await, [there], "{query:?} in {id:?}");
        }
    }
    assert_eq!(found(&store, "unknown", "words").await, []);
}

pub(super) async fn what_is_found_comes_in_pages_newest_first(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let mut matching = Vec::new();
    for at in 0..7 {
        let (generation, asked, _) = accepted(&store, &prompt("s", &format!("needle {at}"))).await;
        said(&store, "s", "hay").await;
        let (answer, _) = finished(&store, &completed(&generation)).await;
        matching.insert(0, asked);
        assert_eq!(answer.content, "the answer");
    }
    for (limit, offset) in [(10, 0), (3, 0), (3, 3), (3, 6), (3, 7), (0, 0), (1, u64::MAX)] {
        let page = store.search(&session("s"), "needle", limit, offset).await.unwrap();
        let expected: Vec<Message> = matching
            .iter()
            .skip(usize::try_from(offset).unwrap())
            .take(limit as usize)
            .cloned()
            .collect();
        assert_eq!((page.messages, page.total), (expected, 7), "{limit} after {offset}");
    }
    assert_eq!(store.search(&session("s"), "answer", 2, 0).await.unwrap().total, 7);
}

pub(super) async fn a_long_text_is_found_by_its_words(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let words: Vec<String> = (0..6_000).map(|at| format!("w{at}")).collect();
    let many = said(&store, "s", &words.join(" ")).await.id;
    // As many characters as a message may have by default, hardly one pair twice.
    let han: String = (0..32_000_u32)
        .map(|at| char::from_u32(0x4e00 + at.wrapping_mul(7919) % 20_000).unwrap())
        .collect();
    let characters = said(&store, "s", &han).await.id;
    let long = said(&store, "s", &format!("{} {}", "x".repeat(9_000), "é".repeat(9_000))).await.id;
    assert_eq!(found(&store, "s", "w0 w5999").await, [many]);
    assert_eq!(found(&store, "s", &words[..200].join(" ")).await, [many]);
    assert_eq!(found(&store, "s", "w6000").await, []);
    // More than either database keeps of one message: its first words.
    let wide: Vec<String> = (0..14_000).map(|at| format!("{at:0>60}")).collect();
    let wider = said(&store, "s", &wide.join(" ")).await.id;
    assert_eq!(found(&store, "s", &wide[..50].join(" ")).await, [wider]);
    assert_eq!(found(&store, "s", &wide[13_000..13_050].join(" ")).await, [wider]);
    assert_eq!(found(&store, "s", &wide[13_999]).await, []);
    let begin: String = han.chars().take(5).collect();
    assert_eq!(found(&store, "s", &begin).await, [characters]);
    assert_eq!(found(&store, "s", &"x".repeat(9_000)).await, [long]);
    assert_eq!(found(&store, "s", &"e".repeat(500)).await, [long]);
    assert_eq!(found(&store, "s", &"x".repeat(9)).await, []);
}

pub(super) async fn no_more_are_counted_than_the_most(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let said = said(&store, "s", "often").await;
    database.copy_message(said.id.0, FOUND_MAX + 1).await;
    let page = store.search(&session("s"), "often", 2, 0).await.unwrap();
    let newest: Vec<u64> = page.messages.iter().map(|message| message.ordinal).collect();
    let last = u64::from(FOUND_MAX) + 2;
    assert_eq!((page.total, newest), (u64::from(FOUND_MAX), vec![last, last - 1]));
    let beyond = store.search(&session("s"), "often", 2, u64::from(FOUND_MAX)).await.unwrap();
    assert_eq!((beyond.total, beyond.messages), (u64::from(FOUND_MAX), vec![]));
}

/// As after the first start of a node that brings the search with it.
pub(super) async fn what_was_stored_before_there_was_a_search_is_found(database: &Database) {
    let store = with_sessions(database, &["s", "t"]).await;
    let mut older = Vec::new();
    for at in 0..250 {
        older.insert(0, said(&store, "s", &format!("old {at}")).await.id);
    }
    let elsewhere = said(&store, "t", "old").await.id;
    store.close().await;
    database
        .execute(
            "DELETE FROM message_search; INSERT INTO message_unindexed (message_id) \
             SELECT id FROM message ORDER BY session_id, ordinal",
        )
        .await;
    let (one, other) = tokio::join!(database.open(), database.open());
    let page = one.search(&session("s"), "old", 300, 0).await.unwrap();
    let ids: Vec<MessageId> = page.messages.iter().map(|message| message.id).collect();
    assert_eq!((ids, page.total), (older, 250));
    assert_eq!(found(&other, "t", "old").await, [elsewhere]);
    assert_eq!(database.number("SELECT count(*) FROM message_unindexed").await, 0);
}

pub(super) async fn a_message_is_found_by_what_it_says_last(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let mut ids = Vec::new();
    for text in ["🎉", "before words", "after words"] {
        ids.push(sent(&store, &note("s", text)).await.0.id);
    }
    let [first, second, third] = ids[..] else { unreachable!() };
    for id in [first, second] {
        store.edit(id, "after change").await.unwrap().unwrap();
    }
    // In its place among the others, though it had no word at first.
    assert_eq!(found(&store, "s", "after").await, [third, second, first]);
    assert_eq!(found(&store, "s", "change").await, [second, first]);
    assert_eq!(found(&store, "s", "before").await, []);
    assert_eq!(found(&store, "s", "words").await, [third]);
    store.edit(second, "🎉").await.unwrap().unwrap();
    assert_eq!(found(&store, "s", "after").await, [third, first]);
    store.edit(second, "before").await.unwrap().unwrap();
    assert_eq!(found(&store, "s", "before").await, [second]);
}

pub(super) async fn a_deleted_message_is_not_found(database: &Database) {
    let store = with_sessions(database, &["s"]).await;
    let kept = sent(&store, &note("s", "same words")).await.0.id;
    let gone = sent(&store, &note("s", "same other words")).await.0.id;
    let (_, prompt, _) = accepted(&store, &prompt("s", "same words asked")).await;
    assert_eq!(found(&store, "s", "same words").await, [prompt.id, gone, kept]);
    for id in [gone, prompt.id] {
        store.delete_message(id, &user("ada")).await.unwrap().unwrap();
    }
    assert_eq!(found(&store, "s", "same words").await, [kept]);
    assert!(store.edit(gone, "same new words").await.unwrap().is_none());
    for query in ["other", "asked", "new"] {
        assert_eq!(found(&store, "s", query).await, [], "{query:?}");
    }
    // Nor is it after it was listed among those that are yet to be indexed.
    database.execute("INSERT INTO message_unindexed (message_id) SELECT id FROM message").await;
    let store = database.open().await;
    assert_eq!(found(&store, "s", "same").await, [kept]);
    assert_eq!(found(&store, "s", "other").await, []);
}

async fn found(store: &SharedStore, session_id: &str, query: &str) -> Vec<MessageId> {
    let found = store.search(&session(session_id), query, 100, 0).await.unwrap();
    assert_eq!(found.total, found.messages.len() as u64);
    found.messages.iter().map(|message| message.id).collect()
}
