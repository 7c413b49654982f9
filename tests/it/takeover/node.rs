//! Nodes that generate, each with a runtime of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tempfile::TempDir;
use tokencast::adapter::{Memory, SharedAdapter, SharedMemory, Sinks};
use tokencast::dialect::Dialects;
use tokencast::domain::{
    AgentId, EventKind, Generation, GenerationConfig, GenerationId, MessageId, NodeId, OnTakeover,
    Position, Role, SessionId, UserId, Visibility,
};
use tokencast::generation::{GenerationOptions, Generations, Solo, Voice, Voices};
use tokencast::hub::{Hub, HubOptions};
use tokencast::lifecycle::Tasks;
use tokencast::llm::{Deltas, Provider, ProviderError, Request, Scripted, Speaker, Turn, script};
use tokencast::outbox::Outbox;
use tokencast::store::{
    Accepted, Heartbeat, NewGeneration, NewSession, Outgoing, SharedStore, StoreOptions, connect,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::support::eventually;
use crate::support::faulty::{Faulty, Revisions};

const PROMPT: &str = "Why is the sky blue?";
/// How many tokens an answer has.
const TOKENS: u32 = 160;
const DEAD_AFTER: Duration = Duration::from_millis(2500);

/// How a node's model answers.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    /// All of it, over some seconds.
    All,
    /// So many tokens, and then nothing.
    First(usize),
    /// All of it, in more time than a takeover takes.
    Slowly,
}

/// The scripted model, which counts those who ask.
struct Watched {
    says: Says,
    open: Arc<AtomicUsize>,
    /// What each request was to go on with.
    partials: Arc<Mutex<Vec<Option<String>>>>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Provider for Watched {
    fn id(&self) -> &'static str {
        "scripted"
    }

    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError> {
        self.partials.lock().unwrap().push(request.partial.clone());
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(self.open.clone());
        let pace = if matches!(self.says, Says::Slowly) { 5.0 } else { 40.0 };
        let deltas = Scripted::new(pace, TOKENS).stream(request).await?;
        let deltas = match self.says {
            Says::All | Says::Slowly => deltas,
            Says::First(n) => deltas.take(n).chain(stream::pending()).boxed(),
        };
        let held = move |delta| {
            let _ = &open;
            delta
        };
        Ok(deltas.map(held).boxed())
    }
}

pub struct Cluster {
    pub store: SharedStore,
    pub session: SessionId,
    url: String,
    log: SharedMemory,
    revisions: Revisions,
    _folder: TempDir,
}

pub struct Node {
    pub id: NodeId,
    pub generations: Generations,
    pub adapter: Arc<Faulty>,
    pub store: SharedStore,
    /// How many upstreams are open.
    pub open: Arc<AtomicUsize>,
    partials: Arc<Mutex<Vec<Option<String>>>>,
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A node that does nothing for now.
pub struct Frozen(blocking::Sender<()>);

impl Frozen {
    pub fn thaw(self) {
        self.0.send(()).unwrap();
    }
}

impl Cluster {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tokencast.db").display());
        let store = connect(&url, &StoreOptions::default()).await.unwrap();
        let session = crate::hub::session();
        let new = NewSession {
            id: session.clone(),
            owner: UserId::new("ada").unwrap(),
            title: None,
            agent: None,
            visibility: Visibility::Private,
        };
        store.create_session(&new).await.unwrap();
        let (log, revisions) = (SharedMemory::default(), Revisions::default());
        Self { store, session, url, log, revisions, _folder: folder }
    }

    /// The whole answer.
    pub fn answer(&self) -> String {
        self.tokens().concat()
    }

    fn tokens(&self) -> Vec<String> {
        let request = Request {
            model: "m".to_owned(),
            system: None,
            turns: vec![Turn { speaker: Speaker::User, content: PROMPT.to_owned() }],
            partial: None,
            is_gate: false,
            temperature: None,
            max_tokens: None,
        };
        script(&request, TOKENS)
    }

    pub async fn node(&self, says: Says) -> Node {
        let (url, log, revisions) = (self.url.clone(), self.log.clone(), self.revisions.clone());
        let started = tokio::task::spawn_blocking(move || {
            let mut runtime = Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
            let mut node = runtime.block_on(start(url, log, revisions, says));
            node.runtime = Some(runtime);
            node
        });
        started.await.unwrap()
    }

    /// A generation that `owner` is to run.
    pub async fn accepted_for(&self, agent: &str, owner: NodeId) -> Generation {
        self.accept(agent, owner).await.0
    }

    /// A generation whose node never began.
    pub async fn accepted(&self, agent: &str) -> Generation {
        self.accept(agent, NodeId::new()).await.0
    }

    async fn accept(&self, agent: &str, owner: NodeId) -> (Generation, Vec<Outgoing>) {
        let new = NewGeneration {
            session: self.session.clone(),
            user: UserId::new("ada").unwrap(),
            prompt_id: MessageId::new(),
            prompt: PROMPT.to_owned(),
            client_message_id: None,
            agent: AgentId::new(agent).unwrap(),
            provider: "scripted".to_owned(),
            model: "m".to_owned(),
            config: GenerationConfig::default(),
            owner,
            begun: true,
            user_generations_max: 0,
        };
        match self.store.accept(&new).await.unwrap() {
            Accepted::New { generation, outgoing, .. } => (generation, outgoing),
            other => panic!("{other:?}"),
        }
    }

    /// A generation that streams on a node which nobody has heard of for less than a lease.
    pub async fn left(&self, agent: &str) -> Generation {
        let generation = self.accepted(agent).await;
        assert!(self.store.begin(generation.id, generation.owner, 1).await.unwrap());
        generation
    }

    /// Leaves a generation to whoever claims it, where nobody has yet.
    pub async fn release(&self, id: GenerationId) {
        let Generation { owner, attempt, .. } = self.store.generation(id).await.unwrap().unwrap();
        self.store.release(id, owner, attempt).await.unwrap();
    }

    /// Leaves it to whoever claims it as a node does that has lost it.
    pub async fn lose(&self, id: GenerationId) {
        let Generation { owner, attempt, .. } = self.store.generation(id).await.unwrap().unwrap();
        assert!(self.store.lose(id, owner, attempt).await.unwrap());
    }

    /// Has other nodes claim it, which do nothing with it.
    pub async fn pass_on(&self, id: GenerationId, times: u32, is_lost: bool) {
        for _ in 0..times {
            // Only nodes that are heard of keep what they claim.
            let claimer = NodeId::new();
            self.store.heartbeat(&beat(claimer)).await.unwrap();
            match is_lost {
                true => self.lose(id).await,
                false => self.release(id).await,
            }
            let found = self.store.generation(id).await.unwrap().unwrap();
            let lease = (DEAD_AFTER, DEAD_AFTER);
            let claimed = self.store.claim(&found, claimer, lease.0, lease.1).await.unwrap();
            assert!(claimed.is_some(), "nobody else is as quick");
        }
    }

    /// Has a node's agent answer.
    pub async fn ask(&self, node: &Node, agent: &str) -> GenerationId {
        let (generation, outgoing) = self.accept(agent, node.id).await;
        let (id, generations) = (generation.id, node.generations.clone());
        let runtime = node.runtime.as_ref().unwrap();
        let running = runtime.spawn(async move {
            let slot = generations.reserve().unwrap();
            generations.run(generation, outgoing, slot);
        });
        running.await.unwrap();
        id
    }

    /// Waits until the log has so many tokens of a first attempt.
    pub async fn has_said(&self, node: &Node, id: GenerationId, tokens: usize) {
        let said = self.tokens()[..tokens].concat();
        eventually("it has said so much", || async {
            (node.text(&self.session, id, 1).await == said).then_some(())
        })
        .await;
    }

    /// Waits until the log has the first of an attempt's text.
    pub async fn has_text(&self, node: &Node, id: GenerationId, attempt: u32) {
        eventually("it has text", || async {
            (node.text(&self.session, id, attempt).await.len() > 10).then_some(())
        })
        .await;
    }
}

fn beat(node: NodeId) -> Heartbeat {
    Heartbeat {
        node,
        address: String::new(),
        role: Role::All,
        redis_up: true,
        running: 0,
        running_max: 0,
        draining: false,
    }
}

async fn start(url: String, log: SharedMemory, revisions: Revisions, says: Says) -> Node {
    let (id, tasks) = (NodeId::new(), Tasks::new());
    let store = connect(&url, &StoreOptions::default()).await.unwrap();
    let memory = Memory::new(id, 512, Duration::from_secs(60), log);
    let faulty = Faulty::around(Arc::new(memory), &revisions);
    let adapter: SharedAdapter = faulty.clone();
    let hub = Hub::new(adapter.clone(), Dialects::new(false), HubOptions::default(), tasks.clone());
    let (notify, notices) = mpsc::channel(16);
    let (absences, _) = mpsc::channel(16);
    adapter.attach(Sinks { feed: hub.feed(), notices: notify, absences });
    let outbox = Outbox::start(store.clone(), adapter.clone(), &tasks);
    let options = GenerationOptions {
        node: id,
        address: String::new(),
        role: Role::All,
        shares_log: true,
        running_max: 8,
        duration_max: Duration::from_secs(60),
        delay: Duration::ZERO,
        delay_max: Duration::ZERO,
        context_messages: 1,
        text_bytes_max: 64 * 1024,
        budget: None,
    };
    let (open, partials) = (Arc::default(), Arc::<Mutex<Vec<_>>>::default());
    let watched = Watched { says, open: Arc::clone(&open), partials: partials.clone() };
    let solo = Solo {
        provider: Arc::new(watched),
        model: "m".to_owned(),
        system: None,
        temperature: None,
        max_tokens: None,
        timeout: Duration::from_secs(60),
        on_takeover: OnTakeover::Continue,
        fallback: None,
    };
    let restarting = Solo { on_takeover: OnTakeover::Restart, ..solo.clone() };
    let agent = |id: &str, solo| (AgentId::new(id).unwrap(), Voice::Solo(solo));
    let voices = HashMap::from([agent("assistant", solo), agent("restarting", restarting)]);
    let generations = Generations::start(
        store.clone(),
        adapter,
        outbox,
        Voices::new(voices),
        options,
        notices,
        &tasks,
    );
    Node { id, generations, adapter: faulty, store, open, partials, runtime: None }
}

impl Node {
    pub fn adapter(&self) -> SharedAdapter {
        self.adapter.clone()
    }

    pub async fn text(&self, session: &SessionId, id: GenerationId, attempt: u32) -> String {
        self.adapter().text(session, id, attempt, 0).await.unwrap()
    }

    /// What its model was given to go on with, each time that it was asked.
    pub fn partials(&self) -> Vec<Option<String>> {
        self.partials.lock().unwrap().clone()
    }

    /// How often its model was asked.
    pub fn asked(&self) -> usize {
        self.partials().len()
    }

    /// As by `kill -9`.
    pub fn die(&self) {
        // Its one worker has nothing to do but this, for ever.
        let runtime = self.runtime.as_ref().unwrap();
        let (never, forever) = blocking::channel::<()>();
        std::mem::forget(never);
        runtime.spawn(async move {
            let _ = forever.recv();
        });
    }

    /// As by `kill -STOP`.
    pub async fn freeze(&self) -> Frozen {
        let (thaw, thawed) = blocking::channel::<()>();
        let (freeze, frozen) = tokio::sync::oneshot::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            freeze.send(()).unwrap();
            let _ = thawed.recv();
        });
        frozen.await.unwrap();
        Frozen(thaw)
    }

    pub async fn drain(&self) {
        let generations = self.generations.clone();
        let drained = self
            .runtime
            .as_ref()
            .unwrap()
            .spawn(async move { generations.drain(Duration::from_millis(100)).await });
        drained.await.unwrap();
    }
}

/// What stands in a session's log, in short. What was appended twice has one id.
pub async fn kinds(node: &Node, session: &SessionId) -> Vec<&'static str> {
    eventually("the answer is heard of", || async {
        let page = node.adapter().read(session, Position::default(), 500).await.unwrap();
        let mut known = HashSet::new();
        let first = page.events.iter().filter(|(_, event)| known.insert(event.id));
        let kinds: Vec<_> = first.map(|(_, event)| kind(&event.kind)).collect();
        let is_over = page.events.iter().any(|(_, event)| event.kind.answer().is_some());
        is_over.then_some(kinds)
    })
    .await
}

fn kind(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::MessageNew(_) => "new",
        EventKind::GenerationStarted { .. } => "started",
        EventKind::GenerationResumed { .. } => "resumed",
        EventKind::GenerationReset { .. } => "reset",
        EventKind::GenerationEnded { .. } => "ended",
        EventKind::GenerationCompleted { .. } => "completed",
        EventKind::GenerationStopped { .. } => "stopped",
        EventKind::GenerationFailed { .. } => "failed",
        _ => "other",
    }
}
