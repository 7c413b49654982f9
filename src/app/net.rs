//! What bounds the clients of this node below what they say, from the configuration to where it is
//! counted.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;

use crate::config::Config;
use crate::lifecycle::Tasks;
use crate::net::{
    Addresses, Handshakes, HttpOptions, Listener, ListenerOptions, Slots, TransportLayer,
    TransportOptions, serve,
};
use crate::telemetry::open_files_max;

/// The most connections to the metrics port.
const METRICS_CONNECTIONS_MAX: u64 = 64;

/// What the parts of a node count together.
pub(super) struct Clients {
    /// What addresses have: TCP connections, and sockets and streams through proxies.
    pub addresses: Arc<Addresses>,
    /// Sockets and streams.
    pub slots: Arc<Slots>,
}

impl Clients {
    pub(super) fn new(config: &Config) -> Self {
        let per_address = config.socket.connections_per_address_max;
        let proxies = config.server.trusted_proxies.clone();
        Self {
            addresses: Arc::new(Addresses::new(per_address, proxies)),
            slots: Arc::new(Slots::new(config.socket.max_connections)),
        }
    }

    /// Listens for clients.
    pub(super) async fn listen(&self, config: &Config) -> anyhow::Result<Listener> {
        let server = &config.server;
        let connections_max = server.tcp_connections_max.map(|max| max as u64);
        // The database, Redis, providers and files need some, too.
        let for_clients = || open_files_max().map_or(0, |max| (max / 10 * 9).max(1));
        let options = ListenerOptions {
            connections_max: connections_max.unwrap_or_else(for_clients),
            addresses: Some(self.addresses.clone()),
            ..listener_options(config)
        };
        bind(config, server.port, options).await
    }

    /// What stands before socketioxide.
    pub(super) fn transport(&self, config: &Config) -> TransportLayer {
        let socket = &config.socket;
        TransportLayer::new(TransportOptions {
            handshakes: Arc::new(Handshakes::new(socket.handshakes_max)),
            connect_timeout: socket.connect_timeout,
            addresses: self.addresses.clone(),
            payload_max: socket.payload_max,
            body_timeout: config.server.body_timeout,
            polls_max: socket.polls_max,
            eio3: socket.eio3,
        })
    }
}

/// Listens for whoever reads metrics.
pub(super) async fn listen_for_metrics(config: &Config) -> anyhow::Result<Listener> {
    let options =
        ListenerOptions { connections_max: METRICS_CONNECTIONS_MAX, ..listener_options(config) };
    bind(config, config.server.metrics_port, options).await.context("METRICS_PORT: 0 turns it off")
}

pub(super) fn serve_on(listener: Listener, router: Router, config: &Config, servers: &Tasks) {
    let (head_max, head_timeout) = (config.server.head_max, config.server.head_timeout);
    serve(listener, router, &HttpOptions { head_max, head_timeout }, servers);
}

fn listener_options(config: &Config) -> ListenerOptions {
    ListenerOptions { write_stall: config.socket.write_stall, ..Default::default() }
}

async fn bind(config: &Config, port: u16, options: ListenerOptions) -> anyhow::Result<Listener> {
    let host = config.server.host.as_str();
    let address = tokio::net::lookup_host((host, port))
        .await
        .with_context(|| format!("HOST: look up {host}"))?
        .next()
        .with_context(|| format!("HOST: {host} has no address"))?;
    Listener::bind(address, options).with_context(|| format!("listen on {address}"))
}
