//! How an event is written where nodes of different versions read it: in the log and in the
//! outbox. JSON with a version, compact names; unknown versions and kinds are refused, never
//! guessed.
