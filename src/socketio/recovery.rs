//! Socket.IO's [connection state recovery]: what a client shows that comes back, and whether it is
//! believed.
//!
//! The `pid` names a client: it is said in CONNECT, and shown in the next one's `auth`. It is made of
//! chance and its user, so that nobody goes on as somebody else's client. The `offset` says where
//! the client stood. Neither is a proof of anything: whether the user may see the sessions is looked
//! up.
//!
//! [connection state recovery]: https://socket.io/docs/v4/connection-state-recovery

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Edge;
use crate::dialect::DialectIndex;
use crate::dialect::offset::{self, Offset};
use crate::domain::{Cursor, SessionId, UserId};
use crate::telemetry::metrics;

/// How many characters of a pid are chance, and how many bytes of its digest follow.
const CHANCE_CHARS: usize = 22;
const DIGEST_BYTES: usize = 12;

/// What becomes of a client that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on where it stood.
    Recovered,
    /// It stood nowhere: it had joined nothing, or too much.
    Nothing,
    /// Its pid or offset is none of ours, or not one of what it speaks.
    Invalid,
    /// It is another user's.
    Foreign,
    /// It was away for too long, or may not see one of its sessions any more.
    Expired,
}

impl Outcome {
    /// Counts it.
    pub(super) fn count(self) {
        let outcome = match self {
            Self::Recovered => "recovered",
            Self::Nothing => "nothing",
            Self::Invalid => "invalid",
            Self::Foreign => "foreign",
            Self::Expired => "expired",
        };
        metrics::recoveries(outcome).increment(1);
    }
}

/// A client that says it was here before.
#[derive(Debug, Clone)]
pub(super) struct Returned {
    /// It.
    pub pid: String,
    /// What it speaks.
    pub dialect: DialectIndex,
    /// Where it stood.
    pub places: Vec<(SessionId, Cursor)>,
}

impl Returned {
    /// Reads what a CONNECT of `user` shows. `None` where it shows nothing.
    pub(super) fn read(
        edge: &Edge,
        auth: Option<&Value>,
        user: &UserId,
        settled: Option<DialectIndex>,
    ) -> Option<Result<Self, Outcome>> {
        let auth = auth?;
        let pid = auth.get("pid").filter(|pid| !pid.is_null())?;
        let text = auth.get("offset").filter(|offset| !offset.is_null());
        Some(Self::check(edge, pid.as_str(), text, user, settled))
    }

    fn check(
        edge: &Edge,
        pid: Option<&str>,
        offset: Option<&Value>,
        user: &UserId,
        settled: Option<DialectIndex>,
    ) -> Result<Self, Outcome> {
        let pid = pid.filter(|pid| is_pid(pid)).ok_or(Outcome::Invalid)?;
        if !belongs_to(pid, user) {
            return Err(Outcome::Foreign);
        }
        let Some(offset) = offset else { return Err(Outcome::Nothing) };
        let offset = offset.as_str().ok_or(Outcome::Invalid)?;
        if offset == offset::UNRECOVERABLE {
            return Err(Outcome::Nothing);
        }
        let spoken = edge.dialects.sockets().count();
        let read = offset::read(offset, spoken).map_err(|_| Outcome::Invalid)?;
        let Offset { dialect, places } = read;
        if settled.is_some_and(|settled| settled != dialect) {
            return Err(Outcome::Invalid);
        }
        Ok(Self { pid: pid.to_owned(), dialect, places })
    }

    /// Its places as its client has told them.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (SessionId, Arc<str>)> {
        self.places.iter().map(|(session, cursor)| {
            (session.clone(), offset::of(self.dialect, session, cursor).into())
        })
    }
}

/// A client's name for as long as it comes back.
pub(super) fn new_pid(user: &UserId) -> String {
    let chance = URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
    let digest = digest(&chance, user);
    chance + &digest
}

/// Names one connection as no other.
pub(super) fn new_connection() -> String {
    Uuid::new_v4().simple().to_string()
}

fn is_pid(pid: &str) -> bool {
    pid.len() == CHANCE_CHARS + DIGEST_BYTES * 4 / 3
        && pid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn belongs_to(pid: &str, user: &UserId) -> bool {
    let (chance, rest) = pid.split_at(CHANCE_CHARS);
    digest(chance, user) == rest
}

fn digest(chance: &str, user: &UserId) -> String {
    let mut hash = Sha256::new();
    hash.update(chance);
    hash.update(user.as_str());
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..DIGEST_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_one_users_and_no_two_are_alike() {
        let user = |id: &str| UserId::new(id).unwrap();
        let pid = new_pid(&user("ada"));
        assert!(is_pid(&pid) && belongs_to(&pid, &user("ada")), "{pid}");
        assert!(!belongs_to(&pid, &user("ad")));
        assert!(!belongs_to(&pid, &user("bob")));
        assert_ne!(pid, new_pid(&user("ada")));
        for bad in ["", "a", &pid[1..], &format!("{pid}a"), &pid.replace(&pid[..1], "é"), "\"}"] {
            assert!(!is_pid(bad), "{bad}");
        }
    }
}
