//! The composition root: the only place that names concrete backends.

use crate::config::Config;

/// Serves until the process is told to stop.
///
/// # Errors
/// What could not be started.
pub async fn serve(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}

/// Brings the database to this version's schema.
///
/// # Errors
/// What could not be migrated.
pub async fn migrate(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
