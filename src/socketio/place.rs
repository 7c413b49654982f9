//! A socket's place on the node, whoever it is: its line, its queue, and how it is sent away.

use std::time::Duration;

use ::metrics::Gauge;
use socketioxide::TransportType;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::CLOSED_WITHIN;
use super::inbox::Packet;
use super::line::Line;
use crate::dialect::Frame;
use crate::net::Transport;
use crate::telemetry::metrics::{self, Limit};

/// What a socket counts as that has not settled on a dialect.
const UNSETTLED: &str = "unsettled";

/// What the task of a socket works with.
pub(super) struct Place {
    pub socket: SocketRef,
    pub line: Line,
    pub commands: mpsc::Receiver<Packet<LocalAdapter>>,
    /// Cancelled once the socket is gone.
    pub closed: CancellationToken,
    /// When the connection has reached its age.
    pub ends_at: Instant,
    /// When it is closed since the node drains; `None` until it was told.
    pub closes_at: Option<Instant>,
    tally: Tally,
}

impl Place {
    /// The place of a socket that has just been connected.
    pub(super) fn new(
        socket: SocketRef,
        line: Line,
        commands: mpsc::Receiver<Packet<LocalAdapter>>,
        closed: CancellationToken,
    ) -> Self {
        let ends_at = Instant::now() + line.edge.options.age_max;
        let tally = Tally::new(kind(&socket, &line));
        Self { socket, line, commands, closed, ends_at, closes_at: None, tally }
    }

    /// Sends a frame past the account, for the few that every socket has room for.
    pub(super) fn send(&self, frame: &Frame) {
        // Full or closed: there is nobody to tell.
        let _ = self.line.emit(&self.socket, frame);
    }

    /// Counts the socket as what it is now: its transport and its dialect change.
    pub(super) fn tally(&mut self) {
        self.tally.show(kind(&self.socket, &self.line));
    }

    /// Says that the node drains, once. When to close the socket: at a moment of its own.
    pub(super) fn say_goodbye(&mut self) -> Instant {
        if let Some(closes_at) = self.closes_at {
            return closes_at;
        }
        let name = self.socket.id.to_string();
        let sum = |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte));
        let share = name.bytes().fold(0, sum) % 1000;
        let wait: Duration = self.line.edge.options.drain_spread * share / 1000;
        if let Some(frame) = self.line.dialect().shutdown(wait) {
            self.send(&frame);
        }
        *self.closes_at.insert(Instant::now() + wait)
    }

    /// What carried it was closed. A client that polls may never come by to find that out, and
    /// socketioxide would keep its socket until a ping is not answered.
    pub(super) fn forget(&self) {
        if self.line.outbound.transport() == Transport::Polling {
            // Nobody is told: its requests are refused. Full or closed: then it is kept for so long.
            let _ = self.socket.clone().disconnect();
        }
    }

    /// Says that the connection has reached its age, and closes it, at the latest after
    /// [`CLOSED_WITHIN`]: what is still queued then is lost.
    pub(super) async fn time_out(&self) {
        metrics::limited(Limit::Age).increment(1);
        if let Some(frame) = self.line.dialect().timeout() {
            self.send(&frame);
            let _ = timeout(CLOSED_WITHIN, self.line.outbound.drained(0)).await;
        }
        self.line.outbound.close_transport();
    }
}

/// Transport and dialect, in the words of metrics.
type Counted = (&'static str, &'static str);

fn kind(socket: &SocketRef, line: &Line) -> Counted {
    let transport = match socket.transport_type() {
        TransportType::Websocket => "websocket",
        TransportType::Polling => "polling",
    };
    let dialects = &line.edge.dialects;
    (transport, line.settled().map_or(UNSETTLED, |dialect| dialects.get(dialect).name()))
}

/// A socket among those that are connected, until this is dropped.
struct Tally {
    counted: Counted,
    gauge: Gauge,
}

impl Tally {
    fn new(counted: Counted) -> Self {
        let gauge = metrics::connected(counted.0, counted.1);
        gauge.increment(1.0);
        Self { counted, gauge }
    }

    fn show(&mut self, counted: Counted) {
        if counted != self.counted {
            *self = Self::new(counted);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(dialect: &str) -> f64 {
        let line = format!("socket_io_connected{{transport=\"tally\",dialect=\"{dialect}\"}} ");
        let text = metrics::render();
        let found = text.lines().find_map(|sample| sample.strip_prefix(&line));
        found.map_or(0.0, |count| count.parse().unwrap())
    }

    #[test]
    fn a_socket_counts_as_one_thing_at_a_time() {
        let mut tally = Tally::new(("tally", "unsettled"));
        let other = Tally::new(("tally", "unsettled"));
        assert_eq!((connected("unsettled"), connected("persona")), (2.0, 0.0));
        tally.show(("tally", "persona"));
        tally.show(("tally", "persona"));
        assert_eq!((connected("unsettled"), connected("persona")), (1.0, 1.0));
        drop((tally, other));
        assert_eq!((connected("unsettled"), connected("persona")), (0.0, 0.0));
    }
}
