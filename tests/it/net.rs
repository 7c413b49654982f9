//! The listener and the transport layer around a real axum server and socketioxide, seen by
//! clients that speak the wire format by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use futures::{FutureExt, SinkExt, StreamExt};
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use tokencast::lifecycle::Tasks;
use tokencast::net::{
    Closed, Connection, ConnectionCounts, Listener, ListenerOptions, Outbound, Transport,
    TransportLayer,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

const DEADLINE: Duration = Duration::from_secs(20);
const EVENTS: usize = 1_000;
const EVENT_BYTES_MAX: u64 = 3_000;

/// A server in this process, with the sockets that connected to it.
struct Server {
    address: SocketAddr,
    counts: Arc<ConnectionCounts>,
    sockets: mpsc::UnboundedReceiver<Client>,
    disconnects: Arc<AtomicUsize>,
    _tasks: Tasks,
}

/// The server's side of one client.
struct Client {
    socket: SocketRef,
    outbound: Arc<Outbound>,
}

impl Server {
    fn start(options: ListenerOptions) -> Self {
        let (connected, sockets) = mpsc::unbounded_channel();
        let disconnects = Arc::new(AtomicUsize::new(0));
        let (layer, io) =
            SocketIo::builder().max_buffer_size(4_096).max_payload(100_000).build_layer();
        let counted = Arc::clone(&disconnects);
        io.ns("/chat", async move |socket: SocketRef| {
            socket.on_disconnect(async move || {
                counted.fetch_add(1, Ordering::SeqCst);
            });
            let outbound = socket.req_parts().extensions.get::<Arc<Outbound>>().unwrap();
            connected
                .send(Client { outbound: Arc::clone(outbound), socket: socket.clone() })
                .unwrap();
        });
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = listener.counts();
        let app = Router::new().layer(layer).layer(TransportLayer::new());
        let tasks = Tasks::new();
        tasks.spawn(async move {
            let served = app.into_make_service_with_connect_info::<Connection>();
            axum::serve(listener, served).await.unwrap();
        });
        Self { address, counts, sockets, disconnects, _tasks: tasks }
    }

    async fn connected(&mut self) -> Client {
        within(self.sockets.recv()).await.unwrap()
    }
}

impl Client {
    /// Emits an event that carries its number and `padding`, and says so to the account. Returns
    /// its bytes.
    fn emit(&self, number: usize, padding: &str) -> u64 {
        let data = serde_json::json!([number, padding]);
        let bytes = "42/chat,".len() + serde_json::to_string(&("e", &data)).unwrap().len();
        self.socket.emit("e", &data).unwrap();
        self.outbound.queued(bytes as u64);
        bytes as u64
    }

    /// Emits all events, waiting where more than 64 KiB are outstanding.
    async fn emit_all(&self, mut random: Random) {
        let padding = "x".repeat(EVENT_BYTES_MAX as usize);
        for number in 0..EVENTS {
            self.emit(number, &padding[..random.below(EVENT_BYTES_MAX) as usize]);
            self.outbound.drained(64 << 10).await.unwrap();
        }
    }

    async fn nothing_outstanding(&self) {
        within(self.outbound.drained(0)).await.unwrap();
        assert_eq!(self.outbound.outstanding(), 0);
    }
}

/// Fails with what was waited for, where a fixed time would only be slow or wrong.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// xorshift64; its seed is printed by what a failing test shows.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The number of an event packet `42/chat,["e",[number,…]]`.
fn number(packet: &str) -> usize {
    let event =
        packet.strip_prefix("42/chat,[\"e\",[").unwrap_or_else(|| panic!("an event: {packet}"));
    event.split_once(',').unwrap().0.parse().unwrap()
}

/// A WebSocket client of Engine.IO 4.
struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    async fn open(stream: TcpStream, sid: Option<&str>) -> Self {
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let url = format!("ws://localhost/socket.io/?EIO=4&transport=websocket{sid}");
        let (socket, _) = within(tokio_tungstenite::client_async(url, stream)).await.unwrap();
        Self(socket)
    }

    /// Connected to `/chat`.
    async fn connect(stream: TcpStream) -> Self {
        let mut ws = Self::open(stream, None).await;
        assert!(ws.packet().await.starts_with("0{"));
        ws.send("40/chat,").await;
        assert!(ws.packet().await.starts_with("40/chat,"));
        ws
    }

    async fn send(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    /// The next packet that is not a ping, which it answers.
    async fn packet(&mut self) -> String {
        loop {
            match self.next().await.expect("open").unwrap() {
                Message::Text(text) if text == "2" => self.send("3").await,
                Message::Text(text) => return text.to_string(),
                other => panic!("a text frame: {other:?}"),
            }
        }
    }

    async fn next(&mut self) -> Option<Result<Message, WsError>> {
        within(self.0.next()).await
    }

    async fn expect_events(&mut self, numbers: impl Iterator<Item = usize>) {
        for expected in numbers {
            assert_eq!(number(&self.packet().await), expected);
        }
    }
}

/// An HTTP connection, and the session that its handshake opened.
struct Polling {
    stream: BufReader<TcpStream>,
    sid: String,
}

impl Polling {
    async fn connect(address: SocketAddr) -> Self {
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
    async fn beside(&self) -> Self {
        let address = self.stream.get_ref().peer_addr().unwrap();
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        Self { stream, sid: self.sid.clone() }
    }

    async fn send(&mut self, method: &str, body: &str) {
        let sid = if self.sid.is_empty() { String::new() } else { format!("&sid={}", self.sid) };
        let request = format!(
            "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nhost: localhost\r\n\
             content-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> (u16, String) {
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

    async fn request(&mut self, method: &str, body: &str) -> (u16, String) {
        self.send(method, body).await;
        self.receive().await
    }

    async fn post(&mut self, packets: &str) {
        assert_eq!(self.request("POST", packets).await, (200, "ok".to_owned()));
    }

    /// One batch.
    async fn poll(&mut self) -> Vec<String> {
        let (status, batch) = self.request("GET", "").await;
        assert_eq!(status, 200, "{batch}");
        batch.split('\x1e').map(str::to_owned).collect()
    }
}

fn assert_unknown((status, body): (u16, String)) {
    assert_eq!((status, body.as_str()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
}

#[tokio::test]
async fn websocket_every_byte_is_accounted_for() {
    let mut server = Server::start(ListenerOptions::default());
    let mut ws = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    let client = server.connected().await;
    assert_eq!(client.outbound.transport(), Transport::WebSocket);
    tokio::join!(client.emit_all(Random::seeded()), ws.expect_events(0..EVENTS));
    client.nothing_outstanding().await;
    // Longer than 16 bits can say.
    client.emit(EVENTS, &"y".repeat(200_000));
    ws.expect_events(EVENTS..=EVENTS).await;
    client.nothing_outstanding().await;
}

#[tokio::test]
async fn polling_every_byte_is_accounted_for() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    assert_eq!(client.outbound.transport(), Transport::Polling);
    let receive = async {
        let mut expected = 0;
        while expected < EVENTS {
            for packet in polling.poll().await {
                assert_eq!(number(&packet), expected);
                expected += 1;
            }
        }
    };
    tokio::join!(client.emit_all(Random::seeded()), receive);
    client.nothing_outstanding().await;
}

#[tokio::test]
async fn upgrade_every_byte_is_accounted_for() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    let receive = async {
        let mut expected = 0;
        while expected < EVENTS / 4 {
            for packet in polling.poll().await {
                assert_eq!(number(&packet), expected);
                expected += 1;
            }
        }
        // As stock clients do: the probe runs while a poll is pending or answered.
        polling.send("GET", "").await;
        let mut ws =
            Ws::open(TcpStream::connect(server.address).await.unwrap(), Some(&polling.sid)).await;
        assert_eq!(client.outbound.transport(), Transport::WebSocket);
        ws.send("2probe").await;
        let (_, batch) = polling.receive().await;
        for packet in batch.split('\x1e').filter(|packet| packet.starts_with("42")) {
            assert_eq!(number(packet), expected);
            expected += 1;
        }
        assert_eq!(ws.packet().await, "3probe");
        ws.send("5").await;
        assert!(expected < EVENTS, "something is left for the WebSocket");
        ws.expect_events(expected..EVENTS).await;
    };
    tokio::join!(client.emit_all(Random::seeded()), receive);
    client.nothing_outstanding().await;
}

/// socketioxide would leave the first WebSocket in place, and so must the account.
#[tokio::test]
async fn a_second_upgrade_is_refused() {
    let mut server = Server::start(ListenerOptions::default());
    let polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    let mut ws =
        Ws::open(TcpStream::connect(server.address).await.unwrap(), Some(&polling.sid)).await;
    let url = format!("ws://localhost/socket.io/?EIO=4&transport=websocket&sid={}", polling.sid);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let Err(WsError::Http(refused)) = tokio_tungstenite::client_async(url, stream).await else {
        panic!("refused");
    };
    assert_eq!(refused.status(), 400);
    ws.send("2probe").await;
    assert_eq!(ws.packet().await, "3probe");
    ws.send("5").await;
    client.emit(0, "");
    ws.expect_events(0..1).await;
    client.nothing_outstanding().await;
}

/// A client whose kernel takes little before it reads.
async fn small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_waited_for() {
    const FILL: usize = 2_000;
    let options =
        ListenerOptions { send_buffer_bytes: Some(16 << 10), ..ListenerOptions::default() };
    let mut server = Server::start(options);
    let mut ws = Ws::connect(small(server.address).await).await;
    let client = server.connected().await;
    let padding = "x".repeat(1_000);
    let total: u64 = (0..FILL).map(|number| client.emit(number, &padding)).sum();
    // Some of it reaches the kernel, then no more does.
    eventually(|| client.outbound.outstanding() < total).await;
    assert!(client.outbound.outstanding() > total / 2);
    assert_eq!(client.outbound.drained(total / 2).now_or_never(), None);
    let (drained, ()) = tokio::join!(client.outbound.drained(0), ws.expect_events(0..FILL));
    assert_eq!(drained, Ok(()));
    assert_eq!(client.outbound.outstanding(), 0);
    assert_eq!(server.counts.stalled(), 0);
}

#[tokio::test]
async fn a_stalled_peer_is_closed_and_an_idle_one_is_not() {
    let write_stall = Duration::from_millis(300);
    let options = ListenerOptions {
        write_stall,
        send_buffer_bytes: Some(16 << 10),
        ..ListenerOptions::default()
    };
    let mut server = Server::start(options);
    let mut idle = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    let idle_client = server.connected().await;
    let _stalled = Ws::connect(small(server.address).await).await;
    let client = server.connected().await;

    let started = Instant::now();
    let padding = "x".repeat(1_000);
    for number in 0..2_000 {
        client.emit(number, &padding);
    }
    assert_eq!(within(client.outbound.drained(0)).await, Err(Closed));
    assert!(started.elapsed() >= write_stall);
    assert_eq!(server.counts.stalled(), 1);
    eventually(|| server.disconnects.load(Ordering::SeqCst) == 1).await;
    eventually(|| server.counts.open() == 1).await;

    idle_client.emit(0, "");
    idle.expect_events(0..1).await;
    assert!(!idle_client.outbound.is_closed());
}

#[tokio::test]
async fn a_closed_websocket_ends_without_a_word() {
    let mut server = Server::start(ListenerOptions::default());
    let mut ws = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    let client = server.connected().await;
    client.outbound.close_transport();
    client.outbound.close_transport();
    loop {
        // A ping may have been under way; a close frame or `41/chat,` would keep stock clients away.
        match ws.next().await {
            Some(Ok(Message::Text(text))) if text == "2" => {}
            Some(Ok(other)) => panic!("nothing is said: {other:?}"),
            Some(Err(_)) | None => break,
        }
    }
    eventually(|| server.disconnects.load(Ordering::SeqCst) == 1).await;
    eventually(|| server.counts.open() == 0).await;
    assert!(client.outbound.is_closed());
}

#[tokio::test]
async fn a_closed_polling_session_is_unknown_from_then_on() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    let mut beside = polling.beside().await;
    polling.send("GET", "").await;
    beside.post("3").await;
    client.outbound.close_transport();
    assert_unknown(polling.receive().await);
    // socketioxide is told at once, not when its heartbeat has failed 45 s later.
    eventually(|| server.disconnects.load(Ordering::SeqCst) == 1).await;
    assert_unknown(polling.request("GET", "").await);
    assert_unknown(polling.request("POST", "42/chat,[\"e\"]").await);
    let url = format!("ws://localhost/socket.io/?EIO=4&transport=websocket&sid={}", polling.sid);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let Err(WsError::Http(refused)) = tokio_tungstenite::client_async(url, stream).await else {
        panic!("refused");
    };
    assert_eq!(refused.status(), 400);
}

/// Nobody polls when it is closed: the next request hears of it.
#[tokio::test]
async fn a_polling_session_closed_between_polls_is_unknown_to_the_next() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    client.outbound.close_transport();
    assert_eq!(server.disconnects.load(Ordering::SeqCst), 0);
    assert_unknown(polling.request("GET", "").await);
    eventually(|| server.disconnects.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn requests_that_are_not_ours_are_socketioxides_to_answer() {
    let server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    polling.sid = Sid::new().to_string();
    let (status, body) = polling.request("GET", "").await;
    assert_eq!((status, body.contains("Session ID unknown")), (400, true), "{body}");
    polling.sid = "not a sid".replace(' ', "%20");
    assert_eq!(polling.request("GET", "").await.0, 400);
}

/// What `max_payload` does not let in is refused, not kept.
#[tokio::test]
async fn a_post_beyond_the_payload_limit_is_refused() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let _client = server.connected().await;
    let (status, _) =
        polling.request("POST", &format!("42/chat,[\"{}\"]", "x".repeat(100_000))).await;
    assert_eq!(status, 413);
}
