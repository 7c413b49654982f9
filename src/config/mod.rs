//! What the operator decided: one struct per concern, parsed once at the start.
//!
//! It owns the names, defaults and limits of every variable ([`VARIABLES`] is the one table that
//! reading, `--help` and errors are driven by) and the agents file. Parsing is a pure function of
//! a [`Source`]. It must not know who uses a value: no module above `domain` is imported here.

pub mod agents;
mod agents_file;
mod assemble;
mod built_in;
mod parse;
mod pipelines;
mod public_key;
mod rates;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod variables;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use crate::domain::{Budget, Moderation, Rates, Role};

pub use agents::{Agent, Agents, Pipeline, PipelineStage, ProviderKind};
pub use public_key::PublicKey;
pub use source::{Files, Source};
pub(crate) use variables::flag_name;
pub use variables::{Kind, Support, Unset, VARIABLES, Variable};

/// Everything the operator decided. Secrets never show in its `Debug`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node and its listeners.
    pub server: Server,
    /// What nodes share; `None` is one node, in memory.
    pub redis: Option<Redis>,
    /// What is kept for ever.
    pub database: Database,
    /// Who may connect.
    pub auth: Auth,
    /// Generations and their text.
    pub streams: Streams,
    /// A session's log, as nodes share it.
    pub log: SessionLog,
    /// Connections.
    pub socket: Socket,
    /// What users may do, and how much of it.
    pub limits: Limits,
    /// The LLM APIs.
    pub providers: Providers,
    /// Who answers.
    pub agents: Agents,
    /// What the process writes about itself.
    pub logging: Logging,
    /// What was set but has no effect, or is risky: one line each, to be logged at the start.
    pub warnings: Vec<String>,
}

/// The node and its listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Which part of the work it does; another than all only where there is a Redis.
    pub role: Role,
    /// Address or name to listen on, without brackets.
    pub host: String,
    /// 0: any free one.
    pub port: u16,
    /// Where `/metrics` is served, on the same host; 0: nowhere.
    pub metrics_port: u16,
    /// Allowed browser origins, lower case, without a default port or trailing slash.
    pub cors_origins: Vec<String>,
    /// How long a shutdown waits for running generations.
    pub shutdown_grace: Duration,
    /// The most TCP connections; 0: no limit; `None`: as the process' limits have it.
    pub tcp_connections_max: Option<usize>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest head of a request, in bytes.
    pub head_max: usize,
    /// How long a head may take to arrive. Never zero.
    pub head_timeout: Duration,
    /// The largest body of a request of REST, in bytes.
    pub body_max: usize,
    /// How long a body may take to arrive. Never zero.
    pub body_timeout: Duration,
    /// Whether `/` is the demo chat.
    pub demo_ui: bool,
    /// Whether joining or writing to a session that does not exist makes it.
    pub auto_create_sessions: bool,
}

impl Server {
    /// Whether only this machine can connect. A name other than `localhost` counts as reachable.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether `host` is reachable from this machine only, as far as its text tells.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What nodes share.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`; may hold a password.
    pub url: SecretString,
    /// After it a command counts as failed. Never zero.
    pub command_timeout: Duration,
}

/// What is kept for ever.
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite:` or `postgres://`; may hold a password.
    pub url: SecretString,
    /// Which of the two it is.
    pub kind: DatabaseKind,
    /// The most connections at once.
    pub connections: NonZeroUsize,
}

/// The databases there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file of this machine.
    Sqlite,
    /// A server.
    Postgres,
}

/// Who may connect.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The HMAC key, at least 32 bytes.
    pub jwt_secret: Option<SecretString>,
    /// A public key.
    pub public_key: Option<PublicKey>,
    /// Where more are published.
    pub jwks_url: Option<String>,
    /// How often they are fetched.
    pub jwks_refresh: Duration,
    /// Whether a socket is closed when its token ends.
    pub expire: bool,
    /// The `iss` a token must have; any where unset.
    pub issuer: Option<String>,
    /// The `aud`s of which a token must have one; any where empty.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Whether anybody gets a token by asking.
    pub dev_auth: bool,
    /// Whether sockets are admitted that have no token and say by an event who they are.
    pub chat_auth: bool,
    /// For stream tokens; derived from `jwt_secret` where unset.
    pub signing_secret: Option<SecretString>,
    /// The scope that an operator's token has.
    pub admin_scope: String,
}

/// Generations and their text.
#[derive(Debug, Clone, PartialEq)]
pub struct Streams {
    /// The longest wait for the first token, and between tokens.
    pub timeout: Duration,
    /// The longest a generation may take.
    pub max_duration: Duration,
    /// How long new text may wait to be joined with the next, at rest; zero: never waits.
    pub delay: Duration,
    /// The same under load; at least `delay`.
    pub delay_max: Duration,
    /// Running generations of one user; 0: no limit.
    pub max_concurrent: usize,
    /// Running generations of this node; 0: no limit.
    pub max_node_streams: usize,
    /// Tokens that answers to one user may take.
    pub token_budget: Option<Budget>,
    /// What a chunk's `content` is in the `session` dialect.
    pub chunk_content: ChunkContent,
    /// The most earlier messages that are given to the model.
    pub context_messages: usize,
    /// How often an agent's provider is asked again that fails before the first visible token.
    pub retries: u32,
}

/// What a chunk's `content` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkContent {
    /// The whole text, in the last chunk only.
    Final,
    /// The text so far, in every chunk.
    Cumulative,
}

/// A session's log, as nodes share it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionLog {
    /// The most events that are kept of one session; older ones come from the store.
    pub events_max: NonZeroUsize,
    /// How long a log or text is kept after its last change.
    pub ttl: Duration,
    /// How long a node goes on following a session after its last reader has gone.
    pub tail_linger: Duration,
}

/// Connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Socket {
    /// How often a client is pinged.
    pub ping_interval: Duration,
    /// How long its answer may take.
    pub ping_timeout: Duration,
    /// The largest payload a client may send, in bytes.
    pub payload_max: usize,
    /// The most bytes handed to a socket that are not yet written; beyond it the socket is slow.
    pub outbound_max: usize,
    /// A peer that takes no byte for this long is closed.
    pub write_stall: Duration,
    /// A connection is closed after this long, in a way after which clients come back.
    pub connection_max_age: Duration,
    /// The most connections to this node; 0: no limit.
    pub max_connections: usize,
    /// The most connections of one user, on all nodes; 0: no limit.
    pub max_connections_per_user: usize,
    /// The most connections to this node from one address; 0: no limit.
    pub connections_per_address_max: usize,
    /// The most connections that are not in the namespace yet; 0: no limit.
    pub handshakes_max: usize,
    /// How long a client may take to get there. Never zero.
    pub connect_timeout: Duration,
    /// The most binary attachments of an event.
    pub binaries_max: usize,
    /// The most polls of a connection at the same time. Never zero.
    pub polls_max: u8,
    /// Whether Engine.IO 3 is spoken too.
    pub eio3: bool,
    /// The most events of one socket in a second; 0: no limit.
    pub events_per_second_max: usize,
    /// Joining a session again within it is not counted.
    pub recovery_window: Duration,
    /// How long a user whose last connection ended still counts as there.
    pub presence_grace: Duration,
    /// The most commands of one socket that wait to be handled.
    pub command_queue: NonZeroUsize,
    /// The most sessions one socket may have joined.
    pub joined_max: NonZeroUsize,
    /// What a socket speaks that does not say so, and whose first event several dialects have.
    pub default_dialect: String,
}

/// What users may do, and how much of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The most characters of a message.
    pub content_chars_max: usize,
    /// The most attachments of a message.
    pub attachments_max: usize,
    /// The most items of a page.
    pub page_max: u32,
    /// The most characters of a search.
    pub search_chars_max: usize,
    /// The most members of a session, its owner among them.
    pub members_max: NonZeroUsize,
    /// What becomes of profanity in what people write.
    pub moderation: Moderation,
    /// How often a user may do what.
    pub rates: Rates,
}

/// The LLM APIs.
#[derive(Debug, Clone)]
pub struct Providers {
    /// Anthropic, or whatever speaks its Messages.
    pub anthropic: Upstream,
    /// OpenAI, or whatever speaks its Chat Completions or Responses.
    pub openai: Upstream,
    /// The most time to spend on connecting to one, names and TLS included. Never zero.
    pub connect_timeout: Duration,
}

/// Where an LLM API is.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// What it is asked with; nothing is sent where unset.
    pub api_key: Option<SecretString>,
    /// Without a trailing slash; OpenAI's usually ends in `/v1`.
    pub base_url: String,
    /// The model of agents that name none.
    pub model: Option<String>,
}

/// What the process writes about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// How; chosen by whether standard error is a terminal where unset.
    pub format: Option<LogFormat>,
    /// `tracing`'s filter directives.
    pub filter: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Reads `250ms`, `30s`, `5m`, `24h`, `7d`; a bare number is milliseconds.
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse::duration(text)
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub variable: String,
    /// What is wrong and what would be right; one line, no secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.message)
    }
}

/// Everything that is wrong with a configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn lines(&self) -> String {
        self.0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl Config {
    /// Reads everything from `source`.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn read(source: &Source) -> Result<Self, Problems> {
        let (config, problems) = assemble::assemble(source);
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// Reads everything, but minds only what a migration needs: the database and logging. So a
    /// migration needs no keys.
    ///
    /// # Errors
    /// All that is wrong with those, at once.
    pub fn read_for_migration(source: &Source) -> Result<Self, Problems> {
        let (config, mut problems) = assemble::assemble(source);
        problems.retain(|problem| {
            problem.variable.starts_with("DATABASE_")
                || ["LOG_FORMAT", "RUST_LOG", ".env"].contains(&problem.variable.as_str())
        });
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }
}
