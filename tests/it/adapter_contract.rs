//! What every adapter promises, on each backend; then what only Redis can do to us.

mod budgets;
mod deaths;
mod faults;
mod limits;
mod presence;
mod suite;
mod taking;
mod tallies;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokencast::adapter::{
    Absence, Feed, Memory, News, Notice, Redis, RedisOptions, SharedAdapter, SharedMemory, Sinks,
};
use tokencast::domain::{
    AgentId, Chunk, Event, EventKind, GenerationId, MessageId, NodeId, Position, SessionId, Signal,
    UserId,
};
use tokencast::lifecycle::Tasks;
use tokio::sync::mpsc;

/// The most events of a log in these tests.
const EVENTS_MAX: usize = 16;

/// What a node's feed was given.
#[derive(Default)]
pub struct Heard {
    pub chunks: Mutex<Vec<Chunk>>,
    pub events: Mutex<Vec<(Position, Arc<Event>)>>,
    pub signals: Mutex<Vec<Signal>>,
    pub news: Mutex<Vec<News>>,
    pub dirty: Mutex<u32>,
}

impl Feed for Heard {
    fn chunk(&self, _: &SessionId, chunk: Chunk) {
        self.chunks.lock().unwrap().push(chunk);
    }
    fn event(&self, _: &SessionId, position: Position, event: Arc<Event>) {
        self.events.lock().unwrap().push((position, event));
    }
    fn ahead(&self, _: &SessionId, _: Chunk) {}
    fn unlogged(&self, _: &SessionId, _: Arc<Event>) {}
    fn signal(&self, _: &SessionId, signal: Signal) {
        self.signals.lock().unwrap().push(signal);
    }
    fn news(&self, news: News) {
        self.news.lock().unwrap().push(news);
    }
    fn dirty(&self) {
        *self.dirty.lock().unwrap() += 1;
    }
}

/// One node's adapter and what it hears.
pub struct Node {
    pub id: NodeId,
    pub adapter: SharedAdapter,
    pub heard: Arc<Heard>,
    pub notices: Mutex<mpsc::Receiver<Notice>>,
    pub absences: Mutex<mpsc::Receiver<Absence>>,
    tasks: Tasks,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Node {
    fn new(id: NodeId, adapter: SharedAdapter, tasks: Tasks) -> Self {
        let heard = Arc::new(Heard::default());
        let (sender, notices) = mpsc::channel(16);
        let (miss, absences) = mpsc::channel(1024);
        let feed: Arc<dyn Feed> = heard.clone();
        let feed: Weak<dyn Feed> = Arc::downgrade(&feed);
        adapter.attach(Sinks { feed, notices: sender, absences: miss });
        let (notices, absences) = (Mutex::new(notices), Mutex::new(absences));
        Self { id, adapter, heard, notices, absences, tasks }
    }

    pub fn memory(shared: &SharedMemory) -> Self {
        let id = NodeId::new();
        let ttl = Duration::from_secs(60);
        let adapter = Memory::new(id, EVENTS_MAX, ttl, shared.clone());
        Self::new(id, Arc::new(adapter), Tasks::new())
    }

    pub async fn redis(url: &str) -> Self {
        Self::redis_dead_after(url, Duration::from_secs(5)).await
    }

    pub async fn redis_dead_after(url: &str, dead_after: Duration) -> Self {
        let (id, tasks) = (NodeId::new(), Tasks::new());
        let options = RedisOptions {
            url: url.into(),
            command_timeout: Duration::from_secs(2),
            command_queue_max: 10_000,
            log_events_max: EVENTS_MAX as u64,
            log_ttl: Duration::from_secs(60),
            dead_after,
        };
        let adapter = Redis::connect(id, options, &tasks).await.unwrap();
        Self::new(id, Arc::new(adapter), tasks)
    }

    /// The absences that this node was told since the last call.
    pub fn absences(&self) -> Vec<Absence> {
        let mut absences = self.absences.lock().unwrap();
        std::iter::from_fn(|| absences.try_recv().ok()).collect()
    }

    pub fn chunk_texts(&self) -> String {
        self.heard.chunks.lock().unwrap().iter().map(|chunk| &*chunk.delta).collect()
    }
}

/// Runs each test on every backend, with two nodes that share it.
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                let shared = tokencast::adapter::SharedMemory::default();
                super::$test(super::Node::memory(&shared), super::Node::memory(&shared)).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let url = crate::support::redis::shared_url();
                super::$test(super::Node::redis(&url).await, super::Node::redis(&url).await).await;
            })*
        }
    };
}
pub(crate) use on_every_backend;

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A user whom no other test has.
pub fn someone() -> UserId {
    user(&format!("{} {{a}}%;=1", MessageId::new()))
}

pub fn session() -> SessionId {
    SessionId::new(format!("s:{}", MessageId::new())).unwrap()
}

pub fn chunk(generation: GenerationId, offset: u64, delta: &str) -> Chunk {
    Chunk {
        generation,
        attempt: 1,
        seq: offset + 1,
        offset,
        tokens: 1,
        read_at_ms: 0,
        delta: delta.into(),
    }
}

pub fn event() -> Arc<Event> {
    Arc::new(Event::new(EventKind::GenerationStarted {
        generation: GenerationId::new(),
        message: MessageId::new(),
        agent: AgentId::new("assistant").unwrap(),
        attempt: 1,
    }))
}
