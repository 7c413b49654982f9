//! Who is in a session, across the nodes: a hash per session, each user's nodes with the time
//! until which they vouch for them.

use std::time::Duration;

use async_trait::async_trait;

use super::super::{
    AdapterError, Arrival, Connected, Departure, Limits, ONLINE_LISTED_MAX, Online, Presence,
};
use super::log::{ms, number};
use super::scripts::call;
use super::{Redis, Shared, online_key, unavailable};
use crate::domain::{self, Rate, SessionId, UserId};

/// How long a node vouches for a user; renewed every third of it.
pub(super) const VOUCHED: Duration = Duration::from_secs(9);

#[async_trait]
impl Presence for Redis {
    async fn connect(&self, _user: &UserId, _max: u32) -> Result<Connected, AdapterError> {
        todo!()
    }

    async fn disconnect(&self, _user: &UserId) -> Result<(), AdapterError> {
        todo!()
    }

    async fn settle(&self, _user: &UserId) -> Result<bool, AdapterError> {
        todo!()
    }

    async fn presence(&self, _users: &[UserId]) -> Result<Vec<domain::Presence>, AdapterError> {
        todo!()
    }

    async fn online(&self, _session: &SessionId) -> Result<Online, AdapterError> {
        todo!()
    }

    async fn was_in(
        &self,
        _session: &SessionId,
        _user: &UserId,
        _window: Duration,
    ) -> Result<bool, AdapterError> {
        todo!()
    }

    async fn enter(&self, session: &SessionId, user: &UserId) -> Result<Arrival, AdapterError> {
        let shared = &self.shared;
        shared.state().present.insert((session.clone(), user.clone()));
        let (others, _) = vouch(shared, session, user, VOUCHED).await?;
        let listed: Vec<String> = call(
            &shared.commands,
            &shared.scripts.online,
            vec![online_key(session)],
            vec![number(ONLINE_LISTED_MAX as u64)],
        )
        .await
        .map_err(|source| unavailable("read presence", source))?;
        let count = listed.first().and_then(|count| count.parse().ok()).unwrap_or(0);
        let users = listed.iter().skip(1).filter_map(|user| UserId::new(user).ok()).collect();
        Ok(Arrival { first: others == 0, online: Online { users, count } })
    }

    async fn leave(&self, session: &SessionId, user: &UserId) -> Result<Departure, AdapterError> {
        self.shared.state().present.remove(&(session.clone(), user.clone()));
        let (others, online) = vouch(&self.shared, session, user, Duration::ZERO).await?;
        Ok(Departure { last: others == 0, online })
    }
}

/// Says that this node has a device of the user there for `ttl`; not any longer, where it is zero.
pub(super) async fn vouch(
    shared: &Shared,
    session: &SessionId,
    user: &UserId,
    ttl: Duration,
) -> Result<(u64, u64), AdapterError> {
    call(
        &shared.commands,
        &shared.scripts.presence,
        vec![online_key(session)],
        vec![user.as_str().into(), shared.node.to_string().into(), number(ms(ttl))],
    )
    .await
    .map_err(|source| unavailable("write presence", source))
}

#[async_trait]
impl Limits for Redis {
    async fn count(&self, _: &UserId, _: &'static str, _: Rate) -> Result<(), Duration> {
        Ok(())
    }
}
