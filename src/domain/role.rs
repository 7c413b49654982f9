//! What a node does.

/// Which part of the work a node does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// Holds clients, over sockets and HTTP, and runs no generation.
    Edge,
    /// Runs generations and holds no clients.
    Generator,
}

impl Role {
    /// The word in `ROLE` and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Edge => "edge",
            Self::Generator => "generator",
        }
    }

    /// The role that is written so.
    pub fn named(word: &str) -> Option<Self> {
        [Self::All, Self::Edge, Self::Generator].into_iter().find(|role| role.as_str() == word)
    }

    /// Whether it runs generations.
    pub const fn generates(self) -> bool {
        !matches!(self, Self::Edge)
    }

    /// Whether it holds clients.
    pub const fn serves(self) -> bool {
        !matches!(self, Self::Generator)
    }
}
