//! Generations: running an attempt from the stored prompt to the stored answer.
//!
//! An attempt begins (`pending` → `streaming`), asks its provider, appends what comes to the log,
//! and finishes exactly once, guarded by owner and attempt. It must not know readers or dialects:
//! whoever wants to see the text reads the log.

mod ask;
mod ending;
mod meter;
mod run;
mod spend;
mod voice;
mod writer;

pub use voice::{Pipeline, PipelineStage, Solo, Voice, Voices};

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::adapter::{Notice, SharedAdapter};
use crate::domain::{AgentId, Budget, Generation, GenerationId, NodeId, Role, UserId};
use crate::lifecycle::Tasks;
use crate::outbox::Outbox;
use crate::store::{Heartbeat, Outgoing, SharedStore};
use crate::telemetry::metrics;

/// How often a node looks for stops that it was not told of, and says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// How often it looks for generations of dead nodes.
const ORPHANS_EVERY: Duration = Duration::from_secs(3);
/// The pauses between tries while the database or Redis is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long an attempt may take to store its end, once it was told to come to one.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How generations run on this node.
#[derive(Debug, Clone)]
pub struct GenerationOptions {
    /// This node.
    pub node: NodeId,
    /// Where it is reached, for people who look into the database.
    pub address: String,
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
    /// How many tokens the answers to one user may take, across the cluster; `None`: no limit.
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
    running: Mutex<HashMap<GenerationId, Arc<Stop>>>,
    /// Heartbeats given without a failure in between.
    beats: AtomicU64,
}

/// How a running attempt is told to end.
#[derive(Default)]
struct Stop {
    by: OnceLock<UserId>,
    told: CancellationToken,
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
            running: Mutex::default(),
            beats: AtomicU64::new(0),
        });
        let (stop, own) = (tasks.stopping().clone(), shared.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(listen(&own, notices)).await;
        });
        let (stop, own) = (tasks.stopping().clone(), shared.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(beat(&own)).await;
        });
        let (stop, own) = (tasks.stopping().clone(), shared.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(look_for_orphans(&own)).await;
        });
        Self { shared }
    }

    /// Room for one more, or `None` where the node has its fill or is draining.
    pub fn reserve(&self) -> Option<Slot> {
        self.shared.slots.clone().try_acquire_owned().ok().map(Slot)
    }

    /// Runs an accepted generation in a task of its own. `announce` is appended to the log before
    /// anything of it.
    pub fn run(&self, generation: Generation, announce: Vec<Outgoing>, slot: Slot) {
        let stop = Arc::new(Stop::default());
        self.shared.running().insert(generation.id, stop.clone());
        let shared = self.shared.clone();
        self.shared.runs.spawn(async move {
            let id = generation.id;
            run::attempt(&shared, generation, announce, &stop).await;
            shared.running().remove(&id);
            drop(slot);
        });
    }

    /// Stops a generation, if it runs here. Stored by the caller before.
    pub fn stop(&self, generation: GenerationId, by: &UserId) -> bool {
        self.shared.stop(generation, by)
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

    /// Takes no more, waits for those that run, and after `grace` ends what is left as failed,
    /// with the text so far.
    pub async fn drain(&self, grace: Duration) {
        self.shared.slots.close();
        if !self.shared.runs.finished(grace).await {
            tracing::warn!(left = self.running(), "ending generations that did not finish in time");
            for stop in self.shared.running().values() {
                stop.told.cancel();
            }
            self.shared.runs.shutdown(FINISH_WITHIN).await;
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<GenerationId, Arc<Stop>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, generation: GenerationId, by: &UserId) -> bool {
        let stop = self.running().get(&generation).cloned();
        stop.is_some_and(|stop| {
            let _ = stop.by.set(by.clone());
            stop.told.cancel();
            true
        })
    }
}

async fn listen(shared: &Shared, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Stop { generation, by } => {
                shared.stop(generation, &by);
            }
            Notice::Run { .. } => todo!(),
        }
    }
}

/// Ends what dead nodes left. Apart from the heartbeat, which nothing may hold up.
async fn look_for_orphans(shared: &Shared) {
    let mut ticks = interval(ORPHANS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Not before this node has seen the others' heartbeats for as long as makes them dead.
        let beats = u128::from(shared.beats.load(Ordering::Relaxed));
        if beats * HEARTBEAT_EVERY.as_millis() > ending::DEAD_AFTER.as_millis() {
            ending::end_orphans(shared).await;
        }
    }
}

/// Says that the node lives, and finds the stops that it was not told of.
async fn beat(shared: &Shared) {
    let mut ticks = interval(HEARTBEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let options = &shared.options;
    loop {
        ticks.tick().await;
        let beat = Heartbeat {
            node: options.node,
            address: options.address.clone(),
            role: Role::All,
            redis_up: shared.adapter.is_up(),
            running: u32::try_from(shared.running().len()).unwrap_or(u32::MAX),
            running_max: u32::try_from(options.running_max).unwrap_or(u32::MAX),
            draining: false,
        };
        let beat = shared.store.heartbeat(&beat).await;
        metrics::handles().db_up.set(f64::from(u8::from(beat.is_ok())));
        if let Err(error) = beat {
            tracing::debug!(%error, "heartbeat");
            // After an outage all nodes look dead until they have beaten again.
            shared.beats.store(0, Ordering::Relaxed);
            continue;
        }
        shared.beats.fetch_add(1, Ordering::Relaxed);
        if shared.running().is_empty() {
            continue;
        }
        match shared.store.stop_requests(options.node).await {
            Ok(stops) => {
                for (generation, by) in stops {
                    shared.stop(generation, &by);
                }
            }
            Err(error) => tracing::debug!(%error, "read stop requests"),
        }
    }
}
