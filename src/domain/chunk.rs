//! A piece of an answer's text, and where it belongs.

use std::sync::Arc;

use super::GenerationId;

/// New text of a generation, with its place: `delta` starts `offset` bytes into the text of
/// `attempt`. Never empty, and never cuts a character, since both ends are `str` boundaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Whose text it is.
    pub generation: GenerationId,
    /// Which attempt wrote it. A lower one than a reader knows is a zombie's and is ignored.
    pub attempt: u32,
    /// Counts the chunks of a generation as they were made, from 1; jumps where several were
    /// joined.
    pub seq: u64,
    /// Where `delta` starts, in bytes.
    pub offset: u64,
    /// Tokens of the whole text up to the end of `delta`.
    pub tokens: u64,
    /// When the provider's bytes were read, in milliseconds since 1970 by the owner's clock, of
    /// the oldest text in `delta`.
    pub read_at_ms: i64,
    /// The text.
    pub delta: Arc<str>,
}

impl Chunk {
    /// Where the text after it starts, in bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.delta.len() as u64
    }
}
