//! What the statements in `sql/` need of PostgreSQL: types, the clock, locks, connections and
//! the meaning of its errors. Transactions are READ COMMITTED and lock the rows they change.

use std::str::FromStr;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::connect::{StoreOptions, bounded, classify};
use crate::domain::{Timestamp, UserId};

/// The database's clock, in the milliseconds that [`Timestamp`] has. Not the transaction's
/// begin, which lies before a wait for the session's lock: times follow the ordinals.
macro_rules! now {
    () => {
        "date_trunc('milliseconds', clock_timestamp())"
    };
}

/// The database's clock, less a number of milliseconds.
macro_rules! now_less {
    ($millis:literal) => {
        concat!("clock_timestamp() - ", $millis, " * interval '1 millisecond'")
    };
}

/// The ids bound as [`Ids`].
macro_rules! ids {
    ($bound:literal) => {
        concat!("SELECT unnest(", $bound, ")")
    };
}

/// What the search index keeps of the words bound as [`kept_words`] gives them. The words become
/// lexemes as they are, by no parser and dictionary, and are compared by their bytes.
macro_rules! indexed_words {
    ($bound:literal) => {
        concat!("array_to_tsvector(", $bound, ")")
    };
}

/// The messages of the search index that have all the words bound as [`asked_words`] gives them.
macro_rules! has_words {
    ($bound:literal) => {
        concat!("SELECT id, message_id FROM message_search WHERE words @@ ", $bound, "::tsquery")
    };
}

/// The id of the message that is a row of [`has_words`].
macro_rules! message_of {
    ($row:literal) => {
        concat!($row, ".message_id")
    };
}

/// What may stand behind the `?` of the URL.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

#[path = "sql/mod.rs"]
mod sql;

type Db = sqlx::Postgres;
type Pool = sqlx::PgPool;
type Connection = PgConnection;
type Transaction = sqlx::PgTransaction<'static>;

/// A list of ids, bound as one value.
type Ids = Vec<Uuid>;

/// A moment as a column holds it.
#[derive(Debug, Clone, Copy, sqlx::Type)]
#[sqlx(transparent)]
struct Time(OffsetDateTime);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        let nanos = i128::from(at.as_millis()) * 1_000_000;
        Self(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }
}

impl From<Time> for Timestamp {
    fn from(at: Time) -> Self {
        let millis = at.0.unix_timestamp_nanos().div_euclid(1_000_000);
        Self::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

fn ids(ids: impl Iterator<Item = Uuid>) -> Ids {
    ids.collect()
}

/// The words of a message, bound as one value.
fn kept_words(words: Vec<String>) -> Vec<String> {
    words
}

/// The words of a query, bound as one value. In quotes everything is of a word, if quotes and
/// backslashes are doubled: <https://www.postgresql.org/docs/current/datatype-textsearch.html>.
fn asked_words(words: Vec<String>) -> String {
    let quoted = |word: &String| format!("'{}'", word.replace('\\', r"\\").replace('\'', "''"));
    words.iter().map(quoted).collect::<Vec<_>>().join(" & ")
}

/// A transaction that writes.
async fn begin(pool: &Pool) -> sqlx::Result<Transaction> {
    pool.begin().await
}

/// Until the transaction ends, nobody else may hold the same user's lock. Taken before a
/// session's row, never after. The first number sets these locks apart from any others.
async fn lock_user(transaction: &mut Transaction, user: &UserId) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock(7623, hashtext($1))")
        .bind(user.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Puts outbox rows among what was told, and on the way deletes what was told so many milliseconds
/// ago: one statement. Two nodes that delete do not wait for each other.
async fn put_among_told(pool: &Pool, events: Ids, kept_ms: i64) -> sqlx::Result<()> {
    sqlx::query(concat!(
        "WITH told AS (DELETE FROM outbox WHERE id IN (",
        ids!("$1"),
        ") RETURNING id, session_id, revision, event), \
         old AS (DELETE FROM outbox_told WHERE id IN (SELECT id FROM outbox_told WHERE told_at < ",
        now_less!("$2"),
        " ORDER BY told_at LIMIT 1000 FOR UPDATE SKIP LOCKED)) \
         INSERT INTO outbox_told (id, session_id, revision, event, told_at) \
         SELECT id, session_id, revision, event, ",
        now!(),
        " FROM told ON CONFLICT (id) DO NOTHING",
    ))
    .bind(events)
    .bind(kept_ms)
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether a complaint of the database may pass by itself.
fn passes(complaint: &dyn DatabaseError) -> bool {
    let code = complaint.code().unwrap_or_default();
    // Connection, rollback (deadlock), resources, operator (a timeout, a shutdown, starting up),
    // system. By code: a row lock that was not to be had, and a standby that a failover left us.
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    let classes = ["08", "40", "53", "57", "58"];
    classes.iter().any(|class| code.starts_with(class)) || matches!(&*code, "55P03" | "25006")
}

/// Opens the database and brings its tables up to date.
pub(super) async fn connect(url: &str, options: &StoreOptions) -> Result<sql::Sql, StoreError> {
    let limit = options.operation_timeout();
    refuse_unknown_parameters(url)?;
    let database = PgConnectOptions::from_str(url)
        .map_err(|error| classify("read database URL", passes, error))?
        .application_name("tokencast");
    migrate(&database, options).await?;
    let statement_ms = options.statement_timeout.as_millis();
    let database = database.options([
        ("statement_timeout", statement_ms.to_string()),
        ("idle_in_transaction_session_timeout", limit.as_millis().to_string()),
    ]);
    let some = PgPoolOptions::new()
        .acquire_timeout(options.acquire_timeout)
        // A ping before each use would double the round trips: only what has lain idle is asked.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > Duration::from_secs(1) {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    let most = options.connections_max.saturating_sub(1).max(1);
    let pool = some.clone().max_connections(most).connect_lazy_with(database.clone());
    // Of their own: a node that waits for locks or has much to do is not taken for dead. The
    // second is opened only where the first does not answer.
    let heartbeats = some.max_connections(2).connect_lazy_with(database);
    let store = sql::Sql::new(pool.clone(), pool, heartbeats, limit);
    store.index_older().await?;
    Ok(store)
}

/// The driver would pass over a mistyped `sslmode` with a warning that shows its value, and so
/// that of a password in the wrong place.
fn refuse_unknown_parameters(url: &str) -> Result<(), StoreError> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (at, (key, _)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
        if !PARAMETERS.contains(&&*key) && !key.starts_with("options[") {
            return Err(StoreError::Unexpected {
                doing: "read database URL",
                source: format!("parameter {} is not known", at + 1).into(),
            });
        }
    }
    Ok(())
}

/// On a connection of its own, since neither waiting for another node's migration nor a long
/// migration is a statement to be cut off.
async fn migrate(database: &PgConnectOptions, options: &StoreOptions) -> Result<(), StoreError> {
    let limit = options.acquire_timeout;
    let opening = PgConnection::connect_with(database);
    let mut connection = bounded("connect to database", limit, passes, opening).await?;
    let mut migrator = sqlx::migrate!("migrations/postgres");
    // While a cluster is brought to a new version, nodes of the old one still start.
    migrator.set_ignore_missing(true);
    bounded("migrate database", Duration::MAX, passes, async {
        // Running it asks for the right to make tables, also where none is to be made: a node may
        // serve as somebody who must not.
        if !is_up_to_date(&migrator, &mut connection).await? {
            migrator.run(&mut connection).await?;
        }
        connection.close().await
    })
    .await
}

/// Whether every migration was applied, as it is in this version. Where nobody has migrated yet,
/// and where the one who asks must not know, it is not.
async fn is_up_to_date(migrator: &Migrator, connection: &mut PgConnection) -> sqlx::Result<bool> {
    let applied: Result<Vec<(i64, Vec<u8>, bool)>, _> =
        sqlx::query_as("SELECT version, checksum, success FROM _sqlx_migrations")
            .fetch_all(&mut *connection)
            .await;
    let applied = match applied {
        Ok(applied) => applied,
        Err(sqlx::Error::Database(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    // What broke off in the middle is for the migration to complain about.
    let whole = applied.iter().all(|(.., success)| *success);
    Ok(whole
        && migrator.iter().all(|migration| {
            applied.iter().any(|(version, checksum, _)| {
                *version == migration.version && checksum[..] == migration.checksum[..]
            })
        }))
}
