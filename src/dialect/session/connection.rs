//! What a connection is told of itself.

use schemars::JsonSchema;
use serde::Serialize;

use crate::dialect::Greeting;

/// Who the connection is, and where.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Connected")]
pub(super) struct ConnectedJson<'a> {
    node_id: &'a str,
    /// Whether Socket.IO recovered its state: its sessions are joined.
    recovered: bool,
    #[schemars(extend("format" = "date-time"))]
    server_time: String,
    /// A credential of the transport: nobody else is told it.
    socket_id: &'a str,
    user_id: &'a str,
}

impl<'a> From<Greeting<'a>> for ConnectedJson<'a> {
    fn from(greeting: Greeting<'a>) -> Self {
        Self {
            node_id: greeting.node,
            recovered: greeting.recovered,
            server_time: greeting.now.to_string(),
            socket_id: greeting.socket,
            user_id: greeting.user,
        }
    }
}

/// The node is about to close the connection.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ServerShutdown")]
pub(super) struct ShutdownJson {
    pub(super) message: &'static str,
    /// When to connect again.
    pub(super) reconnect_in_ms: u64,
}

/// The connection is about to be closed for its age.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ServerTimeout")]
pub(super) struct TimeoutJson {
    pub(super) message: &'static str,
}
