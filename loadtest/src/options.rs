//! Options that several tests have.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Arg, ArgMatches, value_parser};
use serde::Serialize;

/// A whole number of at least `least`.
pub fn number(name: &'static str, default: &'static str, least: u32, help: &'static str) -> Arg {
    let parser = value_parser!(u32).range(i64::from(least)..);
    Arg::new(name).long(name).default_value(default).value_parser(parser).help(help)
}

/// What [`number`] says.
pub fn number_of(matches: &ArgMatches, name: &str) -> u32 {
    matches.get_one::<u32>(name).copied().unwrap_or(1)
}

/// `--bin`.
pub fn bin() -> Arg {
    let parser = value_parser!(PathBuf);
    let help = "the server's program [default: tokencast beside this one]";
    Arg::new("bin").long("bin").value_parser(parser).help(help)
}

/// The program that [`bin`] names.
///
/// # Errors
/// Where there is none.
pub fn bin_of(matches: &ArgMatches) -> anyhow::Result<PathBuf> {
    let bin = match matches.get_one::<PathBuf>("bin") {
        Some(bin) => bin.clone(),
        None => std::env::current_exe().context("find this program")?.with_file_name("tokencast"),
    };
    bin.canonicalize().with_context(|| format!("--bin: {}", bin.display()))
}

/// `--out`.
pub fn out() -> Arg {
    let help = "a file for the result, as JSON";
    Arg::new("out").long("out").value_parser(value_parser!(PathBuf)).help(help)
}

/// Writes the result where [`out`] says, if it does.
///
/// # Errors
/// Where it cannot be written.
pub fn write_out<T: Serialize>(matches: &ArgMatches, result: &T) -> anyhow::Result<()> {
    let Some(out) = matches.get_one::<PathBuf>("out") else { return Ok(()) };
    let json = serde_json::to_string_pretty(result).context("write the result")?;
    std::fs::write(out, json + "\n").with_context(|| format!("write {}", out.display()))
}
