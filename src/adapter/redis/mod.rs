//! The adapter of a cluster, on Redis or Valkey 7 and newer.
//!
//! Keys, all of one session on one shard by their hash tag:
//! `tc:{<session>}:log` (stream: ids `<epoch>-<seq>`, field `e` = the event) ·
//! `tc:{<session>}:rev` (string: the highest revision of the store's in the log) ·
//! `tc:{<session>}:text:<generation>:<attempt>` (string) · `tc:{<session>}:newest:<generation>`
//! (string: the attempt that took the text over; none before) · `tc:{<session>}:tally:<generation>`
//! (hash: what is counted of it) · `tc:{<session>}:online` (hash) and
//! `tc:{<session>}:recent` (sorted set), see `scripts/presence.rs` · the channel `tc:{<session>}`.
//! Of a user: `tc:{user:<user>}:devices` (hash), see `scripts/devices.rs` ·
//! `tc:{user:<user>}:limit:<action>` and `tc:{user:<user>}:spent:<window in ms>` (strings). Of a node: the channel `tc:node:{<node>}` ·
//! `tc:{node:<label>}:held` (sorted set: what others take out if it dies). Of all: the channel
//! `tc:all` · `tc:nodes` and `tc:{tc:nodes}:dead` (sorted sets), see `scripts/nodes.rs`.
//!
//! One connection for commands, pipelined, and one for subscriptions. Every command is bounded in
//! time; the queue of commands waiting for a connection is bounded too. What may have been missed
//! is never guessed: the feed is told that it is dirty, and compares heads.

mod devices;
#[doc(hidden)]
pub mod frame;
mod garbage;
mod limits;
mod log;
mod nodes;
mod presence;
mod scripts;
mod subscriber;
mod sweep;
mod tally;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::PubsubInterface;
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use super::gcra::Gcra;
use super::spent::Spent;
use super::{Adapter, AdapterError, Feed, News, Notice, Registry, Sinks};
use crate::domain::{GenerationId, NodeId, Position, SessionId, UserId};
use crate::lifecycle::Tasks;

use devices::Devices;
use garbage::Garbage;
use scripts::Scripts;

/// The channel that every node hears.
const ALL_CHANNEL: &str = "tc:all";

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
    /// A node that has not been heard of for this long is dead, and its users are taken out. It
    /// says that it lives five times as often.
    pub dead_after: Duration,
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
    /// How often the connection for commands was made anew.
    reconnects: AtomicU64,
    pinged: AtomicU64,
    ponged: AtomicU64,
    /// Decides where Redis does not.
    limits: Gcra,
    /// The same of budgets.
    spent: Spent,
    /// What this node has must be said again now.
    renew: Notify,
    /// An absence was dropped, and there has been no room since.
    untold: AtomicBool,
    garbage: Garbage,
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
    /// Who left while Redis could not be told.
    leaving: HashSet<(SessionId, UserId)>,
    /// The devices of this node, and the users whose last one went and who are not settled yet.
    devices: HashMap<UserId, Devices>,
    /// The number of the last statement about devices.
    stated: u64,
    /// How often this node was taken for dead: part of its label.
    deaths: u32,
    /// The label before this one, until others know what to take out of it.
    buried: Option<String>,
}

impl Redis {
    /// Connects, waiting at most `command_timeout` for it: a node may start without Redis, and is
    /// degraded until it answers.
    ///
    /// # Errors
    /// A URL that cannot be read, and a Redis that is there and with which time will not help: a
    /// certificate or password that is refused.
    pub async fn connect(
        node: NodeId,
        options: RedisOptions,
        tasks: &Tasks,
    ) -> Result<Self, AdapterError> {
        let mut builder = builder(&options).map_err(|error| {
            // Some of the driver's words quote the URL.
            let source = match error.kind() {
                ErrorKind::Url | ErrorKind::Tls => error.to_string(),
                kind => kind.to_str().to_owned(),
            };
            AdapterError::Refused {
                what: "the URL or the CAs cannot be read",
                source: source.into(),
            }
        })?;
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
            reconnects: AtomicU64::new(0),
            pinged: AtomicU64::new(0),
            ponged: AtomicU64::new(0),
            limits: Gcra::default(),
            spent: Spent::default(),
            renew: Notify::new(),
            untold: AtomicBool::new(false),
            garbage: Garbage::default(),
        });
        subscriber::start(&shared, tasks).await?;
        nodes::start(&shared, tasks);
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

    /// The node's name in what it vouches for. It has another one after each time that it was
    /// taken for dead, so that whoever takes out what it had leaves alone what it has.
    fn label(&self) -> String {
        self.state().label(self.node)
    }

    /// Notes how far a session's log is known to reach.
    fn know(&self, session: &SessionId, position: Position) {
        let mut state = self.state();
        let known = state.known.entry(session.clone()).or_default();
        *known = position.max(*known);
    }
}

impl State {
    fn label(&self, node: NodeId) -> String {
        format!("{node}.{}", self.deaths)
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

    async fn tell_all(&self, news: News) -> Result<(), AdapterError> {
        let told: Result<u64, _> =
            self.shared.commands.spublish(ALL_CHANNEL, frame::news(&news)).await;
        told.map(drop).map_err(|source| unavailable("tell all nodes", source))
    }

    fn reconnects(&self) -> u64 {
        self.shared.reconnects.load(Ordering::Relaxed)
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

fn newest_key(session: &SessionId, generation: GenerationId) -> String {
    format!("tc:{{{session}}}:newest:{generation}")
}

fn tally_key(session: &SessionId, generation: GenerationId) -> String {
    format!("tc:{{{session}}}:tally:{generation}")
}

fn online_key(session: &SessionId) -> String {
    format!("tc:{{{session}}}:online")
}

fn recent_key(session: &SessionId) -> String {
    format!("tc:{{{session}}}:recent")
}

fn revision_key(session: &SessionId) -> String {
    format!("tc:{{{session}}}:rev")
}

fn devices_key(user: &UserId) -> String {
    format!("tc:{{user:{}}}:devices", tag(user))
}

fn limit_key(user: &UserId, action: &str) -> String {
    format!("tc:{{user:{}}}:limit:{action}", tag(user))
}

fn spent_key(user: &UserId, window_ms: u64) -> String {
    format!("tc:{{user:{}}}:spent:{window_ms}", tag(user))
}

fn held_key(label: &str) -> String {
    format!("tc:{{node:{label}}}:held")
}

/// A user's id as part of a hash tag, which ends with the first brace.
fn tag(user: &UserId) -> String {
    user.as_str().replace('%', "%25").replace('{', "%7B").replace('}', "%7D")
}

/// The session of a channel's name.
fn session_of(channel: &str) -> Option<SessionId> {
    SessionId::new(channel.strip_prefix("tc:{")?.strip_suffix('}')?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_keys_share_a_hash_tag_whatever_the_id() {
        let mut keys = HashSet::new();
        for id in ["a", "a}b", "a%7Db", "{a}", "%", "%25"] {
            let user = UserId::new(id).expect("valid");
            let (devices, limit) = (devices_key(&user), limit_key(&user, "send"));
            let tag = |key: &str| key[..=key.find('}').expect("there is a tag")].to_owned();
            assert_eq!(tag(&devices), tag(&limit));
            assert!(devices.ends_with("}:devices") && devices.matches('}').count() == 1);
            assert!(keys.insert(devices), "{id}");
        }
    }
}
