//! A node's readers: one tail per watched session, and what each reader is owed.
//!
//! A tail follows a session's log and the texts of its running generations, recognises what comes
//! twice, fills gaps by reading again, and hands each piece, encoded once per dialect, to its
//! members. A member is a cursor, not a queue: one that does not take what it is offered stays
//! where it is while the rest goes on, and is caught up, text joined, when it drains.
//!
//! It must not know sockets, HTTP, the database or who may see what.

mod catch_up;
mod from_store;
mod members;
mod place;
mod reader;
mod refill;
mod roster;
mod running;
mod sent;
mod show;
mod tail;
mod takeover;
mod typing;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::adapter::{AdapterError, Feed, News, SharedAdapter};
use crate::dialect::Dialects;
use crate::domain::{
    ActiveGeneration, Chunk, Cursor, Event, GenerationId, MessageId, Position, SessionId, Signal,
    UserId,
};
use crate::lifecycle::Tasks;

pub use from_store::{FromStore, Stored};
use place::Behind;
pub use reader::{Offer, Reader, ReaderId, Stand, Standing};
use roster::Roster;
use tail::{Gate, Tail};

/// The most messages on their way that a member is not to be shown; one more, and the oldest is.
pub const SENT_MAX: usize = 64;

/// From where a reader that joins is shown a session.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// From now on; of the running answers from these offsets (UTF-16) on, else from the start.
    /// Where an offset may be one of an attempt whose text does not stand, the reader is told to
    /// start over.
    Now(&'a [(GenerationId, u64)]),
    /// Exactly after this, where what came since is still kept.
    After(&'a Cursor),
}

/// What a reader finds that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// The answers that are being written.
    pub active: Vec<ActiveGeneration>,
    /// Where the reader stands: whoever has nothing more goes on exactly from there. A running
    /// answer that it does not name is to be shown from its start.
    pub at: Cursor,
    /// `false`: it starts after a cursor, and what came after that is not all kept. What was
    /// stored since, after [`Cursor::has_upto`], is to be had from the store, and given to
    /// [`Hub::go_live`].
    pub is_whole: bool,
}

/// How the hub behaves.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// How long a session is heard after its last reader left.
    pub linger: Duration,
    /// The most events kept for slow readers and for recognising repeated ones, per session.
    pub recent_max: usize,
    /// The most items held back while a gap is filled, per session; further ones are read again.
    pub pending_max: usize,
    /// How often all tails compare heads, although nothing seems to be missing.
    pub compare_every: Duration,
    /// How often it is reported how much readers were given.
    pub report_every: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(5),
            recent_max: 512,
            pending_max: 1024,
            compare_every: Duration::from_secs(60),
            report_every: Duration::from_secs(2),
        }
    }
}

/// A node's readers.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    adapter: SharedAdapter,
    dialects: Dialects,
    options: HubOptions,
    tasks: Tasks,
    tails: RwLock<HashMap<SessionId, Arc<Tail>>>,
    roster: Roster,
    dirty: tokio::sync::Notify,
    own: Weak<Shared>,
}

impl Hub {
    /// A hub without readers; it becomes the adapter's feed by [`Hub::feed`].
    pub fn new(
        adapter: SharedAdapter,
        dialects: Dialects,
        options: HubOptions,
        tasks: Tasks,
    ) -> Self {
        let shared = Arc::new_cyclic(|own| Shared {
            own: own.clone(),
            adapter,
            dialects,
            options,
            tasks: tasks.clone(),
            tails: RwLock::default(),
            roster: Roster::default(),
            dirty: tokio::sync::Notify::new(),
        });
        let stop = tasks.stopping().clone();
        let watched = Arc::downgrade(&shared);
        tasks.spawn(async move {
            stop.run_until_cancelled(refill::watch_over(watched)).await;
        });
        let stop = tasks.stopping().clone();
        let watched = Arc::downgrade(&shared);
        tasks.spawn(async move {
            stop.run_until_cancelled(typing::watch_over(watched)).await;
        });
        let stop = tasks.stopping().clone();
        let (watched, every) = (Arc::downgrade(&shared), shared.options.report_every);
        tasks.spawn(async move {
            stop.run_until_cancelled(sent::watch_over(watched, every)).await;
        });
        Self { shared }
    }

    /// Where the adapter hands what arrives.
    pub fn feed(&self) -> Weak<dyn Feed> {
        let feed: Arc<dyn Feed> = self.shared.clone();
        Arc::downgrade(&feed)
    }

    /// A reader is here from now on, whatever it joins: an operator's word reaches it. Until
    /// [`Hub::depart`].
    pub fn arrive(&self, reader: Arc<dyn Reader>) {
        self.shared.roster.arrive(reader);
    }

    /// A reader is gone. Its memberships are ended one by one, by [`Hub::leave`].
    pub fn depart(&self, reader: ReaderId) {
        self.shared.roster.depart(reader);
    }

    /// Ends every connection that a user has here. How many there were.
    pub fn disconnect(&self, user: &UserId) -> usize {
        self.shared.roster.disconnect(user)
    }

    /// Makes a reader a member of a session, standing at `start`. Nothing is offered to it before
    /// [`Hub::go_live`], and nothing in between is missed. A reader that is a member keeps its
    /// place, with the new standing; where its frontends forget the text of running answers when
    /// they join ([`crate::dialect::Vocabulary::forgets_on_join`]), it is shown that again.
    ///
    /// `stored` is the ordinal of the session's last message, read from the store before: where the
    /// log has none, cursors say that everything after that is to be had from the store.
    ///
    /// A revocation that was applied before does not concern it: where it may have come after
    /// access was looked up, access has to be looked up again once this has answered.
    ///
    /// # Errors
    /// Where the session cannot be heard.
    ///
    /// # Cancel safety
    /// Dropped, the reader may be a member: [`Hub::leave`] it.
    pub async fn join(
        &self,
        session: &SessionId,
        reader: Arc<dyn Reader>,
        standing: Standing,
        start: Start<'_>,
        stored: u64,
    ) -> Result<Entered, AdapterError> {
        let mut looked_at = None;
        loop {
            let tail = self.shared.tail(session);
            let mut gate = tail.gate.lock().await;
            match *gate {
                Gate::Closed => continue,
                Gate::New => {
                    refill::open(&self.shared, &tail).await?;
                    *gate = Gate::Open;
                }
                Gate::Open => {}
            }
            let is_short = match start {
                Start::Now(texts) => tail.state().is_shorter_than(texts),
                Start::After(cursor) => tail.state().is_short_of(cursor),
            };
            if is_short && looked_at.is_none_or(|at: Instant| at.elapsed() < refill::TAKEN_FOR) {
                // The reader comes from a node that was quicker; or another attempt has taken the
                // text, and the log is about to say so.
                drop(gate);
                if looked_at.is_some() {
                    sleep(refill::LOOK_AGAIN).await;
                }
                looked_at.get_or_insert_with(Instant::now);
                refill::look(&self.shared, &tail).await;
                continue;
            }
            let mut state = tail.state();
            let (behind, is_whole) = match start {
                Start::Now(texts) => (Behind::now(&state, texts, stored), true),
                Start::After(cursor) => Behind::after(&state, cursor, stored),
            };
            let has_upto = match start {
                Start::After(cursor) if is_whole => cursor.has_upto().min(stored),
                // It is not to be shown what is stored, or is given all of it before it is live.
                Start::Now(_) | Start::After(_) => stored,
            };
            state.reaches(has_upto);
            let id = reader.id();
            let before = match start {
                Start::Now(_) => stored,
                // What the log brings in its order is told by the place.
                Start::After(cursor) if is_whole => cursor.given.min(stored),
                Start::After(cursor) => cursor.has_upto().min(stored),
            };
            let is_new = state.members.add(reader.clone(), standing, behind, before);
            if is_new {
                reader.stands(session, Stand::Joining);
            } else if self.shared.dialects.vocabulary(reader.dialect()).forgets_on_join() {
                state.show_running_again(id);
            }
            let at = state.members.place(id, &state.cursor);
            let active = state.active();
            return Ok(Entered { active, at, is_whole: is_whole || !is_new });
        }
    }

    /// Offers a member what it is owed, what is `from_store` first, and lets it go on live.
    pub fn go_live(&self, session: &SessionId, reader: ReaderId, from_store: FromStore) {
        let Some(tail) = self.shared.watched(session) else { return };
        let mut state = tail.state();
        state.settle_place(reader, &from_store);
        let place = Behind::at(state.applied, &state.cursor);
        state.members.admit(reader, from_store, place);
        state.catch_up(&self.shared.dialects, reader);
    }

    /// A member is about to send a message that it is not to be shown. Remembered until the message
    /// comes by, of the last [`SENT_MAX`] that a member sends so.
    pub fn sends(&self, session: &SessionId, reader: ReaderId, message: MessageId) {
        let Some(tail) = self.shared.watched(session) else { return };
        tail.state().members.sends(reader, message);
    }

    /// A slow reader can take more: offers it what it is owed in these sessions.
    pub fn resume<'a>(&self, reader: ReaderId, sessions: impl IntoIterator<Item = &'a SessionId>) {
        for session in sessions {
            if let Some(tail) = self.shared.watched(session) {
                tail.state().catch_up(&self.shared.dialects, reader);
            }
        }
    }

    /// Whether a reader waits for [`Hub::keep`].
    pub fn is_suspended(&self, session: &SessionId, reader: ReaderId) -> bool {
        let Some(tail) = self.shared.watched(session) else { return false };
        tail.state().members.is_suspended(reader)
    }

    /// A reader that came as a guest, and whose access was revoked with theirs, belongs to the
    /// session: it is offered what it is owed and goes on. `false` where it was taken out.
    pub fn keep(&self, session: &SessionId, reader: ReaderId) -> bool {
        let Some(tail) = self.shared.watched(session) else { return false };
        let mut state = tail.state();
        let kept = state.members.keep(reader);
        if kept {
            state.catch_up(&self.shared.dialects, reader);
        }
        kept
    }

    /// Ends a membership. `true` where there was one.
    pub fn leave(&self, session: &SessionId, reader: ReaderId) -> bool {
        let Some(tail) = self.shared.watched(session) else { return false };
        let mut state = tail.state();
        let left = state.members.remove(reader);
        if let Some(reader) = &left {
            reader.stands(session, Stand::Left);
        }
        left.is_some()
    }

    /// How many sessions this node hears.
    pub fn watched(&self) -> usize {
        self.shared.tails.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Shared {
    fn own(&self) -> Option<Arc<Self>> {
        self.own.upgrade()
    }

    /// The session's tail, made where there is none.
    fn tail(&self, session: &SessionId) -> Arc<Tail> {
        if let Some(tail) = self.watched(session) {
            return tail;
        }
        let mut tails = self.tails.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Tail::new(session.clone(), &self.options));
        tails.entry(session.clone()).or_insert_with(fresh).clone()
    }

    fn all_tails(&self) -> Vec<Arc<Tail>> {
        self.tails.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn watched(&self, session: &SessionId) -> Option<Arc<Tail>> {
        self.tails.read().unwrap_or_else(PoisonError::into_inner).get(session).cloned()
    }
}

impl Feed for Shared {
    fn chunk(&self, session: &SessionId, chunk: Chunk) {
        let Some(tail) = self.watched(session) else { return };
        if tail.state().take_chunk(&self.dialects, chunk) {
            refill::spawn(self, tail);
        }
    }

    fn event(&self, session: &SessionId, position: Position, event: Arc<Event>) {
        let Some(tail) = self.watched(session) else { return };
        if tail.state().take_event(&self.dialects, position, event) {
            refill::spawn(self, tail);
        }
    }

    fn ahead(&self, session: &SessionId, chunk: Chunk) {
        let Some(tail) = self.watched(session) else { return };
        tail.state().show_ahead(&self.dialects, &chunk);
    }

    fn unlogged(&self, session: &SessionId, event: Arc<Event>) {
        let Some(tail) = self.watched(session) else { return };
        tail.state().show_unlogged(&self.dialects, &event);
    }

    fn signal(&self, session: &SessionId, signal: Signal) {
        let Some(tail) = self.watched(session) else { return };
        tail.state().show_signal(&self.dialects, &signal);
    }

    fn news(&self, news: News) {
        match news {
            News::Disconnect { user } => {
                self.roster.disconnect(&user);
            }
            News::Presence { change, sessions } => self.show_presence(&change, &sessions),
            News::CameBack { user, client, by } => self.roster.came_back(&user, &client, &by),
        }
    }

    fn dirty(&self) {
        self.dirty.notify_one();
    }
}
