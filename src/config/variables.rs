//! The table of every variable: what reading, `--help` and errors are driven by.

/// One variable, which is also a flag: `REDIS_URL` is `--redis-url`.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// Other names for it; its own goes first where both are set.
    pub aliases: &'static [&'static str],
    /// What it is where unset.
    pub unset: Unset,
    /// What its text is.
    pub kind: Kind,
    /// What it does, in one line.
    pub help: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Whether it does anything in this version.
    pub support: Support,
}

/// What a variable is where unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// Nothing.
    Nothing,
    /// This text, read as if it had been given.
    Is(&'static str),
    /// It follows from others; the words are for people.
    Depends(&'static str),
}

/// What a variable's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true`/`false`, `1`/`0`, `yes`/`no`, `on`/`off`.
    Bool,
    /// A whole number.
    Number,
    /// A whole number of bytes, or with `k`, `KiB`, `M`, `MiB` (powers of 1024).
    Bytes,
    /// `250ms`, `30s`, `5m`, `24h`, `7d`; a bare number is milliseconds.
    Duration,
    /// Anything.
    Text,
    /// Comma-separated.
    List,
    /// A URL.
    Url,
    /// A file's path.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Whether a variable does anything in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does.
    Full,
    /// It is checked; a value other than the default is warned about.
    NotYet,
}

const fn variable(name: &'static str, kind: Kind, unset: Unset, help: &'static str) -> Variable {
    Variable { name, aliases: &[], unset, kind, help, secret: false, support: Support::Full }
}

impl Variable {
    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn support(mut self, support: Support) -> Self {
        self.support = support;
        self
    }

    /// The flag's name without dashes: `redis-url`.
    pub fn flag(&self) -> String {
        flag_name(self.name)
    }

    /// The variable called `name`; aliases do not count.
    pub fn find(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }
}

/// `REDIS_URL` as a flag: `redis-url`.
pub(crate) fn flag_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

use Kind::{Bool, Bytes, Choice, Duration, List, Number, Path, Text, Url};
use Support::NotYet;
use Unset::{Depends, Is, Nothing};

/// Every variable, in the order of `--help`.
#[rustfmt::skip]
pub static VARIABLES: &[Variable] = &[
    variable("HOST", Text, Is("127.0.0.1"), "address or name to listen on; 0.0.0.0 for all"),
    variable("PORT", Number, Is("3000"), "port to listen on; 0 for any free one").alias(&["WEBSOCKET_PORT"]),
    variable("METRICS_PORT", Number, Is("9100"), "port of /metrics; 0 for none"),
    variable("ROLE", Choice(&["all", "edge", "generator"]), Is("all"), "what this node does: hold clients (edge), run answers (generator) or both; another than all needs REDIS_URL"),
    variable("CORS_ORIGIN", List, Is("http://localhost:3000"), "origins that browsers may connect from").alias(&["FRONTEND_URL"]),
    variable("DEMO_UI", Bool, Depends("on when DEV_AUTH is"), "serve the demo chat at /"),
    variable("SHUTDOWN_GRACE", Duration, Is("25s"), "how long a shutdown waits for running answers"),
    variable("AUTO_CREATE_SESSIONS", Bool, Is("true"), "joining or writing to an unknown session makes it"),

    variable("REDIS_URL", Url, Nothing, "what nodes share: redis://, rediss://, redis-cluster:// or redis-sentinel://; unset is one node, in memory").secret(),
    variable("REDIS_COMMAND_TIMEOUT", Duration, Is("5s"), "after it a command to Redis counts as failed"),
    variable("DATABASE_URL", Url, Is("sqlite://data/tokencast.db"), "sqlite:// or postgres://").secret(),
    variable("DATABASE_CONNECTIONS", Number, Is("10"), "the most connections to the database at once"),

    variable("JWT_SECRET", Text, Nothing, "key of HS256, HS384 and HS512 tokens, at least 32 bytes").secret(),
    variable("JWT_PUBLIC_KEY", Text, Nothing, "public key of RS, PS, ES or EdDSA tokens, as PEM").secret(),
    variable("JWKS_URL", Url, Nothing, "where the token issuer publishes its public keys, as a JSON Web Key Set").secret(),
    variable("JWKS_REFRESH", Duration, Is("10m"), "how often these are fetched again, from 1m to 24h; an unknown key has them fetched at once, at most once a minute"),
    variable("JWT_ISSUER", Text, Nothing, "the `iss` that tokens must have"),
    variable("JWT_AUDIENCE", List, Nothing, "the `aud`s of which tokens must have one"),
    variable("JWT_LEEWAY", Duration, Is("30s"), "how far clocks may differ, at most 1h"),
    variable("DEV_AUTH", Bool, Depends("on only when no key is set and HOST is loopback"), "give a token to anybody who asks: never in production"),
    variable("ALLOW_CHAT_AUTH", Bool, Depends("off; on under DEV_AUTH"), "admit sockets without a token, and believe who they say by chat:auth that they are: never in production"),
    variable("AUTH_EXPIRE", Bool, Is("false"), "close a socket when its token ends"),
    variable("SIGNING_SECRET", Text, Depends("derived from JWT_SECRET"), "key of stream tokens, at least 32 bytes; the same on every node").secret(),
    variable("ADMIN_SCOPE", Text, Is("tokencast:admin"), "the scope a token needs for /api/admin/*"),

    variable("AGENTS_FILE", Path, Nothing, "agents and pipelines, as TOML; unset is one agent for the provider whose key is set, else scripted, and a small demo pipeline"),
    variable("ANTHROPIC_API_KEY", Text, Nothing, "key of the anthropic provider").secret(),
    variable("ANTHROPIC_BASE_URL", Url, Is("https://api.anthropic.com"), "any server that speaks Anthropic's Messages"),
    variable("ANTHROPIC_MODEL", Text, Depends("claude-sonnet-4-5 at Anthropic itself, else none"), "model of agents that name none"),
    variable("OPENAI_API_KEY", Text, Nothing, "key of the openai and openai-responses providers").secret(),
    variable("OPENAI_BASE_URL", Url, Is("https://api.openai.com/v1"), "any server that speaks OpenAI's Chat Completions or Responses"),
    variable("OPENAI_MODEL", Text, Depends("gpt-4.1 at OpenAI itself, else none"), "model of agents that name none"),
    variable("PROVIDER_CONNECT_TIMEOUT", Duration, Is("10s"), "the longest that connecting to a provider may take, names and TLS included"),

    variable("STREAM_TIMEOUT", Duration, Is("30s"), "the longest wait for the first token, and between tokens"),
    variable("STREAM_MAX_DURATION", Duration, Is("10m"), "the longest an answer may take"),
    variable("STREAM_RETRIES", Number, Is("2"), "how often an agent that fails before the first visible token is asked again, at most 10"),
    variable("STREAM_DELAY", Duration, Is("25ms"), "the longest a token waits to be joined with the next, at rest; 0 for never"),
    variable("STREAM_DELAY_MAX", Duration, Is("250ms"), "the same under load"),
    variable("STREAM_CHUNK_CONTENT", Choice(&["final", "cumulative"]), Is("final"), "where a chunk's `content` has the text so far: in the last one, or in each"),
    variable("MAX_CONCURRENT_STREAMS", Number, Is("10"), "running answers of one user; 0 for no limit"),
    variable("MAX_NODE_STREAMS", Number, Is("1000"), "running answers of one node; 0 for no limit"),
    variable("TOKEN_BUDGET", Text, Nothing, "tokens that answers to one user may take in each window of the clock: 100000/1h; none for no limit"),
    variable("CONTEXT_MESSAGES", Number, Is("10"), "earlier messages that are given to the model"),
    variable("LOG_EVENTS_MAX", Number, Is("512"), "events of one session that nodes keep for readers who come back"),
    variable("LOG_TTL", Duration, Is("1h"), "how long they are kept after the last one"),
    variable("TAIL_LINGER", Duration, Is("5s"), "how long a node goes on following a session after its last reader"),

    variable("DEFAULT_DIALECT", Choice(&["session", "subscribe", "conversation", "persona"]), Is("session"), "what a socket speaks that does not say so, and whose first event several of them have"),
    variable("PING_INTERVAL", Duration, Is("25s"), "how often a client is pinged"),
    variable("PING_TIMEOUT", Duration, Is("20s"), "how long its answer may take"),
    variable("PAYLOAD_MAX", Bytes, Is("1MiB"), "the largest payload a client may send"),
    variable("SOCKET_BUFFER_MAX", Bytes, Is("64KiB"), "the most unwritten bytes that a socket is given; a slow one is given fewer"),
    variable("SOCKET_STALL_TIMEOUT", Duration, Is("30s"), "a peer that takes no byte for this long is closed"),
    variable("SOCKET_COMMANDS_MAX", Number, Is("64"), "commands of one socket that may wait to be handled"),
    variable("JOINED_SESSIONS_MAX", Number, Is("100"), "sessions that one socket may have joined"),
    variable("CONNECTION_MAX_AGE", Duration, Is("24h"), "a connection is closed after this long, and clients come back by themselves"),
    variable("MAX_CONNECTIONS", Number, Is("0"), "connections to this node; 0 for no limit"),
    variable("MAX_CONNECTIONS_PER_USER", Number, Is("20"), "connections of one user, on all nodes; 0 for no limit"),
    variable("SOCKET_EVENTS_MAX", Number, Is("50"), "events of one socket in a second; 0 for no limit"),
    variable("PRESENCE_GRACE", Duration, Is("3s"), "how long a user whose last connection ended still counts as there"),
    variable("RECOVERY_WINDOW", Duration, Is("2m"), "how long a lost connection can be recovered, and joining a session counts as joining it again; at most 1h; 0: not at all"),
    variable("EIO3", Bool, Is("false"), "admit socket.io-client 2.x"),
    variable("CONNECT_TIMEOUT", Duration, Is("20s"), "how long a client may take from the handshake to its place in /chat, and then, without a token, to say who it is"),
    variable("MAX_HANDSHAKES", Number, Is("4096"), "connections of this node that are not in /chat yet, the oldest of which goes for one more; 0 for no limit"),
    variable("MAX_CONNECTIONS_PER_ADDRESS", Number, Is("0"), "connections to this node from one address; 0 for no limit"),
    variable("TRUSTED_PROXIES", List, Nothing, "addresses and networks (10.0.0.0/8) of the proxies whose X-Forwarded-For is believed"),
    variable("MAX_TCP_CONNECTIONS", Number, Depends("nine tenths of the files that the process may open"), "TCP connections to this node, whatever comes over them; 0 for no limit"),
    variable("HEADERS_MAX", Bytes, Is("32KiB"), "the largest head of a request, its URL included"),
    variable("HEADERS_TIMEOUT", Duration, Is("20s"), "how long a head may take to arrive, and how long a connection may wait for the next one"),
    variable("BODY_MAX", Bytes, Is("1MiB"), "the largest body of a request of REST"),
    variable("BODY_TIMEOUT", Duration, Is("20s"), "how long a body may take to arrive"),
    variable("BINARIES_MAX", Number, Is("4"), "binary attachments that an event may announce; no event has any use for one"),
    variable("POLLS_MAX", Number, Is("2"), "polls of one connection at the same time, at least 1"),

    variable("CONTENT_MAX", Number, Is("32000"), "characters of a message"),
    variable("ATTACHMENTS_MAX", Number, Is("10"), "attachments of a message"),
    variable("PAGE_MAX", Number, Is("100"), "messages, or whatever else is listed, in one page; at most 1000"),
    variable("SEARCH_MAX", Number, Is("500"), "characters of what is searched for"),
    variable("MEMBERS_MAX", Number, Is("1000"), "members of a session, its owner among them"),
    variable("WS_THROTTLE_TTL", Duration, Is("60000"), "window of the default rate limit"),
    variable("WS_THROTTLE_LIMIT", Number, Is("10"), "requests of one name in it, by one user; 0 for no limit"),
    variable("RATE_LIMITS", List, Nothing, "rate limits by name: message:send=30/60s,…; a bare 0 for no limit"),
    variable("MODERATION", Choice(&["mask", "reject", "off"]), Is("mask"), "what becomes of profanity in what people write"),

    variable("LOG_FORMAT", Choice(&["text", "json"]), Depends("text on a terminal, else json"), "how log lines are written"),
    variable("RUST_LOG", Text, Is("info"), "what is logged: level, or target=level,…"),
    variable("OTEL_EXPORTER_OTLP_ENDPOINT", Url, Nothing, "where traces are sent").support(NotYet),
];
