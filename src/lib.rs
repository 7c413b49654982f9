//! tokencast: a horizontally scaled, Socket.IO-compatible server cluster that streams the answers
//! of language models.
//!
//! What happens in a session is an append-only, positioned log of events, and each running answer
//! is an append-only text beside it. A generation only appends; whoever shows the session to
//! someone only reads on from a cursor. `docs/ARCHITECTURE.md` follows one token through the
//! layers below, which import downwards only (`tests/it/layers.rs` enforces it).

pub mod codec;
pub mod domain;
pub mod lifecycle;
pub mod llm;
pub mod net;
pub mod store;
