//! Whoever goes on from a cursor is shown exactly what followed it, on any node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokencast::adapter::{Memory, SharedMemory};
use tokencast::dialect::DialectIndex;
use tokencast::domain::{Cursor, EventKind, GenerationId, MessageId, NodeId, Position, TextCursor};
use tokencast::hub::{Entered, FromStore, Standing, Start, Stored};

use super::reader::{Random, TestReader};
use super::told::{self, Client, Talk, cursor};
use super::{Node, happens, memory, node_on, said, session, watch};
use crate::support::{eventually, seeds};

type Frames = Vec<(String, Value)>;

fn told_node(shared: &SharedMemory) -> Node {
    node_on(memory(shared), told::dialects())
}

fn told_index() -> DialectIndex {
    told::dialects().by_name("told").unwrap()
}

fn reader() -> Arc<TestReader> {
    TestReader::of("ada", told_index())
}

async fn enter(node: &Node, talk: &Talk, reader: &Arc<TestReader>, cursor: &Cursor) -> Entered {
    let start = Start::After(cursor);
    node.hub.join(&talk.session, reader.clone(), Standing::Belongs, start, 0).await.unwrap()
}

/// Goes on after a cursor, asking the store where it has to, as sessions do.
async fn go_on(node: &Node, talk: &Talk, cursor: &Cursor) -> (Arc<TestReader>, bool) {
    let reader = reader();
    let entered = enter(node, talk, &reader, cursor).await;
    let from_store = if entered.is_whole { FromStore::default() } else { stored(talk, cursor) };
    node.hub.go_live(&talk.session, reader.number(), from_store);
    (reader, entered.is_whole)
}

fn stored(talk: &Talk, cursor: &Cursor) -> FromStore {
    let ordinal = |stored: &Stored| match &stored.event.kind {
        EventKind::MessageNew(message) => message.ordinal,
        kind => kind.answer().unwrap().ordinal,
    };
    let after = |stored: &&Stored| ordinal(stored) > cursor.has_upto();
    let missed: Vec<_> = talk.kept.iter().filter(after).cloned().collect();
    let known = missed.iter().filter_map(|stored| stored.event.kind.brings()).collect();
    FromStore { known, missed, ..FromStore::default() }
}

fn names(frames: &Frames) -> Vec<&str> {
    frames.iter().map(|(name, _)| name.as_str()).collect()
}

/// Several answers at once, one started over, one taken over, and each way to end.
async fn scripted(a: &Node, talk: &mut Talk, step: usize) -> bool {
    let log = &*a.adapter;
    match step {
        0 | 3 => talk.say(log).await,
        1 | 4 | 12 => {
            talk.start(log).await;
        }
        2 => talk.grow(log, 0, "né€").await,
        5 => talk.grow(log, 1, "😀").await,
        6 => talk.grow(log, 0, " wörld").await,
        7 => talk.reset(log, 1).await,
        8 => talk.grow(log, 1, "ünder").await,
        9 => talk.resume(log, 0).await,
        10 => talk.grow(log, 0, "€€").await,
        11 => talk.end(log, 0, 1).await,
        13 => talk.grow(log, 2, "a").await,
        14 => talk.grow(log, 1, " way").await,
        15 => talk.end(log, 1, 2).await,
        16 => talk.resume(log, 2).await,
        17 => talk.say(log).await,
        18 => talk.grow(log, 2, "😀b").await,
        19 => talk.end(log, 2, 0).await,
        20 => {
            talk.start(log).await;
        }
        21 => talk.grow(log, 3, "runs on").await,
        _ => return false,
    }
    true
}

#[tokio::test]
async fn from_every_frame_of_a_conversation_exactly_the_rest_follows_on_any_node() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let first = reader();
    watch(&a, &session, &first, Standing::Belongs).await;
    let mut talk = Talk::new(&session);
    // What each had when it left, and its next reader.
    let mut stays: Vec<(Client, Arc<TestReader>)> = Vec::new();
    for step in 0.. {
        let more = scripted(&a, &mut talk, step).await;
        let fresh = told_node(&shared);
        for node in [&a, &b, &fresh] {
            let frames = first.shown();
            for (at, frame) in frames.iter().enumerate() {
                let cursor = cursor(frame).expect("the log has all of it");
                let (next, is_whole) = go_on(node, &talk, &cursor).await;
                assert!(is_whole);
                let had = Client::of(&frames[..=at]);
                let mut has = had.clone();
                has.hear(&next.shown());
                assert_eq!(has, talk.heard, "step {step}, after {frame:?}: {:?}", next.shown());
                if !std::ptr::eq(node, &fresh) {
                    stays.push((had, next));
                }
            }
        }
        if !more {
            break;
        }
    }
    assert!(talk.heard.events.len() > 10);
    // Those that came in the middle heard the rest live; and whoever takes over from them, too.
    for (had, next) in &stays {
        let mut has = had.clone();
        has.hear(&next.shown());
        assert_eq!(has, talk.heard);
    }
    for (had, next) in stays.iter().step_by(17) {
        let frames = next.shown();
        for (at, frame) in frames.iter().enumerate() {
            let Some(cursor) = cursor(frame) else { panic!("{frame:?}") };
            let (next, _) = go_on(&b, &talk, &cursor).await;
            let mut has = had.clone();
            has.hear(&frames[..=at]);
            has.hear(&next.shown());
            assert_eq!(has, talk.heard, "after {frame:?}");
        }
    }
}

/// Prints its seeds; `SEED` tries another one.
#[tokio::test(start_paused = true)]
async fn whoever_goes_from_node_to_node_hears_all_of_it_once() {
    for seed in seeds(&[1, 2, 3]) {
        let mut random = Random(seed);
        for round in 0..15 {
            let (shared, session) = (SharedMemory::default(), session());
            let nodes = [told_node(&shared), told_node(&shared), told_node(&shared)];
            for (n, node) in nodes.iter().enumerate() {
                node.lossy.lose_one_in.store([0, 5, 2][n], Ordering::SeqCst);
            }
            let log = &*nodes[0].adapter;
            let mut talk = Talk::new(&session);
            let mut readers: Vec<(Client, usize, Arc<TestReader>)> = Vec::new();
            for (at, node) in nodes.iter().enumerate() {
                let root = reader();
                watch(node, &session, &root, Standing::Belongs).await;
                readers.push((Client::default(), at, root));
            }
            let mut open: Vec<usize> = Vec::new();
            for _ in 0..150 {
                match random.below(20) {
                    0 => talk.say(log).await,
                    1 if open.len() < 3 => open.push(talk.start(log).await),
                    2 if !open.is_empty() => talk.reset(log, open[random.below(open.len())]).await,
                    3 if !open.is_empty() => talk.resume(log, open[random.below(open.len())]).await,
                    4 if !open.is_empty() => {
                        let at = open.swap_remove(random.below(open.len()));
                        talk.end(log, at, random.below(3)).await;
                    }
                    5..=13 if !open.is_empty() => {
                        let delta = ["é", "one ", "😀", "longer words ", "\n"][random.below(5)];
                        talk.grow(log, open[random.below(open.len())], delta).await;
                    }
                    14 | 15 => {
                        let (_, at, reader) = &readers[random.below(readers.len())];
                        if reader.full.fetch_xor(true, Ordering::SeqCst) {
                            nodes[*at].hub.resume(reader.number(), [&session]);
                        }
                    }
                    16 | 17 => {
                        let (had, _, reader) = &readers[random.below(readers.len())];
                        let frames = reader.shown();
                        if !frames.is_empty() {
                            let last = random.below(frames.len());
                            let mut had = had.clone();
                            had.hear(&frames[..=last]);
                            let at = random.below(3);
                            let cursor = cursor(&frames[last]).expect("the log has it");
                            let (next, is_whole) = go_on(&nodes[at], &talk, &cursor).await;
                            assert!(is_whole, "seed {seed}");
                            readers.push((had, at, next));
                        }
                    }
                    18 => tokio::task::yield_now().await,
                    _ => {}
                }
            }
            for node in &nodes {
                node.lossy.lose_one_in.store(0, Ordering::SeqCst);
            }
            // Shows what was lost last.
            talk.say(log).await;
            for node in &nodes {
                node.lossy.feed().upgrade().unwrap().dirty();
            }
            for (had, at, reader) in &readers {
                reader.full.store(false, Ordering::SeqCst);
                eventually(&format!("seed {seed}, round {round}: a reader's end"), || async {
                    nodes[*at].hub.resume(reader.number(), [&session]);
                    let mut has = had.clone();
                    has.hear(&reader.shown());
                    (has == talk.heard).then_some(())
                })
                .await;
            }
        }
    }
}

/// Joins and is not let through: where it stands.
async fn held(node: &Node, talk: &Talk, reader: &Arc<TestReader>, stored: u64) -> Cursor {
    let (start, standing) = (Start::Now(&[]), Standing::Belongs);
    node.hub.join(&talk.session, reader.clone(), standing, start, stored).await.unwrap().at
}

#[tokio::test]
async fn who_is_cut_off_before_it_is_shown_anything_goes_on_from_where_it_joined() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let mut talk = Talk::new(&session);
    talk.say(&*a.adapter).await;
    let mut places = Vec::new();
    for step in 0.. {
        let (cut, beside) = (reader(), reader());
        let at = held(&a, &talk, &cut, 0).await;
        assert_eq!(at.ordinal, talk.ordinal, "the log has it");
        watch(&a, &session, &beside, Standing::Belongs).await;
        // Coming back, it stands at the same place for as long as it is shown nothing.
        assert_eq!(enter(&b, &talk, &reader(), &at).await.at, at);
        places.push((cut, at, beside));
        if !scripted(&a, &mut talk, step).await {
            break;
        }
    }
    let fresh = told_node(&shared);
    for (cut, at, beside) in &places {
        assert_eq!(held(&a, &talk, cut, 0).await, *at, "a member keeps its place");
        for node in [&a, &b, &fresh] {
            let (next, is_whole) = go_on(node, &talk, at).await;
            assert!(is_whole);
            assert_eq!(Client::of(&next.shown()), Client::of(&beside.shown()), "from {at}");
        }
    }
    let (_, _, live) = &places[0];
    let last = cursor(live.shown().last().unwrap()).unwrap();
    assert_eq!(held(&a, &talk, live, 0).await, last);
}

/// An empty log says nothing of what was stored, nor of what it had meanwhile.
#[tokio::test]
async fn where_the_log_has_no_messages_it_goes_on_from_what_the_store_had() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let mut talk = Talk::new(&session);
    talk.ordinal = 7;
    let live = reader();
    let at = held(&a, &talk, &live, talk.ordinal).await;
    assert_eq!(at, Cursor { ordinal: 7, ..Cursor::default() });
    a.hub.go_live(&session, live.number(), FromStore::default());
    let end = {
        talk.start(&*a.adapter).await;
        talk.grow(&*a.adapter, 0, "text").await;
        for (frame, texts) in live.shown().iter().zip([0, 4]) {
            let cursor = cursor(frame).unwrap();
            assert_eq!((cursor.ordinal, cursor.texts[0].offset), (7, texts));
        }
        talk.finish(0, 0)
    };
    // Stored meanwhile: it comes after what the log has brought.
    assert_eq!(held(&a, &talk, &reader(), talk.ordinal).await.ordinal, 7);
    talk.deliver(&*a.adapter, end).await;
    assert_eq!(held(&a, &talk, &reader(), 0).await.ordinal, 8);
    assert_eq!(held(&b, &talk, &reader(), 9).await.ordinal, 8, "of what the log has, it says");
    // It begins with what followed.
    for node in [&a, &b] {
        let (next, is_whole) = go_on(node, &talk, &at).await;
        assert!(is_whole);
        assert_eq!(names(&next.shown()), ["start", "text", "completed"]);
    }
    // What had it may be lost, or begin later.
    let earlier = Cursor { ordinal: 6, ..at.clone() };
    for (node, at) in [(&told_node(&SharedMemory::default()), &at), (&a, &earlier)] {
        let (next, is_whole) = go_on(node, &talk, at).await;
        assert!(!is_whole);
        assert_eq!(names(&next.shown()), ["text", "completed"]);
        let has: Vec<_> = next.shown().iter().map(|frame| cursor(frame).unwrap().ordinal).collect();
        assert_eq!(has, [at.ordinal, 8]);
    }
}

/// A node whose log keeps four events.
fn short(shared: &SharedMemory) -> Node {
    let ttl = Duration::from_secs(60);
    let adapter = Memory::new(NodeId::new(), 4, ttl, shared.clone());
    node_on(Arc::new(adapter), told::dialects())
}

/// A cursor in the middle of an answer; then that one ended, another was written, and a third one
/// runs, of all of which the log has dropped the first part.
async fn trimmed(a: &Node, talk: &mut Talk) -> (Client, Cursor) {
    let first = reader();
    watch(a, &talk.session, &first, Standing::Belongs).await;
    let log = &*a.adapter;
    talk.say(log).await;
    talk.start(log).await;
    talk.grow(log, 0, "né").await;
    let had = first.shown();
    talk.grow(log, 0, "€!").await;
    talk.end(log, 0, 0).await;
    talk.start(log).await;
    talk.grow(log, 1, "whole").await;
    talk.end(log, 1, 1).await;
    talk.start(log).await;
    talk.grow(log, 2, "runs").await;
    for _ in 0..3 {
        happens(a, &talk.session, EventKind::Unknown).await;
    }
    (Client::of(&had), cursor(had.last().unwrap()).unwrap())
}

/// The answers of a client, without their beginnings.
fn answers(client: &Client) -> (Vec<&String>, &std::collections::BTreeMap<String, String>) {
    let ends = client.events.iter().filter(|event| event.contains(": "));
    (ends.collect(), &client.texts)
}

#[tokio::test]
async fn where_the_log_was_trimmed_or_began_anew_answers_come_from_the_store_first() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (short(&shared), short(&shared));
    let mut talk = Talk::new(&session);
    let (had, left) = trimmed(&a, &mut talk).await;
    let older = Position { epoch: left.position.epoch - 1, seq: left.position.seq + 1_000 };
    for left in [left.clone(), Cursor { position: older, ..left.clone() }] {
        let (next, is_whole) = go_on(&b, &talk, &left).await;
        assert!(!is_whole);
        let frames = next.shown();
        assert_eq!(names(&frames), ["text", "completed", "text", "stopped", "start", "text"]);
        let mut has = had.clone();
        has.hear(&frames);
        assert_eq!(answers(&has), answers(&talk.heard));
        // From each of these frames, too, nothing comes twice and nothing is left out.
        for (at, frame) in frames.iter().enumerate() {
            for node in [&b, &short(&shared)] {
                let (next, _) = go_on(node, &talk, &cursor(frame).unwrap()).await;
                assert_eq!(next.shown().len(), frames.len() - at - 1, "after {frame:?}");
                let mut has = had.clone();
                has.hear(&frames[..=at]);
                has.hear(&next.shown());
                assert_eq!(answers(&has), answers(&talk.heard), "after {frame:?}");
            }
        }
        // And a slow one gets each in its place.
        for taken in 0..frames.len() {
            let slow = reader();
            assert!(!enter(&b, &talk, &slow, &left).await.is_whole);
            slow.full.store(true, Ordering::SeqCst);
            b.hub.go_live(&session, slow.number(), stored(&talk, &left));
            for _ in 0..taken {
                slow.full.store(false, Ordering::SeqCst);
                slow.full_after_next.store(true, Ordering::SeqCst);
                b.hub.resume(slow.number(), [&session]);
            }
            slow.full.store(false, Ordering::SeqCst);
            b.hub.resume(slow.number(), [&session]);
            assert_eq!(slow.shown(), frames);
        }
    }
}

/// The store has the end, the log has it later: it was shown a second time.
#[tokio::test]
async fn an_end_from_the_store_is_not_shown_again_when_the_log_brings_it() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let first = reader();
    watch(&a, &session, &first, Standing::Belongs).await;
    talk.say(log).await;
    let at = talk.start(log).await;
    talk.grow(log, at, "all ").await;
    let mut left = cursor(first.shown().last().unwrap()).unwrap();
    left.position.epoch -= 1;
    let chunk = talk.chunk(at, "of it");
    let end = talk.finish(at, 0);
    let (next, is_whole) = go_on(&b, &talk, &left).await;
    assert!(!is_whole);
    assert_eq!(names(&next.shown()), ["text", "completed"]);
    a.adapter.append_chunk(&session, chunk).await.unwrap();
    talk.say(log).await;
    assert_eq!(names(&next.shown()), ["text", "completed", "new"]);
    let before = next.shown();
    let (early, _) = go_on(&a, &talk, &cursor(&before[1]).unwrap()).await;
    let (late, _) = go_on(&a, &talk, &cursor(&before[2]).unwrap()).await;
    talk.deliver(log, end).await;
    talk.say(log).await;
    let (later, _) = go_on(&told_node(&shared), &talk, &cursor(&before[2]).unwrap()).await;
    assert_eq!(names(&next.shown()), ["text", "completed", "new", "new"]);
    assert_eq!(names(&early.shown()), ["new", "new"]);
    assert_eq!(names(&late.shown()), ["new"]);
    assert_eq!(names(&later.shown()), ["new"]);
}

#[tokio::test]
async fn a_cursor_that_fits_nothing_starts_the_answer_over() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared);
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let first = reader();
    watch(&a, &session, &first, Standing::Belongs).await;
    talk.say(log).await;
    talk.start(log).await;
    talk.grow(log, 0, "aé😀z").await;
    let generation = talk.answers[0].generation;
    let left = cursor(first.shown().last().unwrap()).unwrap();
    let before = Cursor { texts: Vec::new(), ..cursor(&first.shown()[0]).unwrap() };
    let bogus = [(1, 2), (1, 9), (1, u64::MAX), (0, 2), (7, 1), (7, 0), (u32::MAX, u64::MAX)];
    let mut readers = Vec::new();
    for place in [&left, &before] {
        for (attempt, offset) in bogus {
            let texts = vec![TextCursor { generation, attempt, offset }];
            let (next, _) = go_on(&a, &talk, &Cursor { texts, ..place.clone() }).await;
            let frames = next.shown();
            let words = names(&frames);
            assert!(
                words == ["reset", "text"] || (attempt == 0 && words == ["start", "text"]),
                "{attempt} {offset}: {words:?}"
            );
            assert_eq!(Client::of(&frames).texts, talk.heard.texts);
            let again = go_on(&a, &talk, &cursor(&frames[0]).unwrap()).await.0.shown();
            assert_eq!(names(&again), ["text"]);
            readers.push(next);
        }
    }
    talk.end(log, 0, 0).await;
    for reader in &readers {
        assert_eq!(Client::of(&reader.shown()).events.last(), talk.heard.events.last());
    }
    // The same where it has ended since.
    for place in [&left, &before] {
        for (attempt, offset) in bogus {
            let texts = vec![TextCursor { generation, attempt, offset }];
            let (next, _) = go_on(&a, &talk, &Cursor { texts, ..place.clone() }).await;
            let frames = next.shown();
            assert_eq!(frames.len(), 3, "{attempt} {offset}: {frames:?}");
            assert_eq!(Client::of(&frames).events.last(), talk.heard.events.last());
        }
    }
    // Whatever it says, somebody who has nothing is shown no text but from its start.
    let mut random = Random(11);
    for _ in 0..300 {
        let offset = [0, 2, 4, u64::MAX][random.below(4)];
        let mut number = |max: u64| match random.below(4) {
            0 => u64::MAX,
            1 => 0,
            _ => random.below(usize::try_from(max).unwrap()) as u64,
        };
        let position = Position {
            epoch: left.position.epoch.saturating_add(number(3)).saturating_sub(1),
            seq: number(6),
        };
        let other = TextCursor { generation: GenerationId::new(), attempt: 1, offset: number(9) };
        let texts = vec![other, TextCursor { generation, attempt: 9, offset }];
        let odd = Cursor { position, part: number(3) as u8, ordinal: number(4), given: 0, texts };
        let (next, _) = go_on(&a, &talk, &odd).await;
        Client::of(&next.shown());
    }
    talk.say(log).await;
}

#[tokio::test]
async fn a_node_that_heard_less_than_the_reader_reads_on_first() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let (first, there) = (reader(), reader());
    watch(&a, &session, &first, Standing::Belongs).await;
    watch(&b, &session, &there, Standing::Belongs).await;
    talk.start(log).await;
    b.lossy.deaf.store(true, Ordering::SeqCst);
    talk.grow(log, 0, "lost, ").await;
    for missed in 0..2 {
        let had = first.shown();
        let (next, is_whole) = go_on(&b, &talk, &cursor(had.last().unwrap()).unwrap()).await;
        assert!(is_whole);
        assert!(next.shown().is_empty(), "{missed}: it has all: {:?}", next.shown());
        talk.say(log).await;
        talk.grow(log, 0, "and more").await;
    }
}

/// It heard that another attempt goes on, but not all of the text.
#[tokio::test]
async fn a_node_that_heard_of_a_takeover_but_less_of_the_text_reads_on_first() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let (first, there) = (reader(), reader());
    watch(&a, &session, &first, Standing::Belongs).await;
    watch(&b, &session, &there, Standing::Belongs).await;
    talk.start(log).await;
    b.lossy.deaf.store(true, Ordering::SeqCst);
    talk.grow(log, 0, "lost").await;
    let had = first.shown();
    b.lossy.deaf.store(false, Ordering::SeqCst);
    talk.take_over(log, 0).await;
    b.lossy.deaf.store(true, Ordering::SeqCst);
    talk.write_again(log, 0).await;
    assert_eq!(names(&there.shown()), ["start", "resumed"]);
    let (next, is_whole) = go_on(&b, &talk, &cursor(had.last().unwrap()).unwrap()).await;
    assert!(is_whole);
    assert_eq!(names(&next.shown()), ["resumed"]);
}

/// What the log does not have yet cannot be gone on from elsewhere: it starts over there.
#[tokio::test]
async fn text_that_only_one_node_has_is_gone_on_from_there_and_starts_over_elsewhere() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (told_node(&shared), told_node(&shared));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let first = reader();
    watch(&a, &session, &first, Standing::Belongs).await;
    talk.start(log).await;
    talk.grow(log, 0, "logged, ").await;
    let chunk = talk.chunk(0, "not logged");
    a.adapter.show(&session, chunk.clone());
    let left = cursor(first.shown().last().unwrap()).unwrap();
    assert!(go_on(&a, &talk, &left).await.0.shown().is_empty());
    let (next, _) = go_on(&b, &talk, &left).await;
    assert_eq!(names(&next.shown()), ["reset", "text"]);
    log.append_chunk(&session, chunk).await.unwrap();
    assert_eq!(Client::of(&next.shown()).texts, talk.heard.texts);
}

/// Shown before the log has it: it has no cursor, and what comes after does not bring it again.
#[tokio::test]
async fn an_answer_that_was_shown_before_the_log_had_it_does_not_come_again() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared);
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let first = reader();
    watch(&a, &session, &first, Standing::Belongs).await;
    talk.say(log).await;
    talk.start(log).await;
    talk.grow(log, 0, "text").await;
    let end = talk.finish(0, 0);
    a.adapter.show_event(&session, end.clone());
    assert_eq!(cursor(first.shown().last().unwrap()), None);
    talk.say(log).await;
    let left = cursor(first.shown().last().unwrap()).unwrap();
    let (before, _) = go_on(&a, &talk, &left).await;
    log.append_event(&session, end).await.unwrap();
    talk.say(log).await;
    let (after, _) = go_on(&told_node(&shared), &talk, &left).await;
    assert_eq!(names(&before.shown()), ["new"]);
    assert_eq!(names(&after.shown()), ["new"]);
}

#[tokio::test]
async fn an_answer_that_a_reader_finds_running_is_told_of_before_its_text() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared);
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let slow = reader();
    watch(&a, &session, &slow, Standing::Belongs).await;
    talk.start(log).await;
    let join = async |texts: &[(GenerationId, u64)]| {
        let reader = reader();
        let start = Start::Now(texts);
        a.hub.join(&session, reader.clone(), Standing::Belongs, start, 0).await.unwrap();
        reader
    };
    let early = join(&[]).await;
    a.hub.go_live(&session, early.number(), FromStore::default());
    assert_eq!(names(&early.shown()), ["running"]);
    talk.grow(log, 0, "text").await;
    slow.full.store(true, Ordering::SeqCst);
    talk.grow(log, 0, " so far").await;
    let (held, full, part) =
        (join(&[]).await, join(&[]).await, join(&[(talk.answers[0].generation, 4)]).await);
    full.full.store(true, Ordering::SeqCst);
    for reader in [&full, &part] {
        a.hub.go_live(&session, reader.number(), FromStore::default());
    }
    assert!(full.shown().is_empty());
    slow.full.store(false, Ordering::SeqCst);
    full.full.store(false, Ordering::SeqCst);
    for reader in [&full, &slow] {
        a.hub.resume(reader.number(), [&session]);
    }
    let known = join(&[]).await;
    let knows = FromStore { known: [talk.answers[0].message].into(), ..FromStore::default() };
    a.hub.go_live(&session, known.number(), knows);
    let next = talk.start(log).await;
    talk.end(log, 0, 0).await;
    a.hub.go_live(&session, held.number(), FromStore::default());
    talk.grow(log, next, "more").await;
    for (reader, words) in [
        (&early, &["running", "text", "text", "start", "completed", "text"][..]),
        (&slow, &["start", "text", "text", "start", "completed", "text"]),
        (&full, &["running", "text", "start", "completed", "text"]),
        (&part, &["running", "text", "start", "completed", "text"]),
        (&held, &["start", "running", "text", "completed", "text"]),
        (&known, &["start", "text"]),
    ] {
        assert_eq!(names(&reader.shown()), words);
    }
    assert_eq!(part.shown()[1].1["delta"], " so far");
}

#[tokio::test]
async fn who_sends_a_message_so_is_not_shown_it_and_everybody_else_is() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = told_node(&shared);
    let [sender, other, slow] = [reader(), reader(), reader()];
    for reader in [&sender, &other, &slow] {
        watch(&a, &session, reader, Standing::Belongs).await;
    }
    let EventKind::MessageNew(new) = said(&session, "hi") else { unreachable!() };
    let sent = || EventKind::MessageNew(new.clone());
    for reader in [&sender, &slow] {
        a.hub.sends(&session, reader.number(), new.id);
    }
    slow.full.store(true, Ordering::SeqCst);
    happens(&a, &session, said(&session, "before")).await;
    happens(&a, &session, sent()).await;
    happens(&a, &session, EventKind::MessageEdited(new.clone())).await;
    slow.full.store(false, Ordering::SeqCst);
    a.hub.resume(slow.number(), [&session]);
    assert_eq!(other.names(), ["new", "new", "other"]);
    assert_eq!(
        (sender.names(), slow.names()),
        (other.names()[1..].to_vec(), other.names()[1..].to_vec())
    );
    // It has passed.
    happens(&a, &session, sent()).await;
    assert_eq!(sender.names()[2..], ["new"]);
    // Of too many the oldest is forgotten, and it alone.
    let many: Vec<_> = (0..=tokencast::hub::SENT_MAX)
        .map(|_| match said(&session, "hi") {
            EventKind::MessageNew(new) => new,
            _ => unreachable!(),
        })
        .collect();
    sender.take();
    for new in &many {
        a.hub.sends(&session, sender.number(), new.id);
    }
    for new in &many {
        happens(&a, &session, EventKind::MessageNew(new.clone())).await;
    }
    let shown = sender.shown();
    assert_eq!(names(&shown), ["new"]);
    assert_eq!(shown[0].1["about"], many[0].id.to_string());
    a.hub.sends(&session, sender.number(), MessageId::new());
}

/// The log dropped its start, so this node cannot show it before its end; the reader has a part.
#[tokio::test]
async fn who_has_a_part_of_an_answer_that_the_node_does_not_know_is_shown_its_rest_at_the_end() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (short(&shared), short(&shared));
    let mut talk = Talk::new(&session);
    let log = &*a.adapter;
    let (first, other) = (reader(), reader());
    watch(&a, &session, &first, Standing::Belongs).await;
    talk.start(log).await;
    talk.grow(log, 0, "né").await;
    for _ in 0..4 {
        talk.say(log).await;
    }
    let had = first.shown();
    watch(&b, &session, &other, Standing::Belongs).await;
    let (next, is_whole) = go_on(&b, &talk, &cursor(had.last().unwrap()).unwrap()).await;
    assert!(is_whole);
    talk.grow(log, 0, "€!").await;
    talk.say(log).await;
    eventually("the node goes on without it", || async {
        (names(&next.shown()) == ["new"]).then_some(())
    })
    .await;
    let between = next.shown();
    talk.end(log, 0, 0).await;
    for (had, next) in [(had.clone(), next.shown()), {
        let (next, _) = go_on(&b, &talk, &cursor(&between[0]).unwrap()).await;
        ([had, between].concat(), next.shown())
    }] {
        let mut has = Client::of(&had);
        has.hear(&next);
        assert_eq!(has, talk.heard);
    }
    talk.say(log).await;
    assert_eq!(names(&other.shown()), ["new", "text", "completed", "new"]);
    assert_eq!(names(&next.shown()), ["new", "text", "completed", "new"]);
    assert_eq!(cursor(&next.shown()[3]), cursor(&other.shown()[3]), "they stand at one place");
}
