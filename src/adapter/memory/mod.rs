//! The adapter of a single process: everything stands in its memory and is gone with it.
//!
//! Several nodes of one process may share one [`SharedMemory`], as tests do; each then hears of
//! what the others append, as over Redis.

mod limits;
mod log;
mod presence;
mod tally;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::gcra::Gcra;
use super::spent::Spent;
use super::{Adapter, AdapterError, Feed, News, Notice, Registry, Sinks, Tally};
use crate::domain::{Event, GenerationId, NodeId, Position, SessionId, Timestamp, UserId};

use presence::{InSession, User};

/// The most texts kept per session, and of as many generations what is counted; the oldest go
/// first.
const TEXTS_MAX: usize = 64;

/// What the nodes of one process share.
#[derive(Clone, Default)]
pub struct SharedMemory {
    state: Arc<Mutex<State>>,
    limits: Arc<Gcra>,
    spent: Arc<Spent>,
}

/// From how many sessions on the idle ones are looked for.
const SWEEP_MIN: usize = 1024;

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, SessionState>,
    nodes: HashMap<NodeId, Sinks>,
    sweep_at: usize,
    users: HashMap<UserId, User>,
    forget_at: usize,
}

struct SessionState {
    touched: Instant,
    head: Position,
    /// The highest revision of the store's that was appended.
    revision: u64,
    events: VecDeque<(Position, Arc<Event>)>,
    texts: BTreeMap<(GenerationId, u32), String>,
    /// The newest attempts, where it is not the first.
    newest: BTreeMap<GenerationId, u32>,
    tallies: BTreeMap<GenerationId, Tally>,
    subscribers: HashSet<NodeId>,
    users: InSession,
}

impl Default for SessionState {
    fn default() -> Self {
        Self {
            touched: Instant::now(),
            head: Position::default(),
            revision: 0,
            events: VecDeque::new(),
            texts: BTreeMap::new(),
            newest: BTreeMap::new(),
            tallies: BTreeMap::new(),
            subscribers: HashSet::new(),
            users: InSession::default(),
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
                    || !state.users.is_empty()
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
    /// Whether no later attempt has begun, as far as is known here. Known from then on: this one.
    fn is_newest(&mut self, generation: GenerationId, attempt: u32) -> bool {
        let newest = self.newest.get(&generation).copied().unwrap_or(1).max(attempt);
        if newest > 1 {
            self.newest.insert(generation, newest);
        }
        while self.newest.len() > TEXTS_MAX {
            self.newest.pop_first();
        }
        newest == attempt
    }

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
}

#[async_trait]
impl Registry for Memory {
    async fn tell(&self, node: NodeId, notice: Notice) -> Result<bool, AdapterError> {
        let sinks = self.state().nodes.get(&node).cloned();
        Ok(sinks.is_some_and(|sinks| sinks.notices.try_send(notice).is_ok()))
    }

    async fn tell_all(&self, news: News) -> Result<(), AdapterError> {
        let feeds: Vec<_> =
            self.state().nodes.values().filter_map(|sinks| sinks.feed.upgrade()).collect();
        for feed in feeds {
            feed.news(news.clone());
        }
        Ok(())
    }

    fn reconnects(&self) -> u64 {
        0
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

/// The node is gone: another one is told whom it takes with it.
impl Drop for Memory {
    fn drop(&mut self) {
        let mut state = self.state();
        state.nodes.remove(&self.node);
        for log in state.sessions.values_mut() {
            log.subscribers.remove(&self.node);
        }
        let absences = state.take_out(self.node);
        if let Some(sinks) = state.nodes.values().next() {
            for absence in absences {
                // Full: it was said that it is dropped then.
                let _ = sinks.absences.try_send(absence);
            }
        }
    }
}
