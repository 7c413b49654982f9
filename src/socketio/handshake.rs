//! Whether a socket is let in, decided before CONNECT is sent.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};
use socketioxide::ProtocolVersion;
use socketioxide::extract::SocketRef;
use tokio::time::Instant;

use super::line::Line;
use super::outlet::Client;
use super::recovery::{self, Outcome, Returned};
use super::{CLOSED_WITHIN, CONNECTS_MAX, Edge, NAMESPACE, socket};
use crate::auth::{Claims, Refused, find_token};
use crate::chat::{Attendance, Caller, Owed};
use crate::dialect::DialectIndex;
use crate::domain::ErrorCode;
use crate::net::{Outbound, Slot, connect_error};
use crate::telemetry::metrics::{self, Limit};

/// Why a socket is not let in; its text is the client's `err.message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAdmitted {
    #[error(transparent)]
    Refused(Refused),
    #[error("Unknown dialect")]
    UnknownDialect,
    #[error("Too many connections")]
    TooMany,
    /// Whether it may be let in is not known now. Stock clients do not try again after a refusal,
    /// so they are not told: what carries them is closed, and they come back.
    #[error("Try again later")]
    Unavailable,
}

impl From<Refused> for NotAdmitted {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unavailable => Self::Unavailable,
            refused => Self::Refused(refused),
        }
    }
}

impl NotAdmitted {
    /// What the middleware says, so that the client gets `err.message` and `err.data`.
    pub(super) fn to_client(self) -> String {
        let data = json!({ "code": self.code().as_str(), "reason": self.reason() });
        connect_error(&self.to_string(), &data)
    }

    fn code(self) -> ErrorCode {
        match self {
            Self::Refused(_) => ErrorCode::Auth,
            Self::UnknownDialect => ErrorCode::Invalid,
            Self::TooMany | Self::Unavailable => ErrorCode::Overloaded,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.reason(),
            Self::UnknownDialect => "unknown_dialect",
            Self::TooMany => "too_many",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A user who was admitted.
pub(super) struct Known {
    pub caller: Caller,
    pub attendance: Attendance,
    /// Where connections are recovered.
    pub client: Option<Client>,
    pub coming: Coming,
    /// When its token ends, where the socket ends with it.
    pub expires_at: Option<Instant>,
}

/// How a client comes.
pub(super) enum Coming {
    /// For the first time.
    New,
    /// It was here before, and begins anew.
    Anew,
    /// It was here before, and goes on there.
    Back(Returned, Vec<Owed>),
}

/// Who is let in.
struct Admitted {
    /// `None` where it may say so later.
    known: Option<Known>,
    dialect: Option<DialectIndex>,
    /// Its place among the node's connections.
    slot: Slot,
}

/// What a handshake says.
struct Handshake {
    /// Who; `None` where it may say so later.
    claims: Option<Claims>,
    /// What is to be spoken, where that is settled.
    dialect: Option<DialectIndex>,
    slot: Slot,
}

/// Lets a socket in: knows its user and dialect, as far as the handshake tells, and hears its
/// events from now on.
pub(super) async fn admit(
    edge: &Arc<Edge>,
    socket: &SocketRef,
    auth: Option<Value>,
) -> Result<(), NotAdmitted> {
    let outbound = socket
        .req_parts()
        .extensions
        .get::<Arc<Outbound>>()
        .cloned()
        .expect("the transport layer stands before socketioxide and gives every session one");
    let attended = if outbound.connects() > CONNECTS_MAX {
        metrics::limited(Limit::Connects).increment(1);
        Err(NotAdmitted::Unavailable)
    } else {
        attend(edge, socket, auth.as_ref()).await
    };
    match attended {
        Ok(Admitted { known, dialect, slot }) => {
            outbound.admitted();
            let client = known.as_ref().and_then(|known| known.client.as_ref());
            // An empty one where there is none: the session may have had another socket before.
            outbound.set_pid(NAMESPACE, client.map_or("", |client| &client.pid));
            socket::seat(socket, Line::new(edge.clone(), outbound, dialect), known, slot);
            Ok(())
        }
        Err(refused) => {
            metrics::connect_errors(refused.reason()).increment(1);
            if matches!(refused, NotAdmitted::Unavailable) {
                outbound.close_transport();
                // A refusal would still go out in answer to a poll that waits.
                tokio::time::sleep(CLOSED_WITHIN).await;
            }
            Err(refused)
        }
    }
}

async fn attend(
    edge: &Edge,
    socket: &SocketRef,
    auth: Option<&Value>,
) -> Result<Admitted, NotAdmitted> {
    let Handshake { claims, dialect, slot } = decide(edge, socket, auth).await?;
    let Some(claims) = claims else { return Ok(Admitted { known: None, dialect, slot }) };
    let holds_for = edge.options.expires_after.map(|leeway| claims.holds_for(leeway));
    let expires_at = holds_for.map(|holds_for| Instant::now() + holds_for);
    let caller = Caller { user: claims.user, name: claims.name };
    // Clients of protocol 4 know nothing of recovery.
    let recovers = edge.options.recovers && socket.protocol() == ProtocolVersion::V5;
    if !recovers {
        let attendance = admitted(edge, &caller, None).await?;
        let (client, coming) = (None, Coming::New);
        let known = Known { caller, attendance, client, coming, expires_at };
        return Ok(Admitted { known: Some(known), dialect, slot });
    }
    let shown = Returned::read(edge, auth, &caller.user, dialect);
    let connection = recovery::new_connection();
    if let Some(Ok(returned)) = &shown {
        // Whatever becomes of this one: the older ones are not its client's any more.
        edge.chat.came_back(&caller, &returned.pid, &connection).await;
    }
    let returned = shown.as_ref().and_then(|shown| shown.as_ref().ok());
    let attendance = admitted(edge, &caller, returned).await?;
    let coming = match shown {
        None => Coming::New,
        Some(shown) => back(edge, &caller, shown).await?,
    };
    let (dialect, pid) = match &coming {
        Coming::Back(returned, _) => (Some(returned.dialect), returned.pid.clone()),
        Coming::New | Coming::Anew => (dialect, recovery::new_pid(&caller.user)),
    };
    let client = Some(Client { pid, connection });
    let known = Some(Known { caller, attendance, client, coming, expires_at });
    Ok(Admitted { known, dialect, slot })
}

/// Counts the connection. Who comes back may be counted still with the older one, whose node may
/// be dead: such a one is not told that it is one too many, but to come again.
async fn admitted(
    edge: &Edge,
    caller: &Caller,
    returned: Option<&Returned>,
) -> Result<Attendance, NotAdmitted> {
    let error = match edge.chat.admit(caller).await {
        Ok(attendance) => return Ok(attendance),
        Err(error) => error,
    };
    if error.code != ErrorCode::Overloaded {
        return Err(NotAdmitted::Unavailable);
    }
    match returned {
        Some(returned) if owed(edge, caller, returned).await?.is_some() => {
            Err(NotAdmitted::Unavailable)
        }
        _ => Err(NotAdmitted::TooMany),
    }
}

/// Whether a client goes on where it says that it was.
async fn back(
    edge: &Edge,
    caller: &Caller,
    shown: Result<Returned, Outcome>,
) -> Result<Coming, NotAdmitted> {
    let (coming, outcome) = match shown {
        Err(outcome) => (Coming::Anew, outcome),
        Ok(returned) => match owed(edge, caller, &returned).await? {
            Some(owed) => (Coming::Back(returned, owed), Outcome::Recovered),
            None => (Coming::Anew, Outcome::Expired),
        },
    };
    outcome.count();
    Ok(coming)
}

/// What a client is owed that comes back; `None` where it may not go on.
async fn owed(
    edge: &Edge,
    caller: &Caller,
    returned: &Returned,
) -> Result<Option<Vec<Owed>>, NotAdmitted> {
    edge.chat.owed(caller, &returned.places).await.map_err(|_| NotAdmitted::Unavailable)
}

async fn decide(
    edge: &Edge,
    socket: &SocketRef,
    auth: Option<&Value>,
) -> Result<Handshake, NotAdmitted> {
    let parts = socket.req_parts();
    let token = find_token(auth, parts);
    let named = dialect(edge, socket, auth);
    let (claims, dialect) = match edge.options.tokenless_dialect {
        Some(own) if token.is_none() && named.is_ok_and(|named| named.is_none_or(|n| n == own)) => {
            (None, Some(own))
        }
        _ => {
            let claims = edge.verifier.verify_found(token.as_deref()).await?.normal()?;
            if names_another(auth, &claims) {
                return Err(Refused::Invalid.into());
            }
            (Some(claims), named?)
        }
    };
    // Held from now on, so that of many who come at once no more get in than there are places.
    let Some(slot) = edge.options.slots.take() else {
        metrics::limited(Limit::Connections).increment(1);
        return Err(NotAdmitted::TooMany);
    };
    Ok(Handshake { claims, dialect, slot })
}

/// Whether `auth.userId` is somebody else.
fn names_another(auth: Option<&Value>, claims: &Claims) -> bool {
    let named = auth.and_then(|auth| auth.get("userId")).filter(|named| !named.is_null());
    named.is_some_and(|named| named.as_str() != Some(claims.user.as_str()))
}

/// `auth.dialect`, else `?dialect=`; `None` where neither names one.
fn dialect(
    edge: &Edge,
    socket: &SocketRef,
    auth: Option<&Value>,
) -> Result<Option<DialectIndex>, NotAdmitted> {
    let in_auth = auth.and_then(|auth| auth.get("dialect")).filter(|named| !named.is_null());
    let name = match in_auth {
        Some(named) => Some(named.as_str().ok_or(NotAdmitted::UnknownDialect)?.into()),
        None => in_query(socket.req_parts().uri.query().unwrap_or_default()),
    };
    let known = |name: Cow<'_, str>| edge.dialects.by_name(&name);
    name.map(|name| known(name).ok_or(NotAdmitted::UnknownDialect)).transpose()
}

fn in_query(query: &str) -> Option<Cow<'_, str>> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "dialect").map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_in_the_query_is_percent_decoded() {
        assert_eq!(in_query("EIO=4&dialect=se%73sion&t=x").as_deref(), Some("session"));
        assert_eq!(in_query("%64ialect=a+b").as_deref(), Some("a b"));
        assert_eq!(in_query("dialect=a&dialect=b").as_deref(), Some("a"));
        assert_eq!(in_query("dialect").as_deref(), Some(""));
        assert_eq!(in_query("mydialect=a&x=dialect=b"), None);
        assert_eq!(in_query(""), None);
    }

    #[test]
    fn a_refused_client_is_told_code_and_reason() {
        let auth = |refused: Refused| NotAdmitted::from(refused);
        for (refused, message, code, reason) in [
            (
                auth(Refused::Missing),
                "Authentication error: Token missing",
                "AUTH_ERROR",
                "missing",
            ),
            (
                auth(Refused::Invalid),
                "Authentication error: Invalid token",
                "AUTH_ERROR",
                "invalid",
            ),
            (
                auth(Refused::Expired),
                "Authentication error: Token expired",
                "AUTH_ERROR",
                "expired",
            ),
            (NotAdmitted::UnknownDialect, "Unknown dialect", "INVALID", "unknown_dialect"),
            (NotAdmitted::TooMany, "Too many connections", "OVERLOADED", "too_many"),
        ] {
            let expected = connect_error(message, &json!({ "code": code, "reason": reason }));
            assert_eq!(refused.to_client(), expected);
        }
    }
}
