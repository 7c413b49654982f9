//! The built program from outside: flags, messages and exit status. Each run has an empty
//! environment and a directory of its own.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokencast::auth::{TokenKind, Verifier};
use tokencast::config::{Auth, VARIABLES};

const KEY: &str = "a secret of thirty-two bytes, now";

/// An empty directory, gone with the value.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tokencast"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(&self.0)
            .output()
            .unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Dir::new().run(arguments, environment)
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_lists_every_variable_with_its_default_and_aliases() {
    let output = run(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    // Where lines break depends on the terminal's width.
    let help = out(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    for variable in VARIABLES {
        assert!(help.contains(&format!("--{}", variable.flag())), "{}", variable.name);
        assert!(help.contains(&format!("[{};", variable.name)), "{}", variable.name);
        for alias in variable.aliases {
            assert!(help.contains(&format!("; or {alias};")), "{alias}");
        }
    }
    assert!(help.contains("[PORT; or WEBSOCKET_PORT; default: 3000]"), "{help}");
    assert!(help.contains("[STREAM_DELAY; default: 25ms]"), "{help}");
    for subcommand in ["serve", "migrate", "check", "token"] {
        assert!(help.contains(&format!(" {subcommand} ")), "{subcommand}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = run(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(out(&output), format!("tokencast {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bad_usage_is_status_2() {
    for arguments in [&["--no-such-flag"][..], &["fly"], &["token"], &["check", "twice"]] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!err(&output).is_empty() && out(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn all_bad_values_are_said_at_once_in_one_line_each() {
    let output = run(
        &["check", "--metrics-port", "no"],
        &[
            ("PORT", "99999"),
            ("REDIS_URL", "http://:hush@h"),
            ("JWT_SECRET", "hush"),
            ("EIO3", "maybe"),
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(out(&output), "");
    let text = err(&output);
    let mut names: Vec<_> = text
        .lines()
        .map(|line| {
            let line = line.strip_prefix("tokencast: ").unwrap_or_else(|| panic!("{line}"));
            line.split_once(": ").unwrap_or_else(|| panic!("{line}")).0
        })
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["EIO3", "JWT_SECRET", "METRICS_PORT", "PORT", "REDIS_URL"]);
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn what_is_wrong_is_refused_by_every_task() {
    for task in [&["check"][..], &["serve"], &[], &["token", "--sub", "ada"]] {
        let output = run(task, &[("JWT_SECRET", KEY), ("EIO3", "maybe")]);
        assert_eq!(output.status.code(), Some(2), "{task:?}");
        let expected = "tokencast: EIO3: \"maybe\" is wrong, expected true or false\n";
        assert_eq!(err(&output), expected, "{task:?}");
    }
}

#[test]
fn a_part_of_the_work_is_for_nodes_that_share_it() {
    let output = run(&["check", "--role", "edge"], &[("JWT_SECRET", KEY)]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(err(&output).lines().count(), 1);
    assert!(err(&output).starts_with("tokencast: ROLE: edge needs REDIS_URL"), "{}", err(&output));
}

#[test]
fn check_shows_pipelines_and_fallbacks() {
    let output = run(&["check"], &[("JWT_SECRET", KEY)]);
    let text = out(&output);
    assert!(text.contains("role      all"), "{text}");
    let panel = "pipeline  demo-panel: host (gate demo-host), then panel (demo-optimist + \
                 demo-sceptic), then friend (demo-friend)";
    assert!(text.contains(panel), "{text}");
    let dir = Dir::new();
    let toml = "default = \"p\"\n[[agent]]\nid = \"a\"\nprovider = \"scripted\"\nfallback = \"b\"\n\
                [[agent]]\nid = \"b\"\nprovider = \"scripted\"\n[[pipeline]]\nid = \"p\"\n\
                [[pipeline.stage]]\nname = \"s\"\nagents = [\"a\"]\n";
    let output = dir.run(&["check", "--agents-file", &dir.write("a.toml", toml)], &[]);
    let text = out(&output);
    assert!(text.contains("agent     a: scripted, scripted, else b\n"), "{text}{}", err(&output));
    assert!(text.contains("pipeline  p: s (a) (default)"), "{text}");
}

#[test]
fn check_shows_what_a_generator_has_and_the_budget() {
    let generator = [("ROLE", "generator"), ("REDIS_URL", "redis://h"), ("HOST", "0.0.0.0")];
    let text = out(&run(&["check", "--token-budget", "100000/1h"], &generator));
    assert!(text.contains("role      generator\n"), "{text}");
    assert!(text.contains("tokens    none: nobody connects\n"), "{text}");
    assert!(text.contains("budget    100000 tokens in 3600 s for each user\n"), "{text}");
    assert!(!out(&run(&["check"], &[("JWT_SECRET", KEY)])).contains("budget"), "unless it is set");
}

#[test]
fn no_key_on_an_open_address_is_refused_in_one_line() {
    let output = run(&["check", "--host", "0.0.0.0"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(err(&output).lines().count(), 1);
    assert!(err(&output).starts_with("tokencast: JWT_SECRET: is not set"), "{}", err(&output));
}

#[test]
fn check_sums_up_without_secrets() {
    let dir = Dir::new();
    let agents = dir.write(
        "agents.toml",
        "[[agent]]\nid = \"poet\"\nprovider = \"openai\"\nmodel = \"m-1\"\nbase_url = \"http://h/v1\"\n",
    );
    let key = dir.write("key", "hush, these are more than 32 bytes\n");
    let output = dir.run(
        &["check", "--agents-file", &agents],
        &[
            ("JWT_SECRET_FILE", &key),
            ("OPENAI_API_KEY", "sk-hush"),
            ("REDIS_URL", "redis://:hush@h"),
            ("DATABASE_URL", "postgres://u:hush@h/d"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317"),
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("poet: openai, m-1 (default)") && text.contains("PostgreSQL"), "{text}");
    assert!(text.contains("warning   OTEL_EXPORTER_OTLP_ENDPOINT: has no effect"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn dotenv_is_read_from_the_working_directory_and_gives_way_to_the_environment() {
    let dir = Dir::new();
    dir.write(".env", "PORT=4001\nMETRICS_PORT=4002\n# nothing\n");
    let output = dir.run(&["check"], &[("METRICS_PORT", "4003")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("port 4001") && out(&output).contains("port 4003"));
    dir.write(".env", "PORT\n");
    let output = dir.run(&["check"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).starts_with("tokencast: .env: "), "{}", err(&output));
}

#[test]
fn a_printed_token_is_accepted() {
    let output = run(
        &["token", "--sub", "ada", "--name", "Ada", "--ttl", "5m", "--type", "sse"],
        &[("JWT_SECRET", KEY), ("JWT_ISSUER", "idp"), ("JWT_AUDIENCE", "chat,web")],
    );
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(err(&output), "");
    let verifier = Verifier::new(&Auth {
        jwt_secret: Some(KEY.into()),
        public_key: None,
        jwks_url: None,
        jwks_refresh: Duration::from_secs(600),
        expire: false,
        issuer: Some("idp".to_owned()),
        audience: vec!["chat".to_owned()],
        leeway: Duration::ZERO,
        dev_auth: false,
        chat_auth: false,
        signing_secret: None,
        admin_scope: "tokencast:admin".to_owned(),
    });
    let claims = verifier.verify(out(&output).trim_end()).now_or_never().unwrap().unwrap();
    assert_eq!((claims.user.as_str(), claims.name.as_deref()), ("ada", Some("Ada")));
    assert_eq!(claims.kind, TokenKind::Sse);
    let left = claims.expires_at.since(tokencast::domain::Timestamp::now());
    assert!((200..=300).contains(&left.as_secs()), "{left:?}");
}

#[test]
fn a_token_needs_the_clusters_key() {
    let output = run(&["token", "--sub", "ada"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).starts_with("tokencast: JWT_SECRET: "), "{}", err(&output));
    assert_eq!(out(&output), "");
}
