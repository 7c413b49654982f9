//! Whatever becomes of an answer's attempts, each reader ends with the stored text, or was told to
//! start over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokencast::adapter::{Memory, SharedMemory};
use tokencast::dialect::{DialectIndex, Dialects};
use tokencast::domain::{
    AgentId, Author, Chunk, Cursor, Event, EventKind, GenerationId, Message, MessageId, NodeId,
    SessionId, StopReason, Timestamp, Usage,
};
use tokencast::hub::{FromStore, Standing, Start, Stored};

use super::reader::{Random, TestReader};
use super::{Node, message, node_on, session};
use crate::support::{eventually, seeds};

/// A frontend, by the rules of its dialect: what it shows of the running answer, and what it had
/// of those that are over.
#[derive(Debug, Clone, Default)]
struct Frontend {
    text: String,
    ended: Vec<String>,
}

impl Frontend {
    fn hear(&mut self, frames: &[(String, Value)]) {
        for (word, body) in frames {
            let at = |field: &str| body[field].as_str().unwrap_or_default();
            match word.as_str() {
                "stream:start" | "stream:reset" | "message:reset" | "chat:thinking" | "reset" => {
                    self.text.clear();
                }
                "stream:chunk" => {
                    self.put(body, at("delta"));
                    assert!(body["isComplete"] != true || at("content") == self.text);
                }
                "message:chunk" => self.put(body, at("chunk")),
                "chat:streaming" => self.text.push_str(at("chunk")),
                "stream:complete" | "message:complete" | "chat:message" => {
                    assert_eq!(body["message"]["content"], self.text, "{word}");
                    self.end();
                }
                "" if body["chunk"].is_string() => self.text.push_str(at("chunk")),
                "" if body["done"] == true => self.end(),
                "" => self.text.clear(),
                _ => {}
            }
        }
    }

    fn put(&mut self, body: &Value, delta: &str) {
        assert_eq!(body["offset"], self.units(), "a gap or an overlap: {body}");
        self.text.push_str(delta);
    }

    fn units(&self) -> u64 {
        self.text.encode_utf16().count() as u64
    }

    fn end(&mut self) {
        self.ended.push(std::mem::take(&mut self.text));
    }
}

/// An answer as its newest owner has it.
struct Written {
    generation: GenerationId,
    message: MessageId,
    attempt: u32,
    owner: usize,
    text: String,
    /// How much of it the log has.
    logged: usize,
    seq: u64,
}

struct Reading {
    had: Frontend,
    at: usize,
    dialect: DialectIndex,
    reader: Arc<TestReader>,
}

impl Reading {
    fn has(&self) -> Frontend {
        let mut has = self.had.clone();
        has.hear(&self.reader.shown());
        has
    }
}

struct World {
    nodes: Vec<Node>,
    session: SessionId,
    dialects: Dialects,
    answer: Written,
    /// Older attempts whose nodes do not know it yet.
    zombies: Vec<Written>,
    /// Attempts whose claimers have appended nothing yet.
    silent: Vec<u32>,
    chunks: Vec<Chunk>,
    stored: Vec<Stored>,
    readings: Vec<Reading>,
    random: Random,
    is_trimmed: bool,
}

fn content_of(end: &Stored) -> String {
    end.event.kind.answer().unwrap().content.clone()
}

fn agent() -> AgentId {
    AgentId::new("assistant").unwrap()
}

fn fresh(owner: usize) -> Written {
    Written {
        generation: GenerationId::new(),
        message: MessageId::new(),
        attempt: 1,
        owner,
        text: String::new(),
        logged: 0,
        seq: 0,
    }
}

impl Written {
    fn chunk(&mut self, from: usize) -> Chunk {
        self.seq += 1;
        Chunk {
            generation: self.generation,
            attempt: self.attempt,
            seq: self.seq,
            offset: from as u64,
            tokens: self.seq,
            read_at_ms: Timestamp::now().as_millis(),
            delta: self.text[from..].into(),
        }
    }

    fn started(&self) -> EventKind {
        let Self { generation, message, attempt, .. } = *self;
        EventKind::GenerationStarted { generation, message, agent: agent(), attempt }
    }

    fn resumed(&self, attempt: u32, offset: usize) -> EventKind {
        EventKind::GenerationResumed {
            generation: self.generation,
            message: self.message,
            agent: agent(),
            attempt,
            offset: offset as u64,
            utf16_offset: self.text[..offset].encode_utf16().count() as u64,
        }
    }

    fn reset(&self) -> EventKind {
        let Self { generation, message, attempt, .. } = *self;
        let reason = "again".to_owned();
        EventKind::GenerationReset { generation, message, agent: agent(), attempt, reason }
    }
}

impl World {
    fn new(seed: u64, events_max: usize, loses: [usize; 3]) -> Self {
        let shared = SharedMemory::default();
        let dialects = Dialects::new(false);
        let node = |lose_one_in: usize| {
            let ttl = Duration::from_secs(60);
            let memory = Memory::new(NodeId::new(), events_max, ttl, shared.clone());
            let node = node_on(Arc::new(memory), dialects.clone());
            node.lossy.lose_one_in.store(lose_one_in, Ordering::SeqCst);
            node
        };
        Self {
            nodes: loses.into_iter().map(node).collect(),
            session: session(),
            answer: fresh(0),
            zombies: Vec::new(),
            silent: Vec::new(),
            chunks: Vec::new(),
            stored: Vec::new(),
            readings: Vec::new(),
            random: Random(seed),
            is_trimmed: events_max < 512,
            dialects,
        }
    }

    fn word(&mut self) -> String {
        let word = ["é", "one ", "😀", "longer words ", "\n"][self.random.below(5)];
        format!("{word}{}", self.random.below(10))
    }

    async fn append(&self, kind: EventKind) {
        let log = &self.nodes[self.answer.owner].adapter;
        log.append_event(&self.session, Arc::new(Event::new(kind))).await.unwrap();
    }

    async fn start(&mut self) {
        self.answer = fresh(self.random.below(3));
        self.zombies.clear();
        self.silent.clear();
        self.chunks.clear();
        self.append(self.answer.started()).await;
    }

    /// The owner appends all that it has.
    async fn settle(&mut self) {
        if self.answer.logged < self.answer.text.len() {
            let chunk = self.answer.chunk(self.answer.logged);
            self.answer.logged = self.answer.text.len();
            self.chunks.push(chunk.clone());
            let log = &self.nodes[self.answer.owner].adapter;
            log.append_chunk(&self.session, chunk).await.unwrap();
        }
    }

    async fn grow(&mut self) {
        let word = self.word();
        self.answer.text.push_str(&word);
        self.settle().await;
    }

    /// Redis is away from the owner: its own readers are shown what it has.
    fn show_ahead(&mut self) {
        let word = self.word();
        let from = self.answer.text.len();
        self.answer.text.push_str(&word);
        let chunk = self.answer.chunk(from);
        self.nodes[self.answer.owner].adapter.show(&self.session, chunk);
    }

    /// Another attempt goes on from what the log has, or from less, where that is lost.
    async fn take_over(&mut self) {
        let mut offset = match self.random.below(4) {
            0 => 0,
            1 => self.random.below(self.answer.logged + 1),
            _ => self.answer.logged,
        };
        while !self.answer.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let mut next = self.next_attempt();
        next.text = self.answer.text[..offset].to_owned();
        next.logged = offset;
        self.zombies.push(std::mem::replace(&mut self.answer, next));
        // The new attempt's text is the old one's, renamed: nobody hears of that.
        if offset > 0 {
            let chunk = self.answer.chunk(0);
            let log = self.nodes[0].adapter.clone();
            let deaf: Vec<_> =
                self.nodes.iter().map(|n| n.lossy.deaf.swap(true, Ordering::SeqCst)).collect();
            log.append_chunk(&self.session, chunk).await.unwrap();
            for (node, deaf) in self.nodes.iter().zip(deaf) {
                node.lossy.deaf.store(deaf, Ordering::SeqCst);
            }
        }
        self.append(self.answer.resumed(self.answer.attempt, offset)).await;
    }

    /// Another attempt starts over.
    async fn restart(&mut self) {
        let next = self.next_attempt();
        self.zombies.push(std::mem::replace(&mut self.answer, next));
        self.append(self.answer.reset()).await;
    }

    fn next_attempt(&mut self) -> Written {
        let mut attempt = self.answer.attempt + 1;
        if self.random.below(3) == 0 {
            self.silent.push(attempt);
            attempt += 1;
        }
        let Written { generation, message, seq, .. } = self.answer;
        let owner = self.random.below(3);
        Written { generation, message, attempt, owner, text: String::new(), logged: 0, seq }
    }

    /// An older attempt's node goes on as if nothing had happened; or its words come late.
    async fn haunt(&mut self) {
        let word = self.word();
        match self.random.below(3) {
            0 if !self.zombies.is_empty() => {
                let at = self.random.below(self.zombies.len());
                let zombie = &mut self.zombies[at];
                let from = zombie.text.len();
                zombie.text.push_str(&word);
                let chunk = zombie.chunk(from);
                self.nodes[zombie.owner].adapter.show(&self.session, chunk);
            }
            1 if !self.chunks.is_empty() => {
                let chunk = self.chunks[self.random.below(self.chunks.len())].clone();
                let node = &self.nodes[self.random.below(3)];
                node.lossy.feed().upgrade().unwrap().chunk(&self.session, chunk);
            }
            _ => {
                if let Some(attempt) = self.silent.pop() {
                    let late = self.answer.resumed(attempt, self.answer.text.len());
                    self.append(late).await;
                }
            }
        }
    }

    async fn join(&mut self, had: Frontend, dialect: DialectIndex, after: Option<Cursor>) {
        let at = self.random.below(3);
        let reader = TestReader::of("ada", dialect);
        let named = [(self.answer.generation, had.units())];
        let is_over = self
            .stored
            .last()
            .is_some_and(|end| end.event.kind.generation() == Some(self.answer.generation));
        let start = match &after {
            Some(cursor) => Start::After(cursor),
            None if had.text.is_empty() => Start::Now(&[]),
            None => Start::Now(&named),
        };
        let hub = &self.nodes[at].hub;
        let standing = Standing::Belongs;
        let entered = hub
            .join(&self.session, reader.clone(), standing, start, self.stored.len() as u64)
            .await
            .unwrap();
        let mut reading = Reading { had, at, dialect, reader };
        let mut from_store = FromStore::default();
        match after {
            Some(cursor) if !entered.is_whole => {
                let answer = |end: &Stored| end.event.kind.answer().unwrap().clone();
                let ended =
                    self.stored.iter().filter(|end| answer(end).ordinal > cursor.has_upto());
                from_store.missed = ended.cloned().collect();
                from_store.known = from_store.missed.iter().map(|end| answer(end).id).collect();
            }
            Some(_) => {}
            // Where the node knows nothing of the answer, a frontend drops what it has.
            None if !entered.active.iter().any(|a| a.generation == self.answer.generation) => {
                reading.had.text.clear();
            }
            None => {}
        }
        assert!(!is_over, "readers come only while the answer runs");
        hub.go_live(&self.session, reading.reader.number(), from_store);
        self.readings.push(reading);
    }

    async fn come(&mut self) {
        let dialect = match self.random.below(5) {
            0 => self.dialects.by_name("session").unwrap(),
            1 => self.dialects.by_name("subscribe").unwrap(),
            2 => self.dialects.by_name("conversation").unwrap(),
            _ => self.dialects.sse(),
        };
        self.join(Frontend::default(), dialect, None).await;
    }

    /// A reader is cut off and goes on elsewhere, by the means of its dialect.
    async fn move_on(&mut self) {
        if self.readings.is_empty() {
            return;
        }
        let gone = self.readings.swap_remove(self.random.below(self.readings.len()));
        self.nodes[gone.at].hub.leave(&self.session, gone.reader.number());
        let mut has = gone.has();
        let cursor = gone.reader.cursor().filter(|_| gone.dialect == self.dialects.sse());
        if cursor.is_none() && Some(gone.dialect) != self.dialects.by_name("session") {
            has.text.clear();
        }
        self.join(has, gone.dialect, cursor).await;
    }

    async fn step(&mut self) {
        match self.random.below(24) {
            0..=6 => self.grow().await,
            7 | 8 => self.show_ahead(),
            9 | 10 if self.answer.attempt < 7 => self.take_over().await,
            11 if self.answer.attempt < 7 => self.restart().await,
            12 | 13 => self.haunt().await,
            14..=16 => self.come().await,
            17 | 18 => self.move_on().await,
            19 | 20 if !self.readings.is_empty() => {
                let Reading { at, reader, .. } =
                    &self.readings[self.random.below(self.readings.len())];
                if reader.full.fetch_xor(true, Ordering::SeqCst) {
                    self.nodes[*at].hub.resume(reader.number(), [&self.session]);
                }
            }
            21 => {
                self.nodes[self.random.below(3)].lossy.deaf.fetch_xor(true, Ordering::SeqCst);
            }
            22 => self.append(EventKind::Unknown).await,
            _ => {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Ends as it is; or a claimer finds that it only has to be ended, and keeps what the log has.
    async fn end(&mut self) {
        if self.random.below(4) == 0 {
            self.answer.attempt += 1;
            self.answer.text.truncate(self.answer.logged);
        } else if self.random.below(2) == 0 {
            self.settle().await;
        }
        let Written { generation, message: id, attempt, ref text, .. } = self.answer;
        let ordinal = self.stored.len() as u64 + 1;
        let message = Message { ordinal, ..message(&self.session, id, Author::Assistant, text) };
        let event = Arc::new(Event::new(EventKind::GenerationCompleted {
            generation,
            message: Arc::new(message),
            reason: StopReason::EndTurn,
            usage: Usage::default(),
        }));
        let log = &self.nodes[0].adapter;
        log.append_event(&self.session, event.clone()).await.unwrap();
        self.stored.push(Stored { event, attempt });
    }

    /// Everything arrives at last: each reader ends with what is stored.
    async fn heal(&self, told: &str, losses: [usize; 3]) {
        for node in &self.nodes {
            node.lossy.lose_one_in.store(0, Ordering::SeqCst);
            node.lossy.deaf.store(false, Ordering::SeqCst);
            node.lossy.feed().upgrade().unwrap().dirty();
        }
        for Reading { had, at, reader, .. } in &self.readings {
            reader.full.store(false, Ordering::SeqCst);
            // Where a node's log has jumped over the end of an earlier answer, who comes to it from
            // there is given that end from the store, also where it came after it.
            let before = had.ended.len();
            let all: Vec<_> = self.stored.iter().map(content_of).collect();
            eventually(&format!("{told}: a reader's end"), || async {
                self.nodes[*at].hub.resume(reader.number(), [&self.session]);
                let mut has = had.clone();
                has.hear(&reader.shown());
                let last = has.ended.len() > before && has.ended.last() == all.last();
                last.then_some(())
            })
            .await;
            let mut has = had.clone();
            has.hear(&reader.shown());
            let ended = &has.ended[before..];
            assert!(ended.iter().all(|text| all.contains(text)), "{told}: {ended:?} of {all:?}");
            assert!(ended.len() == 1 || self.is_trimmed, "{told}: ended twice");
            assert_eq!(has.text, "", "{told}");
        }
        // Also where nobody reads now: what a trimmed log says no more is not found later.
        for node in &self.nodes {
            eventually(&format!("{told}: a node hears the end"), || async {
                let probe = TestReader::new();
                let (id, start) = (probe.number(), Start::Now(&[]));
                let join = node.hub.join(&self.session, probe, Standing::Belongs, start, 0);
                let active = join.await.unwrap().active;
                node.hub.leave(&self.session, id);
                active.is_empty().then_some(())
            })
            .await;
        }
        for (node, lose) in self.nodes.iter().zip(losses) {
            node.lossy.lose_one_in.store(lose, Ordering::SeqCst);
        }
    }
}

/// Attempts that go on from anywhere or start over, zombies, words that are late or lost, logs that
/// have dropped what was not read in time. Prints its seeds; `SEED` tries another one.
#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_its_attempts_each_reader_ends_with_the_stored_answer() {
    for seed in seeds(&(1..=40).collect::<Vec<_>>()) {
        let told = format!("SEED={seed}");
        let events_max = [512, 6][usize::try_from(seed % 2).unwrap()];
        let losses = [0, 5, 2];
        let mut world = World::new(seed, events_max, losses);
        for _ in 0..3 {
            world.start().await;
            for _ in 0..60 {
                world.step().await;
            }
            world.end().await;
            world.heal(&told, losses).await;
            for reading in &mut world.readings {
                reading.had.hear(&reading.reader.take());
            }
        }
    }
}
