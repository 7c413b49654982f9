//! Who is in a session, across the nodes.

use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;
use futures::future::join;

use super::super::{
    AdapterError, Arrival, Connected, Departure, ONLINE_LISTED_MAX, Online, Presence,
};
use super::log::{ms, number};
use super::nodes::{Held, VOUCHED, hold, let_go};
use super::scripts::call;
use super::{Redis, Shared, devices, online_key, recent_key, unavailable};
use crate::domain::{self, SessionId, UserId};

/// How long it is known who was in a session.
const RECENT_KEPT: Duration = Duration::from_secs(60 * 60);
/// Of how many in each session.
const RECENT_MAX: u64 = 10_000;
/// The most users whose leaving is told to Redis once it answers; of others, others learn late.
const LEAVING_MAX: usize = 10_000;

#[async_trait]
impl Presence for Redis {
    async fn connect(&self, user: &UserId, max: u32) -> Result<Connected, AdapterError> {
        devices::connect(&self.shared, user, max).await
    }

    async fn disconnect(&self, user: &UserId) -> Result<(), AdapterError> {
        devices::disconnect(&self.shared, user).await
    }

    async fn settle(&self, user: &UserId) -> Result<bool, AdapterError> {
        devices::settle(&self.shared, user).await
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<domain::Presence>, AdapterError> {
        devices::presence(&self.shared, users).await
    }

    async fn online(&self, session: &SessionId) -> Result<Online, AdapterError> {
        let listed: Vec<String> = call(
            &self.shared.commands,
            &self.shared.scripts.online,
            vec![recent_key(session)],
            vec![number(ONLINE_LISTED_MAX as u64)],
        )
        .await
        .map_err(|source| unavailable("read presence", source))?;
        Ok(online(&listed))
    }

    async fn was_in(
        &self,
        session: &SessionId,
        user: &UserId,
        window: Duration,
    ) -> Result<bool, AdapterError> {
        let was: u64 = call(
            &self.shared.commands,
            &self.shared.scripts.was_in,
            vec![recent_key(session)],
            vec![user.as_str().into(), number(ms(window))],
        )
        .await
        .map_err(|source| unavailable("read presence", source))?;
        Ok(was == 1)
    }

    async fn enter(&self, session: &SessionId, user: &UserId) -> Result<Arrival, AdapterError> {
        let shared = &self.shared;
        let label = {
            let mut state = shared.state();
            let present = (session.clone(), user.clone());
            state.leaving.remove(&present);
            state.present.insert(present);
            state.label(shared.node)
        };
        let held = vec![Held::InSession(session.clone(), user.clone())];
        // Where the first fails, the renewal says it again.
        let (_, entered) =
            join(hold(shared, &label, held), vouch(shared, session, user, ONLINE_LISTED_MAX)).await;
        let entered = entered?;
        let first = entered.first().is_some_and(|first| first == "1");
        Ok(Arrival { first, online: online(entered.get(1..).unwrap_or_default()) })
    }

    async fn leave(&self, session: &SessionId, user: &UserId) -> Result<Departure, AdapterError> {
        let shared = &self.shared;
        let present = (session.clone(), user.clone());
        let label = {
            let mut state = shared.state();
            state.present.remove(&present);
            state.label(shared.node)
        };
        let left = match take_out(shared, &label, session, std::slice::from_ref(user)).await {
            Ok(left) => left,
            Err(error) => {
                let mut state = shared.state();
                if state.leaving.len() < LEAVING_MAX && !state.present.contains(&present) {
                    state.leaving.insert(present);
                }
                return Err(error);
            }
        };
        {
            let mut state = shared.state();
            state.leaving.remove(&present);
            if state.present.contains(&present) {
                return Ok(Departure { last: !left.users.is_empty(), online: left.online });
            }
        }
        let_go(shared, &label, vec![Held::InSession(session.clone(), user.clone())]).await;
        Ok(Departure { last: !left.users.is_empty(), online: left.online })
    }
}

/// Says that this node has a device of the user there. Answers as the script does.
pub(super) async fn vouch(
    shared: &Shared,
    session: &SessionId,
    user: &UserId,
    listed_max: usize,
) -> Result<Vec<String>, AdapterError> {
    call(
        &shared.commands,
        &shared.scripts.enter,
        vec![online_key(session), recent_key(session)],
        vec![
            user.as_str().into(),
            shared.label().into(),
            number(ms(VOUCHED)),
            number(ms(RECENT_KEPT)),
            number(RECENT_MAX),
            number(listed_max as u64),
        ],
    )
    .await
    .map_err(|source| unavailable("write presence", source))
}

/// Who was taken out of a session.
pub(super) struct TakenOut {
    /// Those who had no device there but the node's.
    pub users: Vec<UserId>,
    /// How many are there now.
    pub online: u64,
}

/// Says that a node has no device of some users there any more.
pub(super) async fn take_out(
    shared: &Shared,
    label: &str,
    session: &SessionId,
    users: &[UserId],
) -> Result<TakenOut, AdapterError> {
    let arguments: Vec<Value> =
        std::iter::once(label).chain(users.iter().map(UserId::as_str)).map(Value::from).collect();
    let left: Vec<String> = call(
        &shared.commands,
        &shared.scripts.leave,
        vec![online_key(session), recent_key(session)],
        arguments,
    )
    .await
    .map_err(|source| unavailable("write presence", source))?;
    let Online { users, count } = online(&left);
    Ok(TakenOut { users, online: count })
}

/// Reads `{count, users…}`.
fn online(listed: &[String]) -> Online {
    let count = listed.first().and_then(|count| count.parse().ok()).unwrap_or(0);
    let users = listed.iter().skip(1).filter_map(|user| UserId::new(user).ok()).collect();
    Online { users, count }
}
