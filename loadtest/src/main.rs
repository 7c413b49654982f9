//! Load tests: real nodes, measured from outside, each a subcommand that prints what it found and
//! writes it as JSON.
//!
//! A test exits with status 1 where something was lost, whatever the figures. It must not know the
//! server's code, only its protocol and its settings.

mod client;
mod cross_node;
mod database;
mod first_token;
mod http;
mod late_join;
mod long_answer;
mod long_session;
mod nodes;
mod options;
mod pace;
mod process;
mod send;
mod slow;
mod stats;
mod token;
mod transcript;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    let matches = Command::new("tokencast-loadtest")
        .about("Load tests of tokencast nodes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(cross_node::command())
        .subcommand(send::command())
        .subcommand(long_session::command())
        .subcommand(long_answer::command())
        .subcommand(first_token::command())
        .subcommand(slow::command())
        .subcommand(late_join::command())
        .get_matches();
    let done = match matches.subcommand() {
        Some((cross_node::NAME, matches)) => run(cross_node::run(matches)),
        Some((send::NAME, matches)) => run(send::run(matches)),
        Some((long_session::NAME, matches)) => run(long_session::run(matches)),
        Some((long_answer::NAME, matches)) => run(long_answer::run(matches)),
        Some((first_token::NAME, matches)) => run(first_token::run(matches)),
        Some((slow::NAME, matches)) => run(slow::run(matches)),
        Some((late_join::NAME, matches)) => run(late_join::run(matches)),
        _ => unreachable!("clap requires one of the subcommands above"),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tokencast-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a test on one thread, so that the client disturbs what it measures as little as it can;
/// Ctrl-C and SIGTERM end it, and what it started is stopped.
fn run(test: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            done = test => done,
            _ = terminate.recv() => anyhow::bail!("stopped by SIGTERM"),
            _ = interrupt.recv() => anyhow::bail!("stopped by Ctrl-C"),
        }
    })
}
