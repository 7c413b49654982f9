//! What the statements in `sql/` need of SQLite: types, the clock, connections and the meaning of
//! its errors. One connection writes, a few read.
//!
//! The log is written ahead and `synchronous` is NORMAL: what was committed is in the operating
//! system's hands and outlives the process however it dies. A power cut may take the newest
//! commits (never the file's integrity); who cannot have that runs PostgreSQL, since waiting for
//! the disk at each commit, with one writer, would bound the whole node to a few hundred commits
//! a second.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::types::Json;
use uuid::Uuid;

use super::StoreError;
use super::connect::{StoreOptions, bounded, classify};
use crate::domain::{Timestamp, UserId};

/// The most connections that read: each is a thread.
const READERS_MAX: u32 = 4;

/// The database's clock.
macro_rules! now {
    () => {
        "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
    };
}

/// The database's clock, less a number of milliseconds.
macro_rules! now_less {
    ($millis:literal) => {
        concat!("CAST(round(unixepoch('subsec') * 1000) AS INTEGER) - ", $millis)
    };
}

/// The ids bound as [`Ids`].
macro_rules! ids {
    ($bound:literal) => {
        concat!("SELECT unhex(value) FROM json_each(", $bound, ")")
    };
}

/// What the search index keeps of the words bound as [`kept_words`] gives them.
macro_rules! indexed_words {
    ($bound:literal) => {
        $bound
    };
}

/// The messages of the search index that have all the words bound as [`asked_words`] gives them.
/// The index gives them in the order of their ids, so nothing is read beyond a limit. Of several
/// words it walks the list of a frequent one, too, at 3 to 4 ns a message.
macro_rules! has_words {
    ($bound:literal) => {
        concat!(
            "SELECT rowid AS id FROM message_search_words WHERE message_search_words MATCH ",
            $bound,
        )
    };
}

/// The id of the message that is a row of [`has_words`]: only a page's are looked up.
macro_rules! message_of {
    ($row:literal) => {
        concat!("(SELECT message_id FROM message_search WHERE id = ", $row, ".id)")
    };
}

#[path = "sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the same statements, compiled for each database")]
mod sql;

type Db = sqlx::Sqlite;
type Pool = sqlx::SqlitePool;
type Connection = sqlx::SqliteConnection;
type Transaction = sqlx::SqliteTransaction<'static>;

/// A list of ids, bound as one value: their digits, since JSON has no bytes.
type Ids = Json<Vec<String>>;

/// A moment as a column holds it: milliseconds since 1970.
#[derive(Debug, Clone, Copy, sqlx::Type)]
#[sqlx(transparent)]
struct Time(i64);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at.as_millis())
    }
}

impl From<Time> for Timestamp {
    fn from(at: Time) -> Self {
        Self::from_millis(at.0)
    }
}

fn ids(ids: impl Iterator<Item = Uuid>) -> Ids {
    Json(ids.map(|id| id.simple().to_string()).collect())
}

/// The words of a message, bound as one value.
fn kept_words(words: Vec<String>) -> String {
    words.join(" ")
}

/// The words of a query, bound as one value. Letters and digits alone, so nothing in the quotes is
/// read as more than a word.
fn asked_words(words: Vec<String>) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" AND ")
}

/// A transaction that writes: the write lock first, since a reader that turns writer is refused
/// without waiting when another has written meanwhile.
async fn begin(pool: &Pool) -> sqlx::Result<Transaction> {
    pool.begin_with("BEGIN IMMEDIATE").await
}

/// Nothing to do: a transaction that writes is the only one.
async fn lock_user(_transaction: &mut Transaction, _user: &UserId) -> sqlx::Result<()> {
    Ok(())
}

/// Puts outbox rows among what was told, and on the way deletes what was told so many milliseconds
/// ago. What is interrupted between its statements is done again.
async fn put_among_told(pool: &Pool, events: Ids, kept_ms: i64) -> sqlx::Result<()> {
    sqlx::query(concat!(
        "INSERT INTO outbox_told (id, session_id, revision, event, told_at) \
         SELECT id, session_id, revision, event, ",
        now!(),
        " FROM outbox WHERE id IN (",
        ids!("$1"),
        ") ON CONFLICT (id) DO NOTHING",
    ))
    .bind(events.clone())
    .execute(pool)
    .await?;
    sqlx::query(concat!("DELETE FROM outbox WHERE id IN (", ids!("$1"), ")"))
        .bind(events)
        .execute(pool)
        .await?;
    sqlx::query(concat!("DELETE FROM outbox_told WHERE told_at < ", now_less!("$1")))
        .bind(kept_ms)
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether a complaint of the database may pass by itself.
fn passes(complaint: &dyn DatabaseError) -> bool {
    let code = complaint.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
    // BUSY, LOCKED, INTERRUPT, IOERR, FULL, CANTOPEN: https://www.sqlite.org/rescode.html
    matches!(code & 0xff, 5 | 6 | 9 | 10 | 13 | 14)
}

/// Opens the database and brings its tables up to date.
pub(super) async fn connect(url: &str, options: &StoreOptions) -> Result<sql::Sql, StoreError> {
    let limit = options.operation_timeout();
    let database = SqliteConnectOptions::from_str(url)
        .map_err(|error| classify("read database URL", passes, error))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(options.statement_timeout);
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            // Nothing is gained by opening a file anew, and a database in memory would be gone.
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let opening = async {
        if !in_memory {
            make_folder(database.get_filename()).await?;
        }
        let writer = pool(1).connect_lazy_with(database.clone());
        migrate(&writer, options.acquire_timeout).await?;
        Ok(writer)
    };
    let writer = bounded("migrate database", Duration::MAX, passes, opening).await?;
    let readers = match options.connections_max.saturating_sub(1).clamp(1, READERS_MAX) {
        _ if in_memory => writer.clone(),
        readers => pool(readers).connect_lazy_with(database.pragma("query_only", "on")),
    };
    let store = sql::Sql::new(readers, writer.clone(), writer, limit);
    store.index_older().await?;
    Ok(store)
}

async fn make_folder(file: &Path) -> sqlx::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            Ok(tokio::fs::create_dir_all(folder).await?)
        }
        _ => Ok(()),
    }
}

/// In one transaction, which is the lock that `sqlx` does not take here. Switching a new file to
/// write-ahead logging is refused without waiting while others do the same (2 of 40 times with
/// four at once), hence the loop.
async fn migrate(pool: &Pool, patience: Duration) -> sqlx::Result<()> {
    let begun = Instant::now();
    let mut transaction = loop {
        match begin(pool).await {
            Err(sqlx::Error::Database(complaint))
                if passes(&*complaint) && begun.elapsed() < patience =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => break other?,
        }
    };
    let mut migrator = sqlx::migrate!("migrations/sqlite");
    // After a step back to an older version, it still starts.
    migrator.set_ignore_missing(true);
    migrator.run(&mut *transaction).await?;
    transaction.commit().await
}
