//! A number of places of which each is taken once, and given back when its holder ends, however
//! that comes about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many places, shared by all who count together.
#[derive(Debug, Default)]
pub struct Slots {
    /// 0: no limit.
    max: usize,
    taken: AtomicUsize,
}

impl Slots {
    /// So many; 0: no limit.
    pub fn new(max: usize) -> Self {
        Self { max, taken: AtomicUsize::new(0) }
    }

    /// One of them; `None` where all are taken. However many ask at a time, no more than there are
    /// get one.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let free = |taken| (self.max == 0 || taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(Slot(self.clone()))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_once_it_is_dropped() {
        let slots = Arc::new(Slots::new(2));
        let first = slots.take();
        let second = slots.take();
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        assert_eq!(slots.taken(), 2);
        drop(first);
        let third = slots.take();
        assert!(third.is_some() && slots.take().is_none());
        drop((second, third));
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn of_many_who_ask_at_once_as_many_get_one_as_there_are() {
        let slots = Arc::new(Slots::new(100));
        let taken: usize = std::thread::scope(|scope| {
            let ask = || (0..100).filter_map(|_| slots.take()).collect::<Vec<_>>();
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            let held: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
            held.iter().map(Vec::len).sum()
        });
        assert_eq!((taken, slots.taken()), (100, 0));
    }

    #[test]
    fn zero_is_no_limit() {
        let slots = Arc::new(Slots::new(0));
        let held: Vec<_> = (0..1000).map_while(|_| slots.take()).collect();
        assert_eq!((held.len(), slots.taken()), (1000, 1000));
    }
}
