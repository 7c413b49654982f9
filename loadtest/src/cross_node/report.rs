//! What is printed and written of the runs.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::Plan;
use super::figures::Figures;
use crate::process::Machine;
use crate::stats::{Spread, median};

/// All runs, as they are written to the file.
#[derive(Debug, Serialize)]
pub struct Report {
    benchmark: &'static str,
    cores: usize,
    sessions: u32,
    rate: u32,
    stream_delay: String,
    /// The medians of the runs' percentiles.
    difference_ms: Spread,
    runs: Vec<Figures>,
    #[serde(skip)]
    of: u32,
}

impl Report {
    /// No run yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            benchmark: super::NAME,
            cores: Machine::cores(),
            sessions: plan.sessions,
            rate: plan.rate,
            stream_delay: plan.stream_delay.clone(),
            difference_ms: Spread::default(),
            runs: Vec::new(),
            of: plan.runs,
        }
    }

    /// Adds a run and prints it.
    pub fn add(&mut self, figures: Figures) {
        self.runs.push(figures);
        let figures = &self.runs[self.runs.len() - 1];
        println!(
            "run {} of {}: {} sessions × {} chunks/s, STREAM_DELAY={}, {} s, {} cores, load before {}",
            self.runs.len(),
            self.of,
            self.sessions,
            self.rate,
            self.stream_delay,
            figures.seconds,
            self.cores,
            figures.load_before,
        );
        println!(
            "  chunks on both   {}   missing {}   out of place {}   unfinished {}",
            figures.chunks_on_both, figures.missing, figures.out_of_place, figures.unfinished
        );
        for error in &figures.errors {
            println!("    {error}");
        }
        print_spread("difference", &figures.difference_ms);
        print_spread("behind, own", &figures.behind_provider_own_ms);
        print_spread("behind, other", &figures.behind_provider_other_ms);
        for cpu in &figures.cpu {
            println!(
                "  {:<16} {:6.2} s CPU  {:5.2} cores  {:6.2} µs a chunk",
                cpu.process, cpu.seconds, cpu.cores, cpu.micros_per_chunk
            );
        }
        println!(
            "  others           {:.2} cores, stolen {:.2}",
            figures.others_cores, figures.stolen_cores
        );
    }

    /// Prints the medians of several runs, and writes the file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn end(&mut self, out: Option<&Path>) -> anyhow::Result<()> {
        let of = |part: fn(&Spread) -> f64| {
            median(self.runs.iter().map(|run| part(&run.difference_ms)).collect())
        };
        self.difference_ms = Spread {
            p50: of(|spread| spread.p50),
            p90: of(|spread| spread.p90),
            p99: of(|spread| spread.p99),
            p999: of(|spread| spread.p999),
            max: of(|spread| spread.max),
        };
        if self.runs.len() > 1 {
            println!("medians of {} runs", self.runs.len());
            print_spread("difference", &self.difference_ms);
        }
        let Some(out) = out else { return Ok(()) };
        let json = serde_json::to_string_pretty(self).context("write the result")?;
        std::fs::write(out, json + "\n").with_context(|| format!("write {}", out.display()))
    }

    /// Whether every socket of every run heard the whole answer.
    pub fn is_whole(&self) -> bool {
        self.runs.iter().all(Figures::is_whole)
    }
}

fn print_spread(name: &str, spread: &Spread) {
    let Spread { p50, p90, p99, p999, max } = spread;
    println!(
        "  {name:<16} p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
    );
}
