//! The databases that a test of stored messages runs on, one after the other.

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, builder::PossibleValuesParser};
use serde::Serialize;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// A file in the nodes' folder, which both nodes open.
    Sqlite,
    /// The server that `TEST_DATABASE_URL` names.
    Postgres,
}

impl Database {
    /// `--database`, which may be given twice; both where it is not.
    pub fn option() -> Arg {
        Arg::new("database")
            .long("database")
            .action(ArgAction::Append)
            .value_parser(PossibleValuesParser::new(["sqlite", "postgres"]))
            .help("which database [default: both, one after the other]")
    }

    /// What [`Database::option`] says.
    pub fn chosen(matches: &ArgMatches) -> Vec<Self> {
        let chosen: Vec<Self> = matches
            .get_many::<String>("database")
            .unwrap_or_default()
            .map(|word| if word == "sqlite" { Self::Sqlite } else { Self::Postgres })
            .collect();
        if chosen.is_empty() { vec![Self::Sqlite, Self::Postgres] } else { chosen }
    }

    /// Its `DATABASE_URL`, seen from the nodes' folder.
    ///
    /// # Errors
    /// Where `TEST_DATABASE_URL` is needed and not set.
    pub fn url(self) -> anyhow::Result<String> {
        match self {
            Self::Sqlite => Ok("sqlite://bench.db".to_owned()),
            Self::Postgres => std::env::var("TEST_DATABASE_URL")
                .context("TEST_DATABASE_URL: run this by dev/services.sh"),
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// Settings of nodes that take whatever one user sends.
pub fn without_limits() -> [(&'static str, String); 3] {
    let none =
        ["session:join", "message:send", "read", "session:create"].map(|name| format!("{name}=0"));
    [
        ("RATE_LIMITS", none.join(",")),
        ("SOCKET_EVENTS_MAX", "0".to_owned()),
        ("MAX_CONNECTIONS_PER_USER", "0".to_owned()),
    ]
}
