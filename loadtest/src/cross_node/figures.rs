//! What was heard, as figures.

use std::time::Duration;

use serde::Serialize;

use super::listener::{Heard, Piece};
use crate::stats::{Spread, rounded};

/// CPU that a process used while it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Cpu {
    /// Which process.
    pub process: String,
    /// User and kernel together.
    pub seconds: f64,
}

/// What is measured of a run, in time since its beginning.
#[derive(Debug, Clone)]
pub struct Window {
    /// CPU time is counted from here,
    pub begin: Duration,
    /// and chunks that the generating node's socket got from here,
    pub from: Duration,
    /// to here,
    pub until: Duration,
    /// and to here.
    pub end: Duration,
    /// What was used up, by process.
    pub cpu: Vec<Cpu>,
    /// CPU seconds of the whole machine.
    pub machine_busy: f64,
    /// CPU seconds that the machine's host gave to others.
    pub machine_stolen: f64,
}

/// CPU of one process.
#[derive(Debug, Serialize)]
pub struct CpuFigure {
    /// Which process.
    pub process: String,
    /// Seconds of CPU.
    pub seconds: f64,
    /// As a share of one core.
    pub cores: f64,
    /// Per chunk that a socket got, in microseconds.
    pub micros_per_chunk: f64,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The machine's load average (1 min) before the run.
    pub load_before: f64,
    /// How long was measured.
    pub seconds: f64,
    /// Chunks that the generating node's sockets got and the other's got too.
    pub chunks_on_both: u64,
    /// Chunks that sockets got while CPU time was counted, on both nodes.
    pub chunks_delivered: u64,
    /// Chunks of the whole run that one socket got and the session's other one never did.
    pub missing: u64,
    /// Chunks of the whole run that did not begin where the one before ended.
    pub out_of_place: u64,
    /// Sockets that did not hear their answer's end.
    pub unfinished: u64,
    /// What some of them say.
    pub errors: Vec<String>,
    /// How much later the other node's socket had a chunk, in milliseconds.
    pub difference_ms: Spread,
    /// How long after the provider gave its text a chunk was there, on the generating node, in
    /// milliseconds, less that of the answer's fastest chunk.
    pub behind_provider_own_ms: Spread,
    /// The same on the other node.
    pub behind_provider_other_ms: Spread,
    /// What it cost.
    pub cpu: Vec<CpuFigure>,
    /// CPU that others used on this machine meanwhile, in cores.
    pub others_cores: f64,
    /// CPU that the machine did not get from its host, in cores.
    pub stolen_cores: f64,
}

/// How many errors are told.
const ERRORS_MAX: usize = 5;

impl Figures {
    /// The figures of what the two sockets of each session heard: the generating node's first.
    pub fn of(heard: &[[Heard; 2]], rate: f64, window: Window, load_before: f64) -> Self {
        let measured = |piece: &&Piece| (window.from..window.until).contains(&piece.at);
        let (mut difference, mut own, mut other) = (Vec::new(), Vec::new(), Vec::new());
        let mut missing = 0;
        for [a, b] in heard {
            let late = differences(&a.pieces, &b.pieces);
            missing += late.iter().filter(|late| late.is_none()).count() as u64;
            missing +=
                differences(&b.pieces, &a.pieces).iter().filter(|l| l.is_none()).count() as u64;
            let pairs = a.pieces.iter().zip(&late).filter(|(piece, _)| measured(piece));
            difference.extend(pairs.filter_map(|(_, late)| *late));
            let Some(start) = start(&a.pieces, rate) else { continue };
            let behind = |piece: &Piece| millis(piece.at) - start - due_ms(piece, rate);
            own.extend(a.pieces.iter().filter(measured).map(behind));
            other.extend(b.pieces.iter().filter(measured).map(behind));
        }
        let all = || heard.iter().flatten();
        let counted = |piece: &&Piece| (window.begin..window.end).contains(&piece.at);
        let chunks_delivered = all().flat_map(|h| h.pieces.iter().filter(counted)).count() as u64;
        let strangers = heard.iter().filter(|[a, b]| a.stream != b.stream).count() as u64;
        let seconds = (window.end - window.begin).as_secs_f64();
        let used: f64 = window.cpu.iter().map(|cpu| cpu.seconds).sum();
        Self {
            load_before,
            seconds: rounded(seconds),
            chunks_on_both: difference.len() as u64,
            chunks_delivered,
            missing,
            out_of_place: all().map(|heard| heard.out_of_place).sum::<u64>() + strangers,
            unfinished: all().filter(|heard| !heard.complete).count() as u64,
            errors: all().filter_map(|heard| heard.error.clone()).take(ERRORS_MAX).collect(),
            difference_ms: Spread::of(difference),
            behind_provider_own_ms: Spread::of(own),
            behind_provider_other_ms: Spread::of(other),
            others_cores: rounded((window.machine_busy - used).max(0.0) / seconds),
            stolen_cores: rounded(window.machine_stolen / seconds),
            cpu: window
                .cpu
                .into_iter()
                .map(|cpu| CpuFigure {
                    process: cpu.process,
                    seconds: rounded(cpu.seconds),
                    cores: rounded(cpu.seconds / seconds),
                    micros_per_chunk: rounded(cpu.seconds * 1e6 / chunks_delivered.max(1) as f64),
                })
                .collect(),
        }
    }

    /// Whether every socket heard the whole answer.
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.out_of_place == 0 && self.unfinished == 0
    }
}

/// How much later than `pieces` each of their texts was there in `others`, which may be cut
/// otherwise; `None` where it never was.
fn differences(pieces: &[Piece], others: &[Piece]) -> Vec<Option<f64>> {
    let mut others = others.iter().peekable();
    let late = pieces.iter().map(|piece| {
        while others.next_if(|other| other.end < piece.end).is_some() {}
        others.peek().map(|other| millis(other.at) - millis(piece.at))
    });
    late.collect()
}

/// When the provider began, at the latest: no chunk is there before it was due.
fn start(pieces: &[Piece], rate: f64) -> Option<f64> {
    pieces.iter().map(|piece| millis(piece.at) - due_ms(piece, rate)).min_by(f64::total_cmp)
}

/// When the first token of a piece was due, after the provider began.
fn due_ms(piece: &Piece, rate: f64) -> f64 {
    piece.tokens_before as f64 * 1e3 / rate
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at_ms: u64, end: u64, tokens_before: u64) -> Piece {
        Piece { at: Duration::from_millis(at_ms), end, tokens_before }
    }

    #[test]
    fn a_joined_chunk_brings_the_text_of_both() {
        let own = [piece(0, 1, 0), piece(50, 2, 1), piece(100, 3, 2)];
        let other = [piece(3, 1, 0), piece(104, 3, 1)];
        assert_eq!(differences(&own, &other), [Some(3.0), Some(54.0), Some(4.0)]);
        assert_eq!(differences(&other[..1], &own), [Some(-3.0)]);
        assert_eq!(differences(&own, &other[..1]), [Some(3.0), None, None]);
    }

    #[test]
    fn the_fastest_chunk_tells_when_the_provider_began() {
        let pieces = [piece(1003, 1, 0), piece(1051, 2, 1), piece(1109, 3, 2)];
        assert_eq!(start(&pieces, 20.0), Some(1001.0));
        assert_eq!(start(&[], 20.0), None);
    }

    #[test]
    fn what_one_socket_never_got_is_missing() {
        let heard = |pieces: &[Piece]| Heard {
            stream: "s".into(),
            pieces: pieces.to_vec(),
            complete: true,
            ..Heard::default()
        };
        let window = Window {
            begin: Duration::ZERO,
            from: Duration::ZERO,
            until: Duration::from_secs(1),
            end: Duration::from_secs(1),
            cpu: vec![Cpu { process: "redis".into(), seconds: 0.3 }],
            machine_busy: 0.5,
            machine_stolen: 0.0,
        };
        let sessions = [[heard(&[piece(1, 1, 0), piece(51, 2, 1)]), heard(&[piece(2, 1, 0)])]];
        let figures = Figures::of(&sessions, 20.0, window, 0.0);
        assert_eq!((figures.chunks_on_both, figures.missing), (1, 1));
        assert_eq!((figures.chunks_delivered, figures.is_whole()), (3, false));
        assert_eq!((figures.cpu[0].micros_per_chunk, figures.others_cores), (1e5, 0.2));
    }
}
