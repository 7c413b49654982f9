//! A user's own session with an agent.

use uuid::Uuid;

use super::session::{self, FoundSessionRow, session_columns};
use super::{Db, Pool, begin};
use crate::domain::{Access, AgentId, SessionId, UserId, Visibility};
use crate::store::{CreatedSession, NewSession};

/// How often it is looked for: more than once only where another has just made it, and again
/// where that one was deleted in the same moment.
const ATTEMPTS: usize = 4;

/// One statement where there is one, else three or four. The index on owner and persona, which
/// deleted sessions are not in, lets one of two that make it together go on; the other waits for
/// that and finds what it made.
pub(super) async fn find_or_make(
    reads: &Pool,
    writes: &Pool,
    owner: &UserId,
    agent: &AgentId,
) -> sqlx::Result<CreatedSession> {
    for _ in 0..ATTEMPTS {
        if let Some(found) = find(reads, owner, agent).await? {
            return Ok(CreatedSession { created: false, access: Some(found) });
        }
        let new = NewSession {
            id: new_id(),
            owner: owner.clone(),
            title: None,
            agent: Some(agent.clone()),
            visibility: Visibility::Private,
        };
        let mut transaction = begin(writes).await?;
        if let Some(made) = session::insert(&mut transaction, &new, Some(agent)).await? {
            transaction.commit().await?;
            return Ok(CreatedSession { created: true, access: Some(made) });
        }
        transaction.rollback().await?;
    }
    Err(sqlx::Error::RowNotFound)
}

async fn find(pool: &Pool, owner: &UserId, agent: &AgentId) -> sqlx::Result<Option<Access>> {
    sqlx::query_as::<Db, FoundSessionRow>(concat!(
        "SELECT s.id, ",
        session_columns!(),
        ", m.role AS membership \
         FROM session s LEFT JOIN session_member m ON m.session_id = s.id AND m.user_id = $1 \
         WHERE s.owner_id = $1 AND s.persona_key = $2 AND s.deleted_at IS NULL",
    ))
    .bind(owner.as_str())
    .bind(agent.as_str())
    .fetch_optional(pool)
    .await?
    .map(FoundSessionRow::read)
    .transpose()
}

fn new_id() -> SessionId {
    SessionId::new(Uuid::now_v7().to_string()).expect("a UUID is hexadecimal digits and dashes")
}
