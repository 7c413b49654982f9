//! One integration binary: contract suites, and tests of a whole cluster.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_contract;
