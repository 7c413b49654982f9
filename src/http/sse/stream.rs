//! One stream: its task, which owns the reader's visit from before it joins until after it has
//! left, whatever becomes of the request meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::reader::{Events, Happening, SseReader};
use crate::auth::Refused;
use crate::chat::{Attendance, Caller, Visit, Wants};
use crate::dialect::Frame;
use crate::domain::{Cursor, Error, SessionId};
use crate::net::{AddressSlot, Connection, Slot};
use crate::telemetry::metrics::{self, Limit};

/// After how much silence a comment is sent.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
/// How long a client may take to take the rest of a stream that has to end now.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// And of one that it may come back to. As long it keeps its place: whoever reads a byte now and
/// then would have any number of ended streams, each with a full queue.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// How long a stream waits before it tries again to go on from the store.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a stream takes of the node until it has ended.
pub(super) struct Place {
    pub(super) _slot: Slot,
    pub(super) _address: Option<AddressSlot>,
}

/// A stream that somebody may open.
pub(super) struct Wanted {
    pub(super) caller: Caller,
    pub(super) session: SessionId,
    pub(super) after: Option<Cursor>,
    pub(super) place: Place,
    /// What carries it; `None` where nothing does that can be closed.
    pub(super) connection: Option<Connection>,
    /// When its token ends, where the stream ends with it.
    pub(super) expires_at: Option<Instant>,
}

/// Opens a stream: its response's body.
///
/// # Errors
/// What the client is to be told.
///
/// # Cancel safety
/// Dropped, the stream is not opened, or over at once: its task sees to that.
pub(super) async fn open(shared: &Arc<Shared>, wanted: Wanted) -> Result<Events, Error> {
    let attendance = shared.chat.admit(&wanted.caller).await?;
    let (answer, opened) = oneshot::channel();
    let own = shared.clone();
    shared.tasks.spawn(async move { live(&own, wanted, attendance, answer).await });
    opened.await.unwrap_or_else(|_| Err(super::shutting_down()))
}

type Opened = oneshot::Sender<Result<Events, Error>>;

async fn live(shared: &Shared, wanted: Wanted, attendance: Attendance, answer: Opened) {
    let Wanted { caller, session, after, place: _place, connection, expires_at } = wanted;
    let (id, options) = (shared.next_reader(), &shared.options);
    let reader = SseReader::new(id, caller.user.clone(), options.dialect, options.outbound_max);
    let reader = Arc::new(reader);
    let visit = shared.chat.arrive(caller, reader.clone(), attendance);
    let gauge = &metrics::handles().sse_connections;
    gauge.increment(1.0);
    let mut stream = Stream { shared, reader, session, visit, connection, expires_at };
    let stop = shared.tasks.stopping();
    stop.run_until_cancelled(stream.run(after, answer)).await;
    gauge.decrement(1.0);
    // Where it was stopped from outside.
    stream.reader.end();
    shared.chat.depart(stream.visit).await;
}

struct Stream<'a> {
    shared: &'a Shared,
    reader: Arc<SseReader>,
    session: SessionId,
    visit: Visit,
    connection: Option<Connection>,
    expires_at: Option<Instant>,
}

impl Stream<'_> {
    async fn run(&mut self, after: Option<Cursor>, answer: Opened) {
        let chat = &self.shared.chat;
        let waiting = match chat.watch(&mut self.visit, self.session.clone(), after).await {
            Ok(waiting) => waiting,
            // Whoever asked may be gone.
            Err(error) => return drop(answer.send(Err(error))),
        };
        self.reader.greet(waiting.at());
        if answer.send(Ok(Events::new(self.reader.clone()))).is_ok() {
            chat.go_live(&self.visit, waiting);
            self.follow().await;
        }
    }

    /// Until the client is gone, or has to go.
    async fn follow(&mut self) {
        let (chat, options) = (&self.shared.chat, &self.shared.options);
        let mut end_at = Instant::now() + options.age_max;
        let mut leaving = false;
        let mut again_at = None;
        let expires_at = self.expires_at.filter(|at| *at < end_at);
        loop {
            tokio::select! {
                biased;
                happening = self.reader.happens() => match happening {
                    Happening::Gone => return,
                    Happening::Disconnected => return self.end(CLOSED_WITHIN).await,
                    Happening::FellBehind => {
                        metrics::limited(Limit::Log).increment(1);
                        again_at = self.go_on_from_store().await;
                    }
                    Happening::Revoked => {
                        if !chat.stays(&self.visit, &self.session).await {
                            return self.revoke().await;
                        }
                    }
                    Happening::Drained => chat.resume(&self.visit),
                },
                () = self.shared.draining.cancelled(), if !leaving => {
                    leaving = true;
                    end_at = end_at.min(Instant::now() + self.share());
                }
                () = sleep_until(expires_at.unwrap_or(end_at)), if expires_at.is_some() => {
                    return self.expire().await;
                }
                () = sleep_until(end_at) => {
                    if !leaving {
                        metrics::limited(Limit::Age).increment(1);
                    }
                    // With an end to the response, which `EventSource` takes for a lost connection.
                    return self.end(if leaving { CLOSED_WITHIN } else { TAKEN_WITHIN }).await;
                }
                () = sleep_until(again_at.unwrap_or(end_at)), if again_at.is_some() => {
                    again_at = self.go_on_from_store().await;
                }
                () = sleep_until(self.reader.queued_at() + KEEPALIVE_AFTER) => {
                    self.reader.keep_alive();
                }
            }
        }
    }

    /// When to try again, where what the reader missed cannot be had now.
    async fn go_on_from_store(&self) -> Option<Instant> {
        let went = self.shared.chat.go_on_from_store(&self.visit, &self.session, Wants::Answers);
        let error = went.await.err()?;
        tracing::debug!(session = %self.session, %error, "go on from the store");
        Some(Instant::now() + AGAIN_AFTER)
    }

    /// The token has ended. `EventSource` comes back with the same one, and is refused.
    async fn expire(&self) {
        self.tell(&Refused::Expired.into());
        self.end(TAKEN_WITHIN).await;
    }

    fn tell(&self, error: &Error) {
        let told = Told { r#type: error.code.as_str(), message: &error.message };
        self.reader.send(&Frame::new("error", &told));
    }

    async fn revoke(&mut self) {
        self.tell(&Error::not_found("session"));
        self.shared.chat.revoked(&mut self.visit, &self.session).await;
        self.end(CLOSED_WITHIN).await;
    }

    /// Ends the response, and what carries it where the rest is not taken in time.
    async fn end(&self, taken_within: Duration) {
        self.reader.end();
        if timeout(taken_within, self.reader.gone()).await.is_err()
            && let Some(connection) = &self.connection
        {
            connection.close();
        }
    }

    /// When in the time of a drain this stream ends: spread out, so that not all come back at once.
    fn share(&self) -> Duration {
        let share = crate::hub::Reader::id(&*self.reader).0 % 32;
        self.shared.options.drain_spread * share as u32 / 32
    }
}

/// What an `error` event carries.
#[derive(Serialize)]
struct Told<'a> {
    r#type: &'static str,
    message: &'a str,
}
