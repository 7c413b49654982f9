//! Texts that a later attempt takes over, and what becomes of the attempt that wrote them.

use std::time::Duration;

use tokencast::adapter::Appended;
use tokencast::domain::{Chunk, GenerationId};

use super::{Node, chunk, on_every_backend, session};
use crate::support::eventually;
use crate::support::redis::OwnRedis;

on_every_backend!(
    a_taken_text_goes_on_where_it_ended,
    an_attempt_that_was_replaced_cannot_append_in_the_middle,
    an_attempt_that_was_replaced_cannot_begin_again,
    an_attempt_that_was_replaced_before_its_first_word_cannot_begin,
    a_text_that_is_taken_twice_stays_the_same,
    a_text_is_taken_from_a_claimer_that_died_before_it_wrote,
    the_newest_of_older_texts_is_taken_and_no_other_is_left,
    a_claimer_that_is_late_takes_nothing_back,
    a_dropped_text_begins_anew,
    other_generations_keep_their_texts,
    an_attempt_that_began_anew_refuses_the_older_ones,
);

fn by(attempt: u32, generation: GenerationId, offset: u64, delta: &str) -> Chunk {
    Chunk { attempt, ..chunk(generation, offset, delta) }
}

async fn a_taken_text_goes_on_where_it_ended(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    b.adapter.subscribe(&session).await.unwrap();
    let written = "día 😀 e\u{301}東京";
    a.adapter.append_chunk(&session, chunk(generation, 0, written)).await.unwrap();
    assert_eq!(b.adapter.take_text(&session, generation, 2).await.unwrap(), written);
    let end = written.len() as u64;
    let appended = b.adapter.append_chunk(&session, by(2, generation, end, "終")).await.unwrap();
    assert_eq!(appended, Appended::Done { heard: 1 });
    let whole = format!("{written}終");
    assert_eq!(a.adapter.text(&session, generation, 2, 0).await.unwrap(), whole);
    assert_eq!(a.adapter.text(&session, generation, 1, 0).await.unwrap(), "");
    let head = a.adapter.head(&session, &[(generation, 1), (generation, 2)]).await.unwrap();
    assert_eq!(head.text_lens, [0, whole.len() as u64]);
}

async fn an_attempt_that_was_replaced_cannot_append_in_the_middle(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    b.adapter.take_text(&session, generation, 2).await.unwrap();
    for offset in [3, 1] {
        let late = a.adapter.append_chunk(&session, chunk(generation, offset, "xyz")).await;
        assert_eq!(late.unwrap(), Appended::Short { len: 0 }, "at {offset}");
    }
    assert_eq!(b.adapter.text(&session, generation, 2, 0).await.unwrap(), "abc");
}

async fn an_attempt_that_was_replaced_cannot_begin_again(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    b.adapter.subscribe(&session).await.unwrap();
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    b.adapter.take_text(&session, generation, 2).await.unwrap();
    let again = a.adapter.append_chunk(&session, chunk(generation, 0, "abcd")).await.unwrap();
    assert_eq!(again, Appended::Short { len: 0 });
    b.adapter.append_chunk(&session, by(2, generation, 3, "!")).await.unwrap();
    eventually("b hears what was appended", || async {
        b.chunk_texts().contains('!').then_some(())
    })
    .await;
    assert!(!b.chunk_texts().contains("abcd"), "and nothing else: {}", b.chunk_texts());
}

async fn an_attempt_that_was_replaced_before_its_first_word_cannot_begin(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    assert_eq!(b.adapter.take_text(&session, generation, 2).await.unwrap(), "");
    let late = a.adapter.append_chunk(&session, chunk(generation, 0, "a")).await.unwrap();
    assert_eq!(late, Appended::Short { len: 0 });
    assert_eq!(a.adapter.text(&session, generation, 1, 0).await.unwrap(), "");
    let own = b.adapter.append_chunk(&session, by(2, generation, 0, "b")).await.unwrap();
    assert_eq!(own, Appended::Done { heard: 0 });
    assert_eq!(a.adapter.text(&session, generation, 2, 0).await.unwrap(), "b");
}

async fn a_text_that_is_taken_twice_stays_the_same(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(b.adapter.take_text(&session, generation, 2).await.unwrap(), "abc");
    }
    b.adapter.append_chunk(&session, by(2, generation, 3, "d")).await.unwrap();
    assert_eq!(b.adapter.take_text(&session, generation, 2).await.unwrap(), "abcd");
    let late = a.adapter.append_chunk(&session, chunk(generation, 0, "x")).await.unwrap();
    assert_eq!(late, Appended::Short { len: 0 });
}

async fn a_text_is_taken_from_a_claimer_that_died_before_it_wrote(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    // The second took it and died, the third died before it could, the fourth goes on.
    a.adapter.take_text(&session, generation, 2).await.unwrap();
    assert_eq!(b.adapter.take_text(&session, generation, 4).await.unwrap(), "abc");
    for (attempt, offset) in [(1, 0), (1, 3), (2, 0), (2, 3), (3, 0), (3, 3)] {
        let late = by(attempt, generation, offset, "x");
        let late = a.adapter.append_chunk(&session, late).await.unwrap();
        assert_eq!(late, Appended::Short { len: 0 }, "attempt {attempt} at {offset}");
    }
    b.adapter.append_chunk(&session, by(4, generation, 3, "d")).await.unwrap();
    assert_eq!(a.adapter.text(&session, generation, 4, 0).await.unwrap(), "abcd");
}

async fn the_newest_of_older_texts_is_taken_and_no_other_is_left(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "first")).await.unwrap();
    a.adapter.append_chunk(&session, by(2, generation, 0, "second")).await.unwrap();
    assert_eq!(b.adapter.take_text(&session, generation, 3).await.unwrap(), "second");
    let texts = [1, 2, 3].map(|attempt| (generation, attempt));
    assert_eq!(a.adapter.head(&session, &texts).await.unwrap().text_lens, [0, 0, 6]);
}

async fn a_claimer_that_is_late_takes_nothing_back(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    b.adapter.take_text(&session, generation, 3).await.unwrap();
    assert_eq!(a.adapter.take_text(&session, generation, 2).await.unwrap(), "");
    for attempt in [1, 2] {
        let late = a.adapter.append_chunk(&session, by(attempt, generation, 0, "x")).await;
        assert_eq!(late.unwrap(), Appended::Short { len: 0 }, "attempt {attempt}");
    }
    assert_eq!(b.adapter.text(&session, generation, 3, 0).await.unwrap(), "abc");
}

async fn a_dropped_text_begins_anew(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    b.adapter.take_text(&session, generation, 2).await.unwrap();
    for _ in 0..2 {
        b.adapter.drop_text(&session, generation, 2).await.unwrap();
    }
    assert_eq!(a.adapter.text(&session, generation, 2, 0).await.unwrap(), "");
    let late = a.adapter.append_chunk(&session, chunk(generation, 0, "abcd")).await.unwrap();
    assert_eq!(late, Appended::Short { len: 0 });
    b.adapter.append_chunk(&session, by(2, generation, 0, "new")).await.unwrap();
    assert_eq!(a.adapter.text(&session, generation, 2, 0).await.unwrap(), "new");
}

async fn other_generations_keep_their_texts(a: Node, b: Node) {
    let (session, generation, other) = (session(), GenerationId::new(), GenerationId::new());
    for id in [generation, other] {
        a.adapter.append_chunk(&session, chunk(id, 0, "abc")).await.unwrap();
    }
    b.adapter.take_text(&session, generation, 2).await.unwrap();
    let next = a.adapter.append_chunk(&session, chunk(other, 3, "d")).await.unwrap();
    assert_eq!(next, Appended::Done { heard: 0 });
    assert_eq!(b.adapter.text(&session, other, 1, 0).await.unwrap(), "abcd");
    let third = GenerationId::new();
    let first = a.adapter.append_chunk(&session, chunk(third, 0, "x")).await.unwrap();
    assert_eq!(first, Appended::Done { heard: 0 });
}

/// Where Redis has lost everything, who took the text is known from who writes.
async fn an_attempt_that_began_anew_refuses_the_older_ones(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    b.adapter.append_chunk(&session, by(3, generation, 0, "abc")).await.unwrap();
    for attempt in [1, 2] {
        let late = a.adapter.append_chunk(&session, by(attempt, generation, 0, "x")).await;
        assert_eq!(late.unwrap(), Appended::Short { len: 0 }, "attempt {attempt}");
    }
    let next = b.adapter.append_chunk(&session, by(3, generation, 3, "d")).await.unwrap();
    assert_eq!(next, Appended::Done { heard: 0 });
}

/// Nobody renews the text of a node that died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_text_lives_as_long_as_any() {
    let redis = OwnRedis::start().await;
    let (a, b) = (Node::redis(&redis.url()).await, Node::redis(&redis.url()).await);
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    drop(a);
    let text = |attempt: u32| format!("tc:{{{session}}}:text:{generation}:{attempt}");
    let newest = format!("tc:{{{session}}}:newest:{generation}");
    let ttl = |key: &str| redis.cli(&["pttl", key]).parse::<i64>().unwrap();
    redis.cli(&["pexpire", &text(1), "20000"]);
    b.adapter.take_text(&session, generation, 2).await.unwrap();
    for key in [&text(2), &newest] {
        assert!((30_000..=60_000).contains(&ttl(key)), "{key}: {}", ttl(key));
    }
    assert_eq!(redis.cli(&["exists", &text(1)]), "0");

    // The periodic check renews both while the text grows.
    tokio::time::timeout(Duration::from_secs(20), async {
        let mut offset = 3;
        for key in [&text(2), &newest] {
            redis.cli(&["pexpire", key, "20000"]);
        }
        while ttl(&text(2)) < 30_000 || ttl(&newest) < 30_000 {
            b.adapter.append_chunk(&session, by(2, generation, offset, "d")).await.unwrap();
            offset += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("they are renewed");
}
