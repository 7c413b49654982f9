//! Going on with what nobody runs: generations of nodes that are dead, those that were left to
//! others, and those that nobody began.
//!
//! A claim in the database has one winner. It takes the text, after which the attempt before it
//! cannot append to it any more, and reads in the log how far that came. Then it goes on from
//! there, starts over, or only stores the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::ending::{end_of, gone, store_and_tell};
use super::lease::DEAD_AFTER;
use super::meter::Meter;
use super::order::Run;
use super::run::{self, Start};
use super::{Shared, Slot};
use crate::adapter::{AdapterError, Tally};
use crate::domain::text::utf16_len;
use crate::domain::{
    EventKind, Generation, GenerationId, OnTakeover, Outcome, Position, SessionId, Stage, Status,
    StopReason, Timestamp, Usage,
};
use crate::store::{Outgoing, StoreError};
use crate::telemetry::metrics;

/// How often a node looks for what nobody runs.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// The most generations found in one look.
const FOUND_MAX: u32 = 64;
/// A generation that nobody began is anybody's after this long.
const UNCLAIMED_AFTER: Duration = Duration::from_secs(1);
/// How many claims are made and read at once.
pub(super) const CLAIMS_AT_ONCE: usize = 16;
/// How long reading what is left may take; after it another node may try.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long a node claims nothing after it could not read what was left.
const PAUSE_AFTER_UNREAD: Duration = Duration::from_secs(5);
/// Whatever brings nodes down does so this often after the first time at most: what was lost more
/// often is only ended.
const LOSSES_MAX: u32 = 5;
/// The last attempt that writes, also where nothing but hand-overs and texts that cannot be read
/// came before it.
const ATTEMPT_MAX: u32 = 32;
/// A generation whose agent this node does not know is left to nodes that do for this long.
const STRANGE_FOR: Duration = Duration::from_secs(10);
/// The most events of a log read at once.
const PAGE: u64 = 512;

/// What is left of a generation.
#[derive(Debug, Default)]
struct Left {
    text: String,
    /// Whether the log knows of it.
    is_logged: bool,
    /// Whether it has the prompt. What it does not tell of an answer to that, it never did.
    has_prompt: bool,
    /// The newest attempt that the log tells of.
    newest: u32,
    /// The stages it was told of, each at its latest.
    stages: BTreeMap<u32, Stage>,
    /// Why and at which cost the provider ended, and the text's length then.
    ended: Option<(StopReason, Usage, u64)>,
    tally: Tally,
    /// What of it the outbox still holds, of a generation that nobody began.
    announce: Vec<Outgoing>,
}

/// Why what is left could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it takes long")]
    Late,
}

/// What becomes of a claimed generation.
enum Next {
    End(Outcome, Usage),
    Write(OnTakeover),
}

/// Looks for what nobody runs and takes it over, for as long as the node lives.
pub(super) async fn look_for_left(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut strange = HashMap::new();
    loop {
        ticks.tick().await;
        while shared.may_claim() && look(&shared, &mut strange).await {}
    }
}

/// One look; `true` where there may be more to be found at once.
async fn look(shared: &Arc<Shared>, strange: &mut HashMap<GenerationId, Instant>) -> bool {
    let asked = shared.store.claimable(DEAD_AFTER, UNCLAIMED_AFTER, FOUND_MAX);
    let mut found = match timeout(LOOK_WITHIN, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "look for generations that nobody runs");
            return false;
        }
        Err(_) => {
            tracing::debug!("look for generations that nobody runs: it takes long");
            return false;
        }
    };
    strange.retain(|id, _| found.iter().any(|found| found.id == *id));
    let is_full = found.len() == FOUND_MAX as usize;
    if !found.is_empty() {
        // Several nodes find the same: each begins elsewhere.
        let start = shared.options.node.0.as_u128() % found.len() as u128;
        found.rotate_left(usize::try_from(start).unwrap_or(0));
    }
    let mut any = false;
    for found in found {
        if shared.running().contains_key(&found.id) || is_strange(shared, strange, &found) {
            continue;
        }
        let Ok(permit) = shared.claims.clone().acquire_owned().await else { return false };
        if !shared.may_claim() {
            return false;
        }
        let Some(slot) = shared.reserve() else { return false };
        claim(shared, found, slot, permit);
        any = true;
    }
    is_full && any
}

/// Whether it is left to nodes that know its agent.
fn is_strange(
    shared: &Shared,
    strange: &mut HashMap<GenerationId, Instant>,
    found: &Generation,
) -> bool {
    if shared.voices.speaker(&found.agent).is_some() {
        return false;
    }
    strange.entry(found.id).or_insert_with(Instant::now).elapsed() < STRANGE_FOR
}

fn claim(shared: &Arc<Shared>, found: Generation, slot: Slot, permit: OwnedSemaphorePermit) {
    let run = Run::new(found.session.clone(), found.attempt + 1);
    shared.run(found.id, run, slot, |shared, run| async move {
        let node = shared.options.node;
        match shared.store.claim(&found, node, DEAD_AFTER, UNCLAIMED_AFTER).await {
            Ok(Some(claimed)) => take_over(&shared, &found, claimed, &run, permit).await,
            Ok(None) => {}
            // Should it have been made all the same, it is found as this node's and not running.
            Err(error) => tracing::debug!(generation = %found.id, %error, "claim"),
        }
    });
}

async fn take_over(
    shared: &Arc<Shared>,
    found: &Generation,
    claimed: Generation,
    run: &Run,
    permit: OwnedSemaphorePermit,
) {
    run.owned();
    let Generation { id, attempt, .. } = claimed;
    let is_pending = found.status == Status::Pending;
    let left = match timeout(READ_WITHIN, read(shared, &claimed, is_pending)).await {
        // An end that could not be stored: without its text it may be.
        Ok(Ok(left)) if attempt > 2 * ATTEMPT_MAX => Left { text: String::new(), ..left },
        Ok(Ok(left)) => left,
        Ok(Err(error)) if attempt <= ATTEMPT_MAX => return leave(shared, &claimed, &error).await,
        Err(_) if attempt <= ATTEMPT_MAX => return leave(shared, &claimed, &ReadError::Late).await,
        _ => Left::default(),
    };
    drop(permit);
    match next(shared, &claimed, &left) {
        Next::End(outcome, usage) => {
            tracing::info!(generation = %id, attempt, owner = %found.owner, "ending it for another");
            metrics::takeovers(match &outcome {
                Outcome::Completed { .. } => "finished",
                Outcome::Stopped { .. } => "stopped",
                Outcome::Failed { .. } => "failed",
            })
            .increment(1);
            end(shared, &claimed, left, outcome, usage).await;
        }
        Next::Write(how) => {
            tracing::info!(generation = %id, attempt, owner = %found.owner, "taken over");
            metrics::takeovers(match how {
                OnTakeover::Continue => "continued",
                OnTakeover::Restart => "restarted",
            })
            .increment(1);
            let start = start(&claimed, left, how, is_pending);
            run::attempt(shared, claimed, run, start).await;
        }
    }
}

/// Leaves a claimed generation to a node that can read its text.
async fn leave(shared: &Shared, claimed: &Generation, error: &ReadError) {
    tracing::warn!(generation = %claimed.id, %error, "read what was left of a generation");
    shared.pause_claims(PAUSE_AFTER_UNREAD);
    let node = shared.options.node;
    if let Err(error) = shared.store.release(claimed.id, node, claimed.attempt).await {
        tracing::debug!(generation = %claimed.id, %error, "release");
    }
}

async fn read(shared: &Shared, claimed: &Generation, is_pending: bool) -> Result<Left, ReadError> {
    let Generation { id, session, attempt, .. } = claimed;
    // First: nothing is added to it afterwards.
    let text = shared.adapter.take_text(session, *id, *attempt).await?;
    let mut left = Left { text, ..Left::default() };
    in_log(shared, session, |kind| match kind {
        EventKind::MessageNew(message) => left.has_prompt |= message.id == claimed.prompt,
        kind if kind.generation() == Some(*id) => left.note(kind),
        _ => {}
    })
    .await?;
    if is_pending {
        left.announce = shared.store.outbox_between(session, 0, u64::MAX).await?;
    } else {
        left.tally = shared.adapter.tallied(session, *id).await.ok().flatten().unwrap_or_default();
    }
    if matches!(next(shared, claimed, &left), Next::Write(OnTakeover::Restart)) {
        shared.adapter.drop_text(session, *id, *attempt).await?;
        left.text.clear();
    }
    Ok(left)
}

impl Left {
    fn note(&mut self, kind: &EventKind) {
        self.is_logged = true;
        match kind {
            // What follows may have another length.
            EventKind::GenerationResumed { attempt, .. }
            | EventKind::GenerationReset { attempt, .. }
                if *attempt >= self.newest =>
            {
                self.newest = *attempt;
                self.ended = None;
            }
            // A node that was frozen may say late that its own text was whole.
            EventKind::GenerationEnded { attempt, reason, usage, length, .. }
                if *attempt >= self.newest =>
            {
                self.ended = Some((reason.clone(), *usage, *length));
            }
            EventKind::StageChanged { stage, .. } => {
                self.stages.insert(stage.index, stage.clone());
            }
            _ => {}
        }
    }

    /// Why the provider ended, and at which cost, where the whole text is there.
    fn whole(&self) -> Option<(StopReason, Usage)> {
        let (reason, usage, length) = self.ended.as_ref()?;
        (*length == self.text.len() as u64).then(|| (reason.clone(), *usage))
    }
}

fn next(shared: &Shared, claimed: &Generation, left: &Left) -> Next {
    if let Some(by) = &claimed.stop_requested {
        let usage = left.whole().map(|(_, usage)| usage).unwrap_or_default();
        return Next::End(Outcome::Stopped { by: by.clone() }, usage);
    }
    if let Some((reason, usage)) = left.whole() {
        return Next::End(Outcome::Completed { reason }, usage);
    }
    match shared.voices.speaker(&claimed.agent) {
        Some(solo) if claimed.attempt <= ATTEMPT_MAX && claimed.losses <= LOSSES_MAX => {
            Next::Write(solo.on_takeover)
        }
        _ => Next::End(gone(), Usage::default()),
    }
}

fn first_token(claimed: &Generation, tally: Tally) -> Option<Timestamp> {
    let after = i64::try_from(tally.first_token_ms?).ok()?;
    Some(Timestamp::from_millis(claimed.created_at.as_millis().saturating_add(after)))
}

async fn end(shared: &Shared, claimed: &Generation, left: Left, outcome: Outcome, usage: Usage) {
    let tally = left.tally;
    let mut finish = end_of(claimed, outcome, left.text);
    if usage != Usage::default() {
        finish.tokens = usage.output_tokens;
        finish.usage = usage;
    }
    finish.first_token_at = finish.first_token_at.or(first_token(claimed, tally));
    finish.errors = tally.errors;
    let speaker = shared.voices.speaker(&claimed.agent);
    let provider = speaker.map_or("unknown", |solo| solo.provider.id());
    Meter::new(provider, claimed.agent.as_str()).ended(&finish.outcome, finish.usage);
    store_and_tell(shared, claimed, &finish).await;
}

fn start(claimed: &Generation, mut left: Left, how: OnTakeover, is_pending: bool) -> Start {
    let Generation { id: generation, message, attempt, .. } = *claimed;
    let agent = claimed.agent.clone();
    let opening = if !left.is_logged && (is_pending || left.has_prompt) {
        EventKind::GenerationStarted { generation, message, agent, attempt }
    } else if how == OnTakeover::Restart || (left.text.is_empty() && !left.is_logged) {
        // Where the log was lost nobody knows what readers were shown.
        let reason = "Another node starts this answer over".to_owned();
        EventKind::GenerationReset { generation, message, agent, attempt, reason }
    } else {
        let (offset, utf16_offset) = (left.text.len() as u64, utf16_len(&left.text));
        EventKind::GenerationResumed { generation, message, agent, attempt, offset, utf16_offset }
    };
    Start {
        is_first: false,
        announce: std::mem::take(&mut left.announce),
        opening,
        stages: left.stages.into_values().collect(),
        first_token: first_token(claimed, left.tally),
        errors: left.tally.errors,
        text: left.text,
    }
}

/// Whether the log says that a later attempt has replaced this one.
pub(super) async fn was_replaced(
    shared: &Shared,
    session: &SessionId,
    id: GenerationId,
    attempt: u32,
) -> Result<bool, AdapterError> {
    let mut was_replaced = false;
    in_log(shared, session, |kind| match kind {
        EventKind::GenerationStarted { generation, attempt: newer, .. }
        | EventKind::GenerationResumed { generation, attempt: newer, .. }
        | EventKind::GenerationReset { generation, attempt: newer, .. } => {
            was_replaced |= *generation == id && *newer > attempt;
        }
        _ => {}
    })
    .await?;
    Ok(was_replaced)
}

/// Goes through a session's log, whose length is bounded.
async fn in_log(
    shared: &Shared,
    session: &SessionId,
    mut each: impl FnMut(&EventKind),
) -> Result<(), AdapterError> {
    let mut after = Position::default();
    loop {
        let page = shared.adapter.read(session, after, PAGE).await?;
        for (position, event) in &page.events {
            each(&event.kind);
            after = *position;
        }
        if !page.has_more || page.events.is_empty() {
            return Ok(());
        }
    }
}
