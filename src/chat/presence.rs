//! Users coming and going: across the cluster with their first and last device, and in each
//! session. A device that comes back within the grace is never announced as gone.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::devices::Coming;
use super::failure::{stored, unavailable};
use super::{Caller, Shared};
use crate::adapter::{Absence, AdapterError, Connected, News, ONLINE_LISTED_MAX, Online};
use crate::domain::{
    Error, ErrorCode, Presence, PresenceChange, SessionId, Signal, Timestamp, UserId,
};
use crate::hub::ReaderId;
use crate::telemetry::metrics::{self, Limit};

/// How long something passing may take; then it is not waited for.
const PASSING_WITHIN: Duration = Duration::from_secs(1);
/// The most sessions in which a user's coming and going is heard, the last active ones.
const HEARD_IN_MAX: u32 = 200;
/// How many users of dead nodes are told at once to be offline.
const OFFLINE_AT_ONCE: usize = 16;
/// The most users whose presence is told at once.
const PRESENCE_MAX: usize = 1_000;

/// A user's device that counts as connected until this is dropped.
pub struct Attendance {
    shared: Arc<Shared>,
    user: UserId,
    /// Whether the other nodes may know of it.
    counted: bool,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.shared.devices.disconnect(&self.user);
        if self.counted {
            let (shared, user) = (self.shared.clone(), self.user.clone());
            self.shared.tasks.spawn(async move { shared.disconnected(&user).await });
        }
    }
}

/// What is waited for no longer than a second, and whose failure is only logged.
pub(super) async fn passing<T>(
    doing: &'static str,
    asked: impl Future<Output = Result<T, AdapterError>>,
) -> Option<T> {
    match timeout(PASSING_WITHIN, asked).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, doing, "passed over");
            None
        }
        Err(_) => {
            tracing::debug!(doing, "not in time, passed over");
            None
        }
    }
}

impl Shared {
    /// One more device of the user, unless they have too many. Where the adapter does not answer,
    /// those of this node count.
    ///
    /// # Cancel safety
    /// Dropped, the device does not count.
    pub(super) async fn admit(self: &Arc<Self>, user: &UserId) -> Result<Attendance, Error> {
        let max = self.options.user_connections_max;
        let here = self.devices.connect(user);
        // From now on, since whatever becomes of the call, the adapter may have counted it.
        let mut attendance = Attendance { shared: self.clone(), user: user.clone(), counted: true };
        let too_many = || {
            metrics::limited(Limit::UserConnections).increment(1);
            Error::new(ErrorCode::Overloaded, "Too many connections")
        };
        match passing("connect", self.adapter.connect(user, max)).await {
            Some(Connected::Yes { first: true }) => {
                let (shared, user) = (self.clone(), user.clone());
                self.tasks.spawn(async move { shared.tell_presence(&user, true).await });
            }
            Some(Connected::TooMany) => {
                attendance.counted = false;
                return Err(too_many());
            }
            None if max != 0 && here > max => return Err(too_many()),
            Some(Connected::Yes { first: false }) | None => {}
        }
        Ok(attendance)
    }

    /// A device has disconnected. Tells the others if it was the user's last and none comes back
    /// in time.
    async fn disconnected(&self, user: &UserId) {
        if let Err(error) = self.adapter.disconnect(user).await {
            tracing::debug!(%error, "disconnect");
        }
        let stop = self.tasks.stopping();
        if stop.run_until_cancelled(sleep(self.options.presence_grace)).await.is_none() {
            // Another node says so.
            return;
        }
        // Whoever has another device here settles with that.
        if self.devices.connected(user) == 0
            && passing("settle", self.adapter.settle(user)).await == Some(true)
        {
            self.tell_presence(user, false).await;
        }
    }

    /// Tells those who share a session with the user.
    async fn tell_presence(&self, user: &UserId, online: bool) {
        self.tell_change(user, online).await;
        if online {
            return;
        }
        // Where they came back meanwhile, on whichever node, that may have been told before this.
        let asked = passing("read presence", self.adapter.presence(std::slice::from_ref(user)));
        if asked.await.is_some_and(|found| found.iter().any(|presence| presence.devices > 0)) {
            self.tell_change(user, true).await;
        }
    }

    async fn tell_change(&self, user: &UserId, online: bool) {
        // Whoever connects or goes costs this look: as many at a time as may join.
        let turn = self.turns.take().await;
        let found = self.store.session_ids(user, HEARD_IN_MAX).await;
        drop(turn);
        let sessions = match found {
            Ok(sessions) if sessions.is_empty() => return,
            Ok(sessions) => sessions,
            Err(error) => {
                tracing::debug!(%error, "read the sessions of a user");
                return;
            }
        };
        let last_seen_at = Timestamp::now();
        let change = PresenceChange { user: user.clone(), online, last_seen_at };
        let news = News::Presence { change, sessions };
        passing("tell of a presence", self.adapter.tell_all(news)).await;
    }

    /// A device has joined: who is there now? Tells the others where it is the user's first.
    /// Without the adapter, the caller is all that is known.
    pub(super) async fn arrive(
        &self,
        caller: &Caller,
        session: &SessionId,
        reader: ReaderId,
    ) -> Online {
        self.devices.enter(session, &caller.user, reader);
        let entered = passing("enter", self.adapter.enter(session, &caller.user)).await;
        let Some(arrival) = entered else {
            return Online { users: vec![caller.user.clone()], count: 1 };
        };
        if arrival.first && arrival.online.count <= ONLINE_LISTED_MAX as u64 {
            let (user, name) = (caller.user.clone(), caller.name.clone());
            let joined = Signal::UserJoined { user, name, online: arrival.online.count };
            self.signal(session, joined).await;
        }
        arrival.online
    }

    /// A device has left for good. Tells the others where it was the user's last.
    pub(super) async fn leave(&self, caller: &Caller, session: &SessionId, reader: ReaderId) {
        if self.devices.leave(session, &caller.user, reader) {
            self.left(caller, session).await;
        }
    }

    /// A device has disconnected: the user leaves those sessions from which they had no other, if
    /// none comes back in time.
    pub(super) fn linger(
        self: &Arc<Self>,
        caller: &Caller,
        sessions: impl IntoIterator<Item = SessionId>,
        reader: ReaderId,
    ) {
        let lingering: Vec<(SessionId, Coming)> = sessions
            .into_iter()
            .filter_map(|session| {
                let last = self.devices.linger(&session, &caller.user, reader)?;
                Some((session, last))
            })
            .collect();
        if lingering.is_empty() {
            return;
        }
        let (shared, caller) = (self.clone(), caller.clone());
        self.tasks.spawn(async move {
            let grace = sleep(shared.options.presence_grace);
            if shared.tasks.stopping().run_until_cancelled(grace).await.is_none() {
                // Another node says so.
                return;
            }
            for (session, last) in lingering {
                if shared.devices.forget(&session, &caller.user, last) {
                    shared.left(&caller, &session).await;
                }
            }
        });
    }

    /// No device of the user is in the session here any more.
    async fn left(&self, caller: &Caller, session: &SessionId) {
        let Caller { user, name } = caller;
        let left = passing("leave", self.adapter.leave(session, user)).await;
        if self.devices.are_in(session, user) {
            // They came back meanwhile, and what was just said came after that.
            passing("enter again", self.adapter.enter(session, user)).await;
            return;
        }
        let Some(departure) = left else { return };
        if departure.last {
            self.tell_left(session, user, name.clone(), departure.online).await;
        }
    }

    async fn tell_left(
        &self,
        session: &SessionId,
        user: &UserId,
        name: Option<String>,
        online: u64,
    ) {
        // They were one of them.
        if online < ONLINE_LISTED_MAX as u64 {
            self.signal(session, Signal::UserLeft { user: user.clone(), name, online }).await;
        }
    }

    /// Tells a session something passing.
    pub(super) async fn signal(&self, session: &SessionId, signal: Signal) {
        passing("signal", self.adapter.signal(session, signal)).await;
    }

    /// How many users but the caller are in the session; none where the adapter does not answer.
    pub(super) async fn others_online(&self, caller: &Caller, session: &SessionId) -> u64 {
        // Known to be away: a sender does not wait for what would not come.
        if !self.adapter.is_up() {
            return 0;
        }
        let asked = passing("read who is online", self.adapter.online(session)).await;
        let Online { users, count } = asked.unwrap_or_default();
        let among = users.contains(&caller.user) || self.devices.are_in(session, &caller.user);
        count.saturating_sub(u64::from(among))
    }

    /// Tells of those whose nodes are gone. A dead node's users are many, and each who went
    /// offline costs a look into the store: so those are told of side by side.
    pub(super) async fn tell_absences(&self, mut absences: mpsc::Receiver<Absence>) {
        let mut offline = FuturesUnordered::new();
        loop {
            tokio::select! {
                absence = absences.recv(), if offline.len() < OFFLINE_AT_ONCE => match absence {
                    // In their order, since each says how many are left.
                    Some(Absence::Left { session, user, online }) => {
                        self.tell_left(&session, &user, None, online).await;
                    }
                    Some(Absence::Offline { user }) => offline.push(async move {
                        self.tell_presence(&user, false).await;
                    }),
                    None => return,
                },
                Some(()) = offline.next() => {}
            }
        }
    }

    /// The session's members and whoever else is in it, at most [`PRESENCE_MAX`].
    pub(super) async fn presence(&self, session: &SessionId) -> Result<Vec<Presence>, Error> {
        let max = u32::try_from(PRESENCE_MAX).unwrap_or(u32::MAX);
        let members = self.store.members(session, max).await.map_err(stored)?;
        let online = self.adapter.online(session).await.map_err(unavailable)?;
        let members = members.into_iter().map(|member| member.user);
        let mut users: Vec<UserId> = members.collect();
        let known: std::collections::HashSet<UserId> = users.iter().cloned().collect();
        users.extend(online.users.into_iter().filter(|user| !known.contains(user)));
        users.truncate(PRESENCE_MAX);
        self.adapter.presence(&users).await.map_err(unavailable)
    }

    /// Ends every connection of a user, on all nodes. How many devices they had.
    pub(super) async fn disconnect(&self, user: &UserId) -> Result<u64, Error> {
        let asked =
            passing("count devices", self.adapter.presence(std::slice::from_ref(user))).await;
        let told = self.adapter.tell_all(News::Disconnect { user: user.clone() }).await;
        if let Err(error) = told {
            // At least those of this node; the operator is told to try again.
            self.hub.disconnect(user);
            return Err(unavailable(error));
        }
        let counted = asked.and_then(|users| users.first().map(|presence| presence.devices));
        Ok(counted.unwrap_or_else(|| self.devices.connected(user).into()))
    }
}
