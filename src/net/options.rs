//! What a client may take of the transport before anybody knows who it is, and in one request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::addresses::{Addresses, Crowded};
use super::connection::Connection;
use super::handshakes::{Handshakes, Ousted};
use super::outbound::Outbound;
use super::polling::Protocol;
use crate::telemetry::metrics::{self, Limit};

/// What sessions may take before anybody knows whose they are, and what their requests may.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// The sessions that are nobody's yet.
    pub handshakes: Arc<Handshakes>,
    /// After what time socketioxide gives one up that is still nobody's.
    pub connect_timeout: Duration,
    /// What addresses behind proxies have.
    pub addresses: Arc<Addresses>,
    /// The largest body of a POST, in bytes.
    pub payload_max: usize,
    /// How long it may take to arrive. Not zero.
    pub body_timeout: Duration,
    /// The most polls of a session at a time. Not zero.
    pub polls_max: u8,
    /// Whether clients of Engine.IO 3 are admitted.
    pub eio3: bool,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            handshakes: Arc::default(),
            connect_timeout: Duration::from_secs(20),
            addresses: Arc::default(),
            payload_max: 1024 * 1024,
            body_timeout: Duration::from_secs(20),
            polls_max: 2,
            eio3: false,
        }
    }
}

impl TransportOptions {
    /// The account of the session that a request opens, and who has to make room for it.
    ///
    /// # Errors
    /// What it would go beyond.
    pub(super) fn open(
        &self,
        request: &Request<Body>,
        protocol: Protocol,
    ) -> Result<(Arc<Outbound>, Option<Ousted>), Limit> {
        let peer = request.extensions().get::<ConnectInfo<Connection>>();
        let address = match peer {
            Some(ConnectInfo(peer)) => self.addresses.open(peer.peer(), request.headers()),
            None => Ok(None),
        };
        let address = address.map_err(|Crowded| Limit::AddressConnections)?;
        Outbound::open(protocol, &self.handshakes, self.connect_timeout, address)
            .ok_or(Limit::Handshakes)
    }

    /// A body, whole.
    ///
    /// # Errors
    /// How it is answered where it cannot be had.
    pub(super) async fn body_of(&self, body: Body) -> Result<Bytes, StatusCode> {
        let too_large = || {
            metrics::limited(Limit::Payload).increment(1);
            StatusCode::PAYLOAD_TOO_LARGE
        };
        if body.size_hint().lower() > self.payload_max as u64 {
            return Err(too_large());
        }
        let whole = Limited::new(body, self.payload_max).collect();
        match tokio::time::timeout(self.body_timeout, whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
            Err(_) => {
                metrics::limited(Limit::BodyTimeout).increment(1);
                Err(StatusCode::REQUEST_TIMEOUT)
            }
        }
    }
}
