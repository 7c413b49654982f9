//! Users' devices, across the nodes. Each node states how many devices of a user it has; its
//! statements are numbered, and the last one holds.

use std::sync::Arc;

use futures::future::join;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::super::{AdapterError, Connected};
use super::log::{ms, number};
use super::nodes::{Held, VOUCHED, hold, let_go};
use super::scripts::call;
use super::subscriber::BATCH;
use super::{Shared, State, devices_key, unavailable};
use crate::domain::{NodeId, Presence, Timestamp, UserId};

/// How long it is known when a user was last seen: 30 days.
const SEEN_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// What this node knows of a user's devices.
#[derive(Default)]
pub(super) struct Devices {
    /// How many this node has.
    count: u32,
    /// How many of them wait for their turn to be stated.
    waiting: u32,
    /// Devices that come are stated one after the other. Stated together, those that will be
    /// refused would take room from those that come to another node at the same time.
    turn: Arc<Mutex<()>>,
    /// Whether one of them counted, and the user is not settled since.
    counted: bool,
    /// Whether Redis could not be told that the user is to be settled.
    settling: bool,
    /// The number of the last statement.
    stated: u64,
}

/// How many devices of a user this node has, as it says so.
struct Statement {
    label: String,
    count: u32,
    number: u64,
}

impl State {
    /// Changes what this node knows of a user's devices, and states it. `None` where it knows
    /// nothing, or the change says that there is nothing to state.
    fn restate(
        &mut self,
        node: NodeId,
        user: &UserId,
        change: impl FnOnce(&mut Devices) -> bool,
    ) -> Option<Statement> {
        let (number, label) = (self.stated + 1, self.label(node));
        let devices = self.devices.get_mut(user)?;
        if !change(devices) {
            return None;
        }
        devices.stated = number;
        self.stated = number;
        let count = devices.count.saturating_sub(devices.waiting);
        Some(Statement { label, count, number })
    }
}

pub(super) async fn connect(
    shared: &Shared,
    user: &UserId,
    max: u32,
) -> Result<Connected, AdapterError> {
    let (new, turn) = {
        let mut state = shared.state();
        let new = !state.devices.contains_key(user);
        let devices = state.devices.entry(user.clone()).or_default();
        // From now on, since whoever gives up waiting takes back that it was there.
        devices.count += 1;
        devices.waiting += 1;
        devices.settling = false;
        (new, devices.turn.clone())
    };
    let waiting = Waiting { shared, user };
    // Where nobody is refused, nobody waits.
    let _turn = if max == 0 { None } else { Some(turn.lock().await) };
    drop(waiting);
    let statement = {
        let mut state = shared.state();
        state.devices.entry(user.clone()).or_default();
        let statement = state.restate(shared.node, user, |_| true);
        statement.expect("it is known since the line above")
    };
    let holding = async {
        if new {
            // Where this fails, the renewal says it again.
            let _ = hold(shared, &statement.label, vec![Held::User(user.clone())]).await;
        }
    };
    let ((), answer) = join(holding, tell(shared, user, &statement, max)).await;
    if matches!(answer, Ok(-1)) {
        refuse(shared, user, &statement).await;
        return Ok(Connected::TooMany);
    }
    if let Some(devices) = shared.state().devices.get_mut(user) {
        devices.counted = true;
    }
    Ok(Connected::Yes { first: answer? == 1 })
}

/// A device that waits for its turn.
struct Waiting<'a> {
    shared: &'a Shared,
    user: &'a UserId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(devices) = self.shared.state().devices.get_mut(self.user) {
            devices.waiting = devices.waiting.saturating_sub(1);
        }
    }
}

/// Takes back that one more device was there.
async fn refuse(shared: &Shared, user: &UserId, refused: &Statement) {
    let less = |devices: &mut Devices| {
        devices.count = devices.count.saturating_sub(1);
        // What was stated since then counted it.
        devices.stated > refused.number
    };
    let statement = shared.state().restate(shared.node, user, less);
    if let Some(statement) = statement {
        let _ = tell(shared, user, &statement, 0).await;
    }
    forget(shared, user, |devices| devices.count == 0 && !devices.counted).await;
}

pub(super) async fn disconnect(shared: &Shared, user: &UserId) -> Result<(), AdapterError> {
    let less = |devices: &mut Devices| {
        let any = devices.count > 0;
        devices.count = devices.count.saturating_sub(1);
        any
    };
    let statement = shared.state().restate(shared.node, user, less);
    let Some(statement) = statement else { return Ok(()) };
    tell(shared, user, &statement, 0).await.map(drop)
}

pub(super) async fn settle(shared: &Shared, user: &UserId) -> Result<bool, AdapterError> {
    if shared.state().devices.get(user).is_some_and(|devices| devices.count > 0) {
        return Ok(false);
    }
    let settled = take_offline(shared, user, "").await;
    if settled.is_ok() {
        forget(shared, user, |devices| devices.count == 0).await;
    } else if let Some(devices) = shared.state().devices.get_mut(user) {
        devices.settling = true;
    }
    settled
}

/// Takes a user offline who has no device any more, after taking those of a dead node from them.
/// `true` where the user was online.
pub(super) async fn take_offline(
    shared: &Shared,
    user: &UserId,
    dead: &str,
) -> Result<bool, AdapterError> {
    let settled: u64 =
        call(&shared.commands, &shared.scripts.settle, vec![devices_key(user)], vec![dead.into()])
            .await
            .map_err(|source| unavailable("settle a user", source))?;
    Ok(settled == 1)
}

pub(super) async fn presence(
    shared: &Shared,
    users: &[UserId],
) -> Result<Vec<Presence>, AdapterError> {
    stream::iter(users.iter().cloned())
        .map(|user| async move {
            let (devices, seen, now): (u64, i64, i64) = call(
                &shared.commands,
                &shared.scripts.devices,
                vec![devices_key(&user)],
                Vec::new(),
            )
            .await
            .map_err(|source| unavailable("read presence", source))?;
            let seen = if devices > 0 { now } else { seen };
            let last_seen_at = (seen > 0).then(|| Timestamp::from_millis(seen));
            Ok(Presence { user, devices, last_seen_at })
        })
        .buffered(BATCH)
        .try_collect()
        .await
}

/// States again how many devices of a user this node has; carries out what could not be.
/// `true` where the user was taken offline.
pub(super) async fn renew(shared: &Shared, user: &UserId) -> Result<bool, AdapterError> {
    let mut settling = false;
    let again = |devices: &mut Devices| {
        settling = devices.settling && devices.count == 0;
        true
    };
    let statement = shared.state().restate(shared.node, user, again);
    let Some(statement) = statement else { return Ok(false) };
    tell(shared, user, &statement, 0).await?;
    if settling { settle(shared, user).await } else { Ok(false) }
}

/// -1: there would be too many; 1: the user was offline.
async fn tell(
    shared: &Shared,
    user: &UserId,
    statement: &Statement,
    max: u32,
) -> Result<i64, AdapterError> {
    call(
        &shared.commands,
        &shared.scripts.state_devices,
        vec![devices_key(user)],
        vec![
            statement.label.as_str().into(),
            number(u64::from(statement.count)),
            number(statement.number),
            number(ms(VOUCHED)),
            number(u64::from(max)),
            number(SEEN_KEPT_MS),
        ],
    )
    .await
    .map_err(|source| unavailable("state devices", source))
}

/// Forgets a user, where `done` says so; others need not take them out any more.
async fn forget(shared: &Shared, user: &UserId, done: impl FnOnce(&Devices) -> bool) {
    let label = {
        let mut state = shared.state();
        if !state.devices.get(user).is_some_and(done) {
            return;
        }
        state.devices.remove(user);
        state.label(shared.node)
    };
    let_go(shared, &label, vec![Held::User(user.clone())]).await;
}
