//! From socketioxide's reading path into a socket's queue, in order.

use std::sync::Arc;

use serde_json::value::RawValue;
use socketioxide::adapter::Adapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, MessageHandler};
use socketioxide::socket::Socket;
use socketioxide_core::Value;
use tokio::sync::mpsc;

use crate::domain::{Error, ErrorCode};

/// An event that waits to be carried out.
pub(super) struct Packet<A: Adapter> {
    value: Value,
    pub ack: Option<AckSender<A>>,
}

impl<A: Adapter> Packet<A> {
    /// The event's name, and its arguments as JSON text.
    pub(super) fn read(&self) -> Result<(String, Result<Vec<&RawValue>, Error>), Error> {
        let malformed = || Error::invalid("the event is not a JSON array with a name");
        let Value::Str(text, attachments) = &self.value else { return Err(malformed()) };
        let mut args: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| malformed())?;
        if args.is_empty() {
            return Err(malformed());
        }
        let name = serde_json::from_str(args.remove(0).get()).map_err(|_| malformed())?;
        let binary = attachments.as_ref().is_some_and(|attachments| !attachments.is_empty());
        Ok((name, if binary { Err(binary_refused()) } else { Ok(args) }))
    }
}

fn binary_refused() -> Error {
    Error::invalid("binary attachments are not understood")
}

/// Called for every event, on the reading path. Registered as a handler without a future, so that
/// nothing is spawned and nothing overtakes.
pub(super) struct Inbox<A: Adapter, F> {
    pub queue: mpsc::Sender<Packet<A>>,
    /// Answers an event that finds the queue full.
    pub refuse: F,
}

/// Tells [`Inbox`] apart from socketioxide's own kinds of handler.
pub(super) enum InOrder {}

impl<A, F> MessageHandler<A, InOrder> for Inbox<A, F>
where
    A: Adapter,
    F: Fn(Packet<A>, Error) + Send + Sync + 'static,
{
    fn call(&self, socket: Arc<Socket<A>>, mut value: Value, ack_id: Option<i64>) {
        let ack =
            ack_id.and_then(|_| AckSender::from_message_parts(&socket, &mut value, &ack_id).ok());
        let packet = Packet { value, ack };
        // Closed: the socket is gone, and so is whoever waits for an answer.
        if let Err(mpsc::error::TrySendError::Full(packet)) = self.queue.try_send(packet) {
            let error = Error::new(ErrorCode::RateLimit, "Too many events at once")
                .retry_after(std::time::Duration::from_secs(1));
            (self.refuse)(packet, error);
        }
    }
}
