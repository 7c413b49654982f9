//! A server with the listener under test, and clients that speak Engine.IO by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use futures::{SinkExt, StreamExt};
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler;
use tokencast::lifecycle::Tasks;
use tokencast::net::{
    ConnectionCounts, HttpOptions, Listener, ListenerOptions, Outbound, TransportLayer,
    TransportOptions, connect_error, serve,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

pub const DEADLINE: Duration = Duration::from_secs(20);
pub const EVENTS: usize = 1_000;
pub const EVENT_BYTES_MAX: u64 = 3_000;

/// What the CONNECTs to `/kept` carry, one after the other: each of its sockets has its own.
pub fn pid(connect: usize) -> String {
    format!("{connect}-abcXYZ_0123456789")
}

/// How every CONNECT to `/closed` is answered.
pub const REFUSAL: &str = r#"44/closed,{"message":"Not \"you\"","data":{"reason":"é"}}"#;

/// A server in this process, with the sockets that connected to it.
pub struct Server {
    pub address: SocketAddr,
    pub counts: Arc<ConnectionCounts>,
    sockets: mpsc::UnboundedReceiver<Client>,
    pub disconnects: Arc<AtomicUsize>,
    pub tasks: Tasks,
}

/// The server's side of one client.
pub struct Client {
    socket: SocketRef,
    pub outbound: Arc<Outbound>,
}

impl Server {
    pub fn start(options: ListenerOptions) -> Self {
        Self::bounded(options, HttpOptions::default(), TransportOptions::default())
    }

    pub fn bounded(
        options: ListenerOptions,
        http: HttpOptions,
        transport: TransportOptions,
    ) -> Self {
        let (connected, sockets) = mpsc::unbounded_channel();
        let disconnects = Arc::new(AtomicUsize::new(0));
        let (layer, io) = SocketIo::builder()
            .max_buffer_size(4_096)
            .max_payload(100_000)
            .connect_timeout(transport.connect_timeout)
            .build_layer();
        let counted = Arc::clone(&disconnects);
        io.ns("/chat", async move |socket: SocketRef| {
            socket.on_disconnect(async move || {
                counted.fetch_add(1, Ordering::SeqCst);
            });
            let outbound = socket.req_parts().extensions.get::<Arc<Outbound>>().unwrap();
            outbound.admitted();
            connected
                .send(Client { outbound: Arc::clone(outbound), socket: socket.clone() })
                .unwrap();
        });
        let refuse = async |_: SocketRef| {
            Err(connect_error("Not \"you\"", &serde_json::json!({ "reason": "é" })))
        };
        io.ns("/closed", (async |_: SocketRef| {}).with(refuse));
        let kept = Arc::new(AtomicUsize::new(0));
        let keep = async move |socket: SocketRef| {
            let outbound = socket.req_parts().extensions.get::<Arc<Outbound>>().unwrap();
            outbound.set_pid(socket.ns(), &pid(kept.fetch_add(1, Ordering::SeqCst)));
            Ok::<(), String>(())
        };
        io.ns("/kept", (async |_: SocketRef| {}).with(keep));
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = listener.counts();
        let app = Router::new().layer(layer).layer(TransportLayer::new(transport));
        let tasks = Tasks::new();
        serve(listener, app, &http, &tasks);
        Self { address, counts, sockets, disconnects, tasks }
    }

    pub async fn connected(&mut self) -> Client {
        within(self.sockets.recv()).await.unwrap()
    }
}

impl Client {
    /// Emits an event that carries its number and `padding`, and says so to the account. Returns
    /// its bytes.
    pub fn emit(&self, number: usize, padding: &str) -> u64 {
        let data = serde_json::json!([number, padding]);
        let bytes = "42/chat,".len() + serde_json::to_string(&("e", &data)).unwrap().len();
        self.socket.emit("e", &data).unwrap();
        self.outbound.queued(bytes as u64);
        bytes as u64
    }

    /// Emits all events, waiting where more than 64 KiB are outstanding.
    pub async fn emit_all(&self, mut random: Random) {
        let padding = "x".repeat(EVENT_BYTES_MAX as usize);
        for number in 0..EVENTS {
            self.emit(number, &padding[..random.below(EVENT_BYTES_MAX) as usize]);
            self.outbound.drained(64 << 10).await.unwrap();
        }
    }

    pub async fn nothing_outstanding(&self) {
        within(self.outbound.drained(0)).await.unwrap();
        assert_eq!(self.outbound.outstanding(), 0);
    }
}

/// Fails with what was waited for, where a fixed time would only be slow or wrong.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

pub async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// xorshift64; its seed is printed by what a failing test shows.
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Self {
        let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The number of an event packet `42/chat,["e",[number,…]]`.
pub fn number(packet: &str) -> usize {
    let event =
        packet.strip_prefix("42/chat,[\"e\",[").unwrap_or_else(|| panic!("an event: {packet}"));
    event.split_once(',').unwrap().0.parse().unwrap()
}

/// A WebSocket client of Engine.IO 4.
pub struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    pub async fn open(stream: TcpStream, sid: Option<&str>) -> Self {
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let url = format!("ws://localhost/socket.io/?EIO=4&transport=websocket{sid}");
        let (socket, _) = within(tokio_tungstenite::client_async(url, stream)).await.unwrap();
        Self(socket)
    }

    /// Connected to `/chat`.
    pub async fn connect(stream: TcpStream) -> Self {
        let mut ws = Self::open(stream, None).await;
        assert!(ws.packet().await.starts_with("0{"));
        ws.send("40/chat,").await;
        assert!(ws.packet().await.starts_with("40/chat,"));
        ws
    }

    pub async fn send(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    /// The next packet that is not a ping, which it answers.
    pub async fn packet(&mut self) -> String {
        loop {
            match self.next().await.expect("open").unwrap() {
                Message::Text(text) if text == "2" => self.send("3").await,
                Message::Text(text) => return text.to_string(),
                other => panic!("a text frame: {other:?}"),
            }
        }
    }

    pub async fn next(&mut self) -> Option<Result<Message, WsError>> {
        within(self.0.next()).await
    }

    pub async fn expect_events(&mut self, numbers: impl Iterator<Item = usize>) {
        for expected in numbers {
            assert_eq!(number(&self.packet().await), expected);
        }
    }
}

/// An HTTP connection, and the session that its handshake opened.
pub struct Polling {
    stream: BufReader<TcpStream>,
    pub sid: String,
}

impl Polling {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut polling = Self { stream, sid: String::new() };
        let (status, open) = polling.request("GET", "").await;
        assert_eq!(status, 200, "{open}");
        let (_, sid) = open.split_once("\"sid\":\"").unwrap();
        polling.sid = sid[..16].to_owned();
        polling.post("40/chat,").await;
        // The first ping goes out at once: when both have come, nothing else is under way.
        let (mut connected, mut pinged) = (false, false);
        while !(connected && pinged) {
            let (status, batch) = polling.request("GET", "").await;
            assert_eq!(status, 200, "{batch}");
            connected |= batch.split('\x1e').any(|packet| packet.starts_with("40/chat,"));
            pinged |= batch.split('\x1e').any(|packet| packet == "2");
        }
        polling.post("3").await;
        polling
    }

    /// Another connection for the same session.
    pub async fn beside(&self) -> Self {
        let address = self.stream.get_ref().peer_addr().unwrap();
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        Self { stream, sid: self.sid.clone() }
    }

    /// The answer to a handshake that names an address, without more.
    pub async fn open(address: SocketAddr, forwarded_for: &str) -> (u16, String) {
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut polling = Self { stream, sid: String::new() };
        let request = format!(
            "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: localhost\r\n\
             x-forwarded-for: {forwarded_for}\r\n\r\n"
        );
        polling.stream.write_all(request.as_bytes()).await.unwrap();
        polling.receive().await
    }

    pub async fn send(&mut self, method: &str, body: &str) {
        let sid = if self.sid.is_empty() { String::new() } else { format!("&sid={}", self.sid) };
        let request = format!(
            "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nhost: localhost\r\n\
             content-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    pub async fn receive(&mut self) -> (u16, String) {
        within(async {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            let status = line.split(' ').nth(1).unwrap().parse().unwrap();
            let mut length = 0;
            loop {
                line.clear();
                self.stream.read_line(&mut line).await.unwrap();
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.unwrap();
            (status, String::from_utf8(body).unwrap())
        })
        .await
    }

    pub async fn request(&mut self, method: &str, body: &str) -> (u16, String) {
        self.send(method, body).await;
        self.receive().await
    }

    pub async fn post(&mut self, packets: &str) {
        assert_eq!(self.request("POST", packets).await, (200, "ok".to_owned()));
    }

    /// One batch.
    pub async fn poll(&mut self) -> Vec<String> {
        let (status, batch) = self.request("GET", "").await;
        assert_eq!(status, 200, "{batch}");
        batch.split('\x1e').map(str::to_owned).collect()
    }
}

pub fn assert_unknown((status, body): (u16, String)) {
    assert_eq!((status, body.as_str()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
}

/// A client whose kernel takes little before it reads.
pub async fn small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}
