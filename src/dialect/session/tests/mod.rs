//! The dialect's JSON, word by word.

mod asked;
mod shown;

use super::SessionDialect;

const DIALECT: SessionDialect = SessionDialect { cumulative: false };

/// An id of a message, a generation, or whatever else has a UUID.
const ID: &str = "01890000-0000-7000-8000-00000000000a";
