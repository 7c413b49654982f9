//! The namespace `/`, in which clients of Socket.IO's protocol 4 (socket.io-client 2.x) are from the
//! start, unasked, and in which nothing is said. Whoever does not go on to [`NAMESPACE`] in time is
//! closed, as clients of today are; after a refusal, too: a stock client then comes back by itself,
//! and asks again.

use std::sync::Arc;

use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler;
use socketioxide::{ProtocolVersion, SocketIo};

use super::{CONNECTS_MAX, Edge, NAMESPACE};
use crate::net::Outbound;
use crate::telemetry::metrics::{self, Limit};

/// What clients of today are told, to whom there is no such namespace.
const NO_NAMESPACE: &str = "Invalid namespace";

/// Serves it.
pub(super) fn serve(io: &SocketIo, edge: Arc<Edge>) {
    let admit = async |protocol: ProtocolVersion| match protocol {
        ProtocolVersion::V4 => Ok(()),
        ProtocolVersion::V5 => Err(NO_NAMESPACE),
    };
    let connected = async move |socket: SocketRef, io: SocketIo| wait(&edge, &socket, io);
    io.ns("/", connected.with(admit));
}

/// Sees to it that the client goes on. Each time that it comes here costs a task.
fn wait(edge: &Arc<Edge>, socket: &SocketRef, io: SocketIo) {
    let Some(outbound) = socket.req_parts().extensions.get::<Arc<Outbound>>().cloned() else {
        return;
    };
    if outbound.connects() > CONNECTS_MAX {
        metrics::limited(Limit::Connects).increment(1);
        outbound.close_transport();
        return;
    }
    let (draining, id) = (edge.draining.clone(), socket.id);
    let within = edge.options.connect_timeout;
    edge.tasks.spawn(async move {
        let is_late = tokio::select! {
            () = outbound.closed() => return,
            () = draining.cancelled() => false,
            () = tokio::time::sleep(within) => true,
        };
        let is_there = io.of(NAMESPACE).is_some_and(|chat| chat.get_socket(id).is_some());
        if !is_there {
            if is_late {
                metrics::limited(Limit::ConnectTimeout).increment(1);
            }
            outbound.close_transport();
        }
    });
}
