//! From deltas to chunks: joins new text for a moment, appends it at its offset, and appends again
//! what was lost on the way. Readers are fed by the appends' replies.
//!
//! The whole text is held here, so that nothing Redis loses is lost. Appends are pipelined: none
//! waits for the one before it.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::time::Instant;

use crate::adapter::{AdapterError, Appended, SharedAdapter};
use crate::domain::{Chunk, GenerationId, SessionId, Timestamp};

/// The most appends that wait for their replies; beyond it text is joined.
const IN_FLIGHT_MAX: usize = 64;
/// When replies are this late, this node's own readers are shown the text from memory.
pub(super) const LATE: Duration = Duration::from_millis(500);
/// How often they are shown more of it then.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// By how much an attempt's chunks are numbered above those of the one before: an answer does not
/// have as many.
const SEQ_JUMP: u64 = 1 << 24;
/// The pauses between tries after a failed append.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long text may wait to be joined with the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    /// At rest; zero: never waits.
    pub delay: Duration,
    /// While Redis is behind or nobody listens.
    pub delay_max: Duration,
}

/// What an append's reply means for the writer's owner.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing to do.
    Fine,
    /// The text in the log is shorter than what was appended to it. Appending stops until
    /// [`Writer::open`].
    Lost,
}

struct Reply {
    round: u64,
    end: u64,
    sent_at: Instant,
    result: Result<Appended, AdapterError>,
}

pub(super) struct Writer {
    adapter: SharedAdapter,
    session: SessionId,
    generation: GenerationId,
    attempt: u32,
    joining: Joining,
    text: String,
    tokens: u64,
    seq: u64,
    /// When the oldest text that is not sent was read.
    unsent_since: Option<Timestamp>,
    sent: u64,
    acked: u64,
    shown: u64,
    window: Duration,
    /// When appending began; before the first append, that is when one is due.
    opened_at: Instant,
    last_flush: Option<Instant>,
    in_flight: FuturesOrdered<BoxFuture<'static, Reply>>,
    /// Replies of an earlier round are passed over: what they were about is sent again.
    round: u64,
    oldest_unacked: Option<Instant>,
    last_show: Option<Instant>,
    retry: Option<(Instant, Duration)>,
    halted: bool,
    halted_since: Option<Instant>,
    /// The log does not have what was appended to it.
    lost: bool,
}

impl Writer {
    /// A writer of an attempt's text, which begins with `text`: the log has that already. It
    /// appends nothing before [`Writer::open`], since the start of the attempt has to stand in the
    /// log first.
    pub(super) fn new(
        adapter: SharedAdapter,
        session: SessionId,
        generation: GenerationId,
        attempt: u32,
        joining: Joining,
        text: String,
    ) -> Self {
        let len = text.len() as u64;
        Self {
            adapter,
            session,
            generation,
            attempt,
            joining,
            tokens: tokens_in(&text),
            text,
            seq: u64::from(attempt.saturating_sub(1)) * SEQ_JUMP,
            unsent_since: None,
            sent: len,
            acked: len,
            shown: len,
            window: joining.delay,
            opened_at: Instant::now(),
            last_flush: None,
            in_flight: FuturesOrdered::new(),
            round: 0,
            oldest_unacked: None,
            last_show: None,
            retry: None,
            halted: true,
            halted_since: Some(Instant::now()),
            lost: false,
        }
    }

    /// New text from the provider. NUL is left out: PostgreSQL cannot store it in text.
    pub(super) fn push(&mut self, delta: &str) {
        self.text.extend(delta.chars().filter(|c| *c != '\0'));
        self.tokens += 1;
        self.unsent_since.get_or_insert_with(Timestamp::now);
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// How many tokens the text has: one for each delta that it was given, and an estimate for
    /// what it began with.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    fn len(&self) -> u64 {
        self.text.len() as u64
    }

    /// Whether the log has the whole text.
    pub(super) fn is_settled(&self) -> bool {
        self.acked == self.len()
    }

    /// When [`Writer::flush`] has to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        let append = self.append_due();
        let show = self.show_due();
        match (append, show) {
            (Some(append), Some(show)) => Some(append.min(show)),
            (append, show) => append.or(show),
        }
    }

    fn append_due(&self) -> Option<Instant> {
        if self.halted || self.sent == self.len() || self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        if let Some((at, _)) = self.retry {
            return Some(at);
        }
        Some(self.last_flush.map_or(self.opened_at, |at| at + self.window))
    }

    fn show_due(&self) -> Option<Instant> {
        if self.shown == self.len() {
            return None;
        }
        let waiting = if self.halted { self.halted_since } else { self.oldest_unacked };
        let late = waiting? + LATE;
        Some(self.last_show.map_or(late, |at| late.max(at + SHOW_EVERY)))
    }

    /// What stands before the text is being brought from now on. Where that is late, it is shown from
    /// memory, and the text after it.
    pub(super) fn follow(&mut self) {
        if self.halted {
            self.halted_since = Some(Instant::now() + SHOW_EVERY);
        }
    }

    /// Appends what is due; shows it from memory where replies are late.
    pub(super) fn flush(&mut self) {
        let now = Instant::now();
        if self.append_due().is_some_and(|due| due <= now) {
            self.append(now);
        }
        if self.show_due().is_some_and(|due| due <= now) {
            // All that the log may not have: what did not follow before does now.
            let chunk = self.chunk(self.acked);
            self.shown = self.len();
            self.last_show = Some(now);
            self.adapter.show(&self.session, chunk);
        }
    }

    /// Appends all that is not sent, without waiting to join it with more.
    pub(super) fn flush_all(&mut self) {
        if !self.halted && self.retry.is_none() && self.sent < self.len() {
            self.append(Instant::now());
        }
    }

    fn append(&mut self, now: Instant) {
        let chunk = self.chunk(self.sent);
        self.sent = chunk.end();
        self.unsent_since = None;
        self.last_flush = Some(now);
        self.oldest_unacked.get_or_insert(now);
        self.retry = None;
        let (adapter, session) = (self.adapter.clone(), self.session.clone());
        let (round, end) = (self.round, chunk.end());
        self.in_flight.push_back(Box::pin(async move {
            let result = adapter.append_chunk(&session, chunk).await;
            Reply { round, end, sent_at: now, result }
        }));
    }

    /// The text from an offset that stands between two characters, which all of ours do.
    fn chunk(&mut self, from: u64) -> Chunk {
        self.seq += 1;
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        Chunk {
            generation: self.generation,
            attempt: self.attempt,
            seq: self.seq,
            offset: from,
            tokens: self.tokens,
            read_at_ms: self.unsent_since.unwrap_or_else(Timestamp::now).as_millis(),
            delta: self.text.get(start..).unwrap_or_default().into(),
        }
    }

    /// Waits for the next reply; for ever where none is awaited.
    ///
    /// # Cancel safety
    /// Safe: a reply is either returned or still awaited.
    pub(super) async fn progress(&mut self) -> Settled {
        match self.in_flight.next().await {
            Some(reply) => self.settle(reply),
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self, reply: Reply) -> Settled {
        if reply.round != self.round {
            return Settled::Fine;
        }
        match reply.result {
            Ok(Appended::Done { heard }) => {
                self.acked = self.acked.max(reply.end);
                self.shown = self.shown.max(self.acked);
                let caught_up = self.acked == self.sent;
                self.oldest_unacked = (!caught_up).then_some(reply.sent_at);
                self.adapt(heard, reply.sent_at.elapsed());
                Settled::Fine
            }
            Ok(Appended::Short { .. }) => {
                self.round += 1;
                self.halted = true;
                self.halted_since = Some(Instant::now());
                self.lost = true;
                Settled::Lost
            }
            Err(error) => {
                tracing::debug!(generation = %self.generation, %error, "append");
                let pause = self.retry.map_or(PAUSE.0, |(_, pause)| (pause * 2).min(PAUSE.1));
                self.retry = Some((Instant::now() + pause, pause));
                self.round += 1;
                self.sent = self.acked;
                Settled::Fine
            }
        }
    }

    /// Wider while Redis is behind or nobody listens, narrower again when neither is so.
    fn adapt(&mut self, heard: u64, took: Duration) {
        let Joining { delay, delay_max } = self.joining;
        if delay.is_zero() {
            return;
        }
        self.window = if heard == 0 || took > self.window {
            (self.window * 2).min(delay_max)
        } else {
            (self.window / 2).max(delay)
        };
    }

    /// Begins to append, or begins again from the start after the text was lost: what is still
    /// there is recognised by its offset.
    pub(super) fn open(&mut self) {
        self.halted = false;
        self.oldest_unacked = None;
        self.retry = None;
        if std::mem::take(&mut self.lost) {
            self.sent = 0;
            self.acked = 0;
        }
        self.opened_at = Instant::now();
        self.last_flush = None;
    }
}

/// How many tokens a text takes whose deltas were counted elsewhere: four bytes are one.
pub(super) fn tokens_in(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}
