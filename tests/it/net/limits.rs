//! What a client may take before it is anybody: bytes by hand, against a real server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokencast::net::{
    Addresses, Handshakes, HttpOptions, KEPT_FACTOR, ListenerOptions, TransportOptions,
};
use tokencast::telemetry::metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{Polling, Server, Ws, eventually, number, within};

/// How often a limit was met in this process.
fn met(limit: &str) -> f64 {
    let line = format!("limit_reached_total{{limit=\"{limit}\"}} ");
    let text = metrics::render();
    let found = text.lines().find_map(|sample| sample.strip_prefix(&line));
    found.map_or(0.0, |count| count.parse().unwrap())
}

/// Soon enough for a test to wait for.
const SOON: Duration = Duration::from_millis(300);

fn impatient() -> Server {
    let http = HttpOptions { head_timeout: SOON, ..HttpOptions::default() };
    let transport = TransportOptions { body_timeout: SOON, ..TransportOptions::default() };
    Server::bounded(ListenerOptions::default(), http, transport)
}

fn bounded(transport: TransportOptions) -> Server {
    Server::bounded(ListenerOptions::default(), HttpOptions::default(), transport)
}

/// What the server answers to these bytes before it closes.
async fn said(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // What is refused early is not read to its end.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// What comes until the server closes, however it does.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let _ = within(stream.read_to_end(&mut said)).await;
    String::from_utf8(said).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

const NOTHING: &str = "GET /nothing HTTP/1.1\r\nhost: localhost\r\n";

/// A connection that is kept open is everybody's right, for a while; who starts a request and
/// does not end it is told apart from that.
#[tokio::test]
async fn a_head_has_to_arrive_in_time_and_an_idle_connection_ends() {
    let server = impatient();
    let before = met("headers_timeout");
    // Silent from the start; and silent after two answers.
    assert_eq!(said(server.address, b"").await, "");
    let two = format!("{NOTHING}\r\n").repeat(2);
    assert_eq!(said(server.address, two.as_bytes()).await.matches("HTTP/1.1 404").count(), 2);
    assert_eq!(met("headers_timeout"), before, "idle is no offence");
    // Half a head; and one of which a byte comes now and then.
    assert_eq!(said(server.address, NOTHING.as_bytes()).await, "");
    assert_eq!(met("headers_timeout"), before + 1.0);
    let (mut reader, mut writer) = TcpStream::connect(server.address).await.unwrap().into_split();
    let dribble = async {
        writer.write_all(NOTHING.as_bytes()).await.unwrap();
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SOON / 20).await;
        }
    };
    let mut answer = Vec::new();
    let closed = async { within(reader.read_to_end(&mut answer)).await };
    let _ = tokio::join!(within(dribble), closed);
    assert_eq!(met("headers_timeout"), before + 2.0);
    eventually(|| server.counts.open() == 0).await;
}

/// While a request is answered, and on a WebSocket, no head is waited for.
#[tokio::test]
async fn what_is_carried_outlasts_the_time_for_a_head() {
    let mut server = impatient();
    let mut ws = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    let by_websocket = server.connected().await;
    let mut polling = Polling::connect(server.address).await;
    let by_polling = server.connected().await;
    polling.send("GET", "").await;
    for _ in 0..3 {
        assert_eq!(said(server.address, b"").await, "", "so long as a head may take");
    }
    by_websocket.emit(1, "x");
    by_polling.emit(2, "x");
    ws.expect_events(1..=1).await;
    let (status, batch) = polling.receive().await;
    assert_eq!((status, number(&batch)), (200, 2));
}

#[tokio::test]
async fn a_head_is_bounded_in_size_and_in_number() {
    let head_max = 16 * 1024;
    let http = HttpOptions { head_max, ..HttpOptions::default() };
    let server = Server::bounded(ListenerOptions::default(), http, TransportOptions::default());
    let before = met("headers");
    let closing = "connection: close\r\n\r\n";
    // Two stand there already.
    for (more, expected) in [(98, "404"), (99, "431"), (1_000, "431")] {
        let headers: String = (0..more).map(|n| format!("x-{n}: y\r\n")).collect();
        let answer = said(server.address, format!("{NOTHING}{headers}{closing}").as_bytes()).await;
        assert_eq!(status(&answer), expected, "{more} more headers");
    }
    let padded = |bytes: usize| {
        let bare = NOTHING.len() + "x: \r\n".len() + closing.len();
        format!("{NOTHING}x: {}\r\n{closing}", "y".repeat(bytes - bare))
    };
    for (bytes, expected) in [(head_max, "404"), (head_max + 1, "431")] {
        let answer = said(server.address, padded(bytes).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{bytes} bytes");
    }
    let url = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(head_max));
    assert_eq!(status(&said(server.address, url.as_bytes()).await), "431");
    assert_eq!(met("headers"), before + 4.0);

    // Without an end: the server stops listening long before the client stops talking.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let header = format!("x: {}\r\n", "y".repeat(1_000));
    let mut sent = NOTHING.len();
    stream.write_all(NOTHING.as_bytes()).await.unwrap();
    within(async {
        while stream.write_all(header.as_bytes()).await.is_ok() {
            sent += header.len();
            assert!(sent < 64 << 20, "it is listened to for ever");
        }
    })
    .await;
    assert_eq!(met("headers"), before + 5.0);
    eventually(|| server.counts.open() == 0).await;
}

#[tokio::test]
async fn the_body_of_a_post_has_to_arrive_in_time_and_be_no_larger_than_a_payload() {
    let mut server = impatient();
    let (late, large) = (met("body_timeout"), met("payload"));
    let post = |sid: &str, body: &str| {
        format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: localhost\r\n\
             content-type: text/plain\r\n{body}"
        )
    };
    let over = (1 << 20) + 1;
    let chunk = format!("transfer-encoding: chunked\r\n\r\n{over:x}\r\n{}", "4".repeat(over));
    for (body, expected) in [
        ("content-length: 9\r\n\r\n42".to_owned(), "408"),
        ("transfer-encoding: chunked\r\n\r\n2\r\n42\r\n".to_owned(), "408"),
        (format!("content-length: {over}\r\n\r\n{}", "4".repeat(over)), "413"),
        (chunk, "413"),
    ] {
        let polling = Polling::connect(server.address).await;
        let client = server.connected().await;
        let answer = said(server.address, post(&polling.sid, &body).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{}", &body[..40]);
        // What was said is lost, so that the session is over.
        drop(client);
        let mut later = polling.beside().await;
        let (status, body) = later.request("GET", "").await;
        assert!(status == 400 && body.contains("Session ID unknown"), "{status} {body}");
    }
    assert_eq!(met("body_timeout"), late + 2.0);
    assert_eq!(met("payload"), large + 2.0);
}

#[tokio::test]
async fn as_many_connections_as_there_may_be() {
    let options = ListenerOptions { connections_max: 2, ..ListenerOptions::default() };
    let server = Server::start(options);
    let before = met("tcp_connections");
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    eventually(|| server.counts.open() == 2).await;
    for _ in 0..3 {
        assert_eq!(said(server.address, format!("{NOTHING}\r\n").as_bytes()).await, "");
    }
    assert_eq!((server.counts.refused(), met("tcp_connections")), (3, before + 3.0));
    held.pop();
    eventually(|| server.counts.open() == 1).await;
    let request = format!("{NOTHING}connection: close\r\n\r\n");
    assert_eq!(status(&said(server.address, request.as_bytes()).await), "404");
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let addresses = Arc::new(Addresses::new(2, Vec::new()));
    let options = ListenerOptions { addresses: Some(addresses), ..ListenerOptions::default() };
    let server = Server::start(options);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    eventually(|| server.counts.open() == 2).await;
    // Whatever it says of itself.
    let request = format!("{NOTHING}x-forwarded-for: 192.0.2.1\r\n\r\n");
    assert_eq!(said(server.address, request.as_bytes()).await, "");
    assert_eq!(server.counts.refused(), 1);
    held.clear();
    eventually(|| server.counts.open() == 0).await;
    let request = format!("{NOTHING}connection: close\r\n\r\n");
    assert_eq!(status(&said(server.address, request.as_bytes()).await), "404");
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_so_many_sessions() {
    let addresses = Arc::new(Addresses::new(2, vec!["127.0.0.0/8".parse().unwrap()]));
    let listener =
        ListenerOptions { addresses: Some(addresses.clone()), ..ListenerOptions::default() };
    let transport = TransportOptions { addresses, ..TransportOptions::default() };
    let mut server = Server::bounded(listener, HttpOptions::default(), transport);
    let address = server.address;
    let open = async |client: &str| Polling::open(address, client).await;
    let before = met("address_connections");
    let (first, opened) = open("192.0.2.1").await;
    assert_eq!((first, open("192.0.2.1").await.0), (200, 200));
    for claimed in ["192.0.2.1", "198.51.100.7, 192.0.2.1", "192.0.2.1, 127.0.0.9"] {
        let (status, body) = open(claimed).await;
        assert_eq!(
            (status, body.as_str()),
            (503, r#"{"code":4,"message":"Too many connections"}"#)
        );
    }
    assert_eq!(met("address_connections"), before + 3.0);
    assert_eq!(open("192.0.2.2").await.0, 200);
    assert_eq!(open("nobody, knows").await.0, 200);

    // One that ends makes room.
    let (_, sid) = opened.split_once("\"sid\":\"").unwrap();
    assert_eq!(posted(server.address, &sid[..16], "40/chat,").await, "200");
    drop(server.connected().await);
    assert_eq!(posted(server.address, &sid[..16], "1").await, "200");
    within(async { while open("192.0.2.1").await.0 != 200 {} }).await;
}

/// How a batch of a session is answered.
async fn posted(address: SocketAddr, sid: &str, batch: &str) -> String {
    let length = batch.len();
    let post = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: localhost\r\n\
         content-type: text/plain\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{batch}"
    );
    status(&said(address, post.as_bytes()).await).to_owned()
}

/// The sid in a handshake's answer.
fn sid_of(opened: &str) -> &str {
    &opened.split_once("\"sid\":\"").unwrap().1[..16]
}

/// Who stays nobody has to go for those who come, the oldest first: nobody is kept out by those
/// who only take places.
#[tokio::test]
async fn the_oldest_session_that_is_nobodys_goes_for_one_more() {
    let handshakes = Arc::new(Handshakes::new(2));
    let transport =
        TransportOptions { handshakes: handshakes.clone(), ..TransportOptions::default() };
    let mut server = bounded(transport);
    let before = met("handshakes");
    let (_, waits) = Polling::open(server.address, "192.0.2.1").await;
    // It polls, the second time in vain: that ends.
    let poll = format!(
        "GET /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\nhost: localhost\r\n\
         connection: close\r\n\r\n",
        sid_of(&waits)
    );
    assert!(said(server.address, poll.as_bytes()).await.ends_with("\r\n\r\n2"));
    let mut polls = TcpStream::connect(server.address).await.unwrap();
    polls.write_all(poll.as_bytes()).await.unwrap();
    let mut ws = Ws::open(TcpStream::connect(server.address).await.unwrap(), None).await;
    assert!(ws.packet().await.starts_with('0'));
    assert_eq!((handshakes.pending(), met("handshakes")), (2, before));

    let (status_of, third) = Polling::open(server.address, "192.0.2.1").await;
    assert_eq!((status_of, met("handshakes")), (200, before + 1.0));
    // By either of those who are told: the transport here, or socketioxide.
    let ended = rest(&mut polls).await;
    assert!(ended.ends_with("Session ID unknown\"}") || ended.ends_with("\r\n\r\n6"), "{ended}");
    assert_eq!(posted(server.address, sid_of(&waits), "40/chat,").await, "400");
    let (status_of, fourth) = Polling::open(server.address, "192.0.2.1").await;
    assert_eq!((status_of, met("handshakes")), (200, before + 2.0));
    while let Some(Ok(message)) = within(ws.next()).await {
        assert!(message.is_close() || message.to_text().unwrap() == "2", "{message:?}");
    }
    // By WebSocket, too.
    let mut fifth = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    assert_eq!(met("handshakes"), before + 3.0);
    assert_eq!(posted(server.address, sid_of(&third), "40/chat,").await, "400");

    // Who is somebody takes no place, and stays.
    let fifth_client = server.connected().await;
    assert_eq!(posted(server.address, sid_of(&fourth), "40/chat,").await, "200");
    let _fourth_client = server.connected().await;
    eventually(|| handshakes.pending() == 0).await;
    for _ in 0..5 {
        assert_eq!(Polling::open(server.address, "192.0.2.1").await.0, 200);
    }
    assert_eq!((handshakes.pending(), met("handshakes")), (2, before + 6.0));
    fifth_client.emit(1, "x");
    fifth.expect_events(1..=1).await;

    // Counted together, and so one after the other.
    only_so_many_who_had_to_go_are_kept().await;
}

/// socketioxide keeps something of those who had to go, for a while: of so many, and no more.
async fn only_so_many_who_had_to_go_are_kept() {
    let handshakes = Arc::new(Handshakes::new(2));
    let connect_timeout = 4 * SOON;
    let transport = TransportOptions { handshakes, connect_timeout, ..TransportOptions::default() };
    let server = bounded(transport);
    for _ in 0..2 * KEPT_FACTOR {
        assert_eq!(Polling::open(server.address, "192.0.2.1").await.0, 200);
    }
    let answer = said(
        server.address,
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), "503");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    within(async {
        while Polling::open(server.address, "192.0.2.1").await.0 != 200 {
            tokio::time::sleep(SOON / 20).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_stays_nobodys_ends() {
    let handshakes = Arc::new(Handshakes::new(9));
    let transport = TransportOptions {
        handshakes: handshakes.clone(),
        connect_timeout: SOON,
        ..TransportOptions::default()
    };
    let mut server = bounded(transport);
    let before = met("connect_timeout");
    assert_eq!(Polling::open(server.address, "192.0.2.1").await.0, 200);
    let _ws = Ws::open(TcpStream::connect(server.address).await.unwrap(), None).await;
    let mut stays = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    let client = server.connected().await;
    eventually(|| handshakes.pending() == 0).await;
    eventually(|| met("connect_timeout") == before + 2.0).await;
    client.emit(1, "x");
    stays.expect_events(1..=1).await;
}

#[tokio::test]
async fn polls_beyond_the_limit_are_refused_and_end_nothing() {
    let mut server = bounded(TransportOptions { polls_max: 1, ..TransportOptions::default() });
    let before = met("polls");
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    polling.send("GET", "").await;
    let mut beside = polling.beside().await;
    within(async {
        // Until the first one is there.
        while beside.request("GET", "").await.0 != 400 {}
    })
    .await;
    assert_eq!(beside.request("GET", "").await.0, 400);
    assert!(met("polls") >= before + 2.0);
    client.emit(1, "x");
    assert_eq!(number(&polling.receive().await.1), 1);
}

/// Who waits for an answer gets it; who asks nothing is let go; nobody else comes in.
#[tokio::test]
async fn a_server_that_stops_answers_what_it_was_asked() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    polling.send("GET", "").await;
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    kept.write_all(format!("{NOTHING}\r\n").as_bytes()).await.unwrap();
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut head = [0; 12];
    within(kept.read_exact(&mut head)).await.unwrap();
    eventually(|| server.counts.open() == 3).await;
    server.tasks.stopping().cancel();
    rest(&mut kept).await;
    assert_eq!(rest(&mut silent).await, "");
    within(async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    client.emit(1, "x");
    assert_eq!(number(&polling.receive().await.1), 1);
    assert!(server.tasks.finished(Duration::from_secs(20)).await);
}
