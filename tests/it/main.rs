//! The one integration binary: contract suites, the layers, and the program from outside.

#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod adapter_contract;
mod chat;
mod cli;
mod hub;
mod layers;
mod limits_document;
mod net;
mod outbox;
mod providers;
mod store_contract;
mod support;
mod takeover;
