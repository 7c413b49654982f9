//! Accepts TCP connections: without Nagle's delay, with a limit to how many are open, of all and of
//! each address, through whatever errors accepting meets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use super::addresses::Addresses;
use super::connection::Connection;
use super::io::MonitoredIo;
use crate::telemetry::metrics::{self, Limit};

/// How long accepting rests after an error that another attempt would meet again at once, such as
/// no file descriptor being left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a [`Listener`] does with its connections.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// A connection that has something to write and whose peer takes no byte for this long is
    /// closed. Connections with nothing to write are never touched. Default 30 s; not zero.
    pub write_stall: Duration,
    /// How many connections may be open; one beyond is accepted and dropped at once. Default 0:
    /// no limit.
    pub connections_max: u64,
    /// How many of these an address may have; one beyond is dropped likewise. `None`, the
    /// default: any number.
    pub addresses: Option<Arc<Addresses>>,
    /// How many connections the kernel keeps that wait to be accepted. Default 4,096 (the system
    /// may allow fewer).
    pub backlog: u32,
    /// The kernel's buffer for what a connection has written and its peer has not acknowledged.
    /// Unset, the default: the system sizes it, up to some megabytes for a slow peer.
    pub send_buffer_bytes: Option<u32>,
    /// How much the kernel takes of a connection beyond what is on its way to the peer already;
    /// Linux only. Default 16 KiB: of some megabytes that it may have grown to, the kernel wants a
    /// third to be free before it takes more, which a slow peer takes minutes for, in which it looks
    /// like one that takes nothing; and what waits there is neither joined nor passed by a ping.
    pub unsent_bytes: u32,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            write_stall: Duration::from_secs(30),
            connections_max: 0,
            addresses: None,
            backlog: 4_096,
            send_buffer_bytes: None,
            unsent_bytes: 16 * 1024,
        }
    }
}

/// What happened to a listener's connections, since it was bound.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    stalled: AtomicU64,
    accept_errors: AtomicU64,
}

impl ConnectionCounts {
    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Connections ever accepted and kept.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections dropped at once because [`ListenerOptions::connections_max`] were open, or their
    /// address had as many as it may have.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Connections closed because of [`ListenerOptions::write_stall`].
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Relaxed)
    }

    /// Errors met in accepting.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn dropped(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn stalled_one(&self) {
        self.stalled.fetch_add(1, Relaxed);
    }
}

/// Where [`super::serve`] gets its connections from.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    options: ListenerOptions,
    counts: Arc<ConnectionCounts>,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one. Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// What the system says about the address or the buffer's size.
    pub fn bind(address: SocketAddr, options: ListenerOptions) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A node that restarts must not wait for its former connections to time out.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        if let Some(bytes) = options.send_buffer_bytes {
            // Accepted connections inherit it.
            socket.set_send_buffer_size(bytes)?;
        }
        // As is this.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&socket).set_tcp_notsent_lowat(options.unsent_bytes)?;
        socket.bind(address)?;
        let tcp = socket.listen(options.backlog)?;
        Ok(Self { tcp, options, counts: Arc::default() })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The counts of this listener; they may be kept when [`super::serve`] has taken it.
    pub fn counts(&self) -> Arc<ConnectionCounts> {
        Arc::clone(&self.counts)
    }

    /// The next connection.
    ///
    /// # Cancel safety
    /// Safe: a connection is either returned or still the kernel's.
    pub async fn accept(&mut self) -> MonitoredIo {
        let mut failing = false;
        loop {
            let (stream, peer) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.counts.accept_errors.fetch_add(1, Relaxed);
                    if !is_the_peers(&error) {
                        if !failing {
                            tracing::error!(%error, "accept connections; trying again until it works");
                        }
                        failing = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            failing = false;
            let connections_max = self.options.connections_max;
            if connections_max > 0 && self.counts.open() >= connections_max {
                self.refuse(Limit::TcpConnections);
                continue;
            }
            let addresses = self.options.addresses.as_ref();
            let Ok(slot) = addresses.map_or(Ok(None), |all| all.connect(peer.ip())) else {
                self.refuse(Limit::AddressConnections);
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "set TCP_NODELAY of a connection");
            }
            let connection = Connection::new(peer, self.counts());
            return MonitoredIo::new(stream, connection, self.options.write_stall, slot);
        }
    }

    fn refuse(&self, limit: Limit) {
        self.counts.refused.fetch_add(1, Relaxed);
        metrics::limited(limit).increment(1);
    }
}

/// Whether the error says that one connection ended before it was accepted, and nothing else.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn nagle_is_off() {
        let mut listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = listener.accept().await;
        assert!(io.stream().nodelay().unwrap());
        assert_eq!(io.connection().peer(), client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_dropped_until_one_ends() {
        let options = ListenerOptions { connections_max: 1, ..ListenerOptions::default() };
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = listener.counts();

        let _first = TcpStream::connect(address).await.unwrap();
        let io = listener.accept().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut buf = [0; 1];
        tokio::select! {
            _ = listener.accept() => panic!("accepted beyond the limit"),
            read = second.read(&mut buf) => assert_eq!(read.unwrap_or(0), 0),
        }
        assert_eq!((counts.open(), counts.accepted(), counts.refused()), (1, 1, 1));

        drop(io);
        let third = TcpStream::connect(address).await.unwrap();
        let io = listener.accept().await;
        assert_eq!(io.connection().peer(), third.local_addr().unwrap());
    }
}
