//! What hyper, and after an upgrade the WebSocket, reads from and writes to: the TCP stream, seen
//! by the account of the session that it carries, ended by [`Connection::close`] and by a peer
//! that takes nothing. What the WebSocket writes passes the [`Amender`] first: the account counts
//! what the kernel has taken, as it was amended.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::addresses::AddressSlot;
use super::amend::Amender;
use super::connection::Connection;
use super::eio3::Incoming;
use super::frames::FrameMeter;
use super::outbound::Outbound;
use crate::telemetry::metrics::{self, Limit};

/// The IO of one accepted connection. Reads are passed through, but for what old clients send.
#[derive(Debug)]
pub struct MonitoredIo {
    wire: Wire,
    amender: Amender,
    incoming: Incoming,
}

/// The TCP stream and its account.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    connection: Connection,
    meter: FrameMeter,
    write_stall: Duration,
    /// Runs while a write is pending and nothing is taken.
    stall: Option<Pin<Box<Sleep>>>,
    /// Its place among those of its address, where these are counted.
    _slot: Option<Box<AddressSlot>>,
}

impl MonitoredIo {
    pub(super) fn new(
        stream: TcpStream,
        connection: Connection,
        write_stall: Duration,
        slot: Option<AddressSlot>,
    ) -> Self {
        connection.counts().opened();
        let amender = Amender::new(connection.clone());
        let meter = FrameMeter::new();
        let _slot = slot.map(Box::new);
        let wire = Wire { stream, connection, meter, write_stall, stall: None, _slot };
        Self { wire, amender, incoming: Incoming::new() }
    }

    /// The handle of this connection.
    pub fn connection(&self) -> &Connection {
        &self.wire.connection
    }

    /// Whether the next response, or the one that is under way, starts a WebSocket.
    fn is_bound(&self) -> bool {
        self.wire.connection.outbound().is_some()
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        &self.wire.stream
    }
}

impl Wire {
    /// The kernel took these bytes.
    fn took<'a>(&mut self, total: usize, parts: impl Iterator<Item = &'a [u8]>) {
        if total == 0 {
            return;
        }
        self.stall = None;
        self.connection.add_written(total);
        let Some(outbound) = self.connection.outbound() else { return };
        let mut left = total;
        let mut events = 0;
        for part in parts {
            let part = &part[..part.len().min(left)];
            left -= part.len();
            events += self.meter.advance(part);
            if left == 0 {
                break;
            }
        }
        if events > 0 {
            outbound.written(events);
        }
    }

    /// The kernel took nothing: ends the connection once that has lasted too long.
    fn took_nothing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.connection.writer().register(cx.waker());
        if self.connection.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        let write_stall = self.write_stall;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(write_stall)));
        if stall.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.connection.counts().stalled_one();
        metrics::limited(Limit::Stall).increment(1);
        // Otherwise the kernel keeps what it has for minutes, for a peer that does not take it.
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "set linger of a stalled connection");
        }
        self.connection.close();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for MonitoredIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { wire: this, incoming, .. } = &mut *self;
        if this.connection.is_closed() {
            return Poll::Ready(Ok(()));
        }
        let known = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_pending() {
            this.connection.reader().register(cx.waker());
            if this.connection.is_closed() {
                return Poll::Ready(Ok(()));
            }
        }
        if this.connection.outbound().is_some_and(Outbound::is_v3) {
            incoming.amend(&mut buf.filled_mut()[known..]);
        }
        polled
    }
}

impl AsyncWrite for MonitoredIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bound = self.is_bound();
        let Self { wire, amender, .. } = &mut *self;
        if !bound {
            return Pin::new(wire).poll_write(cx, buf);
        }
        match wire.meter.head_len(buf) {
            0 => amender.poll_write(cx, wire, buf),
            head => Pin::new(wire).poll_write(cx, &buf[..head]),
        }
    }

    /// Takes one buffer at a time once a WebSocket is to come, which never has several.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_bound() {
            return Pin::new(&mut self.wire).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, amender, .. } = &mut *self;
        amender.poll_flush(cx, wire)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, amender, .. } = &mut *self;
        amender.poll_shutdown(cx, wire)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.connection.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        match Pin::new(&mut this.stream).poll_write(cx, buf) {
            Poll::Ready(Ok(total)) => {
                this.took(total, std::iter::once(buf));
                Poll::Ready(Ok(total))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.took_nothing(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.connection.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        match Pin::new(&mut this.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(Ok(total)) => {
                this.took(total, bufs.iter().map(|buf| &**buf));
                Poll::Ready(Ok(total))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.took_nothing(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.connection.close();
        self.connection.counts().dropped();
        if let Some(outbound) = self.connection.outbound() {
            // socketioxide ends a session whose WebSocket ends, even one that was only probed; it
            // does not notice one whose response could not be written.
            if self.meter.in_frames() {
                outbound.carrier_ended();
            } else {
                outbound.abandon_upgrade();
            }
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::poll;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::listener::{Listener, ListenerOptions};
    use super::super::outbound::Transport;
    use super::*;

    async fn pair(options: ListenerOptions) -> (MonitoredIo, TcpStream, Listener) {
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, client) = tokio::join!(listener.accept(), TcpStream::connect(address));
        (accepted, client.unwrap(), listener)
    }

    #[tokio::test]
    async fn close_ends_a_pending_read_and_later_writes() {
        let (mut io, _client, _listener) = pair(ListenerOptions::default()).await;
        let connection = io.connection().clone();
        let mut buf = [0; 1];
        {
            let mut read = std::pin::pin!(io.read(&mut buf));
            assert!(poll!(read.as_mut()).is_pending());
            connection.close();
            assert_eq!(read.await.unwrap(), 0);
        }
        assert!(io.write(b"x").await.is_err());
        assert_eq!(io.read(&mut buf).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn close_ends_a_pending_write() {
        let options =
            ListenerOptions { send_buffer_bytes: Some(4_096), ..ListenerOptions::default() };
        let (mut io, _client, listener) = pair(options).await;
        let connection = io.connection().clone();
        let bytes = vec![0; 16 << 20];
        let mut write = Box::pin(io.write_all(&bytes));
        assert!(poll!(write.as_mut()).is_pending());
        let taken = connection.written();
        assert!(taken > 0 && taken < bytes.len() as u64);
        connection.close();
        assert!(write.await.is_err());
        assert_eq!(listener.counts().stalled(), 0);
    }

    #[tokio::test]
    async fn a_vectored_write_is_counted_as_far_as_it_was_taken() {
        let (mut io, mut client, _listener) = pair(ListenerOptions::default()).await;
        let outbound = Arc::new(Outbound::default());
        outbound.queued(9);
        io.connection().bind_outbound(Arc::clone(&outbound));
        assert_eq!(outbound.transport(), Transport::WebSocket);
        let parts =
            [&b"HTTP/1.1 101 x\r\n"[..], b"\r\n\x81\x05", b"42[1]\x81", b"\x0442[]", b"\x81\x0742"];
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let taken = io.write_vectored(left).await.unwrap();
            assert!(taken > 0);
            IoSlice::advance_slices(&mut left, taken);
        }
        io.flush().await.unwrap();
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        assert_eq!(io.connection().written(), total as u64);
        assert_eq!(outbound.outstanding(), 0);
        let mut received = vec![0; total];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, parts.concat());
        drop(io);
        assert!(outbound.is_closed());
    }

    /// The account counts what was sent, not what was amended.
    #[tokio::test]
    async fn packets_are_amended_and_the_events_beside_them_are_counted() {
        let (mut io, mut client, _listener) = pair(ListenerOptions::default()).await;
        let outbound = Arc::new(Outbound::default());
        outbound.queued(6);
        io.connection().bind_outbound(Arc::clone(&outbound));
        let refusal = br#"44/chat,{"message":"No\u001f{\"a\":1}"}"#;
        let head = b"HTTP/1.1 101 x\r\n\r\n\x81\x0242\x81".as_slice();
        let written = [head, &[refusal.len() as u8], refusal, b"\x81\x0442[]\x81"].concat();
        io.write_all(&written).await.unwrap();
        assert_eq!(outbound.outstanding(), 0);
        io.write_all(&[refusal.len() as u8]).await.unwrap();
        io.write_all(refusal).await.unwrap();
        outbound.set_pid("/chat", "p");
        outbound.queued(2);
        io.write_all(b"\x81\x1340/chat,{\"sid\":\"s\"}\x81\x0242").await.unwrap();
        io.flush().await.unwrap();
        assert_eq!(outbound.outstanding(), 0);

        let connect = b"\x81\x1d40/chat,{\"sid\":\"s\",\"pid\":\"p\"}\x81\x0242";
        let amended = br#"44/chat,{"message":"No","data":{"a":1}}"#;
        let expected =
            [head, &[39], amended, b"\x81\x0442[]", b"\x81", &[39], amended, connect].concat();
        assert_eq!(io.connection().written(), expected.len() as u64);
        drop(io);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, expected);
    }

    /// The upgrade's response could not be written: polling still carries the session.
    #[tokio::test]
    async fn an_io_dropped_before_its_frames_gives_the_session_back() {
        let (io, _client, listener) = pair(ListenerOptions::default()).await;
        let outbound = Arc::new(Outbound::default());
        assert!(outbound.begin_upgrade());
        io.connection().bind_outbound(Arc::clone(&outbound));
        assert_eq!(listener.counts().open(), 1);
        drop(io);
        assert!(!outbound.is_closed());
        assert!(outbound.begin_upgrade());
        assert_eq!(listener.counts().open(), 0);
    }
}
