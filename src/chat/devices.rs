//! This node's devices: how many each user has connected, and which are in which session. So a
//! user comes and goes once, however many devices they have, and a device that comes back soon
//! has never been gone.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::{SessionId, UserId};
use crate::hub::ReaderId;

/// The devices of one node.
#[derive(Default)]
pub(super) struct Devices(Mutex<State>);

#[derive(Default)]
struct State {
    connected: HashMap<UserId, u32>,
    /// Also of users whose last device disconnected a moment ago.
    present: HashMap<(SessionId, UserId), Present>,
    comings: u64,
}

/// A user in a session.
#[derive(Default)]
struct Present {
    readers: HashSet<ReaderId>,
    last_coming: Coming,
}

/// One device's coming into a session; no two are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Coming(u64);

impl Devices {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more is connected. How many there are now.
    pub(super) fn connect(&self, user: &UserId) -> u32 {
        let mut state = self.state();
        let connected = state.connected.entry(user.clone()).or_default();
        *connected += 1;
        *connected
    }

    /// One has disconnected.
    pub(super) fn disconnect(&self, user: &UserId) {
        let mut state = self.state();
        let Some(connected) = state.connected.get_mut(user) else { return };
        *connected -= 1;
        if *connected == 0 {
            state.connected.remove(user);
        }
    }

    /// How many are connected.
    pub(super) fn connected(&self, user: &UserId) -> u32 {
        self.state().connected.get(user).copied().unwrap_or_default()
    }

    /// A device is in a session from now on.
    pub(super) fn enter(&self, session: &SessionId, user: &UserId, reader: ReaderId) {
        let mut state = self.state();
        state.comings += 1;
        let coming = Coming(state.comings);
        let present = state.present.entry((session.clone(), user.clone())).or_default();
        present.readers.insert(reader);
        present.last_coming = coming;
    }

    /// A device has left for good. `true` where it was the user's last in the session here.
    pub(super) fn leave(&self, session: &SessionId, user: &UserId, reader: ReaderId) -> bool {
        let key = (session.clone(), user.clone());
        let mut state = self.state();
        let Some(present) = state.present.get_mut(&key) else { return false };
        let last = present.readers.remove(&reader) && present.readers.is_empty();
        if last {
            state.present.remove(&key);
        }
        last
    }

    /// A device has disconnected, and may come back. Where it was the user's last in the session
    /// here, what [`Devices::forget`] takes.
    pub(super) fn linger(
        &self,
        session: &SessionId,
        user: &UserId,
        reader: ReaderId,
    ) -> Option<Coming> {
        let mut state = self.state();
        let present = state.present.get_mut(&(session.clone(), user.clone()))?;
        let last = present.readers.remove(&reader) && present.readers.is_empty();
        last.then_some(present.last_coming)
    }

    /// A user's device did not come back in time. `true` where none has come since, so that they
    /// have left.
    pub(super) fn forget(&self, session: &SessionId, user: &UserId, last: Coming) -> bool {
        let key = (session.clone(), user.clone());
        let mut state = self.state();
        let gone = state
            .present
            .get(&key)
            .is_some_and(|present| present.readers.is_empty() && present.last_coming == last);
        if gone {
            state.present.remove(&key);
        }
        gone
    }

    /// Whether the user has a device in the session here, or had a moment ago.
    pub(super) fn are_in(&self, session: &SessionId, user: &UserId) -> bool {
        self.state().present.contains_key(&(session.clone(), user.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> (SessionId, UserId) {
        (SessionId::new("s").unwrap(), UserId::new("ada").unwrap())
    }

    #[test]
    fn connections_are_counted_down_to_none() {
        let devices = Devices::default();
        let (_, ada) = who();
        assert_eq!((devices.connect(&ada), devices.connect(&ada)), (1, 2));
        devices.disconnect(&ada);
        assert_eq!(devices.connected(&ada), 1);
        devices.disconnect(&ada);
        devices.disconnect(&ada);
        assert_eq!(devices.connected(&ada), 0);
        assert!(devices.state().connected.is_empty());
    }

    #[test]
    fn a_user_leaves_with_their_last_device() {
        let devices = Devices::default();
        let (s, ada) = who();
        devices.enter(&s, &ada, ReaderId(1));
        devices.enter(&s, &ada, ReaderId(2));
        devices.enter(&s, &ada, ReaderId(2));
        assert!(!devices.leave(&s, &ada, ReaderId(1)));
        assert!(!devices.leave(&s, &ada, ReaderId(1)), "it had left before");
        assert!(devices.are_in(&s, &ada));
        assert!(devices.leave(&s, &ada, ReaderId(2)));
        assert!(!devices.leave(&s, &ada, ReaderId(2)));
        assert!(!devices.are_in(&s, &ada) && devices.state().present.is_empty());
    }

    #[test]
    fn whoever_comes_back_in_time_has_never_left() {
        let devices = Devices::default();
        let (s, ada) = who();
        devices.enter(&s, &ada, ReaderId(1));
        devices.enter(&s, &ada, ReaderId(2));
        assert_eq!(devices.linger(&s, &ada, ReaderId(1)), None, "there is another");
        let first = devices.linger(&s, &ada, ReaderId(2)).unwrap();
        assert_eq!(devices.linger(&s, &ada, ReaderId(2)), None, "once only");
        assert!(devices.are_in(&s, &ada));
        // Back, and gone again: the time runs anew.
        devices.enter(&s, &ada, ReaderId(3));
        assert!(!devices.forget(&s, &ada, first));
        let second = devices.linger(&s, &ada, ReaderId(3)).unwrap();
        assert!(!devices.forget(&s, &ada, first));
        assert!(devices.forget(&s, &ada, second));
        assert!(!devices.forget(&s, &ada, second) && devices.state().present.is_empty());
    }

    #[test]
    fn a_coming_is_known_from_one_after_everything_was_forgotten() {
        let devices = Devices::default();
        let (s, ada) = who();
        devices.enter(&s, &ada, ReaderId(1));
        let first = devices.linger(&s, &ada, ReaderId(1)).unwrap();
        assert!(devices.forget(&s, &ada, first));
        devices.enter(&s, &ada, ReaderId(2));
        assert!(devices.linger(&s, &ada, ReaderId(2)).is_some());
        assert!(!devices.forget(&s, &ada, first));
    }
}
