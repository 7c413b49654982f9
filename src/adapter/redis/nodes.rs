//! That this node lives, and what others take out if it dies.
//!
//! A node has a label, its id and how often it was taken for dead, and vouches under it: for a
//! user in a session, for a user's devices. What it vouches for is *held*: listed under a key of
//! the label's own, so that another node can take it out (`sweep.rs`). Besides, it is said again
//! every 30 s and expires after 90 s, in case that the list and what it lists were lost apart.

use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::{ClientLike, KeysInterface, SortedSetsInterface};
use fred::types::Value;
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{Absence, AdapterError, Presence};
use super::log::{ms, number};
use super::presence::vouch;
use super::scripts::call;
use super::subscriber::BATCH;
use super::sweep::{self, tell};
use super::{Redis, Shared, devices, held_key, unavailable};
use crate::domain::{SessionId, UserId};
use crate::lifecycle::Tasks;
use crate::telemetry::metrics;

/// How long a node vouches for what it has; said again every third of it.
pub(super) const VOUCHED: Duration = Duration::from_secs(90);
/// How long the list of what a node has outlives it.
const HELD_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// The sorted set of the nodes that live.
const LIVING: &str = "tc:nodes";
/// The sorted set of the dead whose users are to be taken out.
pub(super) const DEAD: &str = "tc:{tc:nodes}:dead";

/// What a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// Devices, or users who are not settled yet.
    User(UserId),
    /// A user in a session.
    InSession(SessionId, UserId),
}

impl Held {
    fn write(&self) -> String {
        match self {
            Self::User(user) => format!("u{user}"),
            Self::InSession(session, user) => format!("s{session}\n{user}"),
        }
    }

    pub(super) fn read(member: &str) -> Option<Self> {
        if let Some(user) = member.strip_prefix('u') {
            return UserId::new(user).ok().map(Self::User);
        }
        let (session, user) = member.strip_prefix('s')?.split_once('\n')?;
        Some(Self::InSession(SessionId::new(session).ok()?, UserId::new(user).ok()?))
    }
}

/// Starts saying that this node lives, taking out the users of those that do not, and saying
/// again what this node has. At the end the others are told that they may take that out soon.
pub(super) fn start(shared: &Arc<Shared>, tasks: &Tasks) {
    let (claim, claimed) = mpsc::channel(1);
    let (stop, own) = (tasks.stopping().clone(), shared.clone());
    tasks.spawn(async move {
        stop.run_until_cancelled(beat(&own, claim)).await;
        let _ = timeout(Duration::from_secs(1), resign(&own)).await;
    });
    let (stop, own) = (tasks.stopping().clone(), shared.clone());
    tasks.spawn(async move {
        stop.run_until_cancelled(sweep::sweep_claimed(&own, claimed)).await;
    });
    let (stop, own) = (tasks.stopping().clone(), shared.clone());
    tasks.spawn(async move {
        stop.run_until_cancelled(renew(&own)).await;
    });
}

/// How long a dead node is claimed, and how long those of one that resigned have to connect
/// elsewhere.
pub(super) fn claimed_for(shared: &Shared) -> Duration {
    shared.options.dead_after * 3 / 5
}

/// Says that this node lives, and claims who does not.
async fn beat(shared: &Shared, claim: mpsc::Sender<String>) {
    let mut ticks = interval(shared.options.dead_after / 5);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut since, mut last, mut first) = (0, 0, true);
    loop {
        ticks.tick().await;
        let (label, buried) = {
            let state = shared.state();
            let buried = if first { state.buried.clone() } else { None };
            (state.label(shared.node), buried.unwrap_or_default())
        };
        let idle = claim.capacity() > 0 && shared.sinks.get().is_some();
        let wanted = if idle { claimed_for(shared) } else { Duration::ZERO };
        let answer: Result<(u64, u64, u64, String), _> = call(
            &shared.commands,
            &shared.scripts.beat,
            vec![LIVING.to_owned(), DEAD.to_owned()],
            vec![
                label.as_str().into(),
                number(ms(shared.options.dead_after)),
                number(since),
                number(last),
                number(u64::from(first)),
                buried.into(),
                number(ms(wanted)),
            ],
        )
        .await;
        match answer {
            Ok((0, ..)) => {
                tracing::warn!("this node was taken for dead; saying again what it has");
                (since, last, first) = (0, 0, true);
                {
                    let mut state = shared.state();
                    state.deaths += 1;
                    state.buried = Some(label);
                }
                ticks.reset_immediately();
            }
            Ok((regular_since, now, living, dead)) => {
                (since, last) = (regular_since, now);
                if std::mem::take(&mut first) {
                    shared.renew.notify_one();
                }
                metrics::handles().cluster_nodes.set(living as f64);
                if !dead.is_empty() {
                    let _ = claim.try_send(dead);
                }
            }
            Err(error) => tracing::debug!(%error, "say that this node lives"),
        }
    }
}

/// Leaves this node's users to the others, who wait a little: clients are on their way to them.
async fn resign(shared: &Shared) {
    let _: Result<Value, _> = call(
        &shared.commands,
        &shared.scripts.resign,
        vec![LIVING.to_owned(), DEAD.to_owned()],
        vec![shared.label().into(), number(ms(claimed_for(shared)))],
    )
    .await;
    let _ = shared.subscriber.quit().await;
    let _ = shared.commands.quit().await;
}

/// Says again what this node has: from time to time, and when Redis may not have heard of it.
async fn renew(shared: &Arc<Shared>) {
    let mut ticks = interval(VOUCHED / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.renew.notified() => ticks.reset(),
        }
        let (label, buried, present, users, leaving) = {
            let state = shared.state();
            let present: Vec<_> = state.present.iter().cloned().collect();
            let users: Vec<_> = state.devices.keys().cloned().collect();
            let leaving: Vec<_> = state.leaving.iter().cloned().collect();
            (state.label(shared.node), state.buried.clone(), present, users, leaving)
        };
        let held: Vec<Held> = (users.iter().cloned().map(Held::User))
            .chain(present.iter().cloned().map(|(session, user)| Held::InSession(session, user)))
            .collect();
        // What was under way when others took this node for dead may still have been written
        // under its old label.
        if let Some(buried) = buried
            && hold(shared, &buried, held.clone()).await.is_ok()
        {
            let mut state = shared.state();
            state.buried.take_if(|still| *still == buried);
        }
        if hold(shared, &label, held).await.is_err() {
            continue;
        }
        let _: Result<Value, _> =
            shared.commands.pexpire(held_key(&label), HELD_KEPT_MS, None).await;
        stream::iter(present)
            .for_each_concurrent(BATCH, |(session, user)| async move {
                let _ = vouch(shared, &session, &user, 0).await;
            })
            .await;
        stream::iter(users)
            .for_each_concurrent(BATCH, |user| async move {
                if let Ok(true) = devices::renew(shared, &user).await {
                    tell(shared, Absence::Offline { user }).await;
                }
            })
            .await;
        leave_late(shared, leaving).await;
    }
}

/// Takes out those whose leaving Redis could not be told.
async fn leave_late(shared: &Arc<Shared>, leaving: Vec<(SessionId, UserId)>) {
    let redis = &Redis { shared: shared.clone() };
    stream::iter(leaving)
        .for_each_concurrent(BATCH, |(session, user)| async move {
            let still = redis.shared.state().leaving.contains(&(session.clone(), user.clone()));
            if !still {
                return;
            }
            if let Ok(departure) = redis.leave(&session, &user).await
                && departure.last
            {
                let online = departure.online;
                tell(shared, Absence::Left { session, user, online }).await;
            }
        })
        .await;
}

/// Lists what this node has, under a label of its own.
pub(super) async fn hold(
    shared: &Shared,
    label: &str,
    held: Vec<Held>,
) -> Result<(), AdapterError> {
    let key = held_key(label);
    for some in held.chunks(BATCH) {
        let members: Vec<(f64, String)> = some.iter().map(|held| (0.0, held.write())).collect();
        let _: Value = shared
            .commands
            .zadd(key.clone(), None, None, false, false, members)
            .await
            .map_err(|source| unavailable("list what is held", source))?;
    }
    Ok(())
}

/// Takes something off the list. Where that fails, taking it out once more changes nothing.
pub(super) async fn let_go(shared: &Shared, label: &str, held: Vec<Held>) {
    let members: Vec<String> = held.iter().map(Held::write).collect();
    let _: Result<Value, _> = shared.commands.zrem(held_key(label), members).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_reads_back_as_it_was_written() {
        let user = UserId::new("s:1 u=;{x}").unwrap();
        let session = SessionId::new("u:1").unwrap();
        for held in [Held::User(user.clone()), Held::InSession(session, user)] {
            assert_eq!(Held::read(&held.write()), Some(held));
        }
        for garbage in ["", "u", "s", "sx", "sx\n", "s{\nada", "xada"] {
            assert_eq!(Held::read(garbage), None, "{garbage}");
        }
    }
}
