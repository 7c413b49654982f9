//! The readers of this node by their users, whatever they have joined: whom an operator's word
//! reaches, and who hears that a user came or went.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Reader, ReaderId, Shared};
use crate::dialect::Frame;
use crate::domain::{PresenceChange, SessionId, UserId};

/// As many as the node has connections.
#[derive(Default)]
pub(super) struct Roster(Mutex<Readers>);

#[derive(Default)]
struct Readers {
    users: HashMap<ReaderId, UserId>,
    by_user: HashMap<UserId, Vec<Arc<dyn Reader>>>,
}

impl Roster {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeating it changes nothing.
    pub(super) fn arrive(&self, reader: Arc<dyn Reader>) {
        let mut readers = self.readers();
        let user = reader.user().clone();
        if readers.users.insert(reader.id(), user.clone()).is_none() {
            readers.by_user.entry(user).or_default().push(reader);
        }
    }

    pub(super) fn depart(&self, id: ReaderId) {
        let mut readers = self.readers();
        let Some(user) = readers.users.remove(&id) else { return };
        if let Entry::Occupied(mut entry) = readers.by_user.entry(user) {
            entry.get_mut().retain(|reader| reader.id() != id);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Ends each connection of a user. They are here until they depart. How many there were.
    pub(super) fn disconnect(&self, user: &UserId) -> usize {
        let found = self.readers().by_user.get(user).cloned().unwrap_or_default();
        for reader in &found {
            reader.disconnect();
        }
        found.len()
    }
}

impl Roster {
    /// Tells each connection of a user that a client of theirs has another one now.
    pub(super) fn came_back(&self, user: &UserId, client: &str, by: &str) {
        let found = self.readers().by_user.get(user).cloned().unwrap_or_default();
        for reader in found {
            reader.came_back(client, by);
        }
    }
}

impl Shared {
    /// Tells the members of these sessions that a user came or went, each reader once, encoded
    /// once per dialect. The user's own devices are not told; whoever does not take it misses it.
    pub(super) fn show_presence(&self, change: &PresenceChange, sessions: &[SessionId]) {
        let mut encoded: Vec<Option<Option<Frame>>> = vec![None; self.dialects.slots()];
        let mut told = HashSet::new();
        for tail in sessions.iter().filter_map(|session| self.watched(session)) {
            for reader in tail.state().members.admitted() {
                if *reader.user() == change.user || !told.insert(reader.id()) {
                    continue;
                }
                let dialect = reader.dialect();
                let frame = encoded[dialect.slot()]
                    .get_or_insert_with(|| self.dialects.vocabulary(dialect).presence(change));
                if let Some(frame) = frame {
                    let _ = reader.offer(std::slice::from_ref(frame));
                }
            }
        }
    }
}
