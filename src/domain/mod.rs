//! What the conversation is made of: identifiers, sessions, messages, generations, chunks,
//! events, commands and the errors a client can see.
//!
//! Pure data and pure functions. It knows no transport, no storage and no runtime: nothing here
//! is async, does I/O or derives serde. Wire types and row types live at their own edge and
//! convert.

pub mod chunk;
pub mod command;
pub mod cursor;
pub mod error;
pub mod event;
pub mod generation;
pub mod ids;
pub mod limit;
pub mod message;
pub mod presence;
pub mod reply;
pub mod role;
pub mod session;
pub mod text;
pub mod timestamp;

pub use chunk::Chunk;
pub use command::Command;
pub use cursor::{Cursor, InvalidCursor, TextCursor};
pub use error::{Error, ErrorCode};
pub use event::{Aside, Event, EventKind, Position, Revoked, Signal, Stage};
pub use generation::{
    Generation, GenerationConfig, OnTakeover, Outcome, Status, StopReason, Usage,
};
pub use ids::{AgentId, AttachmentId, EventId, GenerationId, MessageId, NodeId, SessionId, UserId};
pub use limit::{Action, Budget, Moderation, Rate, Rates};
pub use message::{Attachment, Author, Message, NewAttachment, Reaction, ReactionCounts};
pub use presence::{Presence, PresenceChange};
pub use reply::{ActiveGeneration, Joined, JoinedPersona, Reply};
pub use role::Role;
pub use session::{Access, Member, Membership, Session, SessionChange, Visibility};
pub use text::Text;
pub use timestamp::Timestamp;
