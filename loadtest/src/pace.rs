//! A TCP connection that can be told to read slowly.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};

/// How often a slow reader reads.
const READS_PER_SECOND: u32 = 8;
/// What the kernel may keep of what a slow reader has not read; it takes twice as much for itself.
const RECEIVE_BUFFER: u32 = 8 * 1024;
/// As on an Ethernet. Loopback's segments of 64 KiB would let the sender's kernel keep 2.6 MB for
/// each connection, so that no server would notice a slow reader for minutes.
const SEGMENT: u32 = 1_460;

/// How fast a connection is read; whoever has a copy may change it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicU32>);

impl Pace {
    /// At most so many bytes a second from now on; 0: as they come.
    pub fn set(&self, bytes_per_second: u32) {
        self.0.store(bytes_per_second, Relaxed);
    }
}

/// The connection.
#[derive(Debug)]
pub struct Paced {
    tcp: TcpStream,
    /// `None`: never slow.
    slow: Option<Slow>,
}

#[derive(Debug)]
struct Slow {
    pace: Pace,
    /// Runs between two reads.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// Connects. With a pace the kernel is allowed little on this side.
    ///
    /// # Errors
    /// Where nobody listens, or the system refuses an option.
    pub async fn connect(address: SocketAddr, pace: Option<Pace>) -> anyhow::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.context("make a socket")?;
        if pace.is_some() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER).context("set SO_RCVBUF")?;
            SockRef::from(&socket).set_tcp_mss(SEGMENT).context("set TCP_MAXSEG")?;
        }
        let tcp = socket.connect(address).await.context("connect")?;
        tcp.set_nodelay(true).context("set TCP_NODELAY")?;
        Ok(Self { tcp, slow: pace.map(|pace| Slow { pace, pause: None }) })
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { tcp, slow } = self.get_mut();
        let Some(slow) = slow else { return Pin::new(tcp).poll_read(cx, buf) };
        if let Some(pause) = &mut slow.pause {
            ready!(pause.as_mut().poll(cx));
            slow.pause = None;
        }
        let rate = slow.pace.0.load(Relaxed);
        if rate == 0 {
            return Pin::new(tcp).poll_read(cx, buf);
        }
        let most = usize::try_from((rate / READS_PER_SECOND).max(1)).unwrap_or(usize::MAX);
        let room = most.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(tcp).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        slow.pause = Some(Box::pin(sleep(Duration::from_secs_f64(read as f64 / f64::from(rate)))));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// 4,096 bytes at 8,192 a second take at least 3 of 4 pauses of an eighth of a second; the rest
    /// comes whole, and all of it as it was sent.
    #[tokio::test]
    async fn what_is_read_slowly_is_what_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pace = Pace::default();
        pace.set(8_192);
        let address = listener.local_addr().unwrap();
        let (paced, accepted) =
            tokio::join!(Paced::connect(address, Some(pace.clone())), listener.accept());
        let (mut paced, mut peer) = (paced.unwrap(), accepted.unwrap().0);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let writing = async {
            peer.write_all(&sent).await.unwrap();
            peer.shutdown().await.unwrap();
        };
        let reading = async {
            let mut read = vec![0; 4_096];
            let begun = Instant::now();
            paced.read_exact(&mut read).await.unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(370), "{:?}", begun.elapsed());
            pace.set(0);
            paced.read_to_end(&mut read).await.unwrap();
            read
        };
        let ((), read) = tokio::join!(writing, reading);
        assert!(read == sent);
    }
}
