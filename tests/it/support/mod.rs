//! What the suites share: waiting for something to become true, and servers of a test's own.

use std::future::Future;
use std::time::Duration;

pub mod faulty;
pub mod redis;

/// How long anything may take to become true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `ask` gives something; panics with `what` when patience runs out.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let waiting = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(answer) => answer,
        Err(_) => panic!("never came true: {what}"),
    }
}
