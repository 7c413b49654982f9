//! An attempt that runs here, as the rest of the node knows it: how it is told to end, and how
//! far it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::adapter::Tally;
use crate::domain::{SessionId, UserId};

/// How an attempt is to end before its provider does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Somebody stopped it: what there is of the answer is stored.
    Stop(UserId),
    /// Another node goes on with it.
    HandOver,
    /// The node shuts down and no other can go on: it fails, with what there is.
    ShutDown,
    /// Another attempt has replaced it: nothing of it is shown or stored any more.
    Leave,
}

/// An attempt that runs here.
pub(super) struct Run {
    pub session: SessionId,
    pub attempt: u32,
    order: OnceLock<Order>,
    told: CancellationToken,
    is_owned: AtomicBool,
    tallied: Mutex<Tallied>,
}

#[derive(Default)]
struct Tallied {
    tally: Tally,
    /// What was said of it last.
    said: Tally,
}

impl Run {
    /// One that the database does not say is this node's yet.
    pub(super) fn new(session: SessionId, attempt: u32) -> Self {
        Self {
            session,
            attempt,
            order: OnceLock::new(),
            told: CancellationToken::new(),
            is_owned: AtomicBool::new(false),
            tallied: Mutex::default(),
        }
    }

    /// Tells it to end. Only the first order counts; one that ends already minds none.
    pub(super) fn tell(&self, order: Order) {
        let _ = self.order.set(order);
        self.told.cancel();
    }

    /// Cancelled once it is told to end; [`Run::order`] says how.
    pub(super) fn told(&self) -> &CancellationToken {
        &self.told
    }

    pub(super) fn order(&self) -> Option<&Order> {
        self.order.get()
    }

    /// The database said that it is this node's.
    pub(super) fn owned(&self) {
        self.is_owned.store(true, Ordering::Release);
    }

    pub(super) fn is_owned(&self) -> bool {
        self.is_owned.load(Ordering::Acquire)
    }

    /// How far it is.
    pub(super) fn count(&self, tally: Tally) {
        self.tallied().tally = tally;
    }

    /// How far it is, where that was not said yet; it counts as said now.
    pub(super) fn news(&self) -> Option<Tally> {
        let mut tallied = self.tallied();
        let tally = tallied.tally;
        (std::mem::replace(&mut tallied.said, tally) != tally).then_some(tally)
    }

    fn tallied(&self) -> MutexGuard<'_, Tallied> {
        self.tallied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
