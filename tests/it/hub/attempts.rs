//! What readers are shown when another attempt follows: each case by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokencast::adapter::{Memory, SharedMemory};
use tokencast::domain::{AgentId, Cursor, EventKind, GenerationId, NodeId, Position, TextCursor};
use tokencast::hub::{FromStore, Standing, Start, Stored};

use super::reader::TestReader;
use super::told::{self, Client, Talk, cursor};
use super::{Answer, Node, happens, live, node, node_on, session, watch};
use crate::support::eventually;

/// A node whose log keeps so many events.
fn told_node(shared: &SharedMemory, events_max: usize) -> Node {
    let ttl = Duration::from_secs(60);
    let adapter = Memory::new(NodeId::new(), events_max, ttl, shared.clone());
    node_on(Arc::new(adapter), told::dialects())
}

fn reader() -> Arc<TestReader> {
    TestReader::of("ada", told::dialects().by_name("told").unwrap())
}

fn words(reader: &TestReader) -> Vec<String> {
    reader.names()
}

fn text(reader: &TestReader, generation: GenerationId) -> String {
    Client::of(&reader.shown()).texts.remove(&generation.to_string()).unwrap_or_default()
}

fn deltas(reader: &TestReader) -> Vec<String> {
    let texts = reader.shown().into_iter().filter(|(word, _)| word == "text");
    texts.map(|(_, body): (_, Value)| body["delta"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn who_was_shown_more_than_is_gone_on_from_starts_over_and_a_slow_one_need_not() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared, 512);
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let [first, slow, half] = [reader(), reader(), reader()];
    for reader in [&first, &slow, &half] {
        watch(&a, &session, reader, Standing::Belongs).await;
    }
    talk.start(log).await;
    talk.grow(log, 0, "one ").await;
    slow.full.store(true, Ordering::SeqCst);
    let chunk = talk.chunk(0, "two");
    a.adapter.show(&session, chunk);
    // It takes the reset, and not the text that follows it.
    half.full_after_next.store(true, Ordering::SeqCst);
    talk.take_over_from(log, 0, 4).await;
    let reset = first.shown()[3].clone();
    for reader in [&slow, &half] {
        reader.full.store(false, Ordering::SeqCst);
        a.hub.resume(reader.number(), [&session]);
    }
    let chunk = talk.chunk(0, "three");
    a.adapter.show(&session, chunk);
    for reader in [&first, &half] {
        assert_eq!(words(reader), ["start", "text", "text", "reset", "text", "text"]);
    }
    assert_eq!(words(&slow), ["start", "text", "resumed", "text"]);
    for reader in [&first, &slow, &half] {
        assert_eq!(text(reader, talk.answers[0].generation), "one three");
    }
    // Whoever leaves with the reset is shown all of it, on any node, and once.
    let next = reader();
    let left = cursor(&reset).unwrap();
    let start = Start::After(&left);
    a.hub.join(&session, next.clone(), Standing::Belongs, start, 0).await.unwrap();
    a.hub.go_live(&session, next.number(), FromStore::default());
    assert_eq!(deltas(&next), ["one three"]);
}

#[tokio::test]
async fn an_end_that_does_not_begin_with_what_was_shown_is_shown_from_its_start() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared, 512);
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    for content in ["one", "one x", ""] {
        let [first, slow, half] = [reader(), reader(), reader()];
        for reader in [&first, &slow, &half] {
            watch(&a, &session, reader, Standing::Belongs).await;
        }
        let at = talk.start(log).await;
        talk.grow(log, at, "one ").await;
        slow.full.store(true, Ordering::SeqCst);
        let chunk = talk.chunk(at, "two");
        a.adapter.show(&session, chunk);
        half.full_after_next.store(true, Ordering::SeqCst);
        talk.answers[at].text = content.to_owned();
        talk.end(log, at, 0).await;
        for reader in [&slow, &half] {
            reader.full.store(false, Ordering::SeqCst);
            a.hub.resume(reader.number(), [&session]);
        }
        let generation = talk.answers[at].generation;
        for reader in [&first, &slow, &half] {
            let has = Client::of(&reader.shown());
            let end = format!("completed {generation}: {content}");
            assert_eq!(has.events.last(), Some(&end), "{:?}", reader.shown());
            let resets = words(reader).iter().filter(|word| *word == "reset").count();
            assert_eq!(resets, 1, "{:?}", words(reader));
            a.hub.leave(&session, reader.number());
        }
    }
}

/// Named by a client that does not know of attempts.
async fn named(node: &Node, talk: &Talk, utf16: u64) -> Arc<TestReader> {
    let reader = reader();
    let texts = [(talk.answers[0].generation, utf16)];
    let start = Start::Now(&texts);
    node.hub.join(&talk.session, reader.clone(), Standing::Belongs, start, 0).await.unwrap();
    node.hub.go_live(&talk.session, reader.number(), FromStore::default());
    reader
}

#[tokio::test]
async fn an_offset_without_an_attempt_counts_as_far_as_all_attempts_agree() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared, 512), told_node(&shared, 512));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    watch(&a, &session, &reader(), Standing::Belongs).await;
    talk.start(log).await;
    talk.grow(log, 0, "01é3456789").await;
    for node in [&a, &b] {
        assert_eq!(words(&*named(node, &talk, 10).await), ["running"]);
        assert_eq!(words(&*named(node, &talk, 11).await), ["running", "reset", "text"]);
    }
    talk.take_over_from(log, 0, 5).await;
    talk.write_again(log, 0).await;
    talk.grow(log, 0, "abc").await;
    for node in [&a, &b] {
        for (has, then) in [(0, "01é3abc"), (1, "1é3abc"), (4, "abc")] {
            let reader = named(node, &talk, has).await;
            assert_eq!((words(&reader).len(), &*deltas(&reader)), (2, &[then.to_owned()][..]));
        }
        for has in [5, 7, 8, 500] {
            let reader = named(node, &talk, has).await;
            assert_eq!(words(&reader), ["running", "reset", "text"], "{has}");
            assert_eq!(deltas(&reader), ["01é3abc"]);
        }
    }
    talk.reset(log, 0).await;
    talk.grow(log, 0, "xyz").await;
    for has in [1, 3, 4] {
        assert_eq!(words(&*named(&a, &talk, has).await), ["running", "reset", "text"], "{has}");
    }
    assert_eq!(words(&*named(&a, &talk, 0).await), ["running", "text"]);
}

#[tokio::test]
async fn who_joins_while_the_text_is_taken_and_the_log_does_not_say_so_yet_goes_on() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared, 512), told_node(&shared, 512));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    talk.start(log).await;
    talk.grow(log, 0, "0123456789").await;
    let generation = talk.answers[0].generation;
    assert_eq!(log.take_text(&session, generation, 2).await.unwrap(), "0123456789");
    let texts = [(generation, 10)];
    let next = reader();
    let join = b.hub.join(&session, next.clone(), Standing::Belongs, Start::Now(&texts), 0);
    // It looks first, and finds a text that has gone.
    let (joined, ()) = tokio::join!(join, talk.take_over(log, 0));
    joined.unwrap();
    b.hub.go_live(&session, next.number(), FromStore::default());
    talk.grow(log, 0, "abc").await;
    assert_eq!(words(&next), ["running", "text"]);
    assert_eq!(deltas(&next), ["abc"]);
}

/// It has been taken over, and the log that said so is gone.
#[tokio::test]
async fn an_end_from_the_store_is_gone_on_to_only_from_text_of_its_own_attempt() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared, 512);
    let mut talk = Talk::new(&session);
    talk.start(&*a.adapter).await;
    talk.chunk(0, "whole");
    let event = talk.finish(0, 0);
    let generation = talk.answers[0].generation;
    let known: std::collections::HashSet<_> = [talk.answers[0].message].into();
    for (attempt, then) in [(1, &["text", "completed"][..]), (2, &["reset", "text", "completed"])] {
        let place = Cursor {
            position: Position { epoch: 1, seq: 9 },
            part: 0,
            given: 0,
            ordinal: 0,
            texts: vec![TextCursor { generation, attempt: 1, offset: 2 }],
        };
        let next = reader();
        let start = Start::After(&place);
        let join = a.hub.join(&session, next.clone(), Standing::Belongs, start, 0);
        assert!(!join.await.unwrap().is_whole);
        let missed = vec![Stored { event: event.clone(), attempt }];
        let from_store = FromStore { known: known.clone(), missed, ..FromStore::default() };
        a.hub.go_live(&session, next.number(), from_store);
        assert_eq!(words(&next), then);
        assert_eq!(deltas(&next), [if attempt == 1 { "ole" } else { "whole" }]);
    }
}

/// A reader's place says of an attempt what the trimmed log says no more.
#[tokio::test]
async fn text_of_an_answer_that_a_node_knows_nothing_of_is_void_where_the_log_is_not_whole() {
    let (shared, session) = (SharedMemory::default(), session());
    let b = told_node(&shared, 4);
    let mut talk = Talk::new(&session);
    let log = &*b.adapter;
    talk.start(log).await;
    for _ in 0..5 {
        talk.say(log).await;
    }
    let generation = talk.answers[0].generation;
    let place = Cursor {
        position: Position { epoch: 1, seq: 1 },
        part: 0,
        given: 0,
        ordinal: talk.ordinal,
        texts: vec![TextCursor { generation, attempt: 1, offset: 2 }],
    };
    let next = reader();
    let join = b.hub.join(&session, next.clone(), Standing::Belongs, Start::After(&place), 0);
    assert!(!join.await.unwrap().is_whole);
    b.hub.go_live(&session, next.number(), FromStore::default());
    talk.chunk(0, "other words");
    talk.end(log, 0, 0).await;
    assert_eq!(words(&next), ["reset", "text", "completed"]);
}

/// Its start was dropped from the log, or it has missed words, and nothing more is said for long.
#[tokio::test]
async fn what_a_node_lacks_of_the_text_before_a_takeover_is_read_at_once() {
    for events_max in [512, 4] {
        let (shared, session) = (SharedMemory::default(), session());
        let (a, b) = (told_node(&shared, events_max), told_node(&shared, events_max));
        let mut talk = Talk::new(&session);
        let log = &*a.adapter;
        talk.start(log).await;
        talk.grow(log, 0, "one ").await;
        for _ in 0..if events_max == 4 { 5 } else { 0 } {
            talk.say(log).await;
        }
        let there = reader();
        watch(&b, &session, &there, Standing::Belongs).await;
        b.lossy.deaf.store(true, Ordering::SeqCst);
        talk.grow(log, 0, "two").await;
        let generation = talk.answers[0].generation;
        let text_of_it = a.adapter.take_text(&session, generation, 2).await.unwrap();
        assert_eq!(text_of_it, "one two");
        b.lossy.deaf.store(false, Ordering::SeqCst);
        talk.take_over(log, 0).await;
        eventually("it is read", || async {
            (text(&there, generation) == "one two").then_some(())
        })
        .await;
    }
}

/// The log has lost that another attempt goes on: its words are all there is.
#[tokio::test]
async fn words_of_an_attempt_that_the_log_does_not_tell_of_start_the_answer_over() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared, 4), told_node(&shared, 4));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let there = reader();
    watch(&b, &session, &there, Standing::Belongs).await;
    talk.start(log).await;
    talk.grow(log, 0, "one two").await;
    b.lossy.deaf.store(true, Ordering::SeqCst);
    a.adapter.take_text(&session, talk.answers[0].generation, 2).await.unwrap();
    talk.take_over(log, 0).await;
    for _ in 0..4 {
        happens(&a, &session, EventKind::Unknown).await;
    }
    b.lossy.deaf.store(false, Ordering::SeqCst);
    talk.grow(log, 0, " three").await;
    let generation = talk.answers[0].generation;
    eventually("it is shown", || async {
        (text(&there, generation) == "one two three").then_some(())
    })
    .await;
    assert_eq!(words(&there)[..3], ["start", "text", "reset"]);
    talk.end(log, 0, 0).await;
    assert_eq!(words(&there).last().unwrap(), "completed");
}

/// Its claimer was frozen, and another one came after it.
#[tokio::test]
async fn what_an_attempt_says_late_is_not_shown() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared, 512);
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let first = reader();
    watch(&a, &session, &first, Standing::Belongs).await;
    talk.start(log).await;
    talk.answers[0].attempt = 2;
    talk.take_over(log, 0).await;
    let (generation, message) = (talk.answers[0].generation, talk.answers[0].message);
    let agent = || AgentId::new("assistant").unwrap();
    let resumed = || EventKind::GenerationResumed {
        generation,
        message,
        agent: agent(),
        attempt: 2,
        offset: 0,
        utf16_offset: 0,
    };
    happens(&a, &session, resumed()).await;
    let reason = String::new();
    let reset =
        EventKind::GenerationReset { generation, message, agent: agent(), attempt: 2, reason };
    happens(&a, &session, reset).await;
    let late = talk.answers[0].attempt;
    talk.answers[0].attempt = 1;
    let chunk = talk.chunk(0, "late words");
    a.lossy.feed().upgrade().unwrap().chunk(&session, chunk);
    talk.answers[0].attempt = late;
    talk.answers[0].text.clear();
    talk.grow(log, 0, "words").await;
    talk.end(log, 0, 0).await;
    happens(&a, &session, resumed()).await;
    assert_eq!(words(&first), ["start", "resumed", "text", "completed"]);
    assert_eq!(deltas(&first), ["words"]);
    let next = reader();
    let join = a.hub.join(&session, next.clone(), Standing::Belongs, Start::Now(&[]), 0);
    assert!(join.await.unwrap().active.is_empty());
}

#[tokio::test]
async fn what_readers_are_given_of_an_answer_is_counted_and_reported() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (node(&shared), node(&shared));
    let readers = [live(&a, &session).await, live(&a, &session).await, live(&b, &session).await];
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    readers[1].full.store(true, Ordering::SeqCst);
    for delta in ["Hé", "llo ", "😀"] {
        answer.grow(&*a.adapter, delta).await;
    }
    happens(&a, &session, super::said(&session, "not of the answer")).await;
    readers[1].full.store(false, Ordering::SeqCst);
    a.hub.resume(readers[1].number(), [&session]);
    answer.complete(&*a.adapter).await;
    let shown = readers.iter().flat_map(|reader| reader.shown());
    let of_it = shown.filter(|(word, _)| word.starts_with("stream:"));
    let bytes: u64 = of_it.map(|(word, body)| (word.len() + body.to_string().len()) as u64).sum();
    eventually("all is reported", || async {
        let tally = a.adapter.tallied(&session, answer.generation).await.unwrap();
        (tally?.sent_bytes == bytes).then_some(())
    })
    .await;
}
