//! The one integration binary: the program from outside.

#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod cli;
