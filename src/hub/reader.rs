//! What the hub knows of whoever is shown a session.

use crate::dialect::{DialectIndex, Frame};
use crate::domain::{Cursor, SessionId, UserId};

/// One reader's number on this node, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderId(pub u64);

/// What became of frames that were offered to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It will write all of them, in order, before whatever is offered next.
    Taken,
    /// It took none: it has too much that is not written yet. It says so once by itself, through
    /// [`super::Hub::resume`], when it can take more.
    Full,
    /// It is closed.
    Gone,
}

/// Whoever shows a session to someone: a socket or an SSE response.
///
/// Called under a tail's lock: no method may block, wait, or call back into the hub.
pub trait Reader: Send + Sync {
    /// Its number.
    fn id(&self) -> ReaderId;
    /// Who looks at it.
    fn user(&self) -> &UserId;
    /// Whose words it speaks.
    fn dialect(&self) -> DialectIndex;
    /// Takes all frames or none.
    fn offer(&self, frames: &[Frame]) -> Offer;
    /// Its tail does not hold any more what it is owed: it waits at its place for
    /// [`super::Hub::skip_ahead`] and [`super::Hub::supply`]. Lets its owner know, who brings it
    /// what is stored, a page at a time; told again after each page that was not the last.
    fn fell_behind(&self, session: &SessionId);
    /// It may not see the session any more, and has been taken out of it, so that nothing more of
    /// it follows; where it came as a guest and its user may belong to the session since, it waits
    /// at its place for [`super::Hub::keep`]. Lets its owner know, who tells its client, however much is
    /// not written yet. Once for each membership that is ended so.
    fn revoke(&self, session: &SessionId);
    /// Ends its connection for good: an operator said so. May come twice, and for one that is
    /// closed already. Not called under a lock.
    fn disconnect(&self);
    /// Its membership of a session begins, moves on from a new place, or ends. What it is offered
    /// afterwards with a cursor moves it on from there.
    fn stands(&self, _session: &SessionId, _stand: Stand<'_>) {}
    /// Its user's client has come back on another connection, which `by` names as no other:
    /// closes this one, if it is the client's older one. Not called under a lock.
    fn came_back(&self, _client: &str, _by: &str) {}
}

/// Where a reader stands in a session.
#[derive(Debug, Clone, Copy)]
pub enum Stand<'a> {
    /// It joins; where, is not settled yet.
    Joining,
    /// There: it is offered what comes after.
    At(&'a Cursor),
    /// There, although it was not shown what stands before that: it is not to be.
    Past(&'a Cursor),
    /// It is in it no more.
    Left,
}

/// What a reader is in a session that it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its user owns the session or is a member.
    Belongs,
    /// The session is open.
    Guest,
}
