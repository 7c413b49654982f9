//! What is sent to a socket, counted, in its dialect. It holds no socket, so that what waits inside
//! one may hold it.

use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;
use socketioxide::SendError;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::socket::Socket;

use super::{Edge, NAMESPACE};
use crate::dialect::{Dialect, DialectIndex, Frame, Ids, Refusal, wire};
use crate::domain::Error;
use crate::net::Outbound;
use crate::telemetry::metrics;

/// The most characters of an event's name that an error repeats.
const NAME_CHARS_SHOWN: usize = 64;

/// Where a client wants its answer, if it wants one.
pub(super) type Ack = Option<AckSender<LocalAdapter>>;

#[derive(Clone)]
pub(super) struct Line {
    pub edge: Arc<Edge>,
    pub outbound: Arc<Outbound>,
    /// What the socket speaks, once that is settled; the clones of a line share it.
    dialect: Arc<OnceLock<DialectIndex>>,
}

impl Line {
    /// A line in the dialect that the handshake settled, if it did.
    pub(super) fn new(
        edge: Arc<Edge>,
        outbound: Arc<Outbound>,
        settled: Option<DialectIndex>,
    ) -> Self {
        let dialect = settled.map_or_else(OnceLock::new, OnceLock::from);
        Self { edge, outbound, dialect: Arc::new(dialect) }
    }

    /// The dialect, where it is settled.
    pub(super) fn settled(&self) -> Option<DialectIndex> {
        self.dialect.get().copied()
    }

    /// Settles the dialect for good. It is settled only once: another one changes nothing.
    pub(super) fn settle(&self, dialect: DialectIndex) {
        let _ = self.dialect.set(dialect);
    }

    /// What the socket is spoken to in: the native dialect until its own is settled.
    pub(super) fn spoken(&self) -> DialectIndex {
        self.settled().unwrap_or_else(|| self.edge.dialects.native())
    }

    /// See [`Line::spoken`].
    pub(super) fn dialect(&self) -> &dyn Dialect {
        self.edge.dialects.get(self.spoken())
    }

    /// Whether the socket may be given answers to commands.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.outstanding() <= self.edge.options.outbound_max
    }

    /// Waits until it has room again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn room(&self) {
        if self.outbound.drained(self.edge.options.outbound_max / 2).await.is_err() {
            // Nothing will ever drain it; the disconnect is on its way.
            std::future::pending::<()>().await;
        }
    }

    /// Sends a frame that changes no place.
    pub(super) fn emit(
        &self,
        socket: &Socket<LocalAdapter>,
        frame: &Frame,
    ) -> Result<(), SendError> {
        socket.emit(frame.event, &*frame.payload)?;
        self.emitted(frame, frame.packet_bytes(NAMESPACE))
    }

    /// Sends a frame with the offset of whoever has it.
    pub(super) fn emit_at(
        &self,
        socket: &Socket<LocalAdapter>,
        frame: &Frame,
        offset: &str,
    ) -> Result<(), SendError> {
        socket.emit(frame.event, &(&*frame.payload, offset))?;
        self.emitted(frame, frame.packet_bytes(NAMESPACE) + offset_bytes(offset))
    }

    fn emitted(&self, frame: &Frame, bytes: u64) -> Result<(), SendError> {
        self.outbound.queued(bytes);
        self.edge.sent.of(frame.event).increment(1);
        metrics::handles().sent_bytes.increment(bytes);
        Ok(())
    }

    /// Tells a client why its command was not carried out: through the acknowledgement where it
    /// asked for one, else as the dialect's error event.
    pub(super) fn refuse(
        &self,
        socket: &Socket<LocalAdapter>,
        ack: Ack,
        event: &str,
        ids: &Ids,
        error: &Error,
    ) {
        let event: String = event.chars().take(NAME_CHARS_SHOWN).collect();
        let refusal = Refusal { event: &event, error, ids };
        match ack {
            Some(ack) => acknowledge(Some(ack), &wire::failed(&refusal)),
            // Full or closed: there is nobody to tell.
            None => drop(self.emit(socket, &self.dialect().error(&refusal))),
        }
    }
}

/// How many bytes an offset adds to a packet: it is in quotes, behind a comma.
pub(super) fn offset_bytes(offset: &str) -> u64 {
    offset.len() as u64 + 3
}

pub(super) fn acknowledge(ack: Ack, json: &RawValue) {
    if let Some(ack) = ack {
        // Full or closed: there is nobody to tell.
        let _ = ack.send(json);
    }
}
