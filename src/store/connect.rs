//! Which database a URL names, and what holds for both: bounds, and what an error means. It must
//! not know any statement.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;

use super::{SharedStore, StoreError, postgres, sqlite};

/// How a store uses its database.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The most connections this node opens. 10 by default; at least 2. PostgreSQL is given
    /// heartbeats through one of them, and through one more where that does not answer. SQLite
    /// writes through one and reads through the others, of which it opens at most 4.
    pub connections_max: u32,
    /// How long an operation waits for a connection. 3 s by default.
    pub acquire_timeout: Duration,
    /// How long one statement may take, waiting for locks included. 5 s by default.
    pub statement_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections_max: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
        }
    }
}

impl StoreOptions {
    /// How long one operation may take as a whole, so that a connection whose peer vanished
    /// without a word holds nobody: the database's own bound on statements does not help there.
    pub(super) fn operation_timeout(&self) -> Duration {
        self.acquire_timeout + 2 * self.statement_timeout
    }
}

/// Which database a URL names.
enum Backend {
    Postgres,
    Sqlite,
}

fn backend(url: &str) -> Result<Backend, StoreError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => Ok(Backend::Postgres),
        Some("sqlite") => Ok(Backend::Sqlite),
        // The URL itself may hold a password.
        _ => Err(StoreError::Unexpected {
            doing: "choose database",
            source: "a database URL begins with postgres:, postgresql: or sqlite:".into(),
        }),
    }
}

/// Opens the database at `url` and brings its tables up to date. Many nodes may do so together:
/// one migrates, the others wait for it.
///
/// `postgres://…` and `postgresql://…` are PostgreSQL. `sqlite:path` and `sqlite://path` are a
/// file, made with its folder where it is missing, for this process alone; `sqlite::memory:` is
/// gone when it is closed.
///
/// # Errors
/// [`StoreError::Unavailable`] where the database does not answer within the acquire timeout:
/// try again. [`StoreError::Unexpected`] for a URL that cannot be read and tables that cannot be
/// brought up to date.
pub async fn connect(url: &str, options: &StoreOptions) -> Result<SharedStore, StoreError> {
    Ok(match backend(url)? {
        Backend::Postgres => Arc::new(postgres::connect(url, options).await?),
        Backend::Sqlite => Arc::new(sqlite::connect(url, options).await?),
    })
}

/// Brings the tables of the database at `url` up to date, and closes it.
///
/// # Errors
/// As [`connect`].
pub async fn migrate(url: &str, options: &StoreOptions) -> Result<(), StoreError> {
    connect(url, options).await?.close().await;
    Ok(())
}

/// Runs `task` for at most `limit`, and says what its error means. `passes` tells a database's
/// complaint that may pass by itself from one that will not.
pub(super) async fn bounded<T>(
    doing: &'static str,
    limit: Duration,
    passes: fn(&dyn DatabaseError) -> bool,
    task: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, task).await {
        Ok(done) => done.map_err(|error| classify(doing, passes, error)),
        Err(elapsed) => Err(StoreError::Unavailable { doing, source: Box::new(elapsed) }),
    }
}

/// What an error of the driver means.
pub(super) fn classify(
    doing: &'static str,
    passes: fn(&dyn DatabaseError) -> bool,
    error: sqlx::Error,
) -> StoreError {
    use sqlx::Error as E;
    use sqlx::migrate::MigrateError;

    let passing = match &error {
        E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => true,
        E::BeginFailed => true,
        E::Database(complaint) => passes(&**complaint),
        E::Migrate(failed) => match &**failed {
            MigrateError::Execute(E::Database(complaint)) => passes(&**complaint),
            MigrateError::Execute(cause) => matches!(cause, E::Io(_) | E::Tls(_)),
            _ => false,
        },
        _ => false,
    };
    let source = Box::new(error);
    if passing {
        StoreError::Unavailable { doing, source }
    } else {
        StoreError::Unexpected { doing, source }
    }
}
