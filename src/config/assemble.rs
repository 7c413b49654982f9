//! From a source to the structs, section by section, and the relations between values.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::agents::{Agents, ProviderKind};
use super::agents_file::{Inherited, OPENAI_BASE_URL};
use super::public_key::{self, is_public_pem};
use super::reader::Reader;
use super::{
    Auth, ChunkContent, Config, Database, DatabaseKind, Limits, LogFormat, Logging, Problem,
    Providers, Redis, Server, SessionLog, Socket, Source, Streams, Upstream, is_loopback, parse,
    rates,
};
use crate::domain::{Moderation, Rate, Rates, Role};

/// The configuration, with defaults in the place of what is wrong, and all that is wrong.
pub(super) fn assemble(source: &Source) -> (Config, Vec<Problem>) {
    let mut reader = Reader::new(source);
    let config = read_all(&mut reader);
    check_relations(&mut reader, &config);
    let mut problems = reader.problems;
    problems.dedup();
    (Config { warnings: reader.warnings, ..config }, problems)
}

pub(super) fn read_all(reader: &mut Reader<'_>) -> Config {
    refuse_what_is_missing(reader);
    let host = reader.value("HOST", parse::host);
    let redis = reader.given("REDIS_URL", parse::redis_url);
    let command_timeout = reader.value("REDIS_COMMAND_TIMEOUT", parse::interval);
    let role = role(reader, redis.is_some());
    let auth = auth(reader, &host, redis.is_some(), role);
    let streams = streams(reader);
    let providers = providers(reader);
    Config {
        server: server(reader, host, auth.dev_auth, role),
        redis: redis.map(|url| Redis { url, command_timeout }),
        database: database(reader),
        log: session_log(reader),
        socket: socket(reader),
        limits: limits(reader),
        agents: agents(reader, &providers, streams.timeout),
        logging: logging(reader),
        auth,
        streams,
        providers,
        warnings: Vec::new(),
    }
}

/// Reads what has no field yet, so that a wrong value, or one that promises something this
/// version does not do, is not passed over.
fn refuse_what_is_missing(reader: &mut Reader<'_>) {
    reader.given("OTEL_EXPORTER_OTLP_ENDPOINT", parse::text);
}

fn role(reader: &mut Reader<'_>, clustered: bool) -> Role {
    let role = reader.choice("ROLE").and_then(Role::named).unwrap_or_default();
    // One that cannot be read is a problem of its own.
    if role != Role::All && !clustered && !reader.is_set("REDIS_URL") {
        let message = format!(
            "{} needs REDIS_URL: a node that does a part of the work needs others for the rest",
            role.as_str()
        );
        reader.refuse("ROLE", message);
    }
    role
}

fn server(reader: &mut Reader<'_>, host: String, dev_auth: bool, role: Role) -> Server {
    Server {
        role,
        host,
        port: reader.value("PORT", parse::port),
        metrics_port: reader.value("METRICS_PORT", parse::port),
        cors_origins: reader.value("CORS_ORIGIN", parse::origins),
        shutdown_grace: reader.value("SHUTDOWN_GRACE", parse::duration),
        tcp_connections_max: reader.given("MAX_TCP_CONNECTIONS", parse::number),
        trusted_proxies: reader.given("TRUSTED_PROXIES", parse::networks).unwrap_or_default(),
        head_max: reader.value("HEADERS_MAX", parse::bytes),
        head_timeout: reader.value("HEADERS_TIMEOUT", parse::interval),
        body_max: reader.value("BODY_MAX", parse::bytes),
        body_timeout: reader.value("BODY_TIMEOUT", parse::interval),
        demo_ui: reader.given("DEMO_UI", parse::bool).unwrap_or(dev_auth),
        auto_create_sessions: reader.value("AUTO_CREATE_SESSIONS", parse::bool),
    }
}

fn database(reader: &mut Reader<'_>) -> Database {
    let (url, kind) = reader.value("DATABASE_URL", parse::database_url);
    Database {
        url: url.into(),
        kind,
        connections: reader.value("DATABASE_CONNECTIONS", parse::positive),
    }
}

fn auth(reader: &mut Reader<'_>, host: &str, clustered: bool, role: Role) -> Auth {
    let jwt_secret = reader.given("JWT_SECRET", parse::key);
    if jwt_secret.as_ref().is_some_and(|secret| is_public_pem(secret.expose_secret())) {
        // Whoever knows it, and that is anybody, could sign tokens with it.
        reader.refuse("JWT_SECRET", "is a public key or a certificate: set JWT_PUBLIC_KEY");
    }
    let any_key = ["JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL"].iter().any(|n| reader.is_set(n));
    let asked = reader.given("DEV_AUTH", parse::bool);
    // Whoever holds no clients needs no key, and gives nobody a token.
    let dev_auth = role.serves() && asked.unwrap_or(!any_key && is_loopback(host));
    if role.serves() && !any_key && !dev_auth {
        reader.refuse(
            "JWT_SECRET",
            "is not set: nobody could connect. Set it (at least 32 bytes), or DEV_AUTH=true to \
             let anybody in",
        );
    }
    if dev_auth {
        reader.warn(
            "DEV_AUTH",
            "anybody who can connect gets a token for any user: not for production",
        );
        if clustered && !reader.is_set("JWT_SECRET") {
            reader.warn(
                "JWT_SECRET",
                "is not set: each node makes its own, so a token is good at the node that gave it only",
            );
        }
    }
    let public_key = reader.given("JWT_PUBLIC_KEY", public_key::public_key);
    let jwks_url = reader.given("JWKS_URL", parse::key_set_url);
    if jwks_url.as_deref().is_some_and(is_open_to_others) {
        reader.warn(
            "JWKS_URL",
            "is not https: whoever is on the way can put keys of their own into it",
        );
    }
    let signing_secret = reader.given("SIGNING_SECRET", parse::key);
    let has_secret = reader.is_set("JWT_SECRET") || reader.is_set("SIGNING_SECRET");
    if role.serves() && any_key && !has_secret {
        if clustered {
            reader.refuse(
                "SIGNING_SECRET",
                "is not set, and there is no JWT_SECRET that it could follow from: no node would \
                 accept the stream tokens of another",
            );
        } else {
            reader.warn(
                "SIGNING_SECRET",
                "is not set, nor is JWT_SECRET: stream tokens end with the process",
            );
        }
    }
    let asked = reader.given("ALLOW_CHAT_AUTH", parse::bool);
    let chat_auth = role.serves() && asked.unwrap_or(dev_auth);
    if chat_auth {
        reader.warn(
            "ALLOW_CHAT_AUTH",
            "anybody who can connect is whichever user they name: not for production",
        );
    }
    let leeway = reader.value("JWT_LEEWAY", parse::duration);
    if leeway > Duration::from_secs(3600) {
        reader.refuse("JWT_LEEWAY", "is wrong, expected at most 1h");
    }
    Auth {
        jwt_secret,
        public_key,
        jwks_url,
        jwks_refresh: reader.value("JWKS_REFRESH", parse::key_set_refresh),
        expire: reader.value("AUTH_EXPIRE", parse::bool),
        issuer: reader.given("JWT_ISSUER", parse::text),
        audience: reader.given("JWT_AUDIENCE", parse::list).unwrap_or_default(),
        leeway,
        dev_auth,
        chat_auth,
        signing_secret,
        admin_scope: reader.value("ADMIN_SCOPE", parse::scope),
    }
}

/// Whether what is fetched from a URL could be changed on its way.
fn is_open_to_others(url: &str) -> bool {
    let uri: Option<http::Uri> = url.parse().ok();
    uri.is_some_and(|uri| {
        let host = uri.host().unwrap_or_default();
        uri.scheme_str() == Some("http") && !is_loopback(host.trim_matches(['[', ']']))
    })
}

fn streams(reader: &mut Reader<'_>) -> Streams {
    Streams {
        timeout: reader.value("STREAM_TIMEOUT", parse::interval),
        max_duration: reader.value("STREAM_MAX_DURATION", parse::interval),
        delay: reader.value("STREAM_DELAY", parse::duration),
        delay_max: reader.value("STREAM_DELAY_MAX", parse::duration),
        max_concurrent: reader.value("MAX_CONCURRENT_STREAMS", parse::number),
        max_node_streams: reader.value("MAX_NODE_STREAMS", parse::number),
        token_budget: reader.given("TOKEN_BUDGET", rates::budget).flatten(),
        chunk_content: match reader.choice("STREAM_CHUNK_CONTENT") {
            Some("cumulative") => ChunkContent::Cumulative,
            _ => ChunkContent::Final,
        },
        context_messages: reader.value("CONTEXT_MESSAGES", parse::number),
        retries: reader.value("STREAM_RETRIES", parse::retries),
    }
}

fn session_log(reader: &mut Reader<'_>) -> SessionLog {
    SessionLog {
        events_max: reader.value("LOG_EVENTS_MAX", parse::positive),
        ttl: reader.value("LOG_TTL", parse::interval),
        tail_linger: reader.value("TAIL_LINGER", parse::duration),
    }
}

fn socket(reader: &mut Reader<'_>) -> Socket {
    Socket {
        ping_interval: reader.value("PING_INTERVAL", parse::interval),
        ping_timeout: reader.value("PING_TIMEOUT", parse::interval),
        payload_max: reader.value("PAYLOAD_MAX", parse::bytes),
        outbound_max: reader.value("SOCKET_BUFFER_MAX", parse::bytes),
        write_stall: reader.value("SOCKET_STALL_TIMEOUT", parse::interval),
        connection_max_age: reader.value("CONNECTION_MAX_AGE", parse::interval),
        max_connections: reader.value("MAX_CONNECTIONS", parse::number),
        max_connections_per_user: reader.value("MAX_CONNECTIONS_PER_USER", parse::number),
        connections_per_address_max: reader.value("MAX_CONNECTIONS_PER_ADDRESS", parse::number),
        handshakes_max: reader.value("MAX_HANDSHAKES", parse::number),
        connect_timeout: reader.value("CONNECT_TIMEOUT", parse::interval),
        binaries_max: reader.value("BINARIES_MAX", parse::number),
        polls_max: reader.value("POLLS_MAX", parse::polls),
        eio3: reader.value("EIO3", parse::bool),
        events_per_second_max: reader.value("SOCKET_EVENTS_MAX", parse::number),
        recovery_window: reader.value("RECOVERY_WINDOW", parse::recovery_window),
        presence_grace: reader.value("PRESENCE_GRACE", parse::presence_grace),
        command_queue: reader.value("SOCKET_COMMANDS_MAX", parse::positive),
        joined_max: reader.value("JOINED_SESSIONS_MAX", parse::positive),
        default_dialect: reader.choice("DEFAULT_DIALECT").unwrap_or("session").to_owned(),
    }
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        content_chars_max: reader.value("CONTENT_MAX", parse::positive).get(),
        attachments_max: reader.value("ATTACHMENTS_MAX", parse::number),
        page_max: reader.value("PAGE_MAX", parse::page),
        search_chars_max: reader.value("SEARCH_MAX", parse::positive).get(),
        members_max: reader.value("MEMBERS_MAX", parse::positive),
        moderation: match reader.choice("MODERATION") {
            Some("off") => Moderation::Off,
            Some("reject") => Moderation::Reject,
            _ => Moderation::Mask,
        },
        rates: Rates {
            others: Rate {
                count: reader.value("WS_THROTTLE_LIMIT", parse::count),
                window: reader.value("WS_THROTTLE_TTL", rates::rate_window),
            },
            chosen: reader.given("RATE_LIMITS", rates::rates).unwrap_or_default(),
        },
    }
}

fn providers(reader: &mut Reader<'_>) -> Providers {
    Providers {
        anthropic: Upstream {
            api_key: reader.given("ANTHROPIC_API_KEY", parse::secret),
            base_url: reader.value("ANTHROPIC_BASE_URL", parse::base_url),
            model: reader.given("ANTHROPIC_MODEL", parse::text),
        },
        openai: Upstream {
            api_key: reader.given("OPENAI_API_KEY", parse::secret),
            base_url: reader.value("OPENAI_BASE_URL", parse::base_url),
            model: reader.given("OPENAI_MODEL", parse::text),
        },
        connect_timeout: reader.value("PROVIDER_CONNECT_TIMEOUT", parse::interval),
    }
}

fn agents(reader: &mut Reader<'_>, providers: &Providers, stream_timeout: Duration) -> Agents {
    let inherited = Inherited { providers, stream_timeout };
    if let Some(path) = reader.given("AGENTS_FILE", parse::text) {
        match reader.file("AGENTS_FILE", &path).map(|text| inherited.parse(&text)) {
            Some(Ok(agents)) => return agents,
            Some(Err(errors)) => errors.into_iter().for_each(|e| reader.refuse("AGENTS_FILE", e)),
            None => {}
        }
    } else if let Some((provider, name)) = provider_at_hand(providers) {
        match inherited.built_in(provider) {
            Ok(agents) => return agents,
            Err(_) => reader.refuse(
                &format!("{name}_MODEL"),
                format!("is not set: it is needed where {name}_BASE_URL is another server"),
            ),
        }
    }
    inherited.built_in(ProviderKind::Scripted).expect("the scripted agents need nothing")
}

/// The provider that can be asked, and the beginning of its variables' names.
fn provider_at_hand(providers: &Providers) -> Option<(ProviderKind, &'static str)> {
    let Providers { anthropic, openai, .. } = providers;
    if anthropic.api_key.is_some() {
        Some((ProviderKind::Anthropic, "ANTHROPIC"))
    } else if openai.api_key.is_some() || openai.base_url != OPENAI_BASE_URL {
        Some((ProviderKind::OpenAi, "OPENAI"))
    } else {
        None
    }
}

fn logging(reader: &mut Reader<'_>) -> Logging {
    Logging {
        format: reader.choice("LOG_FORMAT").map(|word| match word {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        }),
        filter: reader.value("RUST_LOG", parse::log_filter),
    }
}

/// What must hold between values.
pub(super) fn check_relations(reader: &mut Reader<'_>, config: &Config) {
    let Config { server, streams, log, .. } = config;
    let recovery = config.socket.recovery_window;
    if server.port != 0 && server.port == server.metrics_port {
        reader.refuse(
            "METRICS_PORT",
            format!("{} is PORT, too: expected another, or 0", server.port),
        );
    }
    let at_least = [
        ("STREAM_DELAY_MAX", streams.delay_max, "STREAM_DELAY", streams.delay),
        ("STREAM_MAX_DURATION", streams.max_duration, "STREAM_TIMEOUT", streams.timeout),
        ("LOG_TTL", log.ttl, "RECOVERY_WINDOW", recovery),
        ("LOG_TTL", log.ttl, "STREAM_TIMEOUT", streams.timeout),
        ("LOG_TTL", log.ttl, "TAIL_LINGER", log.tail_linger),
    ];
    for (name, value, other_name, other) in at_least {
        if value < other {
            let message = format!("{value:?} is less than {other_name} ({other:?})");
            reader.refuse(name, message);
        }
    }
    let (buffer, payload) = (config.socket.outbound_max, config.socket.payload_max);
    if buffer > payload / 2 {
        // A polling batch holds PAYLOAD_MAX; what does not fit is lost in an upgrade.
        let message = format!("{buffer} is more than half of PAYLOAD_MAX ({payload})");
        reader.refuse("SOCKET_BUFFER_MAX", message);
    }
    if config.redis.is_some() && config.database.kind == DatabaseKind::Sqlite {
        reader.warn(
            "DATABASE_URL",
            "is SQLite although REDIS_URL is set: nodes of other machines would not share it, use PostgreSQL",
        );
    }
}
