//! The `tokencast` program. Exit status: 0 for a clean end, 2 for bad usage or configuration, 1
//! for everything else.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokencast::app;
use tokencast::auth::{NewToken, Verifier};
use tokencast::cli::{self, Task, Token};
use tokencast::config::{Config, LogFormat, Logging, Problems, Source};
use tokencast::telemetry::{Format, init_logging};

const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let asked = match cli::parse(std::env::args_os()) {
        Ok(asked) => asked,
        Err(error) => {
            // Rust ignores SIGPIPE: `tokencast --help | head` is an error of this write.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(BAD_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let source = Source::of_process(asked.flags);
    let config = match asked.task {
        Task::Migrate => Config::read_for_migration(&source),
        Task::Serve | Task::Check | Task::Token(_) => Config::read(&source),
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    let done = match asked.task {
        Task::Serve => run(&config.logging.clone(), app::serve(config)),
        Task::Migrate => run(&config.logging.clone(), app::migrate(config)),
        Task::Check => print(&cli::summary(&config)),
        Task::Token(_) if config.auth.jwt_secret.is_none() => {
            eprintln!(
                "tokencast: JWT_SECRET: is not set, and a token is made with it; those under public keys are made by their issuer"
            );
            return ExitCode::from(BAD_USAGE);
        }
        Task::Token(token) => print_token(&config, &token),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokencast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(problems: &Problems) -> ExitCode {
    for problem in &problems.0 {
        eprintln!("tokencast: {problem}");
    }
    ExitCode::from(BAD_USAGE)
}

fn run(logging: &Logging, task: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let format = match logging.format {
        Some(LogFormat::Text) => Format::Text,
        Some(LogFormat::Json) => Format::Json,
        None => Format::detect(),
    };
    init_logging(format, &logging.filter)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start tokio")?;
    let done = runtime.block_on(task);
    // What still blocks then, such as a name look-up, would hold up the end for minutes.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

fn print_token(config: &Config, token: &Token) -> anyhow::Result<()> {
    let new = NewToken {
        user: &token.user,
        name: token.name.as_deref(),
        kind: token.kind,
        session: None,
        ttl: token.ttl,
    };
    print(&Verifier::new(&config.auth).issue(&new)?)
}

/// Prints a line. A reader that has gone, as `head` does, is no failure.
fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("write to standard output"),
    }
}
