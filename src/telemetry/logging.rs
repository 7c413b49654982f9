//! Log lines, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One object a line.
    Json,
}

impl Format {
    /// Text where standard error is a terminal, else JSON.
    pub fn detect() -> Self {
        if stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The directives are not understood.
    #[error("read the log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// It was set up before.
    #[error("logging is set up already")]
    Already,
}

/// What is never logged, whatever the filter says: it quotes the values of settings in a database's
/// URL that it does not know, such as a password's under a misspelt name.
const SECRETIVE: [&str; 1] = ["sqlx_postgres::options=off"];

/// Sets up logging for the whole process, once. `filter` is `tracing`'s directives (`info`,
/// `tokencast=debug,fred=warn`).
///
/// # Errors
/// [`LoggingError`]; nothing has changed then.
pub fn init_logging(format: Format, filter: &str) -> Result<(), LoggingError> {
    let mut filter = EnvFilter::try_new(filter).map_err(LoggingError::Filter)?;
    for target in SECRETIVE {
        filter = filter.add_directive(target.parse().expect("a directive that is written here"));
    }
    let lines = fmt().with_env_filter(filter).with_writer(stderr);
    let done = match format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    done.map_err(|_| LoggingError::Already)
}
