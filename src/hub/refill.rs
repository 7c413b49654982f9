//! Reading what was not heard: opening a tail, filling its gaps, comparing heads, and letting go
//! of sessions that nobody watches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Shared;
use super::sent;
use super::tail::{Applied, Gate, Tail};
use crate::adapter::AdapterError;
use crate::domain::{GenerationId, Position};
use crate::telemetry::metrics;

/// How many events one read of a log brings.
const PAGE: u64 = 128;
/// How many tails compare heads or close at once.
const TAILS_AT_ONCE: usize = 64;
/// How often idle tails are looked for.
const IDLE_EVERY: Duration = Duration::from_secs(1);
/// How long a reader that joins waits for the tail to hear what it has heard of.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long an attempt that has taken a text may take to say so in the log, before whoever joins
/// with more of that text starts over.
pub(super) const TAKEN_FOR: Duration = Duration::from_millis(250);
/// How often such a reader's tail looks whether it has.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// The longest pause between two tries to fill a gap.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Opens a tail: hear the session first, then read what is there, then apply what was heard
/// meanwhile. Called under the tail's gate.
///
/// # Cancel safety
/// Dropped, the tail stays as it was and may be opened again.
pub(super) async fn open(shared: &Shared, tail: &Tail) -> Result<(), AdapterError> {
    shared.adapter.subscribe(&tail.session).await?;
    let mut pause = Duration::from_millis(5);
    loop {
        read_on(shared, tail).await?;
        if tail.state().end_refill(&shared.dialects) == Applied::Yes {
            return Ok(());
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Fills a tail's gap in a task of its own. The tail holds back what arrives until it is filled.
pub(super) fn spawn(shared: &Shared, tail: Arc<Tail>) {
    metrics::handles().gap_refills.increment(1);
    let Some(shared) = shared.own() else { return };
    let stop = shared.tasks.stopping().clone();
    shared.tasks.clone().spawn(async move {
        stop.run_until_cancelled(refill(&shared, &tail)).await;
    });
}

async fn refill(shared: &Shared, tail: &Tail) {
    let mut pause = Duration::from_millis(5);
    while *tail.gate.lock().await != Gate::Closed {
        match read_on(shared, tail).await {
            Ok(()) if tail.state().end_refill(&shared.dialects) == Applied::Yes => break,
            Ok(()) => {}
            Err(error) => tracing::debug!(session = %tail.session, %error, "fill gap"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    tail.filled.notify_waiters();
}

/// Has a tail read on where it has not heard everything, and waits until it has, but not for long:
/// Redis may be away.
///
/// # Cancel safety
/// Dropped, it is read all the same.
pub(super) async fn look(shared: &Shared, tail: &Arc<Tail>) {
    let looked = async {
        compare(shared, tail, &AtomicBool::new(false)).await;
        loop {
            let filled = tail.filled.notified();
            if tail.state().is_live() {
                return;
            }
            filled.await;
        }
    };
    // Where it takes longer, the reader starts over what this node does not know.
    let _ = timeout(LOOK_WITHIN, looked).await;
}

/// Reads on from where the tail is: the log first, since its events say which texts there are.
async fn read_on(shared: &Shared, tail: &Tail) -> Result<(), AdapterError> {
    loop {
        let after = tail.state().cursor.position;
        let page = shared.adapter.read(&tail.session, after, PAGE).await?;
        let mut state = tail.state();
        if !page.contiguous
            && let Some((first, _)) = page.events.first()
        {
            if after != Default::default() {
                tracing::info!(session = %tail.session, %after, %first, "the log jumped");
            }
            state.jump(*first);
        }
        for (position, event) in &page.events {
            state.apply_read(&shared.dialects, *position, event);
        }
        if !page.has_more {
            break;
        }
    }
    let texts: Vec<(GenerationId, u32, u64)> = {
        let state = tail.state();
        state.running.iter().map(|r| (r.generation, r.attempt, r.text.len())).collect()
    };
    for (generation, attempt, from) in texts {
        let text = shared.adapter.text(&tail.session, generation, attempt, from).await?;
        tail.state().apply_text(&shared.dialects, generation, attempt, from, &text);
    }
    Ok(())
}

/// Compares heads when something may have been missed, and at long intervals anyway; lets go of
/// sessions that nobody watches. Ends with the hub.
pub(super) async fn watch_over(watched: Weak<Shared>) {
    let mut idle = interval(IDLE_EVERY);
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut compared = Instant::now();
    let mut owed = false;
    loop {
        let Some(shared) = watched.upgrade() else { return };
        tokio::select! {
            () = shared.dirty.notified() => owed = true,
            _ = idle.tick() => {}
        }
        let tails = shared.all_tails();
        // While Redis is away each try would only wait for its timeout. What is owed stays owed.
        let due = owed || compared.elapsed() >= shared.options.compare_every;
        if due && shared.adapter.is_up() {
            compared = Instant::now();
            // Where Redis went away meanwhile, they are compared again once it is back.
            let failed = AtomicBool::new(false);
            stream::iter(&tails)
                .for_each_concurrent(TAILS_AT_ONCE, |tail| compare(&shared, tail, &failed))
                .await;
            owed = failed.into_inner();
        }
        let linger = shared.options.linger;
        let idle_tails = tails.iter().filter(|tail| tail.state().is_idle(linger));
        stream::iter(idle_tails)
            .for_each_concurrent(TAILS_AT_ONCE, |tail| close(&shared, tail))
            .await;
    }
}

/// Fills a gap that nothing has shown, because the last thing that happened was missed. Says so
/// where the heads could not be compared.
async fn compare(shared: &Shared, tail: &Arc<Tail>, failed: &AtomicBool) {
    let (position, texts, lens) = {
        let state = tail.state();
        let texts: Vec<_> = state.running.iter().map(|r| (r.generation, r.attempt)).collect();
        let lens: Vec<_> = state.running.iter().map(|r| r.text.len()).collect();
        (state.cursor.position, texts, lens)
    };
    let Ok(head) = shared.adapter.head(&tail.session, &texts).await else {
        return failed.store(true, Ordering::Relaxed);
    };
    let longer = head.text_lens.iter().zip(&lens).any(|(there, here)| there > here);
    // Lower: Redis has lost what this tail has, and what follows may be new under old positions.
    // None at all: it has expired, or the next event begins a new epoch, which is a gap by itself.
    let differs = head.position != position && head.position != Position::default();
    // A replica that lacked the newest may have been appended to since, as far as this tail has come.
    let is_replaced = !differs && is_replaced(shared, tail, position).await;
    if is_replaced {
        tail.state().jump(Position { seq: 1, ..position });
    }
    if (differs || longer || is_replaced) && tail.state().begin_refill() {
        spawn(shared, tail.clone());
    }
}

/// Whether the log has another event at a position than the tail was given.
async fn is_replaced(shared: &Shared, tail: &Tail, position: Position) -> bool {
    let had = {
        let state = tail.state();
        let recent = state.recent.iter().rev().find(|recent| recent.position == Some(position));
        recent.map(|recent| recent.event.id)
    };
    let Some(had) = had else { return false };
    let before = Position { seq: position.seq.saturating_sub(1), ..position };
    match shared.adapter.read(&tail.session, before, 1).await {
        Ok(page) => {
            page.events.first().is_some_and(|(at, event)| *at == position && event.id != had)
        }
        Err(_) => false,
    }
}

/// Stops hearing a session, unless a reader has come.
async fn close(shared: &Shared, tail: &Tail) {
    let mut gate = tail.gate.lock().await;
    if *gate == Gate::Closed || !tail.state().is_idle(Duration::ZERO) {
        return;
    }
    sent::report(shared, tail).await;
    // Where this fails, Redis is away and the subscription with it.
    if let Err(error) = shared.adapter.unsubscribe(&tail.session).await {
        tracing::debug!(session = %tail.session, %error, "stop hearing a session");
    }
    *gate = Gate::Closed;
    shared.tails.write().unwrap_or_else(PoisonError::into_inner).remove(&tail.session);
}
