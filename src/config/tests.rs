//! The configuration as a whole: precedence, defaults, relations, and what is refused.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::domain::{Action, Budget, Rate};

mod agents;

const KEY: &str = "a secret of thirty-two bytes, now";

fn read(environment: &[(&str, &str)]) -> Result<Config, Problems> {
    Config::read(&Source::from_environment(environment.iter().copied()))
}

/// The configuration, which must be right.
fn config(environment: &[(&str, &str)]) -> Config {
    read(environment).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The lines of what is wrong.
fn problems(environment: &[(&str, &str)]) -> Vec<String> {
    match read(environment) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems.iter().map(Problem::to_string).collect(),
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn files(files: &[(&str, &str)]) -> Files {
    let files = map(files);
    Box::new(move |path| {
        files.get(path.to_str().unwrap_or_default()).cloned().ok_or(io::ErrorKind::NotFound.into())
    })
}

#[test]
fn an_empty_environment_is_one_node_for_developers() {
    let config = config(&[]);
    assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 3000));
    assert_eq!(config.server.metrics_port, 9100);
    assert!(config.redis.is_none());
    assert_eq!(config.database.url.expose_secret(), "sqlite://data/tokencast.db");
    assert_eq!(config.database.kind, DatabaseKind::Sqlite);
    assert!(config.auth.dev_auth && config.server.demo_ui && config.server.auto_create_sessions);
    assert_eq!(config.auth.leeway, Duration::from_secs(30));
    assert_eq!(config.server.cors_origins, ["http://localhost:3000"]);
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(25));
    assert_eq!(config.streams.timeout, Duration::from_secs(30));
    assert_eq!(config.streams.max_duration, Duration::from_secs(600));
    assert_eq!(config.streams.delay, Duration::from_millis(25));
    assert_eq!(config.streams.delay_max, Duration::from_millis(250));
    assert_eq!((config.streams.max_concurrent, config.streams.max_node_streams), (10, 1000));
    assert_eq!(config.streams.chunk_content, ChunkContent::Final);
    assert_eq!((config.streams.context_messages, config.streams.retries), (10, 2));
    assert_eq!(config.providers.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.server.role, Role::All);
    assert_eq!((config.socket.payload_max, config.socket.outbound_max), (1 << 20, 1 << 16));
    assert_eq!(config.socket.connection_max_age, Duration::from_secs(86_400));
    assert_eq!(config.socket.max_connections, 0);
    assert_eq!((config.limits.content_chars_max, config.limits.attachments_max), (32_000, 10));
    assert_eq!(config.limits.members_max.get(), 1_000);
    assert_eq!(config.limits.moderation, Moderation::Mask);
    assert_eq!(config.limits.rates.others, Rate::per_minute(10));
    assert_eq!(config.limits.rates.of(Action::Send), Rate::per_minute(30));
    assert_eq!(config.socket.max_connections_per_user, 20);
    assert_eq!(config.socket.events_per_second_max, 50);
    assert_eq!(config.socket.recovery_window, Duration::from_secs(120));
    assert_eq!(config.socket.presence_grace, Duration::from_secs(3));
    assert_eq!(config.auth.admin_scope, "tokencast:admin");
    assert_eq!(config.agents.default.as_str(), "assistant");
    assert_eq!(config.agents.agents[0].provider, ProviderKind::Scripted);
    assert_eq!((config.logging.format, config.logging.filter.as_str()), (None, "info"));
    assert!(config.auth.chat_auth);
    assert_eq!(config.socket.default_dialect, "session");
    let said: Vec<_> = config.warnings.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(said, ["DEV_AUTH", "ALLOW_CHAT_AUTH"], "both are said loudly");
}

#[test]
fn every_variable_of_the_table_is_read_and_every_default_is_right() {
    let source = Source::from_environment([("REDIS_URL", "redis://h")]);
    let mut reader = reader::Reader::new(&source);
    let config = assemble::read_all(&mut reader);
    assemble::check_relations(&mut reader, &config);
    let table: std::collections::BTreeSet<_> = VARIABLES.iter().map(|v| v.name).collect();
    assert_eq!(reader.asked, table);
    assert_eq!(table.len(), VARIABLES.len(), "one stands twice");
    assert_eq!(reader.problems, []);
}

#[test]
fn a_flag_goes_before_the_environment_before_a_file_before_dotenv() {
    let mut source = Source::from_environment([("PORT", "2"), ("PORT_FILE", "/port")]);
    source.flags = map(&[("PORT", "1")]);
    source.dotenv = map(&[("PORT", "4"), ("MAX_CONNECTIONS", "7")]);
    source.files = files(&[("/port", "3\n")]);
    let port = |source: &Source| Config::read(source).unwrap().server.port;
    assert_eq!(port(&source), 1);
    source.flags.clear();
    assert_eq!(port(&source), 2);
    source.environment.remove("PORT");
    assert_eq!(port(&source), 3);
    source.environment.remove("PORT_FILE");
    assert_eq!(port(&source), 4);
    assert_eq!(Config::read(&source).unwrap().socket.max_connections, 7);
    source.environment.insert("PORT".to_owned(), String::new());
    assert_eq!(port(&source), 3000, "empty is unset, and hides .env");
}

#[test]
fn an_alias_is_another_name_and_gives_way_to_the_own() {
    assert_eq!(config(&[("WEBSOCKET_PORT", "4000")]).server.port, 4000);
    assert_eq!(config(&[("WEBSOCKET_PORT", "4000"), ("PORT", "5000")]).server.port, 5000);
    let origin = "https://chat.example.org";
    assert_eq!(config(&[("FRONTEND_URL", origin)]).server.cors_origins, [origin]);
    assert_eq!(problems(&[("WEBSOCKET_PORT", "x")]).len(), 1);
    assert!(problems(&[("WEBSOCKET_PORT", "x")])[0].starts_with("WEBSOCKET_PORT: "));
}

#[test]
fn a_secret_comes_from_a_file_without_its_last_line_end_and_never_shows() {
    let mut source = Source::from_environment([
        ("JWT_SECRET_FILE", "/run/key"),
        ("REDIS_URL", "redis://:hush@h"),
        ("OPENAI_API_KEY", "sk-hush"),
        ("ANTHROPIC_API_KEY", "sk-ant-hush"),
    ]);
    source.files = files(&[("/run/key", &format!(" {KEY} \r\n"))]);
    let config = Config::read(&source).unwrap();
    let secret = config.auth.jwt_secret.clone().unwrap();
    assert_eq!(secret.expose_secret(), format!(" {KEY} "), "blanks are part of a key");
    // From the environment, too, while other values are trimmed.
    let padded = format!(" {KEY} ");
    let from_environment = self::config(&[("JWT_SECRET", &padded), ("PORT", " 4000 ")]);
    assert_eq!(from_environment.server.port, 4000);
    assert_eq!(from_environment.auth.jwt_secret.map(|s| s.expose_secret().len()), Some(35));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush") && !shown.contains("thirty-two"), "{shown}");

    source.files = files(&[]);
    let Err(Problems(problems)) = Config::read(&source) else { panic!("there is no such file") };
    assert!(problems[0].to_string().starts_with("JWT_SECRET_FILE: "), "{problems:?}");
}

#[test]
fn all_that_is_wrong_is_said_at_once_each_in_one_line() {
    let all = problems(&[
        ("PORT", "70000"),
        ("REDIS_URL", "http://user:hush@h"),
        ("STREAM_TIMEOUT", "soon\nor later"),
        ("JWT_SECRET", "hush"),
        ("DEV_AUTH", "perhaps"),
        ("STREAM_CHUNK_CONTENT", "partial"),
        ("RUST_LOG", "tokencast=loud"),
        ("CORS_ORIGIN", "*"),
        ("LOG_EVENTS_MAX", "0"),
        ("PING_INTERVAL", "0"),
        ("JWT_LEEWAY", "2h"),
        ("SIGNING_SECRET", "short"),
        ("RATE_LIMITS", "message:send=30/60s,message:sent=1/1s"),
        ("TOKEN_BUDGET", "1h/100000"),
        ("WS_THROTTLE_TTL", "999"),
        ("MEMBERS_MAX", "0"),
        ("PRESENCE_GRACE", "61s"),
        ("ADMIN_SCOPE", "two words"),
        ("STREAM_RETRIES", "11"),
        ("PROVIDER_CONNECT_TIMEOUT", "0"),
        ("ROLE", "worker"),
    ]);
    for name in [
        "PORT",
        "REDIS_URL",
        "STREAM_TIMEOUT",
        "JWT_SECRET",
        "DEV_AUTH",
        "STREAM_CHUNK_CONTENT",
        "RUST_LOG",
        "CORS_ORIGIN",
        "LOG_EVENTS_MAX",
        "PING_INTERVAL",
        "JWT_LEEWAY",
        "SIGNING_SECRET",
        "RATE_LIMITS",
        "TOKEN_BUDGET",
        "WS_THROTTLE_TTL",
        "MEMBERS_MAX",
        "PRESENCE_GRACE",
        "ADMIN_SCOPE",
        "STREAM_RETRIES",
        "PROVIDER_CONNECT_TIMEOUT",
        "ROLE",
    ] {
        let lines = all.iter().filter(|line| line.starts_with(&format!("{name}: "))).count();
        assert_eq!(lines, 1, "{name}: {all:#?}");
    }
    assert_eq!(all.len(), 21, "{all:#?}");
    assert!(all.iter().all(|line| !line.contains('\n') && !line.contains("hush")), "{all:#?}");
}

#[test]
fn developers_tokens_are_on_only_without_a_key_and_on_loopback() {
    let dev_auth = |environment: &[(&str, &str)]| config(environment).auth.dev_auth;
    assert!(dev_auth(&[("HOST", "localhost")]));
    assert!(dev_auth(&[("HOST", "[::1]")]));
    assert!(!dev_auth(&[("JWT_SECRET", KEY)]));
    assert!(!dev_auth(&[("JWT_SECRET", KEY), ("HOST", "0.0.0.0")]));
    assert!(dev_auth(&[("JWT_SECRET", KEY), ("DEV_AUTH", "true")]));
    assert!(dev_auth(&[("HOST", "0.0.0.0"), ("DEV_AUTH", "1")]));
    for without in [&[("HOST", "0.0.0.0")][..], &[("DEV_AUTH", "false")]] {
        let lines = problems(without);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("JWT_SECRET: is not set"), "{lines:?}");
    }
    assert!(!config(&[("JWT_SECRET", KEY)]).server.demo_ui);
    assert!(config(&[("JWT_SECRET", KEY), ("DEMO_UI", "on")]).server.demo_ui);
}

const PUBLIC_KEY: &str = include_str!("../../tests/fixtures/keys/p256.pub.pem");

#[test]
fn public_keys_do_where_there_is_no_secret() {
    let pem = PUBLIC_KEY.replace('\n', "\\n");
    let config = config(&[("JWT_PUBLIC_KEY", &pem), ("HOST", "0.0.0.0")]);
    assert!(matches!(config.auth.public_key, Some(PublicKey::P256(_))));
    assert!(!config.auth.dev_auth);
    let said = |name: &str| config.warnings.iter().any(|line| line.starts_with(name));
    assert!(said("SIGNING_SECRET: ") && !said("JWT_SECRET: "), "{:?}", config.warnings);

    for (environment, name) in [
        (&[("JWT_PUBLIC_KEY", "hush")][..], "JWT_PUBLIC_KEY"),
        (&[("JWT_SECRET", PUBLIC_KEY)], "JWT_SECRET"),
        (&[("JWKS_URL", "ftp://h/k?hush")], "JWKS_URL"),
        (&[("JWKS_URL", "https://u:hush@h/k")], "JWKS_URL"),
    ] {
        let lines = problems(environment);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{name}: ")), "{lines:?}");
        let secret = environment[0].1.lines().nth(1).unwrap_or("hush");
        assert!(!lines[0].contains(secret), "{lines:?}");
    }
}

#[test]
fn nodes_that_share_no_secret_need_one_for_stream_tokens() {
    let cluster = [("REDIS_URL", "redis://h"), ("DATABASE_URL", "postgres://h/d")];
    for key in [("JWT_PUBLIC_KEY", PUBLIC_KEY), ("JWKS_URL", "https://h/k")] {
        let lines = problems(&[&cluster[..], &[key]].concat());
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("SIGNING_SECRET: "), "{lines:?}");
        for secret in ["SIGNING_SECRET", "JWT_SECRET"] {
            let with = [&cluster[..], &[key, (secret, KEY)]].concat();
            assert_eq!(config(&with).warnings, Vec::<String>::new());
        }
        // Who holds no clients gives nobody a token.
        let generator = [&cluster[..], &[key, ("ROLE", "generator")]].concat();
        assert_eq!(problems(&generator), Vec::<String>::new());
    }
}

#[test]
fn keys_that_could_be_changed_on_their_way_are_warned_about() {
    let warned = |url: &str| {
        let warnings = config(&[("JWT_SECRET", KEY), ("JWKS_URL", url)]).warnings;
        warnings.iter().any(|line| line.starts_with("JWKS_URL: "))
    };
    assert!(warned("http://issuer.example/keys"));
    assert!(!warned("https://issuer.example/keys"));
    assert!(!warned("http://localhost:1/keys") && !warned("http://[::1]:1/keys"));
}

#[test]
fn what_has_no_effect_yet_is_warned_about_unless_it_is_the_default() {
    let quiet = [("JWT_SECRET", KEY), ("MODERATION", "mask"), ("RECOVERY_WINDOW", "1m")];
    assert_eq!(config(&quiet).warnings, Vec::<String>::new());
    let (name, value) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317");
    let warnings = config(&[("JWT_SECRET", KEY), (name, value)]).warnings;
    assert_eq!(warnings, [format!("{name}: has no effect in this version")]);
}

#[test]
fn who_names_their_user_without_a_token_is_believed_where_the_operator_says_so() {
    let auth = |environment: &[(&str, &str)]| {
        let Config { auth, warnings, .. } = config(environment);
        let said = warnings.iter().any(|line| line.starts_with("ALLOW_CHAT_AUTH: "));
        assert_eq!(said, auth.chat_auth, "it is said loudly: {warnings:?}");
        (auth.dev_auth, auth.chat_auth)
    };
    assert_eq!(auth(&[("JWT_SECRET", KEY)]), (false, false));
    assert_eq!(auth(&[("JWT_SECRET", KEY), ("ALLOW_CHAT_AUTH", "true")]), (false, true));
    assert_eq!(auth(&[("DEV_AUTH", "true")]), (true, true), "as a developer expects");
    assert_eq!(auth(&[("DEV_AUTH", "true"), ("ALLOW_CHAT_AUTH", "off")]), (true, false));
}

#[test]
fn every_dialect_may_be_the_default_and_nothing_else() {
    for name in ["session", "subscribe", "conversation", "persona"] {
        let config = config(&[("JWT_SECRET", KEY), ("DEFAULT_DIALECT", name)]);
        assert_eq!(config.socket.default_dialect, name);
        assert_eq!(config.warnings, Vec::<String>::new());
    }
    let lines = problems(&[("DEFAULT_DIALECT", "klingon")]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("DEFAULT_DIALECT: \"klingon\" is wrong, expected "), "{lines:?}");
}

#[test]
fn what_users_may_do_is_chosen() {
    let config = config(&[
        ("JWT_SECRET", KEY),
        ("RATE_LIMITS", "message:send=3/1s,read=0"),
        ("WS_THROTTLE_LIMIT", "11"),
        ("TOKEN_BUDGET", "9/1m"),
        ("WS_THROTTLE_TTL", "2s"),
        ("MODERATION", "Reject"),
        ("MAX_CONNECTIONS_PER_USER", "5"),
        ("MEMBERS_MAX", "2"),
        ("PRESENCE_GRACE", "0"),
        ("SOCKET_EVENTS_MAX", "0"),
        ("ADMIN_SCOPE", "root"),
        ("CONTENT_MAX", "100"),
        ("ATTACHMENTS_MAX", "0"),
    ]);
    let every = |count, seconds| Rate { count, window: Duration::from_secs(seconds) };
    let rates = &config.limits.rates;
    assert_eq!(rates.of(Action::Send), every(3, 1), "chosen");
    assert_eq!(rates.of(Action::Read).count, 0, "chosen: no limit");
    assert_eq!(rates.of(Action::Join), every(5, 60), "its own default");
    assert_eq!(rates.of(Action::Attach), every(11, 2), "that of all others");
    let budget = Budget { tokens: 9, window: Duration::from_secs(60) };
    assert_eq!(config.streams.token_budget, Some(budget));
    assert_eq!(config.limits.moderation, Moderation::Reject);
    assert_eq!((config.limits.content_chars_max, config.limits.attachments_max), (100, 0));
    assert_eq!((config.limits.members_max.get(), config.socket.max_connections_per_user), (2, 5));
    assert_eq!(config.socket.presence_grace, Duration::ZERO);
    assert_eq!(config.socket.events_per_second_max, 0);
    assert_eq!(config.auth.admin_scope, "root");
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn what_nodes_would_not_share_is_warned_about() {
    let warnings = config(&[("REDIS_URL", "redis://h")]).warnings.join("\n");
    assert!(warnings.contains("JWT_SECRET: ") && warnings.contains("DATABASE_URL: "), "{warnings}");
    let shared =
        [("REDIS_URL", "redis://h"), ("JWT_SECRET", KEY), ("DATABASE_URL", "postgres://h/d")];
    assert_eq!(config(&shared).warnings, Vec::<String>::new());
}

#[test]
fn values_must_fit_each_other() {
    for (name, environment) in [
        ("METRICS_PORT", [("PORT", "9100"), ("METRICS_PORT", "9100")]),
        ("STREAM_DELAY_MAX", [("STREAM_DELAY", "1s"), ("STREAM_DELAY_MAX", "999")]),
        ("STREAM_MAX_DURATION", [("STREAM_TIMEOUT", "2m"), ("STREAM_MAX_DURATION", "1m")]),
        ("RECOVERY_WINDOW", [("LOG_TTL", "3h"), ("RECOVERY_WINDOW", "2h")]),
        ("LOG_TTL", [("LOG_TTL", "1m"), ("RECOVERY_WINDOW", "2m")]),
    ] {
        let lines = problems(&environment);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{name}: ")), "{lines:?}");
    }
    assert_eq!(problems(&[("PORT", "0"), ("METRICS_PORT", "0")]), Vec::<String>::new());
}

#[test]
fn a_migration_needs_no_keys_but_a_database() {
    let read = |environment: &[(&str, &str)]| {
        Config::read_for_migration(&Source::from_environment(environment.iter().copied()))
    };
    assert!(read(&[("HOST", "0.0.0.0"), ("PORT", "x")]).is_ok());
    assert!(read(&[("DATABASE_URL", "mysql://h/d")]).is_err());
}

#[test]
fn a_node_that_does_a_part_of_the_work_needs_redis() {
    for (word, role) in [("edge", Role::Edge), ("generator", Role::Generator)] {
        let clustered = config(&[("ROLE", word), ("REDIS_URL", "redis://h"), ("JWT_SECRET", KEY)]);
        assert_eq!(clustered.server.role, role);
        let lines = problems(&[("ROLE", word)]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(&format!("ROLE: {word} needs REDIS_URL: ")), "{lines:?}");
        let wrong = problems(&[("ROLE", word), ("REDIS_URL", "http://h")]);
        assert!(wrong.len() == 1 && wrong[0].starts_with("REDIS_URL: "), "{wrong:?}");
    }
    assert_eq!(config(&[("ROLE", "all")]).server.role, Role::All);
}

#[test]
fn a_node_without_clients_needs_no_key_and_lets_nobody_in() {
    let shared = [("REDIS_URL", "redis://h"), ("DATABASE_URL", "postgres://h/d")];
    let with = |more: &[(&'static str, &'static str)]| [&shared[..], more].concat();
    for host in ["0.0.0.0", "127.0.0.1"] {
        let generator = config(&with(&[("ROLE", "generator"), ("HOST", host)]));
        assert_eq!((generator.auth.dev_auth, generator.auth.chat_auth), (false, false));
        assert!(!generator.server.demo_ui);
        assert_eq!(generator.warnings, Vec::<String>::new());
    }
    let lines = problems(&with(&[("ROLE", "edge"), ("HOST", "0.0.0.0")]));
    assert!(lines.len() == 1 && lines[0].starts_with("JWT_SECRET: is not set"), "{lines:?}");
}
