//! The composition root: the only place that names concrete backends, and the order in which they
//! start and stop.

mod answerers;
mod net;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::middleware::from_fn_with_state;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;

use self::net::{Clients, listen_for_metrics, serve_on};
use crate::adapter::{Memory, Redis, RedisOptions, SharedAdapter, SharedMemory, Sinks};
use crate::auth::Verifier;
use crate::chat::{Chat, ChatOptions, Parts};
use crate::config::{ChunkContent, Config, DatabaseKind};
use crate::dialect::Dialects;
use crate::domain::NodeId;
use crate::generation::{GenerationOptions, Generations};
use crate::http::{
    HttpState, Origins, SseEdge, SseOptions, cors, guard_origins, private, probes, public,
};
use crate::hub::{Hub, HubOptions};
use crate::lifecycle::{Readiness, Tasks};
use crate::outbox::Outbox;
use crate::socketio::{PATH, SocketEdge, SocketOptions};
use crate::store::{self, SharedStore, StoreOptions};
use crate::telemetry::metrics;

/// The most notices from other nodes that wait to be read.
const NOTICES_MAX: usize = 1024;
/// The most Redis commands that wait for a connection.
const REDIS_QUEUE_MAX: usize = 100_000;
/// After how long without a sign of life the other nodes take a node's users out.
const NODE_DEAD_AFTER: Duration = Duration::from_secs(5);
/// What sockets speak that come without a token and say by an event who they are.
const TOKENLESS_DIALECT: &str = "persona";
/// The most bytes of an answer.
const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the tasks may take to end once nothing is left to do.
const TASKS_WITHIN: Duration = Duration::from_secs(5);
/// How long requests may take to end once nothing is accepted any more.
const REQUESTS_WITHIN: Duration = Duration::from_secs(2);

/// A running node.
pub struct App {
    node: NodeId,
    /// Where it serves.
    address: SocketAddr,
    /// Where it serves metrics.
    metrics_address: Option<SocketAddr>,
    grace: Duration,
    readiness: Readiness,
    sockets: SocketEdge,
    sse: SseEdge,
    generations: Generations,
    store: SharedStore,
    servers: Tasks,
    /// What the sockets' own tasks need is stopped after them.
    background: Tasks,
}

impl App {
    /// Starts a node; once this answers, it serves.
    ///
    /// # Errors
    /// What could not be started: a port that is taken, a database that cannot be reached.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        metrics::install();
        let node = NodeId::new();
        let background = Tasks::new();
        let clients = Clients::new(config);
        let listener = clients.listen(config).await?;
        let address = listener.local_addr().context("read the listening address")?;

        let store = store::connect(config.database.url.expose_secret(), &store_options(config))
            .await
            .context("open the database (DATABASE_URL)")?;
        let adapter = adapter(node, config, &background).await?;
        let dialects = Dialects::new(config.streams.chunk_content == ChunkContent::Cumulative);
        let recovers = !config.socket.recovery_window.is_zero();
        let dialects = if recovers { dialects } else { dialects.without_offsets() };
        let hub = Hub::new(
            adapter.clone(),
            dialects.clone(),
            HubOptions {
                linger: config.log.tail_linger,
                // Whatever the log holds is recognised when it is read again.
                recent_max: config.log.events_max.get(),
                ..HubOptions::default()
            },
            background.clone(),
        );
        let (notify, notices) = mpsc::channel(NOTICES_MAX);
        let (miss, absences) = mpsc::channel(NOTICES_MAX);
        adapter.attach(Sinks { feed: hub.feed(), notices: notify, absences: miss });
        let outbox = Outbox::start(store.clone(), adapter.clone(), &background);
        let (voices, answerers) = answerers::answerers(config).context("set up the agents")?;
        let generations = Generations::start(
            store.clone(),
            adapter.clone(),
            outbox.clone(),
            voices,
            generation_options(node, address, config),
            notices,
            &background,
        );
        let parts = Parts {
            store: store.clone(),
            adapter: adapter.clone(),
            hub,
            outbox,
            generations: generations.clone(),
            answerers,
        };
        let chat = Chat::new(parts, chat_options(node, config), absences, &background);
        let verifier = Arc::new(Verifier::new(&config.auth));
        if config.server.role.serves() {
            verifier.start(&background).await?;
        }
        let sockets = SocketEdge::new(
            chat.clone(),
            verifier.clone(),
            dialects.clone(),
            socket_options(node, &dialects, &clients, config)?,
        );
        let sse = SseEdge::new(chat.clone(), sse_options(&dialects, &clients, config));
        let stop = background.stopping().clone();
        background.spawn(async move { metrics::upkeep(&stop).await });

        let readiness = Readiness::default();
        let origins = Origins::new(&config.server.cors_origins, PATH);
        let role = config.server.role;
        let state = HttpState {
            node,
            role,
            chat,
            sse: sse.clone(),
            store: store.clone(),
            probe: Arc::default(),
            adapter,
            verifier,
            admin_scope: config.auth.admin_scope.clone(),
            readiness: readiness.clone(),
            body_max: config.server.body_max,
            body_timeout: config.server.body_timeout,
            dev_auth: config.auth.dev_auth,
            loopback_only: config.server.is_loopback(),
            demo_ui: config.server.demo_ui,
        };
        let router = if role.serves() {
            public(state)
                .layer(sockets.layer.clone())
                .layer(clients.transport(config))
                .layer(cors(&origins))
                .layer(from_fn_with_state(origins, guard_origins))
        } else {
            probes(state)
        };

        let servers = Tasks::new();
        serve_on(listener, router, config, &servers);
        let metrics_address = match config.server.metrics_port {
            0 => None,
            _ => {
                let listener = listen_for_metrics(config).await?;
                let address = listener.local_addr().context("read the metrics address")?;
                serve_on(listener, private(), config, &background);
                Some(address)
            }
        };
        readiness.started();
        Ok(Self {
            node,
            address,
            metrics_address,
            grace: config.server.shutdown_grace,
            readiness,
            sockets,
            sse,
            generations,
            store,
            servers,
            background,
        })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves metrics.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Drains and stops: unready first, then the clients are told and sent elsewhere while the
    /// generations come to their ends or go to other nodes, then everything else.
    pub async fn stop(self) {
        tracing::info!(
            sockets = self.sockets.open(),
            streams = self.sse.open(),
            generations = self.generations.running(),
            "draining"
        );
        self.readiness.drain();
        self.servers.stopping().cancel();
        tokio::join!(self.sockets.drain(), self.sse.drain(), self.generations.drain(self.grace),);
        self.servers.shutdown(REQUESTS_WITHIN).await;
        self.background.shutdown(TASKS_WITHIN).await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// Serves until the process is told to stop.
///
/// # Errors
/// What could not be started.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::listen()?;
    let app = tokio::select! {
        app = App::start(&config) => app?,
        () = signals.received() => return Ok(()),
    };
    introduce(&app, &config);
    signals.received().await;
    tokio::select! {
        () = app.stop() => Ok(()),
        () = signals.received() => anyhow::bail!("stopped by a second signal"),
    }
}

/// Brings the database to this version's schema.
///
/// # Errors
/// What could not be migrated.
pub async fn migrate(config: Config) -> anyhow::Result<()> {
    store::migrate(config.database.url.expose_secret(), &store_options(&config))
        .await
        .context("migrate the database (DATABASE_URL)")?;
    tracing::info!("the database has this version's schema");
    Ok(())
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says in a few lines what the node uses and where it is.
fn introduce(app: &App, config: &Config) {
    let adapter = if config.redis.is_some() { "Redis" } else { "in memory (one node)" };
    let database = match config.database.kind {
        DatabaseKind::Sqlite => {
            let url = config.database.url.expose_secret();
            format!("SQLite, {}", url.trim_start_matches("sqlite:").trim_start_matches("//"))
        }
        DatabaseKind::Postgres => "PostgreSQL".to_owned(),
    };
    let (role, version) = (config.server.role.as_str(), env!("CARGO_PKG_VERSION"));
    tracing::info!(node = %app.node, role, adapter, database, "tokencast {version}");
    for agent in &config.agents.agents {
        let default = agent.id == config.agents.default;
        let (provider, model) = (agent.provider.as_str(), &agent.model);
        tracing::info!(agent = %agent.id, provider, model, default, "answers");
    }
    if let Some(address) = app.metrics_address {
        tracing::info!("metrics at http://{address}/metrics");
    }
    let page = match config.server.role.serves() {
        true if config.server.demo_ui => ": the demo chat",
        true => "",
        false => ": probes only",
    };
    tracing::info!("listening at http://{}/{page}", app.address);
}

async fn adapter(node: NodeId, config: &Config, tasks: &Tasks) -> anyhow::Result<SharedAdapter> {
    let events_max = config.log.events_max.get();
    Ok(match &config.redis {
        None => {
            metrics::handles().cluster_nodes.set(1.0);
            Arc::new(Memory::new(node, events_max, config.log.ttl, SharedMemory::default()))
        }
        Some(redis) => {
            let options = RedisOptions {
                url: redis.url.clone(),
                command_timeout: redis.command_timeout,
                command_queue_max: REDIS_QUEUE_MAX,
                log_events_max: events_max as u64,
                log_ttl: config.log.ttl,
                dead_after: NODE_DEAD_AFTER,
            };
            Arc::new(Redis::connect(node, options, tasks).await.context("REDIS_URL")?)
        }
    })
}

fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        connections_max: up_to_u32(config.database.connections.get()),
        ..StoreOptions::default()
    }
}

fn generation_options(node: NodeId, address: SocketAddr, config: &Config) -> GenerationOptions {
    let running_max = match config.streams.max_node_streams {
        0 => tokio::sync::Semaphore::MAX_PERMITS,
        max => max,
    };
    GenerationOptions {
        node,
        address: address.to_string(),
        role: config.server.role,
        shares_log: config.redis.is_some(),
        running_max,
        duration_max: config.streams.max_duration,
        delay: config.streams.delay,
        delay_max: config.streams.delay_max,
        context_messages: up_to_u32(config.streams.context_messages),
        text_bytes_max: TEXT_BYTES_MAX,
        budget: config.streams.token_budget,
    }
}

fn chat_options(node: NodeId, config: &Config) -> ChatOptions {
    ChatOptions {
        node,
        auto_create_sessions: config.server.auto_create_sessions,
        content_chars_max: config.limits.content_chars_max,
        attachments_max: up_to_u32(config.limits.attachments_max),
        page_max: config.limits.page_max,
        search_chars_max: config.limits.search_chars_max,
        members_max: up_to_u32(config.limits.members_max.get()),
        moderation: config.limits.moderation,
        rates: config.limits.rates.clone(),
        rejoin_window: config.socket.recovery_window,
        user_connections_max: up_to_u32(config.socket.max_connections_per_user),
        presence_grace: config.socket.presence_grace,
        user_generations_max: up_to_u32(config.streams.max_concurrent),
        budget: config.streams.token_budget,
        joined_max: config.socket.joined_max.get(),
    }
}

fn up_to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn socket_options(
    node: NodeId,
    dialects: &Dialects,
    clients: &Clients,
    config: &Config,
) -> anyhow::Result<SocketOptions> {
    let socket = &config.socket;
    let dialect = |variable: &str, name: &str| {
        dialects.by_name(name).with_context(|| format!("{variable}: {name} is unknown"))
    };
    let tokenless = config.auth.chat_auth.then(|| dialect("ALLOW_CHAT_AUTH", TOKENLESS_DIALECT));
    Ok(SocketOptions {
        node,
        default_dialect: dialect("DEFAULT_DIALECT", &socket.default_dialect)?,
        tokenless_dialect: tokenless.transpose()?,
        ping_interval: socket.ping_interval,
        ping_timeout: socket.ping_timeout,
        payload_max: socket.payload_max,
        outbound_max: socket.outbound_max as u64,
        command_queue: socket.command_queue.get(),
        events_max: u32::try_from(socket.events_per_second_max).unwrap_or(u32::MAX),
        recovers: !config.socket.recovery_window.is_zero(),
        eio3: socket.eio3,
        age_max: socket.connection_max_age,
        expires_after: expires_after(config),
        connect_timeout: socket.connect_timeout,
        binaries_max: socket.binaries_max,
        slots: clients.slots.clone(),
        drain_spread: drain_spread(config),
    })
}

fn sse_options(dialects: &Dialects, clients: &Clients, config: &Config) -> SseOptions {
    SseOptions {
        dialect: dialects.sse(),
        outbound_max: config.socket.outbound_max,
        age_max: config.socket.connection_max_age,
        expires_after: expires_after(config),
        slots: clients.slots.clone(),
        addresses: clients.addresses.clone(),
        drain_spread: drain_spread(config),
    }
}

/// How long after a token's end its connections are closed, where they are.
fn expires_after(config: &Config) -> Option<Duration> {
    config.auth.expire.then_some(config.auth.leeway)
}

/// Over what time clients are sent elsewhere.
fn drain_spread(config: &Config) -> Duration {
    (config.server.shutdown_grace / 5).min(Duration::from_secs(5))
}
