//! What readers of a tail are shown, whatever is lost, doubled or late on the way to it, and
//! however slow they are.

mod access;
mod anywhere;
mod attempts;
mod coming_back;
mod plain;
mod presence;
pub mod reader;
mod recover;
mod resume;
mod takeover;
mod told;
mod typing;
mod unknown;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokencast::adapter::{Log, Memory, SharedAdapter, SharedMemory, Sinks};
use tokencast::dialect::Dialects;
use tokencast::domain::{
    AgentId, Author, Chunk, Event, EventKind, GenerationId, Message, MessageId, NodeId, SessionId,
    StopReason, Timestamp, Usage,
};
use tokencast::hub::{FromStore, Hub, HubOptions, Standing, Start};
use tokencast::lifecycle::Tasks;
use tokio::sync::mpsc;

use crate::support::{eventually, seeds};
use reader::{Lossy, TestReader};

/// An answer as its owner appends it.
pub struct Answer {
    pub session: SessionId,
    pub generation: GenerationId,
    pub message: MessageId,
    pub text: String,
    seq: u64,
}

impl Answer {
    pub fn new(session: &SessionId) -> Self {
        Self {
            session: session.clone(),
            generation: GenerationId::new(),
            message: MessageId::new(),
            text: String::new(),
            seq: 0,
        }
    }

    fn started(&self) -> Arc<Event> {
        Arc::new(Event::new(EventKind::GenerationStarted {
            generation: self.generation,
            message: self.message,
            agent: AgentId::new("assistant").unwrap(),
            attempt: 1,
        }))
    }

    pub async fn start(&self, log: &dyn Log) {
        log.append_event(&self.session, self.started()).await.unwrap();
    }

    fn next(&mut self, delta: &str) -> Chunk {
        self.seq += 1;
        let chunk = Chunk {
            generation: self.generation,
            attempt: 1,
            seq: self.seq,
            offset: self.text.len() as u64,
            tokens: self.seq,
            read_at_ms: Timestamp::now().as_millis(),
            delta: delta.into(),
        };
        self.text.push_str(delta);
        chunk
    }

    pub async fn grow(&mut self, log: &dyn Log, delta: &str) {
        let chunk = self.next(delta);
        log.append_chunk(&self.session, chunk).await.unwrap();
    }

    pub async fn complete(&self, log: &dyn Log) {
        let kind = EventKind::GenerationCompleted {
            generation: self.generation,
            message: Arc::new(message(&self.session, self.message, Author::Assistant, &self.text)),
            reason: StopReason::EndTurn,
            usage: Usage { input_tokens: 1, output_tokens: self.seq, cached_tokens: 0 },
        };
        log.append_event(&self.session, Arc::new(Event::new(kind))).await.unwrap();
    }
}

pub fn message(session: &SessionId, id: MessageId, author: Author, content: &str) -> Message {
    let now = Timestamp::now();
    Message {
        id,
        session: session.clone(),
        ordinal: 1,
        user: None,
        agent: None,
        author,
        content: content.to_owned(),
        metadata: serde_json::Map::new(),
        tokens: Some(7),
        usage: None,
        parent: None,
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        created_at: now,
        updated_at: now,
        reactions: Vec::new(),
        attachments: Vec::new(),
    }
}

/// A node: its hub, fed through `Lossy`.
pub struct Node {
    pub adapter: SharedAdapter,
    pub hub: Hub,
    pub lossy: Arc<Lossy>,
    tasks: Tasks,
    _notices: mpsc::Receiver<tokencast::adapter::Notice>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

pub fn node(shared: &SharedMemory) -> Node {
    node_on(memory(shared), Dialects::new(false))
}

pub fn memory(shared: &SharedMemory) -> SharedAdapter {
    Arc::new(Memory::new(NodeId::new(), 512, Duration::from_secs(60), shared.clone()))
}

pub fn node_on(adapter: SharedAdapter, dialects: Dialects) -> Node {
    node_keeping(adapter, dialects, HubOptions::default().recent_max)
}

/// One that keeps so many events of a session for readers that are behind.
pub fn node_keeping(adapter: SharedAdapter, dialects: Dialects, recent_max: usize) -> Node {
    let tasks = Tasks::new();
    let options = HubOptions {
        recent_max,
        linger: Duration::ZERO,
        report_every: Duration::from_millis(10),
        ..HubOptions::default()
    };
    let hub = Hub::new(adapter.clone(), dialects, options, tasks.clone());
    let (notify, notices) = mpsc::channel(1);
    let lossy = Lossy::around(hub.feed());
    let (absences, _) = mpsc::channel(1);
    adapter.attach(Sinks { feed: lossy.feed(), notices: notify, absences });
    Node { adapter, hub, lossy, tasks, _notices: notices }
}

pub fn session() -> SessionId {
    SessionId::new(format!("s:{}", MessageId::new())).unwrap()
}

pub async fn live(node: &Node, session: &SessionId) -> Arc<TestReader> {
    let reader = TestReader::new();
    watch(node, session, &reader, Standing::Belongs).await;
    reader
}

/// The reader joins and goes live.
async fn watch(node: &Node, session: &SessionId, reader: &Arc<TestReader>, standing: Standing) {
    node.hub.join(session, reader.clone(), standing, Start::Now(&[]), 0).await.unwrap();
    node.hub.go_live(session, reader.number(), Default::default());
}

/// Something happens in a session.
async fn happens(node: &Node, session: &SessionId, kind: EventKind) -> Arc<Event> {
    let event = Arc::new(Event::new(kind));
    node.adapter.append_event(session, event.clone()).await.unwrap();
    event
}

/// A new message that says `content`.
fn said(session: &SessionId, content: &str) -> EventKind {
    EventKind::MessageNew(Arc::new(message(session, MessageId::new(), Author::User, content)))
}

#[tokio::test]
async fn a_live_reader_is_shown_everything_once_and_in_order() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (node(&shared), node(&shared));
    let (here, there) = (live(&a, &session).await, live(&b, &session).await);
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    for delta in ["Hé", "llo ", "😀", " wörld"] {
        answer.grow(&*a.adapter, delta).await;
    }
    answer.complete(&*a.adapter).await;
    for reader in [here, there] {
        assert_eq!(
            reader.names(),
            [
                "stream:start",
                "stream:chunk",
                "stream:chunk",
                "stream:chunk",
                "stream:chunk",
                "stream:chunk",
                "stream:complete"
            ]
        );
        assert_eq!(reader.text(answer.generation), answer.text);
    }
}

#[tokio::test]
async fn nothing_is_offered_before_go_live_and_the_text_so_far_is_one_chunk() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (node(&shared), node(&shared));
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    answer.grow(&*a.adapter, "one ").await;
    answer.grow(&*a.adapter, "two ").await;

    let reader = TestReader::new();
    let active = b
        .hub
        .join(&session, reader.clone(), Standing::Belongs, Start::Now(&[]), 0)
        .await
        .unwrap()
        .active;
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].generation, active[0].utf16_len), (answer.generation, 8));
    answer.grow(&*a.adapter, "three ").await;
    assert!(reader.names().is_empty(), "held");

    b.hub.go_live(&session, reader.number(), Default::default());
    assert_eq!(reader.names(), ["stream:chunk"], "all so far in one");
    answer.grow(&*a.adapter, "four").await;
    assert_eq!(reader.names().len(), 2);
    assert_eq!(reader.text(answer.generation), "one two three four");
}

#[tokio::test]
async fn a_reader_that_has_a_part_is_given_what_follows_and_a_wrong_part_counts_as_none() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    answer.grow(&*a.adapter, "a😀bc").await;
    // In UTF-16: a is 1 unit, the emoji 2. Offset 2 would cut it in two.
    for (has, delta) in [(0, "a😀bc"), (1, "😀bc"), (3, "bc"), (2, "a😀bc"), (99, "a😀bc")]
    {
        let reader = TestReader::new();
        let texts = [(answer.generation, has)];
        a.hub
            .join(&session, reader.clone(), Standing::Belongs, Start::Now(&texts), 0)
            .await
            .unwrap();
        a.hub.go_live(&session, reader.number(), Default::default());
        assert_eq!(reader.deltas(answer.generation), [delta], "has {has}");
    }
}

#[tokio::test]
async fn what_a_reader_was_given_from_the_store_is_not_shown_again() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    answer.grow(&*a.adapter, "text").await;
    let reader = TestReader::new();
    a.hub.join(&session, reader.clone(), Standing::Belongs, Start::Now(&[]), 0).await.unwrap();
    // The store had both; the log hears of them now, before and after the reader goes live.
    let stored = message(&session, MessageId::new(), Author::User, "hi");
    let new = EventKind::MessageNew(Arc::new(stored.clone()));
    a.adapter.append_event(&session, Arc::new(Event::new(new))).await.unwrap();
    a.hub.go_live(
        &session,
        reader.number(),
        FromStore { known: [stored.id, answer.message].into(), ..FromStore::default() },
    );
    answer.grow(&*a.adapter, " more").await;
    answer.complete(&*a.adapter).await;
    assert!(reader.names().is_empty(), "{:?}", reader.names());
    // What comes after is shown as ever.
    let mut next = Answer::new(&session);
    next.start(&*a.adapter).await;
    next.grow(&*a.adapter, "next").await;
    assert_eq!(reader.text(next.generation), "next");
}

#[tokio::test]
async fn a_slow_reader_keeps_its_place_and_gets_all_it_is_owed_joined() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let (slow, quick) = (live(&a, &session).await, live(&a, &session).await);
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    answer.grow(&*a.adapter, "0 ").await;
    slow.full.store(true, Ordering::SeqCst);
    for n in 1..100 {
        answer.grow(&*a.adapter, &format!("{n} ")).await;
    }
    assert_eq!(slow.text(answer.generation), "0 ", "it takes nothing");
    assert_eq!(quick.text(answer.generation), answer.text, "others go on");
    slow.full.store(false, Ordering::SeqCst);
    a.hub.resume(slow.number(), [&session]);
    assert_eq!(slow.text(answer.generation), answer.text);
    assert_eq!(slow.deltas(answer.generation).len(), 2, "joined into one");
    // And it is live again.
    answer.grow(&*a.adapter, "end").await;
    assert_eq!(slow.text(answer.generation), answer.text);
}

#[tokio::test]
async fn a_reader_that_is_slow_over_the_end_of_an_answer_gets_its_rest_before_the_end() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let slow = live(&a, &session).await;
    let mut first = Answer::new(&session);
    first.start(&*a.adapter).await;
    first.grow(&*a.adapter, "begin").await;
    slow.full.store(true, Ordering::SeqCst);
    first.grow(&*a.adapter, ", middle").await;
    first.complete(&*a.adapter).await;
    let mut second = Answer::new(&session);
    second.start(&*a.adapter).await;
    second.grow(&*a.adapter, "again").await;
    slow.full.store(false, Ordering::SeqCst);
    a.hub.resume(slow.number(), [&session]);
    assert_eq!(slow.deltas(first.generation), ["begin", ", middle", ""]);
    assert_eq!(slow.text(second.generation), "again");
    assert_eq!(
        slow.names()[2..],
        ["stream:chunk", "stream:chunk", "stream:complete", "stream:start", "stream:chunk"]
    );
}

#[tokio::test]
async fn a_gap_is_filled_from_the_log() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (node(&shared), node(&shared));
    let reader = live(&b, &session).await;
    let mut answer = Answer::new(&session);
    b.lossy.deaf.store(true, Ordering::SeqCst);
    answer.start(&*a.adapter).await;
    answer.grow(&*a.adapter, "lost ").await;
    b.lossy.deaf.store(false, Ordering::SeqCst);
    answer.grow(&*a.adapter, "heard").await;
    eventually("the gap is filled", || async {
        (reader.text(answer.generation) == answer.text).then_some(())
    })
    .await;
    assert_eq!(reader.names()[0], "stream:start");
}

/// The last thing of a burst has nothing after it that shows it was lost.
#[tokio::test]
async fn what_was_lost_last_is_found_when_the_tail_is_dirty() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (node(&shared), node(&shared));
    let reader = live(&b, &session).await;
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    b.lossy.deaf.store(true, Ordering::SeqCst);
    answer.grow(&*a.adapter, "the end").await;
    answer.complete(&*a.adapter).await;
    b.lossy.deaf.store(false, Ordering::SeqCst);
    b.lossy.feed().upgrade().unwrap().dirty();
    eventually("the end is found", || async {
        (reader.names().last().map(String::as_str) == Some("stream:complete")).then_some(())
    })
    .await;
    assert_eq!(reader.text(answer.generation), answer.text);
}

#[tokio::test]
async fn an_event_that_is_appended_twice_is_shown_once() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let reader = live(&a, &session).await;
    let new = message(&session, MessageId::new(), Author::User, "hi");
    let event = Arc::new(Event::new(EventKind::MessageNew(Arc::new(new))));
    for _ in 0..3 {
        a.adapter.append_event(&session, event.clone()).await.unwrap();
    }
    assert_eq!(reader.names(), ["message:new"]);
}

#[tokio::test]
async fn an_event_that_is_shown_before_it_is_logged_is_shown_once() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let (reader, slow) = (live(&a, &session).await, live(&a, &session).await);
    slow.full.store(true, Ordering::SeqCst);
    let mut answer = Answer::new(&session);
    let started = answer.started();
    a.adapter.show_event(&session, started.clone());
    let chunk = answer.next("ahead of the log");
    a.adapter.show(&session, chunk.clone());
    assert_eq!(reader.text(answer.generation), answer.text);
    a.adapter.append_event(&session, started).await.unwrap();
    a.adapter.append_chunk(&session, chunk).await.unwrap();
    answer.grow(&*a.adapter, ", then in it").await;
    slow.full.store(false, Ordering::SeqCst);
    a.hub.resume(slow.number(), [&session]);
    for reader in [reader, slow] {
        assert_eq!(reader.names().iter().filter(|name| *name == "stream:start").count(), 1);
        assert_eq!(reader.text(answer.generation), answer.text);
    }
}

/// A tail stood still, reading again and again, as long as such an answer ran.
#[tokio::test]
async fn an_answer_whose_start_the_log_has_dropped_holds_nobody_up_and_is_shown_at_its_end() {
    let (shared, session) = (SharedMemory::default(), session());
    let (a, b) = (node(&shared), node(&shared));
    let mut old = Answer::new(&session);
    old.start(&*a.adapter).await;
    for _ in 0..600 {
        Answer::new(&session).complete(&*a.adapter).await;
    }
    let reader = live(&b, &session).await;
    old.grow(&*a.adapter, "of which nobody saw the start").await;
    let mut new = Answer::new(&session);
    new.start(&*a.adapter).await;
    new.grow(&*a.adapter, "new").await;
    eventually("the new answer is shown", || async {
        (reader.text(new.generation) == "new").then_some(())
    })
    .await;
    old.complete(&*a.adapter).await;
    eventually("the old one is shown whole", || async {
        (reader.text(old.generation) == old.text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_nobody_watches_is_let_go() {
    let (shared, session) = (SharedMemory::default(), session());
    let a = node(&shared);
    let reader = live(&a, &session).await;
    assert_eq!(a.hub.watched(), 1);
    assert!(a.hub.leave(&session, reader.number()));
    eventually("it is let go", || async { (a.hub.watched() == 0).then_some(()) }).await;
    // And heard again by the next reader.
    let reader = live(&a, &session).await;
    let mut answer = Answer::new(&session);
    answer.start(&*a.adapter).await;
    answer.grow(&*a.adapter, "x").await;
    assert_eq!(reader.text(answer.generation), "x");
}

/// Whatever is lost on the way, doubled, or not taken, ends as it is stored. Prints its seeds;
/// `SEED` tries another one.
#[tokio::test(start_paused = true)]
async fn any_reader_ends_with_what_is_stored_whatever_happens_on_the_way() {
    for seed in seeds(&[1, 2, 3]) {
        let mut random = reader::Random(seed);
        for round in 0..40 {
            let (shared, session) = (SharedMemory::default(), session());
            let nodes = [node(&shared), node(&shared), node(&shared)];
            for (n, node) in nodes.iter().enumerate() {
                node.lossy.lose_one_in.store([0, 5, 2][n], Ordering::SeqCst);
            }
            let mut readers: Vec<(usize, Arc<TestReader>)> = Vec::new();
            let mut answers = Vec::new();
            for _ in 0..3 {
                let mut answer = Answer::new(&session);
                answer.start(&*nodes[0].adapter).await;
                for _ in 0..30 {
                    let delta = ["é", "one ", "😀", "longer words ", "\n"][random.below(5)];
                    answer.grow(&*nodes[0].adapter, delta).await;
                    match random.below(8) {
                        0 => {
                            let at = random.below(3);
                            readers.push((at, live(&nodes[at], &session).await));
                        }
                        1 if !readers.is_empty() => {
                            let (at, reader) = &readers[random.below(readers.len())];
                            let full = reader.full.fetch_xor(true, Ordering::SeqCst);
                            if full {
                                nodes[*at].hub.resume(reader.number(), [&session]);
                            }
                        }
                        2 => tokio::task::yield_now().await,
                        _ => {}
                    }
                }
                answer.complete(&*nodes[0].adapter).await;
                answers.push(answer);
            }
            for node in &nodes {
                node.lossy.lose_one_in.store(0, Ordering::SeqCst);
                node.lossy.feed().upgrade().unwrap().dirty();
            }
            for (at, reader) in &readers {
                reader.full.store(false, Ordering::SeqCst);
                let last = answers.last().unwrap();
                eventually(&format!("seed {seed}, round {round}: a reader's end"), || async {
                    nodes[*at].hub.resume(reader.number(), [&session]);
                    reader.is_complete(last.generation).then_some(())
                })
                .await;
                for answer in &answers {
                    // Answers that were over before it came are not its.
                    if !reader.deltas(answer.generation).is_empty() {
                        assert_eq!(reader.text(answer.generation), answer.text, "seed {seed}");
                        assert!(reader.is_complete(answer.generation), "seed {seed}");
                    }
                }
            }
        }
    }
}

/// Its text was taken, its end was not: catching up showed the text again, from offset 0.
#[tokio::test]
async fn an_answer_shown_whole_is_not_shown_again_to_a_reader_that_had_room_for_its_text_only() {
    let (shared, session) = (SharedMemory::default(), session());
    let node = node(&shared);
    let reader = live(&node, &session).await;
    let mut answer = Answer::new(&session);
    answer.text = "the whole answer".to_owned();
    reader.full_after_next.store(true, Ordering::SeqCst);
    answer.complete(&*node.adapter).await;
    reader.full.store(false, Ordering::SeqCst);
    node.hub.resume(reader.number(), [&session]);
    assert_eq!(reader.text(answer.generation), answer.text);
    assert!(reader.is_complete(answer.generation));
}
