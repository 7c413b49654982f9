//! From socketioxide's reading path into a socket's queue, in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use socketioxide::adapter::Adapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, MessageHandler};
use socketioxide::socket::Socket;
use socketioxide_core::Value;
use tokio::sync::mpsc;

use super::flood::Flood;
use crate::dialect::Ids;
use crate::domain::{Error, ErrorCode};
use crate::telemetry::metrics::{self, Limit};

/// What a client is told to wait whose events are not carried out as fast as they come.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(1);
/// The ids of a longer event are not looked for where it is refused unread.
const SKIMMED_BYTES_MAX: usize = 4 * 1024;

/// An event that waits to be carried out.
pub(super) struct Packet<A: Adapter> {
    value: Value,
    pub ack: Option<AckSender<A>>,
}

impl<A: Adapter> Packet<A> {
    /// The event's name, and its arguments as JSON text.
    pub(super) fn read(&self) -> Result<(String, Result<Vec<&RawValue>, Error>), Error> {
        let malformed = || Error::invalid("the event is not a JSON array with a name");
        let Value::Str(text, _) = &self.value else { return Err(malformed()) };
        let mut args: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| malformed())?;
        if args.is_empty() {
            return Err(malformed());
        }
        let name = serde_json::from_str(args.remove(0).get()).map_err(|_| malformed())?;
        Ok((name, if self.has_attachments() { Err(binary_refused()) } else { Ok(args) }))
    }

    fn has_attachments(&self) -> bool {
        matches!(&self.value, Value::Str(_, Some(attachments)) if !attachments.is_empty())
    }

    /// The ids that it names.
    pub(super) fn ids(&self) -> Ids {
        self.read().and_then(|(_, args)| args).map(|args| Ids::of(&args)).unwrap_or_default()
    }

    /// The event's name and ids as far as they are to be had without reading much; for an event
    /// that is not carried out.
    pub(super) fn skim(&self) -> (String, Ids) {
        let Value::Str(text, _) = &self.value else { return Default::default() };
        if text.len() <= SKIMMED_BYTES_MAX {
            return (self.read().map(|(name, _)| name).unwrap_or_default(), self.ids());
        }
        let first = text.trim_start().strip_prefix('[').unwrap_or_default();
        let name = serde_json::Deserializer::from_str(first).into_iter::<String>().next();
        (name.and_then(Result::ok).unwrap_or_default(), Ids::default())
    }
}

fn binary_refused() -> Error {
    Error::invalid("binary attachments are not understood")
}

/// Called for every event, on the reading path. Registered as a handler without a future, so that
/// nothing is spawned and nothing overtakes.
pub(super) struct Inbox<A: Adapter, F> {
    pub queue: mpsc::Sender<Packet<A>>,
    pub flood: Mutex<Flood>,
    /// Answers an event that is one too many.
    pub refuse: F,
}

/// Tells [`Inbox`] apart from socketioxide's own kinds of handler.
pub(super) enum InOrder {}

impl<A, F> MessageHandler<A, InOrder> for Inbox<A, F>
where
    A: Adapter,
    F: Fn(&Socket<A>, Packet<A>, Error) + Send + Sync + 'static,
{
    fn call(&self, socket: Arc<Socket<A>>, mut value: Value, ack_id: Option<i64>) {
        let ack =
            ack_id.and_then(|_| AckSender::from_message_parts(&socket, &mut value, &ack_id).ok());
        let packet = Packet { value, ack };
        if packet.has_attachments() {
            metrics::limited(Limit::Binaries).increment(1);
        }
        let taken = self.flood.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let refused = match taken {
            Err(wait) => Some((packet, wait, Limit::Events)),
            Ok(()) => match self.queue.try_send(packet) {
                Err(mpsc::error::TrySendError::Full(packet)) => {
                    Some((packet, QUEUE_FULL_WAIT, Limit::Commands))
                }
                // Closed: the socket is gone, and so is whoever waits for an answer.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            },
        };
        if let Some((packet, wait, limit)) = refused {
            metrics::limited(limit).increment(1);
            let error =
                Error::new(ErrorCode::RateLimit, "Too many events at once").retry_after(wait);
            (self.refuse)(&socket, packet, error);
        }
    }
}
