//! What a client is told when something inside went wrong.

use std::time::Duration;

use crate::adapter::AdapterError;
use crate::domain::{Error, ErrorCode, EventId};
use crate::store::StoreError;

/// What a client is told to wait while something is away.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An id, under which the log has the rest.
pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Error {
    let id = EventId::new();
    tracing::error!(%id, %error, source = ?error, "internal error");
    Error::new(ErrorCode::Internal, format!("Internal error {id}"))
}

pub(super) fn stored(error: StoreError) -> Error {
    let told = internal(&error);
    match error {
        StoreError::Unavailable { .. } => told.retry_after(RETRY_AFTER),
        StoreError::Unexpected { .. } => told,
    }
}

pub(super) fn unavailable(error: AdapterError) -> Error {
    let told = internal(&error);
    match error {
        AdapterError::Unavailable { .. } => told.retry_after(RETRY_AFTER),
        AdapterError::Malformed { .. } | AdapterError::Refused { .. } => told,
    }
}
