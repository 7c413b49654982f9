//! The command line: subcommands, and a flag for each variable of the configuration's table.
//!
//! It decides what is asked, not how it is done: `main` does that.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, builder::NonEmptyStringValueParser, value_parser};

use crate::auth::TokenKind;
use crate::config::{self, Config, DatabaseKind, Kind, Support, Unset, VARIABLES, Variable};
use crate::domain::{AgentId, Budget, UserId};

/// What the program is asked to do.
#[derive(Debug, PartialEq)]
pub enum Task {
    /// Serve.
    Serve,
    /// Bring the database to this version's schema.
    Migrate,
    /// Validate the configuration and the agents.
    Check,
    /// Print a token.
    Token(Token),
}

/// The token to print.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Whose.
    pub user: UserId,
    /// What people see.
    pub name: Option<String>,
    /// How long it is good.
    pub ttl: Duration,
    /// What it is good for.
    pub kind: TokenKind,
}

/// A command line.
#[derive(Debug)]
pub struct Asked {
    /// What to do.
    pub task: Task,
    /// Values of the configuration, by variable name.
    pub flags: BTreeMap<String, String>,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// What is wrong with it, and `--help` and `--version`, which are told apart by
/// [`clap::Error::use_stderr`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let task = match matches.subcommand() {
        Some(("migrate", _)) => Task::Migrate,
        Some(("check", _)) => Task::Check,
        Some(("token", matches)) => Task::Token(token(matches)),
        _ => Task::Serve,
    };
    // Flags are global: the innermost matches hold all of them.
    let innermost = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    Ok(Asked { task, flags: flags(innermost) })
}

/// What a configuration says, in short, for `check`. No secret is in it.
pub fn summary(config: &Config) -> String {
    let on = |on: bool| if on { "on" } else { "off" };
    let config::Server { host, port, metrics_port, .. } = &config.server;
    let metrics = match metrics_port {
        0 => "off".to_owned(),
        port => format!("port {port}"),
    };
    let auth = &config.auth;
    let set = [
        ("JWT_SECRET", auth.jwt_secret.is_some()),
        ("JWT_PUBLIC_KEY", auth.public_key.is_some()),
        ("JWKS_URL", auth.jwks_url.is_some()),
    ];
    let set: Vec<_> = set.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect();
    let keys = match (set.is_empty(), auth.dev_auth) {
        (false, false) => set.join(", "),
        (false, true) => format!("{}, and DEV_AUTH gives tokens to anybody", set.join(", ")),
        (true, true) => "DEV_AUTH: anybody gets a token".to_owned(),
        (true, false) => "none: nobody connects".to_owned(),
    };
    let database = match config.database.kind {
        DatabaseKind::Sqlite => "SQLite",
        DatabaseKind::Postgres => "PostgreSQL",
    };
    let mut lines = vec![
        format!("role      {}", config.server.role.as_str()),
        format!("listen    {host} port {port}"),
        format!("metrics   {metrics}"),
        format!(
            "redis     {}",
            if config.redis.is_some() { "set" } else { "none: one node, in memory" }
        ),
        format!("database  {database}"),
        format!("tokens    {keys}"),
        format!("origins   {}", config.server.cors_origins.join(", ")),
        format!("demo      {}", on(config.server.demo_ui)),
    ];
    if let Some(Budget { tokens, window }) = config.streams.token_budget {
        let seconds = window.as_secs();
        lines.push(format!("budget    {tokens} tokens in {seconds} s for each user"));
    }
    let default = |id: &AgentId| if *id == config.agents.default { " (default)" } else { "" };
    for config::Agent { id, provider, model, fallback, .. } in &config.agents.agents {
        let fallback = fallback.as_ref().map(|id| format!(", else {id}")).unwrap_or_default();
        let provider = provider.as_str();
        lines.push(format!("agent     {id}: {provider}, {model}{fallback}{}", default(id)));
    }
    for config::Pipeline { id, stages, .. } in &config.agents.pipelines {
        let stages: Vec<_> = stages.iter().map(stage).collect();
        lines.push(format!("pipeline  {id}: {}{}", stages.join(", then "), default(id)));
    }
    lines.extend(config.warnings.iter().map(|warning| format!("warning   {warning}")));
    lines.join("\n")
}

fn stage(stage: &config::PipelineStage) -> String {
    let agents: Vec<_> = stage.agents.iter().map(AgentId::as_str).collect();
    let gate = if stage.gate { "gate " } else { "" };
    format!("{} ({gate}{})", stage.name, agents.join(" + "))
}

fn command() -> Command {
    let sub = Arg::new("sub")
        .long("sub")
        .required(true)
        .value_name("USER")
        .value_parser(|text: &str| UserId::new(text))
        .help("the user's id");
    let name = Arg::new("name")
        .long("name")
        .value_name("NAME")
        .value_parser(NonEmptyStringValueParser::new())
        .help("what people see");
    let ttl = Arg::new("ttl")
        .long("ttl")
        .value_name("DURATION")
        .value_parser(token_ttl)
        .default_value("1h")
        .help("how long it is good");
    let kind = Arg::new("type")
        .long("type")
        .value_name("TYPE")
        .value_parser(["normal", "sse"])
        .default_value("normal")
        .help("sse: it opens SSE streams and nothing else");
    Command::new("tokencast")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "Every flag is also an environment variable: --redis-url is REDIS_URL. A flag goes \
             before the environment, that before NAME_FILE=/path (a file that holds the value), \
             that before a .env file in the working directory. An empty value counts as unset.",
        )
        .subcommand(Command::new("serve").about("Serve (what happens without a subcommand)"))
        .subcommand(Command::new("migrate").about("Bring the database to this version's schema"))
        .subcommand(Command::new("check").about("Validate configuration and agents, then exit"))
        .subcommand(
            Command::new("token")
                .about("Print a JWT made with JWT_SECRET")
                .args([sub, name, ttl, kind]),
        )
        .next_help_heading("Configuration")
        .args(VARIABLES.iter().map(flag))
        .args(VARIABLES.iter().filter(|variable| variable.secret).map(file_flag))
}

fn flag(variable: &'static Variable) -> Arg {
    let arg = Arg::new(variable.name)
        .long(variable.flag())
        .aliases(variable.aliases.iter().map(|alias| config::flag_name(alias)))
        .global(true)
        .value_name(match variable.kind {
            Kind::Bool => "BOOL",
            Kind::Number => "NUMBER",
            Kind::Bytes => "SIZE",
            Kind::Duration => "DURATION",
            Kind::Text => "TEXT",
            Kind::List => "LIST",
            Kind::Url => "URL",
            Kind::Path => "FILE",
            Kind::Choice(_) => "WORD",
        })
        .allow_hyphen_values(true)
        .value_parser(value_parser!(String))
        .help(help(variable));
    match variable.kind {
        // `--dev-auth` alone is on; a word after it is a subcommand, not its value.
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

/// A secret on a command line is everybody's on that machine: `--jwt-secret-file`.
fn file_flag(variable: &'static Variable) -> Arg {
    let name = format!("{}_FILE", variable.name);
    Arg::new(name.clone())
        .long(config::flag_name(&name))
        .global(true)
        .hide(true)
        .value_name("FILE")
        .value_parser(value_parser!(String))
}

fn help(variable: &Variable) -> String {
    let mut notes = vec![variable.name.to_owned()];
    notes.extend(variable.aliases.iter().map(|alias| format!("or {alias}")));
    if let Kind::Choice(words) = variable.kind {
        notes.push(format!("one of {}", words.join(", ")));
    }
    notes.push(match variable.unset {
        Unset::Nothing => "default: none".to_owned(),
        Unset::Is(text) | Unset::Depends(text) => format!("default: {text}"),
    });
    match variable.support {
        Support::Full => {}
        Support::NotYet => notes.push("no effect in this version".to_owned()),
    }
    format!("{} [{}]", variable.help, notes.join("; "))
}

fn flags(matches: &ArgMatches) -> BTreeMap<String, String> {
    let names = VARIABLES.iter().map(|variable| variable.name.to_owned());
    let files = VARIABLES.iter().filter(|v| v.secret).map(|v| format!("{}_FILE", v.name));
    names
        .chain(files)
        .filter_map(|name| {
            let value = matches.get_one::<String>(&name)?.clone();
            Some((name, value))
        })
        .collect()
}

fn token(matches: &ArgMatches) -> Token {
    let expect = "clap requires it or has its default";
    Token {
        user: matches.get_one::<UserId>("sub").expect(expect).clone(),
        name: matches.get_one::<String>("name").cloned(),
        ttl: *matches.get_one::<Duration>("ttl").expect(expect),
        kind: match matches.get_one::<String>("type").expect(expect).as_str() {
            "sse" => TokenKind::Sse,
            _ => TokenKind::Normal,
        },
    }
}

fn token_ttl(text: &str) -> Result<Duration, String> {
    let ttl = config::parse_duration(text)?;
    if ttl < Duration::from_secs(1) { Err("at least 1s".to_owned()) } else { Ok(ttl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Asked, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_subcommand() {
        for line in ["tokencast --port 1 --dev-auth check", "tokencast check --port 1 --dev-auth"] {
            let asked = parse_line(line).unwrap();
            assert_eq!(asked.task, Task::Check, "{line}");
            assert_eq!(asked.flags["PORT"], "1", "{line}");
            assert_eq!(asked.flags["DEV_AUTH"], "true", "{line}");
        }
        let asked = parse_line("tokencast --dev-auth=false --jwt-secret-file /k").unwrap();
        assert_eq!(asked.task, Task::Serve);
        assert_eq!(asked.flags["DEV_AUTH"], "false");
        assert_eq!(asked.flags["JWT_SECRET_FILE"], "/k");
        assert_eq!(parse_line("tokencast --websocket-port 2").unwrap().flags["PORT"], "2");
    }

    #[test]
    fn a_token_needs_a_user_and_a_sane_time() {
        let asked = parse_line("tokencast token --sub ada --type sse --ttl 5m").unwrap();
        let Task::Token(token) = asked.task else { panic!("{:?}", asked.task) };
        assert_eq!((token.user.as_str(), token.kind), ("ada", TokenKind::Sse));
        assert_eq!(token.ttl, Duration::from_secs(300));
        for bad in ["", " --sub=", " --sub a --ttl soon", " --sub a --ttl 0", " --sub a --type x"] {
            assert!(parse_line(&format!("tokencast token{bad}")).is_err(), "{bad}");
        }
    }
}
