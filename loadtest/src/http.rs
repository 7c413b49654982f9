//! An HTTP client as small as can be: one connection, one request at a time, JSON back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the whole of [`text`] may take.
const TEXT_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// What is at `path`, for anybody, with its head.
///
/// # Errors
/// Where nobody listens, or it is not there in time.
pub async fn text(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(BODY_MAX as u64).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(TEXT_WITHIN, asking).await.with_context(|| format!("{path} in time"))?;
    answer.with_context(|| format!("read {path}"))
}

/// A connection that is kept open.
pub struct Connection {
    stream: BufStream<TcpStream>,
    address: SocketAddr,
    token: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn open(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        Ok(Self { stream: BufStream::new(stream), address, token: token.to_owned() })
    }

    /// The answer to a GET of `path`.
    ///
    /// # Errors
    /// Where its status is not 200, or the connection is lost.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
            self.address, self.token
        );
        self.stream.write_all(head.as_bytes()).await.context("send a request")?;
        self.stream.flush().await.context("send a request")?;
        let status = self.line().await?;
        let mut length = None;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let field =
                line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length"));
            if let Some((_, value)) = field {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let length = length.filter(|length| *length <= BODY_MAX).context("an answer's length")?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.context("read an answer")?;
        if !status.contains(" 200 ") {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("read an answer")
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.context("read an answer's head")?;
        if read == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }
}
