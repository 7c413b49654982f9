//! What the suites share: waiting for something to become true, and servers of a test's own.

use std::future::Future;
use std::time::Duration;

pub mod faulty;
pub mod redis;

/// How long anything may take to become true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The seeds of a random test: `SEED`, or the ones it is always tried with, so that a run does not
/// depend on chance. Each is printed as its turn comes.
pub fn seeds(listed: &[u64]) -> impl Iterator<Item = u64> {
    let one = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seeds = one.map_or_else(|| listed.to_vec(), |seed| vec![seed]);
    seeds.into_iter().inspect(|seed| println!("SEED={seed}"))
}

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
