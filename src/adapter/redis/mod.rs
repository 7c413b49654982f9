//! The adapter of a cluster, on Redis or Valkey 7 and newer.
//!
//! Keys, all of one session on one shard by their hash tag:
//! `tc:{<session>}:log` (stream: ids `<epoch>-<seq>`, field `e` = the event) ·
//! `tc:{<session>}:text:<generation>:<attempt>` (string) · `tc:{<session>}:online` (hash) ·
//! the channel `tc:{<session>}`. Of a node: the channel `tc:node:{<node>}`; of all: the sorted set
//! `tc:nodes` (node → last seen, ms).
//!
//! One connection for commands, pipelined, and one for subscriptions. Every command is bounded in
//! time; the queue of commands waiting for a connection is bounded too. What may have been missed
//! is never guessed: the feed is told that it is dirty, and compares heads.

mod frame;
mod log;
mod presence;
mod scripts;
mod subscriber;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::PubsubInterface;
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use secrecy::{ExposeSecret, SecretString};

use super::{Adapter, AdapterError, Feed, News, Notice, Registry, Sinks};
use crate::domain::{GenerationId, NodeId, Position, SessionId, UserId};
use crate::lifecycle::Tasks;

use scripts::Scripts;

/// How the adapter behaves. All bounds are per node.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://`.
    pub url: SecretString,
    /// The longest a command may take, waiting for a connection included.
    pub command_timeout: Duration,
    /// The most commands waiting to be sent; further ones fail at once.
    pub command_queue_max: usize,
    /// The most events kept in a session's log.
    pub log_events_max: u64,
    /// How long the log and texts of a session outlive the last append.
    pub log_ttl: Duration,
}

/// One node's connections to Redis.
pub struct Redis {
    shared: Arc<Shared>,
}

/// What the adapter's tasks share.
struct Shared {
    node: NodeId,
    options: RedisOptions,
    commands: Client,
    subscriber: Client,
    scripts: Scripts,
    sinks: OnceLock<Sinks>,
    state: Mutex<State>,
    up: AtomicBool,
    pinged: AtomicU64,
    ponged: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The sessions that this node wants to hear.
    subscribed: HashSet<SessionId>,
    /// The highest position this node knows of, for sessions that it hears or appends to.
    known: HashMap<SessionId, Position>,
    /// What was appended to since the last periodic check.
    touched: HashMap<SessionId, HashSet<(GenerationId, u32)>>,
    /// Whom this node said to be in a session.
    present: HashSet<(SessionId, UserId)>,
}

impl Redis {
    /// Connects, waiting at most `command_timeout` for it: a node may start without Redis, and is
    /// degraded until it answers.
    ///
    /// # Errors
    /// A URL that cannot be read.
    pub async fn connect(
        node: NodeId,
        options: RedisOptions,
        tasks: &Tasks,
    ) -> Result<Self, AdapterError> {
        let mut builder =
            builder(&options).map_err(|source| unavailable("read REDIS_URL", source))?;
        let subscriber = builder.build().map_err(|source| unavailable("connect", source))?;
        // fred makes all its channels of this size at once, and nothing arrives on this connection.
        builder.with_performance_config(|performance| performance.broadcast_channel_capacity = 16);
        let commands = builder.build().map_err(|source| unavailable("connect", source))?;
        let shared = Arc::new(Shared {
            node,
            options,
            commands,
            subscriber,
            scripts: Scripts::new(),
            sinks: OnceLock::new(),
            state: Mutex::default(),
            up: AtomicBool::new(false),
            pinged: AtomicU64::new(0),
            ponged: AtomicU64::new(0),
        });
        subscriber::start(&shared, tasks).await;
        Ok(Self { shared })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        self.sinks.get()?.feed.upgrade()
    }

    /// Notes how far a session's log is known to reach.
    fn know(&self, session: &SessionId, position: Position) {
        let mut state = self.state();
        let known = state.known.entry(session.clone()).or_default();
        *known = position.max(*known);
    }
}

#[async_trait]
impl Registry for Redis {
    async fn tell(&self, node: NodeId, notice: Notice) -> Result<bool, AdapterError> {
        let heard: u64 = self
            .shared
            .commands
            .spublish(node_channel(node), frame::notice(&notice))
            .await
            .map_err(|source| unavailable("tell a node", source))?;
        Ok(heard > 0)
    }

    async fn tell_all(&self, _news: News) -> Result<(), AdapterError> {
        todo!()
    }

    fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }
}

impl Adapter for Redis {
    fn attach(&self, sinks: Sinks) {
        let first = self.shared.sinks.set(sinks).is_ok();
        debug_assert!(first, "attached twice");
    }
}

fn builder(options: &RedisOptions) -> Result<Builder, Error> {
    let mut config = Config::from_url(options.url.expose_secret())?;
    config.fail_fast = false;
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| {
            performance.default_command_timeout = options.command_timeout;
            // A receiver that falls behind by more than this is dirty, not wrong.
            performance.broadcast_channel_capacity = 65_536;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = options.command_timeout;
            connection.internal_command_timeout = options.command_timeout;
            connection.max_command_attempts = 2;
            connection.max_command_buffer_len = options.command_queue_max;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(options.command_timeout + Duration::from_secs(1)),
                interval: Duration::from_millis(500),
            };
            connection.tcp.nodelay = Some(true);
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 1_000, 2));
    Ok(builder)
}

fn unavailable(doing: &'static str, source: Error) -> AdapterError {
    AdapterError::Unavailable { doing, source: Box::new(source) }
}

fn channel(session: &SessionId) -> String {
    format!("tc:{{{session}}}")
}

fn node_channel(node: NodeId) -> String {
    format!("tc:node:{{{node}}}")
}

fn log_key(session: &SessionId) -> String {
    format!("tc:{{{session}}}:log")
}

fn text_key(session: &SessionId, generation: GenerationId, attempt: u32) -> String {
    format!("tc:{{{session}}}:text:{generation}:{attempt}")
}

fn online_key(session: &SessionId) -> String {
    format!("tc:{{{session}}}:online")
}

/// The session of a channel's name.
fn session_of(channel: &str) -> Option<SessionId> {
    SessionId::new(channel.strip_prefix("tc:{")?.strip_suffix('}')?).ok()
}
