//! What operators may do.

use super::HttpError;
use super::answer::Shown;
use super::auth::require_operator;
use super::extract::Ask;
use super::openapi::{Api, Operation};
use super::view::Disconnected;
use crate::domain::UserId;

/// Adds the routes.
pub(super) fn routes(api: Api) -> Api {
    const DISCONNECT: &str = "/api/admin/users/{userId}/disconnect";
    let summary = "Close every connection of a user, on every node.";
    api.add(
        Operation::post([DISCONNECT, "Operations", "disconnectUser", summary])
            .about("The token's `scope` must hold the operators' word (`ADMIN_SCOPE`)."),
        disconnect,
    )
}

async fn disconnect(ask: Ask<UserId>) -> Result<Shown<Disconnected>, HttpError> {
    require_operator(&ask.state, &ask.claims)?;
    let devices = ask.state.chat.disconnect(&ask.path).await?;
    Ok(Shown(Disconnected { user: ask.path, devices }))
}
