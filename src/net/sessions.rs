//! Finds the account of a session that was opened by polling, by the `sid` that its later requests
//! carry, and bounds how many of these run at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use socketioxide::socket::Sid;

use super::outbound::Outbound;

/// Below this many entries the dead ones are not looked for.
const SWEEP_MIN: usize = 64;

/// Accounts by `sid`. An account lives as long as the session that holds it; entries of ended ones
/// are swept as the map grows, so it never holds more than about twice the most that were alive.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_sid: HashMap<Sid, Weak<Outbound>>,
    sweep_at: usize,
}

impl Sessions {
    pub(super) fn insert(&self, sid: Sid, outbound: &Arc<Outbound>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.by_sid.len() >= known.sweep_at.max(SWEEP_MIN) {
            known.by_sid.retain(|_, outbound| outbound.strong_count() > 0);
            known.sweep_at = known.by_sid.len() * 2;
        }
        known.by_sid.insert(sid, Arc::downgrade(outbound));
    }

    pub(super) fn get(&self, sid: &Sid) -> Option<Arc<Outbound>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_sid.get(sid).and_then(Weak::upgrade)
    }
}

/// The polling requests of one session that run now.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    polls: AtomicU8,
    posts: AtomicU8,
}

/// Counted until it is dropped.
pub(super) struct Running(Arc<Outbound>, fn(&InFlight) -> &AtomicU8);

const POSTS_MAX: u8 = 1;

impl Running {
    /// `None` where `max` polls of the session run. With more than one a second is let through,
    /// upon which socketioxide ends the session.
    pub(super) fn poll(outbound: &Arc<Outbound>, max: u8) -> Option<Self> {
        Self::start(outbound, |in_flight| &in_flight.polls, max)
    }

    /// `None` where another post of the session runs.
    pub(super) fn post(outbound: &Arc<Outbound>) -> Option<Self> {
        Self::start(outbound, |in_flight| &in_flight.posts, POSTS_MAX)
    }

    fn start(outbound: &Arc<Outbound>, count: fn(&InFlight) -> &AtomicU8, max: u8) -> Option<Self> {
        count(&outbound.in_flight)
            .fetch_update(SeqCst, SeqCst, |running| (running < max).then_some(running + 1))
            .ok()
            .map(|_| Self(Arc::clone(outbound), count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.1)(&self.0.in_flight).fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_is_not_found_and_swept() {
        let sessions = Sessions::default();
        let alive = Arc::new(Outbound::default());
        let alive_sid = Sid::new();
        sessions.insert(alive_sid, &alive);
        for _ in 0..10_000 {
            let sid = Sid::new();
            let ended = Arc::new(Outbound::default());
            sessions.insert(sid, &ended);
            drop(ended);
            assert!(sessions.get(&sid).is_none());
        }
        assert!(sessions.known.lock().unwrap().by_sid.len() <= SWEEP_MIN);
        assert!(Arc::ptr_eq(&sessions.get(&alive_sid).unwrap(), &alive));
    }

    #[test]
    fn requests_in_flight_are_bounded_each_kind_by_itself() {
        let outbound = Arc::new(Outbound::default());
        let post = Running::post(&outbound);
        assert!(post.is_some());
        assert!(Running::post(&outbound).is_none());
        let _polls = [Running::poll(&outbound, 2).unwrap(), Running::poll(&outbound, 2).unwrap()];
        assert!(Running::poll(&outbound, 2).is_none());
        assert!(Running::poll(&outbound, 3).is_some());
        drop(post);
        assert!(Running::post(&outbound).is_some());
    }
}
