//! How a generation's end is stored: by the attempt that brought it about, and by any node for a
//! generation whose own node has died.

use std::time::Duration;

use tokio::time::sleep;

use super::{FINISH_WITHIN, PAUSE, Shared};
use crate::adapter::AdapterError;
use crate::domain::{Error, ErrorCode, Generation, Outcome, Usage};
use crate::outbox::DeliverError;
use crate::store::{Finish, Finished, StoreError};

/// A node that has given no heartbeat for this long is dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(10);
/// The most generations of dead nodes that are ended at once.
const ORPHANS_MAX: u32 = 64;

/// Why an orphan was not ended now; it is looked for again.
#[derive(Debug, thiserror::Error)]
enum OrphanError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Deliver(#[from] DeliverError),
}

/// Ends what dead nodes left unfinished: failed, with the text that the log has. Nothing is typing
/// for ever. Not done while Redis is away, since the text could not be read.
pub(super) async fn end_orphans(shared: &Shared) {
    if !shared.adapter.is_up() {
        return;
    }
    let orphans = match shared.store.claimable(DEAD_AFTER, DEAD_AFTER, ORPHANS_MAX).await {
        Ok(orphans) => orphans,
        Err(error) => return tracing::debug!(%error, "look for orphans"),
    };
    for orphan in orphans {
        if let Err(error) = end_orphan(shared, &orphan).await {
            tracing::warn!(generation = %orphan.id, %error, "end an orphan");
        }
    }
}

async fn end_orphan(shared: &Shared, orphan: &Generation) -> Result<(), OrphanError> {
    let Generation { id, session, attempt, .. } = orphan;
    let content = shared.adapter.text(session, *id, *attempt, 0).await?;
    let outcome = match &orphan.stop_requested {
        Some(by) => Outcome::Stopped { by: by.clone() },
        None => Outcome::Failed {
            error: Error::new(ErrorCode::Internal, "The node that wrote this answer is gone"),
        },
    };
    // Its own words for tokens died with the node: four bytes are counted as one.
    let tokens = (content.len() as u64).div_ceil(4);
    let finish = Finish {
        generation: *id,
        owner: orphan.owner,
        attempt: *attempt,
        metadata: metadata(&outcome),
        content,
        outcome,
        usage: Usage { input_tokens: 0, output_tokens: tokens, cached_tokens: 0 },
        tokens,
        first_token_at: orphan.first_token_at,
        errors: 0,
        answered_by: None,
    };
    if let Finished::Stored { outgoing, .. } = shared.store.finish(&finish).await? {
        tracing::warn!(generation = %id, owner = %orphan.owner, "ended: its node is gone");
        shared.outbox.deliver(&outgoing).await?;
    }
    Ok(())
}

/// Stores an end for as long as it takes; while the node shuts down, for [`FINISH_WITHIN`].
pub(super) async fn store_end(shared: &Shared, finish: &Finish) -> Option<Finished> {
    let mut pause = PAUSE.0;
    let given_up = async {
        shared.runs.stopping().cancelled().await;
        sleep(FINISH_WITHIN).await;
    };
    tokio::pin!(given_up);
    loop {
        match shared.store.finish(finish).await {
            Ok(finished) => return Some(finished),
            Err(error @ StoreError::Unexpected { .. }) => {
                tracing::error!(generation = %finish.generation, source = ?error, "store answer");
                return None;
            }
            Err(error) => tracing::warn!(generation = %finish.generation, %error, "store answer"),
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = &mut given_up => return None,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// What a stored answer says about its end.
pub(super) fn metadata(outcome: &Outcome) -> serde_json::Map<String, serde_json::Value> {
    let mut metadata = serde_json::Map::new();
    match outcome {
        Outcome::Completed { .. } => {}
        Outcome::Stopped { .. } => {
            metadata.insert("stopped".into(), true.into());
        }
        Outcome::Failed { error } => {
            metadata.insert("partial".into(), true.into());
            metadata.insert("error".into(), error.code.as_str().into());
        }
    }
    metadata
}
