//! Generations: running an attempt from the stored prompt to the stored answer.
//!
//! An attempt begins (`pending` → `streaming`), asks its provider, appends what comes to the log,
//! and finishes exactly once, guarded by owner and attempt. It must not know readers or dialects:
//! whoever wants to see the text reads the log.

mod asides;
mod ask;
mod ending;
mod gate;
mod herald;
mod lease;
mod meter;
mod nodes;
mod order;
mod pipeline;
mod run;
mod spend;
mod takeover;
mod tries;
mod voice;
mod watch;
mod writer;

pub use voice::{Pipeline, PipelineStage, Solo, Voice, Voices};

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::adapter::{Notice, SharedAdapter};
use crate::domain::{AgentId, Budget, Generation, GenerationId, NodeId, Role, UserId};
use crate::lifecycle::Tasks;
use crate::outbox::Outbox;
use crate::store::{Outgoing, SharedStore};

use lease::Lease;
use order::{Order, Run};

/// The pauses between tries while the database or Redis is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long an attempt may take to store its end, once it was told to come to one.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// How long a node that stops may take to say so.
const RETIRE_WITHIN: Duration = Duration::from_secs(2);

/// How generations run on this node.
#[derive(Debug, Clone)]
pub struct GenerationOptions {
    /// This node.
    pub node: NodeId,
    /// Where it is reached, for people who look into the database.
    pub address: String,
    /// What it does.
    pub role: Role,
    /// Whether other nodes read what this one appends: not where the log is in its memory.
    pub shares_log: bool,
    /// The most at once.
    pub running_max: usize,
    /// The longest one may take.
    pub duration_max: Duration,
    /// How long text may wait to be joined with the next.
    pub delay: Duration,
    /// The same while Redis is behind or nobody listens.
    pub delay_max: Duration,
    /// The most messages given to the model.
    pub context_messages: u32,
    /// The most bytes of an answer; beyond it the generation fails.
    pub text_bytes_max: usize,
    /// How many tokens the answers to one user may take; `None`: no limit.
    pub budget: Option<Budget>,
}

/// Room for one more generation on this node; given back when dropped.
pub struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The generations of one node.
#[derive(Clone)]
pub struct Generations {
    shared: Arc<Shared>,
}

struct Shared {
    store: SharedStore,
    adapter: SharedAdapter,
    outbox: Outbox,
    voices: Voices,
    options: GenerationOptions,
    runs: Tasks,
    slots: Arc<Semaphore>,
    /// Room for claims that are made and read.
    claims: Arc<Semaphore>,
    running: Mutex<HashMap<GenerationId, Arc<Run>>>,
    lease: Lease,
    /// Gives heartbeats until the node has nothing left to run.
    beats: Tasks,
    beat_now: Notify,
    /// Whether what runs here may be another's by now.
    in_doubt: AtomicBool,
    doubted: Notify,
    claims_paused_until: Mutex<Option<Instant>>,
    draining: CancellationToken,
}

impl Generations {
    /// No generations yet. `notices` is what other nodes tell this one.
    pub fn start(
        store: SharedStore,
        adapter: SharedAdapter,
        outbox: Outbox,
        voices: Voices,
        options: GenerationOptions,
        notices: mpsc::Receiver<Notice>,
        tasks: &Tasks,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(options.running_max));
        let shared = Arc::new(Shared {
            store,
            adapter,
            outbox,
            voices,
            options,
            runs: Tasks::new(),
            slots,
            claims: Arc::new(Semaphore::new(takeover::CLAIMS_AT_ONCE)),
            running: Mutex::default(),
            lease: Lease::default(),
            beats: Tasks::new(),
            beat_now: Notify::new(),
            in_doubt: AtomicBool::new(false),
            doubted: Notify::new(),
            claims_paused_until: Mutex::default(),
            draining: CancellationToken::new(),
        });
        let (own, stop) = (shared.clone(), tasks.stopping().clone());
        shared.beats.spawn(async move {
            stop.run_until_cancelled(lease::beat(&own, own.beats.stopping())).await;
        });
        until_stopped(tasks, watch::listen(shared.clone(), notices));
        until_stopped(tasks, watch::check(shared.clone()));
        until_stopped(tasks, watch::tally(shared.clone()));
        if shared.options.role.generates() {
            until_stopped(tasks, takeover::look_for_left(shared.clone()));
        }
        if shared.options.shares_log {
            until_stopped(tasks, watch::hand_over_without_redis(shared.clone()));
        }
        Self { shared }
    }

    /// What this node does.
    pub fn role(&self) -> Role {
        self.shared.options.role
    }

    /// Room for one more, or `None` where the node has its fill, is draining, or runs none at
    /// all.
    pub fn reserve(&self) -> Option<Slot> {
        self.shared.reserve()
    }

    /// Runs an accepted generation in a task of its own. `announce` is appended to the log before
    /// anything of it.
    pub fn run(&self, generation: Generation, announce: Vec<Outgoing>, slot: Slot) {
        let run = Run::new(generation.session.clone(), generation.attempt);
        run.owned();
        self.shared.run(generation.id, run, slot, |shared, run| async move {
            let start = run::Start::first(&generation, announce);
            run::attempt(&shared, generation, &run, start).await;
        });
    }

    /// Stops a generation, if it runs here. Stored by the caller before.
    pub fn stop(&self, generation: GenerationId, by: &UserId) -> bool {
        self.shared.tell(generation, Order::Stop(by.clone()))
    }

    /// The most tokens of an agent's answers, where a request says nothing; `None` where there is
    /// no such agent, or it does not say.
    pub fn tokens_max(&self, agent: &AgentId) -> Option<u32> {
        self.shared.voices.speaker(agent)?.max_tokens
    }

    /// How many run here.
    pub fn running(&self) -> usize {
        self.shared.running().len()
    }

    /// Takes no more, and waits for those that run for the most of `grace`. What is left then goes
    /// to another node, or, where there is none, ends as failed with the text so far. At the end
    /// the node counts as gone, and nobody waits for it.
    pub async fn drain(&self, grace: Duration) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.slots.close();
        shared.beat_now.notify_one();
        let margin = (grace / 5).min(FINISH_WITHIN);
        if !shared.runs.finished(grace - margin).await {
            let order = if shared.has_heir().await { Order::HandOver } else { Order::ShutDown };
            tracing::warn!(left = self.running(), ?order, "generations did not finish in time");
            shared.tell_all(&order);
            shared.runs.shutdown(FINISH_WITHIN).await;
        }
        // A heartbeat after it would bring the node back.
        shared.beats.shutdown(RETIRE_WITHIN).await;
        match timeout(RETIRE_WITHIN, shared.store.retire(shared.options.node)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "retire"),
            Err(_) => tracing::debug!("retire: it takes long"),
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<GenerationId, Arc<Run>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self) -> Option<Slot> {
        if !self.options.role.generates() {
            return None;
        }
        self.slots.clone().try_acquire_owned().ok().map(Slot)
    }

    /// Runs `work` in a task of its own; until it ends, it is told what concerns the generation.
    /// Does nothing where the generation runs here already: what is accepted may be found by its
    /// age before it is run.
    fn run<F, W>(self: &Arc<Self>, id: GenerationId, run: Run, slot: Slot, work: F)
    where
        F: FnOnce(Arc<Self>, Arc<Run>) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        let run = Arc::new(run);
        match self.running().entry(id) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(run.clone()),
        };
        let running = Running { shared: self.clone(), id };
        let work = work(self.clone(), run);
        self.runs.spawn(async move {
            work.await;
            drop((running, slot));
        });
    }

    /// Tells one that runs here how to end; `false` where none does.
    fn tell(&self, generation: GenerationId, order: Order) -> bool {
        let run = self.running().get(&generation).cloned();
        run.is_some_and(|run| {
            run.tell(order);
            true
        })
    }

    fn tell_all(&self, order: &Order) {
        for run in self.running().values() {
            run.tell(order.clone());
        }
    }

    /// What runs here may be another's by now.
    fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Release);
        self.doubted.notify_one();
    }

    /// Whether this node may go on with what others left: it could read the texts, and it knows
    /// who is dead.
    fn may_claim(&self) -> bool {
        let is_paused = self.claims_paused_until().is_some_and(|until| Instant::now() < until);
        self.options.role.generates()
            && !self.draining.is_cancelled()
            && !is_paused
            && self.adapter.is_up()
            && self.lease.is_whole()
    }

    fn pause_claims(&self, pause: Duration) {
        *self.claims_paused_until() = Some(Instant::now() + pause);
    }

    fn claims_paused_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.claims_paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listed among what runs, until it is dropped.
struct Running {
    shared: Arc<Shared>,
    id: GenerationId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running().remove(&self.id);
    }
}

fn until_stopped(tasks: &Tasks, task: impl Future<Output = ()> + Send + 'static) {
    let stop = tasks.stopping().clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(task).await;
    });
}
