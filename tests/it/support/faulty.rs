//! An adapter that can be away, slow, or refuse a session, and keeps stored events in order as a
//! cluster's log does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokencast::adapter::{
    Adapter, AdapterError, Appended, Arrival, Connected, Departure, Earlier, Head, Limits, Log,
    News, Notice, Online, Page, Presence, Registry, SharedAdapter, Sinks, StoredAppended, Tallies,
    Tally,
};
use tokencast::domain::{
    self, Budget, Chunk, Event, GenerationId, NodeId, Position, Rate, SessionId, Signal, UserId,
};

/// The highest revision in each session's log, which nodes share.
pub type Revisions = Arc<tokio::sync::Mutex<HashMap<SessionId, u64>>>;

pub struct Faulty {
    inner: SharedAdapter,
    revisions: Revisions,
    /// It does not answer, and knows it.
    pub down: AtomicBool,
    /// Stored events are not appended, and nothing says so.
    pub stuck: AtomicBool,
    /// What is told to all nodes waits.
    pub holds_news: AtomicBool,
    /// How much of that waits.
    pub news_held: AtomicUsize,
    /// Logs cannot be read.
    pub unreadable: AtomicBool,
    /// Sessions to which nothing stored can be appended.
    pub refused: std::sync::Mutex<HashSet<SessionId>>,
    /// How often it was connected to anew.
    pub reconnects: AtomicU64,
}

impl Faulty {
    pub fn around(inner: SharedAdapter, revisions: &Revisions) -> Arc<Self> {
        Arc::new(Self {
            inner,
            revisions: revisions.clone(),
            down: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            holds_news: AtomicBool::new(false),
            news_held: AtomicUsize::new(0),
            unreadable: AtomicBool::new(false),
            refused: std::sync::Mutex::default(),
            reconnects: AtomicU64::new(0),
        })
    }

    fn away(&self) -> Result<(), AdapterError> {
        if self.down.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(()) }
    }
}

/// Counted until it is dropped.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn unavailable() -> AdapterError {
    AdapterError::Unavailable { doing: "test", source: "it is away".into() }
}

#[async_trait]
impl Log for Faulty {
    async fn append_chunk(&self, id: &SessionId, chunk: Chunk) -> Result<Appended, AdapterError> {
        self.away()?;
        self.inner.append_chunk(id, chunk).await
    }
    fn show(&self, id: &SessionId, chunk: Chunk) {
        self.inner.show(id, chunk);
    }
    fn show_event(&self, id: &SessionId, event: Arc<Event>) {
        self.inner.show_event(id, event);
    }
    async fn append_event(
        &self,
        id: &SessionId,
        event: Arc<Event>,
    ) -> Result<Position, AdapterError> {
        self.away()?;
        self.inner.append_event(id, event).await
    }
    async fn append_stored(
        &self,
        id: &SessionId,
        revision: u64,
        event: Arc<Event>,
        earlier: Earlier,
    ) -> Result<StoredAppended, AdapterError> {
        while self.stuck.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.away()?;
        if self.refused.lock().unwrap().contains(id) {
            return Err(unavailable());
        }
        // Held while it is appended: both are one step.
        let mut revisions = self.revisions.lock().await;
        let last = revisions.get(id).copied().unwrap_or(0);
        if earlier == Earlier::Required && last + 1 < revision {
            return Ok(StoredAppended::Early { last });
        }
        let position = self.inner.append_event(id, event).await?;
        revisions.insert(id.clone(), last.max(revision));
        Ok(StoredAppended::At(position))
    }
    async fn revision(&self, id: &SessionId) -> Result<u64, AdapterError> {
        self.away()?;
        Ok(self.revisions.lock().await.get(id).copied().unwrap_or(0))
    }
    async fn signal(&self, id: &SessionId, signal: Signal) -> Result<(), AdapterError> {
        self.away()?;
        self.inner.signal(id, signal).await
    }
    async fn subscribe(&self, id: &SessionId) -> Result<(), AdapterError> {
        self.inner.subscribe(id).await
    }
    async fn unsubscribe(&self, id: &SessionId) -> Result<(), AdapterError> {
        self.inner.unsubscribe(id).await
    }
    async fn read(&self, id: &SessionId, after: Position, n: u64) -> Result<Page, AdapterError> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        self.inner.read(id, after, n).await
    }
    async fn text(
        &self,
        id: &SessionId,
        generation: GenerationId,
        attempt: u32,
        from: u64,
    ) -> Result<String, AdapterError> {
        self.inner.text(id, generation, attempt, from).await
    }
    async fn take_text(
        &self,
        id: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<String, AdapterError> {
        self.away()?;
        self.inner.take_text(id, generation, attempt).await
    }
    async fn drop_text(
        &self,
        id: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<(), AdapterError> {
        self.away()?;
        self.inner.drop_text(id, generation, attempt).await
    }
    async fn head(
        &self,
        id: &SessionId,
        texts: &[(GenerationId, u32)],
    ) -> Result<Head, AdapterError> {
        self.inner.head(id, texts).await
    }
}

#[async_trait]
impl Presence for Faulty {
    async fn connect(&self, user: &UserId, max: u32) -> Result<Connected, AdapterError> {
        self.inner.connect(user, max).await
    }
    async fn disconnect(&self, user: &UserId) -> Result<(), AdapterError> {
        self.inner.disconnect(user).await
    }
    async fn settle(&self, user: &UserId) -> Result<bool, AdapterError> {
        self.inner.settle(user).await
    }
    async fn presence(&self, users: &[UserId]) -> Result<Vec<domain::Presence>, AdapterError> {
        self.inner.presence(users).await
    }
    async fn online(&self, id: &SessionId) -> Result<Online, AdapterError> {
        self.inner.online(id).await
    }
    async fn was_in(
        &self,
        id: &SessionId,
        user: &UserId,
        window: Duration,
    ) -> Result<bool, AdapterError> {
        self.inner.was_in(id, user, window).await
    }
    async fn enter(&self, id: &SessionId, user: &UserId) -> Result<Arrival, AdapterError> {
        self.inner.enter(id, user).await
    }
    async fn leave(&self, id: &SessionId, user: &UserId) -> Result<Departure, AdapterError> {
        self.inner.leave(id, user).await
    }
}

#[async_trait]
impl Limits for Faulty {
    async fn count(&self, user: &UserId, action: &'static str, rate: Rate) -> Result<(), Duration> {
        self.inner.count(user, action, rate).await
    }
    async fn spend(&self, user: &UserId, tokens: u64, budget: Budget) -> Result<(), Duration> {
        self.inner.spend(user, tokens, budget).await
    }
}

#[async_trait]
impl Tallies for Faulty {
    async fn tally(
        &self,
        id: &SessionId,
        generation: GenerationId,
        tally: Tally,
    ) -> Result<(), AdapterError> {
        self.away()?;
        self.inner.tally(id, generation, tally).await
    }
    async fn add_sent(
        &self,
        id: &SessionId,
        generation: GenerationId,
        bytes: u64,
    ) -> Result<(), AdapterError> {
        self.away()?;
        self.inner.add_sent(id, generation, bytes).await
    }
    async fn tallied(
        &self,
        id: &SessionId,
        generation: GenerationId,
    ) -> Result<Option<Tally>, AdapterError> {
        self.away()?;
        self.inner.tallied(id, generation).await
    }
}

#[async_trait]
impl Registry for Faulty {
    async fn tell(&self, node: NodeId, notice: Notice) -> Result<bool, AdapterError> {
        self.inner.tell(node, notice).await
    }
    async fn tell_all(&self, news: News) -> Result<(), AdapterError> {
        let _held = Held::new(&self.news_held);
        while self.holds_news.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.inner.tell_all(news).await
    }
    fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::SeqCst)
    }
    fn is_up(&self) -> bool {
        !self.down.load(Ordering::SeqCst)
    }
}

impl Adapter for Faulty {
    fn attach(&self, sinks: Sinks) {
        self.inner.attach(sinks);
    }
}
