//! What a node looks after beside its generations: what other nodes tell it, stops that it was not
//! told of, whether what it runs is still its own, Redis, and how far each one is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::lease::BEAT_EVERY;
use super::order::{Order, Run};
use super::run::{self, Start};
use super::{Shared, Slot};
use crate::adapter::Notice;
use crate::domain::{GenerationId, Status};
use crate::store::StoreError;

/// How long the database may take to answer; it is asked again a moment later.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// At every so many looks what is this node's is compared with what it runs, though nothing
/// happened.
const COMPARED_EVERY: u32 = 10;
/// How long Redis has to be away from this node alone before its generations go to another.
/// Two nodes find that out within half a second of each other, and say so half a second later.
const AWAY_FOR: Duration = Duration::from_secs(1);
/// How long another has to have it then: where it comes back to all, it does so within as long, and
/// who runs a generation has text that the log has not.
const HEIR_FOR: Duration = Duration::from_millis(1500);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many tallies are told at once.
const TALLIES_AT_ONCE: usize = 16;

/// Does what other nodes ask for.
pub(super) async fn listen(shared: Arc<Shared>, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Stop { generation, by } => {
                shared.tell(generation, Order::Stop(by));
            }
            Notice::Run { generation } => match shared.reserve() {
                Some(slot) => run_accepted(&shared, generation, slot),
                None => refuse(&shared, generation),
            },
        }
    }
}

/// Runs what another node has accepted for this one. Where the word comes late, another has
/// claimed it.
fn run_accepted(shared: &Arc<Shared>, id: GenerationId, slot: Slot) {
    let own = shared.clone();
    shared.runs.spawn(async move {
        let generation = match timeout(ANSWERED_WITHIN, own.store.generation(id)).await {
            Ok(Ok(Some(generation))) => generation,
            // It is found by its age in a moment.
            _ => return tracing::debug!(generation = %id, "read what is to be run"),
        };
        let is_mine = generation.owner == own.options.node && generation.attempt == 1;
        if own.voices.speaker(&generation.agent).is_none() {
            // Whoever chose this node has another configuration.
            return refuse(&own, id);
        }
        if is_mine && generation.status == Status::Pending {
            let run = Run::new(generation.session.clone(), generation.attempt);
            run.owned();
            own.run(id, run, slot, |shared, run| async move {
                let start = Start::first(&generation, Vec::new());
                run::attempt(&shared, generation, &run, start).await;
            });
        }
    });
}

/// Leaves what was to be run here to others, at once; where too much of that is under way, they
/// find it by its age.
fn refuse(shared: &Arc<Shared>, id: GenerationId) {
    if shared.running().contains_key(&id) {
        // The word came twice.
        return;
    }
    let Ok(permit) = shared.claims.clone().try_acquire_owned() else { return };
    let own = shared.clone();
    shared.runs.spawn(async move {
        let _permit = permit;
        let released = own.store.release(id, own.options.node, 1);
        if !matches!(timeout(ANSWERED_WITHIN, released).await, Ok(Ok(true))) {
            tracing::debug!(generation = %id, "release what there is no room for");
        }
    });
}

/// Finds the stops that the node was not told of, and compares what it runs with what is its own:
/// now and then, and where its lease had lapsed.
pub(super) async fn check(shared: Arc<Shared>) {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut strays = HashSet::new();
    let mut looks = 0u32;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.doubted.notified() => {}
        }
        looks = looks.wrapping_add(1);
        let in_doubt = shared.in_doubt.load(Ordering::Acquire);
        if in_doubt || looks.is_multiple_of(COMPARED_EVERY) {
            match timeout(ANSWERED_WITHIN, compare(&shared, &mut strays)).await {
                Ok(Ok(())) if in_doubt => shared.in_doubt.store(false, Ordering::Release),
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "ask whose the generations are"),
                Err(_) => tracing::debug!("ask whose the generations are: it takes long"),
            }
        }
        if shared.running().is_empty() {
            continue;
        }
        match timeout(ANSWERED_WITHIN, shared.store.stop_requests(shared.options.node)).await {
            Ok(Ok(stops)) => {
                for (generation, by) in stops {
                    shared.tell(generation, Order::Stop(by));
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "read stop requests"),
            Err(_) => tracing::debug!("read stop requests: it takes long"),
        }
    }
}

/// Ends here what is another's by now. What is this node's and does not run here, twice in a row,
/// is left to whoever claims it: its claim's answer was lost, or its end was refused.
async fn compare(shared: &Shared, strays: &mut HashSet<GenerationId>) -> Result<(), StoreError> {
    let before: Vec<_> = {
        let running = shared.running();
        let owned = running.iter().filter(|(_, run)| run.is_owned());
        owned.map(|(id, run)| (*id, run.clone())).collect()
    };
    let node = shared.options.node;
    let owned: HashMap<_, _> = shared.store.owned(node).await?.into_iter().collect();
    for (id, run) in before {
        if owned.get(&id) != Some(&run.attempt) {
            run.tell(Order::Leave);
        }
    }
    let mut found = HashSet::new();
    for (id, attempt) in owned {
        if shared.running().contains_key(&id) {
            continue;
        }
        if strays.contains(&id) {
            tracing::warn!(generation = %id, "this node's, but it does not run: left to any");
            shared.store.lose(id, node, attempt).await?;
        } else {
            found.insert(id);
        }
    }
    *strays = found;
    Ok(())
}

/// Hands over what runs here where only this node is without Redis.
pub(super) async fn hand_over_without_redis(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away_since = None;
    let mut heir_since = None;
    loop {
        ticks.tick().await;
        if shared.adapter.is_up() {
            heir_since = None;
            if away_since.take().is_some() {
                shared.beat_now.notify_one();
            }
            continue;
        }
        let since: &mut Instant = away_since.get_or_insert_with(|| {
            // Nobody hands over to a node that is without Redis, too.
            shared.beat_now.notify_one();
            Instant::now()
        });
        let is_away = since.elapsed() >= AWAY_FOR;
        if !is_away || shared.running().is_empty() || !shared.has_heir().await {
            heir_since = None;
            continue;
        }
        let since: &mut Instant = heir_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= HEIR_FOR {
            tracing::warn!(generations = shared.running().len(), "no Redis: handing over");
            shared.tell_all(&Order::HandOver);
        }
    }
}

/// Says how far the generations are, where that has changed.
pub(super) async fn tally(shared: Arc<Shared>) {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !shared.adapter.is_up() {
            continue;
        }
        let changed: Vec<_> = {
            let running = shared.running();
            let news = running.iter().filter_map(|(id, run)| Some((*id, run.clone(), run.news()?)));
            news.collect()
        };
        let adapter = &shared.adapter;
        let told = stream::iter(changed).map(|(id, run, tally)| async move {
            if let Err(error) = adapter.tally(&run.session, id, tally).await {
                tracing::debug!(generation = %id, %error, "tally");
            }
        });
        told.buffer_unordered(TALLIES_AT_ONCE).for_each(async |()| {}).await;
    }
}
