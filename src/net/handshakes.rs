//! The sessions that are nobody's yet: so many at a time, and where one more comes the oldest of
//! them is ended. Refusing the newest instead would let a few hundred requests a second, of
//! clients that go no further, keep everybody out: who means it is somebody long before it is the
//! oldest.
//!
//! socketioxide 0.18.9 keeps what it has of a session that never came anywhere until its time to
//! connect is up, also once it was ended. So there may be [`KEPT_FACTOR`] times as many of these;
//! only beyond that the newest is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use socketioxide::socket::Sid;

use super::outbound::Outbound;

/// How many sessions are kept that were ended, and those that were not, for each that may be
/// nobody's. One takes about 16 KiB.
pub const KEPT_FACTOR: usize = 4;

/// The sessions of all who count together, by age. Nothing here keeps a session alive.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// 0: no limit.
    max: usize,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    /// Those that were ended, too.
    kept: usize,
    by_age: BTreeMap<u64, (Weak<Outbound>, Option<Sid>)>,
}

/// A session that had to make room.
pub(super) struct Ousted {
    pub outbound: Arc<Outbound>,
    /// Where it was opened by polling, and its client may know of it.
    pub sid: Option<Sid>,
}

impl Handshakes {
    /// So many; 0: no limit.
    pub fn new(max: usize) -> Self {
        Self { max, pending: Mutex::default() }
    }

    /// How many there are.
    pub fn pending(&self) -> usize {
        self.lock().by_age.len()
    }

    /// One more, until the place is dropped; and who has to go for it, the oldest. `None`: too many
    /// that have gone are kept.
    pub(super) fn begin(
        self: &Arc<Self>,
        outbound: &Arc<Outbound>,
    ) -> Option<(Place, Option<Ousted>)> {
        let mut pending = self.lock();
        if self.max != 0 && pending.kept >= self.max.saturating_mul(KEPT_FACTOR) {
            return None;
        }
        pending.kept += 1;
        let full = self.max != 0 && pending.by_age.len() >= self.max;
        let oldest = if full { pending.by_age.pop_first() } else { None };
        let age = pending.next;
        pending.next += 1;
        pending.by_age.insert(age, (Arc::downgrade(outbound), None));
        // An account that goes takes this lock.
        drop(pending);
        let ousted = oldest.and_then(|(_, (outbound, sid))| {
            outbound.upgrade().map(|outbound| Ousted { outbound, sid })
        });
        Some((Place { handshakes: self.clone(), age }, ousted))
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among them, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    age: u64,
}

impl Place {
    /// Says what the session is called. `false`: it has had to go before.
    pub(super) fn called(&self, sid: Sid) -> bool {
        let mut pending = self.handshakes.lock();
        let found = pending.by_age.get_mut(&self.age);
        found.map(|(_, called)| *called = Some(sid)).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = self.handshakes.lock();
        pending.by_age.remove(&self.age);
        pending.kept -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_one_more() {
        let handshakes = Arc::new(Handshakes::new(2));
        let outbounds: Vec<_> = (0..5).map(|_| Arc::new(Outbound::default())).collect();
        let is = |ousted: Option<Ousted>, n: usize| {
            ousted.is_some_and(|ousted| Arc::ptr_eq(&ousted.outbound, &outbounds[n]))
        };
        let (first, none) = handshakes.begin(&outbounds[0]).unwrap();
        assert!(none.is_none() && first.called(Sid::ZERO));
        let (second, none) = handshakes.begin(&outbounds[1]).unwrap();
        assert!(none.is_none());
        let (_third, ousted) = handshakes.begin(&outbounds[2]).unwrap();
        assert_eq!(ousted.as_ref().and_then(|ousted| ousted.sid), Some(Sid::ZERO));
        assert!(is(ousted, 0) && !first.called(Sid::ZERO));
        // Its place is another's now.
        drop(first);
        assert_eq!(handshakes.pending(), 2);
        drop(second);
        let (_fourth, none) = handshakes.begin(&outbounds[3]).unwrap();
        assert!(none.is_none());
        let (_fifth, ousted) = handshakes.begin(&outbounds[4]).unwrap();
        assert!(is(ousted, 2));
        assert_eq!(handshakes.pending(), 2);
    }

    #[test]
    fn who_is_kept_counts_though_it_had_to_go() {
        let handshakes = Arc::new(Handshakes::new(2));
        let outbound = Arc::new(Outbound::default());
        let mut begun: Vec<_> = (0..99).map_while(|_| handshakes.begin(&outbound)).collect();
        assert_eq!((begun.len(), handshakes.pending()), (2 * KEPT_FACTOR, 2));
        begun.remove(0);
        begun.extend(handshakes.begin(&outbound));
        assert!(begun.len() == 2 * KEPT_FACTOR && handshakes.begin(&outbound).is_none());
        drop(begun);
        assert!(handshakes.begin(&outbound).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let handshakes = Arc::new(Handshakes::new(0));
        let outbound = Arc::new(Outbound::default());
        let begun: Vec<_> = (0..1000).map_while(|_| handshakes.begin(&outbound)).collect();
        assert!(begun.iter().all(|(_, ousted)| ousted.is_none()));
        assert_eq!(handshakes.pending(), 1000);
        drop(begun);
        assert_eq!(handshakes.pending(), 0);
    }
}
