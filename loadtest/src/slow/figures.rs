//! What was heard in the room, as figures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::room::{Looked, Reader};
use super::{NAME, Plan};
use crate::process::Machine;
use crate::stats::{Spread, median, rounded};

/// How many reasons are told.
const REASONS_MAX: usize = 5;
/// 1 KiB.
const KIB: f64 = 1024.0;

/// What was seen of the nodes, and what is stored.
#[derive(Default)]
pub(super) struct Seen {
    /// Memory of the nodes before anybody but the driver came, in bytes.
    pub empty: u64,
    /// When the room was full and had heard one answer.
    pub idle: u64,
    /// The most that there ever was.
    pub peak: u64,
    pub phases: Vec<Phase>,
    /// Why sockets were disconnected until the end.
    pub disconnects: BTreeMap<String, u64>,
    /// All messages, in their order.
    pub stored: Vec<Value>,
}

/// One answer with messages.
pub(super) struct Phase {
    pub round: u32,
    pub is_slow: bool,
    /// What its answer became.
    pub message: String,
    /// The numbers of its messages.
    pub messages: Range<usize>,
    pub measured: Range<Instant>,
    pub looked: Looked,
    /// Memory of the nodes at its end, before the slow ones read on.
    pub end: u64,
    /// How long the slow ones read on.
    pub read_on: Option<Duration>,
}

impl Phase {
    /// For who waits for the end.
    pub fn line(&self) -> String {
        let Self { round, looked, .. } = self;
        let kind = if self.is_slow { "with slow readers" } else { "without" };
        let read_on =
            self.read_on.map(|time| format!(", which read on for {:.1} s", time.as_secs_f64()));
        format!(
            "round {round}, {kind}: {} slow sockets{}, nodes {:.1} MB and {:.2} cores, others {:.2} cores",
            looked.slow_sockets,
            read_on.unwrap_or_default(),
            looked.resident as f64 / 1e6,
            looked.nodes_cores,
            looked.others_cores,
        )
    }
}

/// What readers that are not slow waited, in milliseconds.
#[derive(Debug, Serialize)]
struct Waited {
    /// For text, after the fastest of them had it.
    text_ms: Spread,
    /// For a message, after it was sent.
    message_ms: Spread,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    benchmark: &'static str,
    cores: usize,
    clients: u32,
    slow: u32,
    pace: u32,
    rate: u32,
    messages: u32,
    seconds: u32,
    rounds: u32,
    without: Waited,
    with: Waited,
    /// p99 with slow readers, divided by p99 without.
    text_p99_ratio: f64,
    message_p99_ratio: f64,
    /// What a slow reader adds to the nodes' memory, in KiB: of the most in a phase, the median
    /// and the highest of the rounds.
    slow_adds_kib: f64,
    slow_adds_kib_max: f64,
    /// What any reader costs, slow or not, in KiB.
    reader_kib: f64,
    peak_mb: f64,
    /// The least of the phases with slow readers: how many were behind at once.
    slow_sockets: u64,
    /// How long they read on until they had everything, at most.
    read_on_seconds: f64,
    /// The longest time between two pings that a reader had.
    ping_gap_seconds: f64,
    /// Why the nodes lost sockets.
    disconnects: BTreeMap<String, u64>,
    others_cores: f64,
    /// Of all readers, of the whole run: messages that never came,
    missing: usize,
    /// came again,
    doubled: usize,
    /// came after a later one,
    out_of_order: usize,
    /// text that did not begin where the text before ended,
    out_of_place: u64,
    /// answers that are not what is stored,
    wrong_answers: usize,
    /// and readers whose connection was lost.
    closed: usize,
    /// Messages that were sent and are not stored, or not in the order of sending.
    not_stored: usize,
    reasons: Vec<String>,
}

impl Figures {
    pub fn of(plan: &Plan, seen: &Seen, sent: &[Instant], readers: &[Reader]) -> Self {
        let waited = |is_slow| Waited::of(seen, is_slow, sent, readers);
        let (without, with) = (waited(false), waited(true));
        let ratio = |with: Spread, without: Spread| rounded(with.p99 / without.p99);
        let of_kind = |is_slow| seen.phases.iter().filter(move |phase| phase.is_slow == is_slow);
        let adds: Vec<f64> = of_kind(true)
            .zip(of_kind(false))
            .map(|(with, without)| {
                let most = |phase: &Phase| phase.looked.resident.max(phase.end) as f64;
                (most(with) - most(without)) / KIB / f64::from(plan.slow)
            })
            .collect();
        let read_on = of_kind(true).filter_map(|phase| phase.read_on).max().unwrap_or_default();
        let others = seen.phases.iter().map(|phase| phase.looked.others_cores);
        let mut figures = Self {
            benchmark: NAME,
            cores: Machine::cores(),
            clients: plan.clients,
            slow: plan.slow,
            pace: plan.pace,
            rate: plan.rate,
            messages: plan.messages,
            seconds: plan.seconds,
            rounds: plan.rounds,
            text_p99_ratio: ratio(with.text_ms, without.text_ms),
            message_p99_ratio: ratio(with.message_ms, without.message_ms),
            without,
            with,
            slow_adds_kib_max: rounded(adds.iter().copied().fold(f64::MIN, f64::max)),
            slow_adds_kib: rounded(median(adds)),
            reader_kib: rounded(
                (seen.idle as f64 - seen.empty as f64) / KIB / f64::from(plan.clients),
            ),
            peak_mb: rounded(seen.peak as f64 / 1e6),
            slow_sockets: of_kind(true).map(|p| p.looked.slow_sockets).min().unwrap_or_default(),
            read_on_seconds: rounded(read_on.as_secs_f64()),
            ping_gap_seconds: rounded(
                readers
                    .iter()
                    .map(|reader| reader.heard().ping_gap.as_secs_f64())
                    .fold(0.0, f64::max),
            ),
            disconnects: seen.disconnects.clone(),
            others_cores: rounded(others.fold(0.0, f64::max)),
            missing: 0,
            doubled: 0,
            out_of_order: 0,
            out_of_place: 0,
            wrong_answers: 0,
            closed: 0,
            not_stored: 0,
            reasons: Vec::new(),
        };
        figures.compare(seen, sent.len(), readers);
        figures
    }

    /// What each reader ended with, with what is stored.
    fn compare(&mut self, seen: &Seen, sent: usize, readers: &[Reader]) {
        let numbers: Vec<usize> = seen
            .stored
            .iter()
            .filter_map(|message| message["clientMessageId"].as_str()?.parse().ok())
            .collect();
        let in_place = numbers.iter().enumerate().filter(|(at, number)| at == *number).count();
        self.not_stored = sent.max(numbers.len()) - in_place;
        let answers: Vec<(&str, &str)> = seen
            .stored
            .iter()
            .filter(|message| message["role"] == "assistant")
            .filter_map(|message| Some((message["id"].as_str()?, message["content"].as_str()?)))
            .collect();
        for reader in readers {
            let heard = reader.heard();
            let transcript = &heard.transcript;
            let [missing, doubled, out_of_order] = transcript.faults(sent);
            self.missing += missing;
            self.doubled += doubled;
            self.out_of_order += out_of_order;
            self.out_of_place += transcript.out_of_place;
            let is_right = |(message, content): &&(&str, &str)| {
                let answer = transcript.answer(message);
                answer.is_some_and(|answer| answer.is_complete && answer.text == *content)
            };
            let right = answers.iter().filter(is_right).count();
            self.wrong_answers += answers.len().max(transcript.answers.len()) - right;
            if let Some(reason) = &heard.ended {
                self.closed += 1;
                if self.reasons.len() < REASONS_MAX {
                    let kind = if reader.is_slow { "slow" } else { "not slow" };
                    self.reasons.push(format!("{kind}: {reason}"));
                }
            }
        }
        if answers.len() != seen.phases.len() + 1 {
            self.not_stored += 1;
            self.reasons.push(format!("{} answers are stored", answers.len()));
        }
    }

    /// Whether nothing was lost, doubled or out of order.
    pub fn is_whole(&self) -> bool {
        let faults = self.missing + self.doubled + self.out_of_order + self.wrong_answers;
        faults + self.closed + self.not_stored == 0 && self.out_of_place == 0
    }

    pub fn print(&self, plan: &Plan) {
        println!(
            "{} clients on 3 nodes, {} of them at {} B/s; {} tokens/s, {} messages/s, {} × {} s, {} cores",
            plan.clients,
            plan.slow,
            plan.pace,
            plan.rate,
            plan.messages,
            plan.rounds,
            plan.seconds,
            self.cores
        );
        for (name, waited) in [("without", &self.without), ("with", &self.with)] {
            for (what, spread) in [("text", waited.text_ms), ("message", waited.message_ms)] {
                let Spread { p50, p90, p99, p999, max } = spread;
                println!(
                    "  {name:<8}{what:<8} p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
                );
            }
        }
        println!(
            "  p99 × {:.3} for text, × {:.3} for messages",
            self.text_p99_ratio, self.message_p99_ratio
        );
        println!(
            "  a slow reader adds {:.0} KiB (at most {:.0}) to the {:.0} KiB of any; nodes' peaks {:.1} MB",
            self.slow_adds_kib, self.slow_adds_kib_max, self.reader_kib, self.peak_mb
        );
        println!(
            "  {} were behind at once, and read on for {:.1} s; pings at most {:.1} s apart; others {:.2} cores",
            self.slow_sockets, self.read_on_seconds, self.ping_gap_seconds, self.others_cores
        );
        println!(
            "  missing {}   doubled {}   out of order {}   out of place {}   wrong answers {}   closed {}   not stored {}",
            self.missing,
            self.doubled,
            self.out_of_order,
            self.out_of_place,
            self.wrong_answers,
            self.closed,
            self.not_stored
        );
        for (reason, count) in &self.disconnects {
            println!("    {count} × {reason}");
        }
        for reason in &self.reasons {
            println!("    {reason}");
        }
    }
}

impl Waited {
    /// Of the phases of one kind, in the time measured.
    fn of(seen: &Seen, is_slow: bool, sent: &[Instant], readers: &[Reader]) -> Self {
        let (mut text, mut message) = (Vec::new(), Vec::new());
        let healthy = || readers.iter().filter(|reader| !reader.is_slow);
        for phase in seen.phases.iter().filter(|phase| phase.is_slow == is_slow) {
            let mut earliest: BTreeMap<u64, Instant> = BTreeMap::new();
            let mut pieces = Vec::new();
            for reader in healthy() {
                let heard = reader.heard();
                let answer = heard.transcript.answer(&phase.message);
                for piece in answer.map_or(&[][..], |answer| &answer.pieces) {
                    let first = earliest.entry(piece.end).or_insert(piece.at);
                    *first = piece.at.min(*first);
                    pieces.push(*piece);
                }
                let of_phase = heard
                    .transcript
                    .messages
                    .iter()
                    .filter(|(number, _)| phase.messages.contains(number))
                    .filter(|(number, _)| phase.measured.contains(&sent[*number]));
                message
                    .extend(of_phase.map(|(number, at)| millis(at.duration_since(sent[*number]))));
            }
            // Who has more has this too.
            let mut least: Option<Instant> = None;
            for at in earliest.values_mut().rev() {
                *at = least.map_or(*at, |least| least.min(*at));
                least = Some(*at);
            }
            for piece in pieces.iter().filter(|piece| phase.measured.contains(&piece.at)) {
                text.push(millis(piece.at.duration_since(earliest[&piece.end])));
            }
        }
        Self { text_ms: Spread::of(text), message_ms: Spread::of(message) }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
