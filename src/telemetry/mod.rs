//! What the process says about itself: log lines and metrics.
//!
//! Every metric is declared in [`metrics`], and nowhere else. It knows no module of the program:
//! what is counted, and when, is the business of those who do it.

mod limit;
mod logging;
pub mod metrics;
mod process;
mod rate;

pub use logging::{Format, LoggingError, init_logging};
pub use process::open_files_max;
pub use rate::TokenMeter;
