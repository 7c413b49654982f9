//! The adapter of a single process: everything stands in its memory and is gone with it.
//!
//! Several nodes of one process may share one [`SharedMemory`], as tests do; each then hears of
//! what the others append, as over Redis.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{
    Adapter, AdapterError, Appended, Arrival, Connected, Departure, Earlier, Feed, Head, Limits,
    Log, News, Notice, ONLINE_LISTED_MAX, Online, Page, Presence, Registry, Sinks, StoredAppended,
};
use crate::domain::{
    self, Chunk, Event, GenerationId, NodeId, Position, Rate, SessionId, Signal, Timestamp, UserId,
};

/// The most finished or running texts kept per session; the oldest go first.
const TEXTS_MAX: usize = 64;

/// What the nodes of one process share.
#[derive(Clone, Default)]
pub struct SharedMemory {
    state: Arc<Mutex<State>>,
}

/// From how many sessions on the idle ones are looked for.
const SWEEP_MIN: usize = 1024;

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, SessionState>,
    nodes: HashMap<NodeId, Sinks>,
    sweep_at: usize,
}

struct SessionState {
    touched: Instant,
    head: Position,
    events: VecDeque<(Position, Arc<Event>)>,
    texts: BTreeMap<(GenerationId, u32), String>,
    subscribers: HashSet<NodeId>,
    online: HashMap<UserId, HashSet<NodeId>>,
}

impl Default for SessionState {
    fn default() -> Self {
        Self {
            touched: Instant::now(),
            head: Position::default(),
            events: VecDeque::new(),
            texts: BTreeMap::new(),
            subscribers: HashSet::new(),
            online: HashMap::new(),
        }
    }
}

/// One node's view of a [`SharedMemory`].
pub struct Memory {
    node: NodeId,
    events_max: usize,
    ttl: Duration,
    shared: SharedMemory,
    attached: OnceLock<()>,
}

impl Memory {
    /// A node's adapter. `events_max` bounds each session's log; a session that nobody hears and
    /// nothing is appended to may be forgotten after `ttl`.
    pub fn new(node: NodeId, events_max: usize, ttl: Duration, shared: SharedMemory) -> Self {
        Self { node, events_max: events_max.max(1), ttl, shared, attached: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The session's state, now in use. Idle ones are dropped when their number has doubled, so
    /// the cost of looking is shared out over those that came.
    fn touch(&mut self, session: &SessionId, ttl: Duration) -> &mut SessionState {
        if self.sessions.len() > self.sweep_at.max(SWEEP_MIN) {
            self.sessions.retain(|_, state| {
                !state.subscribers.is_empty()
                    || !state.online.is_empty()
                    || state.touched.elapsed() < ttl
            });
            self.sweep_at = self.sessions.len() * 2;
        }
        let state = self.sessions.entry(session.clone()).or_default();
        state.touched = Instant::now();
        state
    }

    /// The feeds of the nodes that hear `session`.
    fn hearers(&self, session: &SessionId) -> Vec<Arc<dyn Feed>> {
        let Some(state) = self.sessions.get(session) else { return Vec::new() };
        state.subscribers.iter().filter_map(|node| self.nodes.get(node)?.feed.upgrade()).collect()
    }
}

impl SessionState {
    fn append(&mut self, event: Arc<Event>, events_max: usize) -> Position {
        if self.head.epoch == 0 {
            self.head.epoch = u64::try_from(Timestamp::now().as_millis()).unwrap_or(1).max(1);
        }
        self.head.seq += 1;
        self.events.push_back((self.head, event));
        while self.events.len() > events_max {
            self.events.pop_front();
        }
        self.head
    }

    fn online(&self) -> Online {
        Online {
            users: self.online.keys().take(ONLINE_LISTED_MAX).cloned().collect(),
            count: self.online.len() as u64,
        }
    }
}

#[async_trait]
impl Log for Memory {
    async fn append_chunk(
        &self,
        session: &SessionId,
        chunk: Chunk,
    ) -> Result<Appended, AdapterError> {
        let hearers = {
            let mut state = self.state();
            let log = state.touch(session, self.ttl);
            let key = (chunk.generation, chunk.attempt);
            let len = log.texts.get(&key).map_or(0, |text| text.len() as u64);
            if len < chunk.offset {
                return Ok(Appended::Short { len });
            }
            if len >= chunk.end() {
                return Ok(Appended::Done { heard: 0 });
            }
            let text = log.texts.entry(key).or_default();
            let applied = usize::try_from(len - chunk.offset).unwrap_or(usize::MAX);
            text.push_str(chunk.delta.get(applied..).unwrap_or_default());
            while log.texts.len() > TEXTS_MAX {
                log.texts.pop_first();
            }
            state.hearers(session)
        };
        for feed in &hearers {
            feed.chunk(session, chunk.clone());
        }
        Ok(Appended::Done { heard: hearers.len() as u64 })
    }

    fn show(&self, session: &SessionId, chunk: Chunk) {
        let feed = self.state().nodes.get(&self.node).and_then(|sinks| sinks.feed.upgrade());
        if let Some(feed) = feed {
            feed.ahead(session, chunk);
        }
    }

    fn show_event(&self, session: &SessionId, event: Arc<Event>) {
        let feed = self.state().nodes.get(&self.node).and_then(|sinks| sinks.feed.upgrade());
        if let Some(feed) = feed {
            feed.unlogged(session, event);
        }
    }

    async fn append_event(
        &self,
        session: &SessionId,
        event: Arc<Event>,
    ) -> Result<Position, AdapterError> {
        let (position, hearers) = {
            let mut state = self.state();
            let log = state.touch(session, self.ttl);
            let position = log.append(event.clone(), self.events_max);
            (position, state.hearers(session))
        };
        for feed in hearers {
            feed.event(session, position, event.clone());
        }
        Ok(position)
    }

    async fn append_stored(
        &self,
        session: &SessionId,
        _revision: u64,
        event: Arc<Event>,
        _earlier: Earlier,
    ) -> Result<StoredAppended, AdapterError> {
        self.append_event(session, event).await.map(StoredAppended::At)
    }

    async fn signal(&self, session: &SessionId, signal: Signal) -> Result<(), AdapterError> {
        let hearers = self.state().hearers(session);
        for feed in hearers {
            feed.signal(session, signal.clone());
        }
        Ok(())
    }

    async fn subscribe(&self, session: &SessionId) -> Result<(), AdapterError> {
        let mut state = self.state();
        state.touch(session, self.ttl).subscribers.insert(self.node);
        Ok(())
    }

    async fn unsubscribe(&self, session: &SessionId) -> Result<(), AdapterError> {
        if let Some(log) = self.state().sessions.get_mut(session) {
            log.subscribers.remove(&self.node);
        }
        Ok(())
    }

    async fn read(
        &self,
        session: &SessionId,
        after: Position,
        limit: u64,
    ) -> Result<Page, AdapterError> {
        let state = self.state();
        let Some(log) = state.sessions.get(session) else {
            return Ok(Page { contiguous: after == Position::default(), ..Page::default() });
        };
        let contiguous = match log.events.front() {
            Some((first, _)) if after.epoch == first.epoch => first.seq <= after.seq + 1,
            Some((first, _)) => after == Position::default() && first.seq == 1,
            None => after == log.head,
        };
        let newer = log.events.iter().filter(|(at, _)| !contiguous || *at > after);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let events: Vec<_> = newer.clone().take(limit).cloned().collect();
        Ok(Page { has_more: newer.count() > events.len(), events, contiguous })
    }

    async fn text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
        from: u64,
    ) -> Result<String, AdapterError> {
        let state = self.state();
        let text =
            state.sessions.get(session).and_then(|log| log.texts.get(&(generation, attempt)));
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(text.and_then(|text| text.get(from..)).unwrap_or_default().to_owned())
    }

    async fn head(
        &self,
        session: &SessionId,
        texts: &[(GenerationId, u32)],
    ) -> Result<Head, AdapterError> {
        let state = self.state();
        let log = state.sessions.get(session);
        let len = |key| log.and_then(|log| log.texts.get(key)).map_or(0, |text| text.len() as u64);
        Ok(Head {
            position: log.map(|log| log.head).unwrap_or_default(),
            text_lens: texts.iter().map(len).collect(),
        })
    }
}

#[async_trait]
impl Presence for Memory {
    async fn connect(&self, _user: &UserId, _max: u32) -> Result<Connected, AdapterError> {
        todo!()
    }

    async fn disconnect(&self, _user: &UserId) -> Result<(), AdapterError> {
        todo!()
    }

    async fn settle(&self, _user: &UserId) -> Result<bool, AdapterError> {
        todo!()
    }

    async fn presence(&self, _users: &[UserId]) -> Result<Vec<domain::Presence>, AdapterError> {
        todo!()
    }

    async fn online(&self, _session: &SessionId) -> Result<Online, AdapterError> {
        todo!()
    }

    async fn was_in(
        &self,
        _session: &SessionId,
        _user: &UserId,
        _window: Duration,
    ) -> Result<bool, AdapterError> {
        todo!()
    }

    async fn enter(&self, session: &SessionId, user: &UserId) -> Result<Arrival, AdapterError> {
        let mut state = self.state();
        let log = state.touch(session, self.ttl);
        let nodes = log.online.entry(user.clone()).or_default();
        let first = nodes.is_empty();
        nodes.insert(self.node);
        Ok(Arrival { first, online: log.online() })
    }

    async fn leave(&self, session: &SessionId, user: &UserId) -> Result<Departure, AdapterError> {
        let mut state = self.state();
        let log = state.touch(session, self.ttl);
        let mut last = false;
        if let Some(nodes) = log.online.get_mut(user) {
            last = nodes.remove(&self.node) && nodes.is_empty();
            if nodes.is_empty() {
                log.online.remove(user);
            }
        }
        Ok(Departure { last, online: log.online.len() as u64 })
    }
}

#[async_trait]
impl Limits for Memory {
    async fn count(&self, _: &UserId, _: &'static str, _: Rate) -> Result<(), Duration> {
        Ok(())
    }
}

#[async_trait]
impl Registry for Memory {
    async fn tell(&self, node: NodeId, notice: Notice) -> Result<bool, AdapterError> {
        let sinks = self.state().nodes.get(&node).cloned();
        Ok(sinks.is_some_and(|sinks| sinks.notices.try_send(notice).is_ok()))
    }

    async fn tell_all(&self, _news: News) -> Result<(), AdapterError> {
        todo!()
    }

    fn is_up(&self) -> bool {
        true
    }
}

impl Adapter for Memory {
    fn attach(&self, sinks: Sinks) {
        if self.attached.set(()).is_ok() {
            self.state().nodes.insert(self.node, sinks);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut state = self.state();
        state.nodes.remove(&self.node);
        for log in state.sessions.values_mut() {
            log.subscribers.remove(&self.node);
            log.online.retain(|_, nodes| {
                nodes.remove(&self.node);
                !nodes.is_empty()
            });
        }
    }
}
