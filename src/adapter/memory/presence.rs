//! Who is connected and who is in a session, over the nodes of one process.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::{
    Absence, AdapterError, Arrival, Connected, Departure, ONLINE_LISTED_MAX, Online, Presence,
};
use super::{Memory, State};
use crate::domain::{self, NodeId, SessionId, Timestamp, UserId};

/// How many users who have left are remembered in each session, at most twice as many.
const RECENT_MAX: usize = 1_000;
/// From how many users on those who are offline are forgotten, those first who have been longest.
const OFFLINE_MAX: usize = 10_000;

/// A user, with or without devices.
pub(super) struct User {
    /// How many devices each node has; a node stands here, with none, until it has settled.
    devices: HashMap<NodeId, u32>,
    online: bool,
    seen_at: Timestamp,
}

impl User {
    fn count(&self) -> u32 {
        self.devices.values().sum()
    }

    /// Takes the user offline where there is no device any more.
    fn settle(&mut self) -> bool {
        let settled = self.online && self.count() == 0;
        self.online &= !settled;
        settled
    }
}

/// Who is in a session, and who was.
#[derive(Default)]
pub(super) struct InSession {
    now: HashMap<UserId, HashSet<NodeId>>,
    left_at: HashMap<UserId, Instant>,
}

impl InSession {
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    fn online(&self) -> Online {
        Online {
            users: self.now.keys().take(ONLINE_LISTED_MAX).cloned().collect(),
            count: self.now.len() as u64,
        }
    }

    /// `true` where it was the user's last node.
    fn leave(&mut self, user: &UserId, node: NodeId) -> bool {
        let Some(nodes) = self.now.get_mut(user) else { return false };
        let last = nodes.remove(&node) && nodes.is_empty();
        if last {
            self.now.remove(user);
            self.left_at.insert(user.clone(), Instant::now());
            if self.left_at.len() > RECENT_MAX * 2 {
                keep_latest(&mut self.left_at, RECENT_MAX);
            }
        }
        last
    }
}

impl State {
    /// Takes out whom a node had, and says who is gone with it.
    pub(super) fn take_out(&mut self, node: NodeId) -> Vec<Absence> {
        let mut absences = Vec::new();
        for (session, log) in &mut self.sessions {
            let there: Vec<UserId> = log.users.now.keys().cloned().collect();
            let gone: Vec<_> =
                there.into_iter().filter(|user| log.users.leave(user, node)).collect();
            let online = log.users.now.len() as u64;
            absences.extend(gone.into_iter().map(|user| Absence::Left {
                session: session.clone(),
                user,
                online,
            }));
        }
        for (id, user) in &mut self.users {
            if user.devices.remove(&node).is_some() && user.settle() {
                user.seen_at = Timestamp::now();
                absences.push(Absence::Offline { user: id.clone() });
            }
        }
        absences
    }

    /// Forgets those who have been offline longest, when their number has grown by half.
    fn forget_offline(&mut self) {
        if self.users.len() < self.forget_at.max(OFFLINE_MAX) {
            return;
        }
        let mut offline: HashMap<UserId, Timestamp> = (self.users.iter())
            .filter(|(_, user)| !user.online && user.devices.is_empty())
            .map(|(id, user)| (id.clone(), user.seen_at))
            .collect();
        keep_latest(&mut offline, OFFLINE_MAX / 2);
        self.users
            .retain(|id, user| user.online || !user.devices.is_empty() || offline.contains_key(id));
        self.forget_at = self.users.len() + OFFLINE_MAX / 2;
    }
}

#[async_trait]
impl Presence for Memory {
    async fn connect(&self, user: &UserId, max: u32) -> Result<Connected, AdapterError> {
        let mut state = self.state();
        let count = state.users.get(user).map_or(0, User::count);
        if max > 0 && count >= max {
            return Ok(Connected::TooMany);
        }
        state.forget_offline();
        let user = state.users.entry(user.clone()).or_insert_with(|| User {
            devices: HashMap::new(),
            online: false,
            seen_at: Timestamp::now(),
        });
        *user.devices.entry(self.node).or_default() += 1;
        let first = !user.online;
        user.online = true;
        Ok(Connected::Yes { first })
    }

    async fn disconnect(&self, user: &UserId) -> Result<(), AdapterError> {
        let mut state = self.state();
        if let Some(user) = state.users.get_mut(user)
            && let Some(count) = user.devices.get_mut(&self.node)
        {
            *count = count.saturating_sub(1);
            user.seen_at = Timestamp::now();
        }
        Ok(())
    }

    async fn settle(&self, user: &UserId) -> Result<bool, AdapterError> {
        let mut state = self.state();
        let Some(user) = state.users.get_mut(user) else { return Ok(false) };
        if user.devices.get(&self.node) == Some(&0) {
            user.devices.remove(&self.node);
        }
        Ok(user.settle())
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<domain::Presence>, AdapterError> {
        let state = self.state();
        let presence = |id: &UserId| {
            let user = state.users.get(id);
            let devices = user.map_or(0, User::count);
            let seen_at =
                if devices > 0 { Some(Timestamp::now()) } else { user.map(|u| u.seen_at) };
            domain::Presence {
                user: id.clone(),
                devices: u64::from(devices),
                last_seen_at: seen_at,
            }
        };
        Ok(users.iter().map(presence).collect())
    }

    async fn online(&self, session: &SessionId) -> Result<Online, AdapterError> {
        let state = self.state();
        Ok(state.sessions.get(session).map(|log| log.users.online()).unwrap_or_default())
    }

    async fn was_in(
        &self,
        session: &SessionId,
        user: &UserId,
        window: Duration,
    ) -> Result<bool, AdapterError> {
        let state = self.state();
        let Some(users) = state.sessions.get(session).map(|log| &log.users) else {
            return Ok(false);
        };
        let left_at = users.left_at.get(user);
        Ok(users.now.contains_key(user) || left_at.is_some_and(|left| left.elapsed() < window))
    }

    async fn enter(&self, session: &SessionId, user: &UserId) -> Result<Arrival, AdapterError> {
        let mut state = self.state();
        let users = &mut state.touch(session, self.ttl).users;
        let nodes = users.now.entry(user.clone()).or_default();
        let first = nodes.is_empty();
        nodes.insert(self.node);
        users.left_at.remove(user);
        Ok(Arrival { first, online: users.online() })
    }

    async fn leave(&self, session: &SessionId, user: &UserId) -> Result<Departure, AdapterError> {
        let mut state = self.state();
        let users = &mut state.touch(session, self.ttl).users;
        let last = users.leave(user, self.node);
        Ok(Departure { last, online: users.now.len() as u64 })
    }
}

/// Keeps the `max` latest.
fn keep_latest<T: Copy + Ord>(kept: &mut HashMap<UserId, T>, max: usize) {
    let over = kept.len().saturating_sub(max);
    if over == 0 {
        return;
    }
    let mut times: Vec<T> = kept.values().copied().collect();
    let (_, edge, _) = times.select_nth_unstable(over - 1);
    let edge = *edge;
    kept.retain(|_, time| *time > edge);
}
