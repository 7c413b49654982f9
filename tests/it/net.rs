//! The listener and the transport layer around a real axum server and socketioxide, seen by
//! clients that speak the wire format by hand.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod limits;
mod wire;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use socketioxide::socket::Sid;
use tokencast::net::{Closed, ListenerOptions, Transport};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use wire::{
    EVENTS, Polling, REFUSAL, Random, Server, Ws, assert_unknown, eventually, number, pid, small,
    within,
};

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

/// Amended as often as they come, with no harm to what is around them.
#[tokio::test]
async fn refusals_carry_their_data_on_every_transport() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    let mut expected = 0;
    for count in [1, 3] {
        polling.post(&["40/closed,"; 3][..count].join("\x1e")).await;
        client.emit(expected, "x");
        expected += 1;
        let mut batches = Vec::new();
        while batches.len() < count + 1 {
            batches.extend(polling.poll().await);
        }
        let (refusals, events): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(|packet| packet.starts_with("44"));
        assert_eq!(refusals, vec![REFUSAL; count]);
        assert_eq!(number(&events[0]), expected - 1);
    }
    client.nothing_outstanding().await;

    polling.send("GET", "").await;
    let mut ws =
        Ws::open(TcpStream::connect(server.address).await.unwrap(), Some(&polling.sid)).await;
    ws.send("2probe").await;
    assert_eq!(polling.receive().await, (200, "6".to_owned()));
    assert_eq!(ws.packet().await, "3probe");
    ws.send("5").await;
    for _ in 0..3 {
        ws.send("40/closed,").await;
        assert_eq!(ws.packet().await, REFUSAL);
        client.emit(expected, "x");
        ws.expect_events(expected..=expected).await;
        expected += 1;
    }
    client.nothing_outstanding().await;

    let mut ws = Ws::connect(TcpStream::connect(server.address).await.unwrap()).await;
    ws.send("40/closed,").await;
    assert_eq!(ws.packet().await, REFUSAL);
    ws.send("40/nowhere,").await;
    assert_eq!(ws.packet().await, r#"44/nowhere,{"message":"Invalid namespace"}"#);
}

/// A CONNECT that goes out, in a namespace with a pid.
fn kept(sid: &str, connect: usize) -> String {
    format!(r#"40/kept,{{"sid":"{sid}","pid":"{}"}}"#, pid(connect))
}

/// The namespace that has a pid is left and joined again; another one has none.
#[tokio::test]
async fn a_websockets_connects_carry_their_pid() {
    let server = Server::start(ListenerOptions::default());
    let mut ws = Ws::open(TcpStream::connect(server.address).await.unwrap(), None).await;
    let open = ws.packet().await;
    let sid = &open.split_once("\"sid\":\"").unwrap().1[..16];
    for connect in 0..3 {
        ws.send("40/kept,").await;
        assert_eq!(ws.packet().await, kept(sid, connect));
        ws.send("40/chat,").await;
        assert_eq!(ws.packet().await, format!(r#"40/chat,{{"sid":"{sid}"}}"#));
        ws.send("40").await;
        assert_eq!(ws.packet().await, r#"44{"message":"Invalid namespace"}"#);
        ws.send("41/kept,").await;
        ws.send("41/chat,").await;
    }
}

#[tokio::test]
async fn connects_carry_their_pid_by_polling_and_across_the_upgrade() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    let sid = polling.sid.clone();
    // In one batch with an event, or in two.
    for connect in 0..3 {
        polling.post("40/kept,\x1e40").await;
        client.emit(connect, "x");
        let mut packets = Vec::new();
        while packets.len() < 3 {
            packets.extend(polling.poll().await);
        }
        packets.sort();
        assert_eq!(packets[0], kept(&sid, connect));
        assert_eq!(number(&packets[1]), connect);
        assert_eq!(packets[2], r#"44{"message":"Invalid namespace"}"#);
        polling.post("41/kept,").await;
    }

    polling.send("GET", "").await;
    let mut ws =
        Ws::open(TcpStream::connect(server.address).await.unwrap(), Some(&polling.sid)).await;
    ws.send("2probe").await;
    assert_eq!(polling.receive().await, (200, "6".to_owned()));
    assert_eq!(ws.packet().await, "3probe");
    // Asked for by polling, answered by the WebSocket.
    polling.post("40/kept,").await;
    ws.send("5").await;
    assert_eq!(ws.packet().await, kept(&sid, 3));
    client.emit(3, "x");
    ws.expect_events(3..=3).await;
    for connect in 4..6 {
        ws.send("41/kept,").await;
        ws.send("40/kept,").await;
        assert_eq!(ws.packet().await, kept(&sid, connect));
    }
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

/// Else its socket would be gone and not counted, on a WebSocket that stays open.
#[tokio::test]
async fn a_post_does_not_close_what_a_websocket_carries() {
    let mut server = Server::start(ListenerOptions::default());
    let mut polling = Polling::connect(server.address).await;
    let client = server.connected().await;
    let mut ws =
        Ws::open(TcpStream::connect(server.address).await.unwrap(), Some(&polling.sid)).await;
    ws.send("2probe").await;
    assert_eq!(ws.packet().await, "3probe");
    ws.send("5").await;
    client.emit(0, "");
    ws.expect_events(0..1).await;
    assert_eq!(polling.request("POST", "1").await.0, 400);
    assert!(!client.outbound.is_closed());
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
