//! A Socket.IO client as small as can be: Engine.IO 4 over a WebSocket, namespace `/chat`.
//!
//! It answers pings, and parses nothing that is not asked for: on the machine that it measures,
//! its own work counts.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::pace::{Pace, Paced};
use crate::token::token;

/// Room for a few chunks.
const READ_BUFFER: usize = 4 * 1024;

/// A socket in `/chat`.
pub struct Socket {
    ws: WebSocketStream<Paced>,
    acks: u64,
    pinged: Instant,
    ping_gap: Duration,
}

/// What a packet is; the text is its JSON array.
pub enum Packet<'a> {
    /// An event: `["name",…]`.
    Event(&'a str),
    /// An acknowledgement: `[…]`.
    Ack(&'a str),
    /// Something else.
    Other,
}

impl Socket {
    /// Connects and is admitted.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn connect(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        Self::open(address, token, None).await
    }

    /// As [`Socket::connect`], and reads as fast as `pace` says.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn connect_paced(
        address: SocketAddr,
        token: &str,
        pace: Pace,
    ) -> anyhow::Result<Self> {
        Self::open(address, token, Some(pace)).await
    }

    async fn open(address: SocketAddr, token: &str, pace: Option<Pace>) -> anyhow::Result<Self> {
        let stream = Paced::connect(address, pace).await?;
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        // The default, 128 KiB, is cleared for each read.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        let (ws, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(config))
            .await
            .context("upgrade")?;
        let mut socket = Self { ws, acks: 0, pinged: Instant::now(), ping_gap: Duration::ZERO };
        let auth = serde_json::json!({ "token": token, "dialect": "session" });
        socket.ws.send(Message::text(format!("40/chat,{auth}"))).await.context("send CONNECT")?;
        loop {
            let packet = socket.receive().await?;
            if packet.starts_with("40/chat,") {
                return Ok(socket);
            }
            if packet.starts_with("44/chat,") {
                bail!("refused: {}", packet.as_str());
            }
        }
    }

    /// The longest time between two pings. A stock client goes away after the server's interval
    /// and timeout without one, 45 s by default; this one stays.
    pub fn ping_gap(&self) -> Duration {
        self.ping_gap
    }

    /// Emits an event that asks for an acknowledgement.
    ///
    /// # Errors
    /// Where the connection is lost.
    pub async fn emit(&mut self, event: &str, payload: &Value) -> anyhow::Result<()> {
        let packet = format!("42/chat,{}[\"{event}\",{payload}]", self.acks);
        self.acks += 1;
        self.ws.send(Message::text(packet)).await.context("emit")
    }

    /// Emits an event and waits until it is acknowledged; events that come meanwhile are lost.
    ///
    /// # Errors
    /// Where it is answered that it was not carried out.
    pub async fn call(&mut self, event: &str, payload: &Value) -> anyhow::Result<()> {
        self.emit(event, payload).await?;
        loop {
            if let Packet::Ack(ack) = packet(&self.receive().await?) {
                return granted(ack).with_context(|| event.to_owned());
            }
        }
    }

    /// The next Socket.IO packet, as text.
    ///
    /// # Errors
    /// Where the connection is closed or lost.
    pub async fn receive(&mut self) -> anyhow::Result<Utf8Bytes> {
        loop {
            let message = self.ws.next().await.context("the connection was closed")?;
            let Message::Text(text) = message.context("receive")? else { continue };
            match text.as_bytes().first() {
                Some(b'4') => return Ok(text),
                Some(b'2') => {
                    self.ping_gap = self.ping_gap.max(self.pinged.elapsed());
                    self.pinged = Instant::now();
                    self.ws.send(Message::text("3")).await.context("answer a ping")?;
                }
                _ => {}
            }
        }
    }
}

/// Two sockets of one user, one on each node, both joined to the session of this name; that on B
/// was there first.
///
/// # Errors
/// Where one is refused.
pub async fn joined_pair(
    secret: &str,
    [a, b]: [SocketAddr; 2],
    session: &str,
) -> anyhow::Result<[Socket; 2]> {
    let token = token(secret, &format!("user-of-{session}"));
    let join = serde_json::json!({ "sessionId": session });
    let mut b = Socket::connect(b, &token).await.context("node B")?;
    b.call("session:join", &join).await.context("node B")?;
    let mut a = Socket::connect(a, &token).await.context("node A")?;
    a.call("session:join", &join).await.context("node A")?;
    Ok([a, b])
}

/// Reads what [`Socket::receive`] brought.
pub fn packet(text: &str) -> Packet<'_> {
    if let Some(event) = text.strip_prefix("42/chat,") {
        return Packet::Event(event);
    }
    match text.strip_prefix("43/chat,") {
        Some(ack) => Packet::Ack(ack.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => Packet::Other,
    }
}

/// The name of an event, and what it carries. What stands behind that, such as the reader's place,
/// is passed over.
///
/// # Errors
/// Where it is no such event.
pub fn payload<'a, T: Deserialize<'a>>(event: &'a str) -> serde_json::Result<(&'a str, T)> {
    let Named { name, payload } = serde_json::from_str(event)?;
    Ok((name, payload))
}

struct Named<'a, T> {
    name: &'a str,
    payload: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<'de, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event's name and payload")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let name = seq.next_element()?.ok_or_else(|| A::Error::custom("an event has a name"))?;
        let payload = seq.next_element()?.ok_or_else(|| A::Error::custom("nothing is carried"))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Named { name, payload })
    }
}

/// Whether an acknowledgement says that the command was carried out.
///
/// # Errors
/// Where it does not; with what it says.
pub fn granted(ack: &str) -> anyhow::Result<()> {
    let answer: Value = serde_json::from_str(ack).context("read an acknowledgement")?;
    if answer[0]["ok"] != true {
        bail!("refused: {ack}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_payload_is_passed_over() {
        for event in [r#"["a",{"b":1}]"#, r#"["a",{"b":1},"place"]"#, r#"["a",{"b":1},[2],"x"]"#] {
            let (name, payload): (_, Value) = payload(event).unwrap();
            assert_eq!((name, &payload["b"]), ("a", &Value::from(1)));
        }
        assert!(payload::<Value>(r#"["a"]"#).is_err());
    }
}
