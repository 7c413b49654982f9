//! Which users have a device in a session on this node, so that a user comes and goes once,
//! however many devices they have.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Caller, Shared};
use crate::adapter::Online;
use crate::domain::{SessionId, Signal, UserId};
use crate::hub::ReaderId;

/// This node's devices, by session and user.
#[derive(Default)]
pub(super) struct Presences(Mutex<HashMap<(SessionId, UserId), HashSet<ReaderId>>>);

impl Presences {
    fn devices(&self) -> MutexGuard<'_, HashMap<(SessionId, UserId), HashSet<ReaderId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, session: &SessionId, user: &UserId, reader: ReaderId) {
        let key = (session.clone(), user.clone());
        self.devices().entry(key).or_default().insert(reader);
    }

    /// `true` where it was the user's last device here.
    fn remove(&self, session: &SessionId, user: &UserId, reader: ReaderId) -> bool {
        let key = (session.clone(), user.clone());
        let mut devices = self.devices();
        let Some(readers) = devices.get_mut(&key) else { return false };
        let last = readers.remove(&reader) && readers.is_empty();
        if last {
            devices.remove(&key);
        }
        last
    }
}

impl Shared {
    /// A device has joined: who is there now? Tells the others where it is the user's first.
    /// Without the adapter, the caller is all that is known.
    pub(super) async fn arrive(
        &self,
        caller: &Caller,
        session: &SessionId,
        reader: ReaderId,
    ) -> Online {
        self.presences.add(session, &caller.user, reader);
        let arrival = match self.adapter.enter(session, &caller.user).await {
            Ok(arrival) => arrival,
            Err(error) => {
                tracing::debug!(%session, %error, "enter");
                return Online { users: vec![caller.user.clone()], count: 1 };
            }
        };
        if arrival.first && arrival.online.count <= crate::adapter::ONLINE_LISTED_MAX as u64 {
            let (user, name) = (caller.user.clone(), caller.name.clone());
            let joined = Signal::UserJoined { user, name, online: arrival.online.count };
            self.announce(session, joined).await;
        }
        arrival.online
    }

    /// A device has left. Tells the others where it was the user's last.
    pub(super) async fn depart(&self, caller: &Caller, session: &SessionId, reader: ReaderId) {
        if !self.presences.remove(session, &caller.user, reader) {
            return;
        }
        let departure = match self.adapter.leave(session, &caller.user).await {
            Ok(departure) => departure,
            Err(error) => {
                tracing::debug!(%session, %error, "leave");
                return;
            }
        };
        if departure.last && departure.online < crate::adapter::ONLINE_LISTED_MAX as u64 {
            let (user, name) = (caller.user.clone(), caller.name.clone());
            self.announce(session, Signal::UserLeft { user, name, online: departure.online }).await;
        }
    }

    async fn announce(&self, session: &SessionId, signal: Signal) {
        if let Err(error) = self.adapter.signal(session, signal).await {
            tracing::debug!(%session, %error, "signal");
        }
    }
}
