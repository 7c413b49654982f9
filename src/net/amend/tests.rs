use std::sync::Arc;

use futures::task::noop_waker_ref;
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::*;

/// What the sockets of `/chat` have, where they have one.
const PID: &str = "0123456789-_abcdefXYZa";

fn outbound() -> Arc<Outbound> {
    let outbound = Arc::new(Outbound::default());
    outbound.set_pid("/chat", PID);
    outbound
}

/// A CONNECT of `/chat` whose frame has a payload of `bytes`, and what goes out instead.
fn connect(bytes: usize) -> (String, String) {
    let sid = "s".repeat(bytes - r#"40/chat,{"sid":""}"#.len());
    let from = format!(r#"40/chat,{{"sid":"{sid}"}}"#);
    assert_eq!(from.len(), bytes);
    (from, format!(r#"40/chat,{{"sid":"{sid}","pid":"{PID}"}}"#))
}

/// The packet with which socketioxide refuses with this text.
fn refusal(namespace: &str, text: &str) -> String {
    format!("44{namespace}{}", json!({ "message": text }))
}

/// A refusal whose frame has a payload of `bytes`, and what goes out instead. `data` that has
/// quotes makes it shorter, a number longer.
fn sized(bytes: usize, data: &Value) -> (String, String) {
    let shortest = refusal("/chat,", &connect_error("", data)).len();
    let message = "m".repeat(bytes - shortest);
    let from = refusal("/chat,", &connect_error(&message, data));
    assert_eq!(from.len(), bytes);
    let to = format!(r#"44/chat,{{"message":"{message}","data":{data}}}"#);
    (from, to)
}

/// What tungstenite, as socketioxide uses it, writes for these messages.
fn frames(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let record = io::Cursor::new(Vec::new());
    let mut socket = WebSocket::from_raw_socket(record, Role::Server, None);
    for message in messages {
        socket.send(message).unwrap();
    }
    std::mem::take(socket.get_mut().get_mut())
}

/// Everything that a server writes, and what is to come of it.
fn everything() -> Vec<(Message, Message)> {
    let data = json!({ "code": "AUTH_ERROR", "reason": "missing" });
    let mut messages: Vec<(Message, Message)> = Vec::new();
    let same = |message: Message| (message.clone(), message);
    let text = |(from, to): (String, String)| (Message::text(from), Message::text(to));
    for message in ["", "0", "4", "44", "40", "2", "3probe", "44/chat,", "44{}", "40/chat,", "40{}"]
    {
        messages.push(same(Message::text(message)));
    }
    for another in [r#"40/other,{"sid":"x"}"#, r#"40{"sid":"/chat,"}"#] {
        messages.push(text(connect(40)));
        messages.push(same(Message::text(another)));
    }
    for bytes in [2, 3, 125, 126, 127, 1_024, 1_025, 1_500] {
        messages.push(same(Message::text(format!("42{}", "x".repeat(bytes - 2)))));
        messages.push(same(Message::text(format!("44{}", "x".repeat(bytes - 2)))));
        messages.push(same(Message::text(format!("40{}", "x".repeat(bytes - 2)))));
    }
    messages.push(same(Message::text(refusal("/nowhere,", "Invalid namespace"))));
    // The lengths around which the header changes, of what comes and of what goes.
    for bytes in (120..=134).chain([1_023, 1_024]) {
        messages.push(text(sized(bytes, &data)));
        messages.push(text(sized(bytes, &json!(1))));
        messages.push(same(Message::Ping(b"44".to_vec().into())));
    }
    let longer = r#","pid":"""#.len() - 1 + PID.len();
    for bytes in (120..=130).flat_map(|bytes| [bytes, bytes - longer]).chain([1_023, 1_024]) {
        messages.push(text(connect(bytes)));
        messages.push(same(Message::Ping(b"40".to_vec().into())));
    }
    messages.push(same(Message::text(connect(1_025).0)));
    messages.push(same(Message::binary(connect(40).0)));
    messages.push(text(connect(40)));
    messages.push(same(Message::text(sized(1_025, &data).0)));
    messages.push(same(Message::binary(sized(100, &data).0)));
    messages.push(text(sized(100, &data)));
    messages.push(same(Message::Close(None)));
    messages
}

fn both_frames(messages: &[(Message, Message)]) -> (Vec<u8>, Vec<u8>) {
    let (from, to): (Vec<_>, Vec<_>) = messages.iter().cloned().unzip();
    (frames(from), frames(to))
}

/// A kernel that takes at most so many bytes at a time, and every other time none.
struct Kernel {
    taken: Vec<u8>,
    most: usize,
    busy: bool,
    sometimes_busy: bool,
    /// Where the bytes of each write were.
    from: Vec<*const u8>,
    shut: bool,
}

impl Kernel {
    fn new(most: usize, sometimes_busy: bool) -> Self {
        Self { taken: Vec::new(), most, busy: false, sometimes_busy, from: Vec::new(), shut: false }
    }
}

impl AsyncWrite for Kernel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!bytes.is_empty() && !self.shut);
        self.busy = self.sometimes_busy && !self.busy;
        if self.busy {
            return Poll::Pending;
        }
        let taken = bytes.len().min(self.most);
        self.taken.extend(&bytes[..taken]);
        self.from.push(bytes.as_ptr());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

struct Writer {
    amender: Amender,
    kernel: Kernel,
}

impl Writer {
    fn new(kernel: Kernel) -> Self {
        Self::of(outbound(), kernel)
    }

    fn of(outbound: Arc<Outbound>, kernel: Kernel) -> Self {
        let connection = Connection::new(([127, 0, 0, 1], 1).into(), Arc::default());
        connection.bind_outbound(outbound);
        Self { amender: Amender::new(connection), kernel }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        let mut cx = Context::from_waker(noop_waker_ref());
        while !bytes.is_empty() {
            if let Poll::Ready(taken) = self.amender.poll_write(&mut cx, &mut self.kernel, bytes) {
                let taken = taken.unwrap();
                assert!(taken > 0 && taken <= bytes.len());
                bytes = &bytes[taken..];
            }
            assert!(self.amender.held.len() as u64 <= PAYLOAD_BYTES_MAX + 4);
        }
    }

    fn flush(&mut self) {
        let mut cx = Context::from_waker(noop_waker_ref());
        while self.amender.poll_flush(&mut cx, &mut self.kernel).is_pending() {}
    }
}

fn amended(from: &str) -> Option<String> {
    packet(from.as_bytes(), Some(&outbound())).map(|to| String::from_utf8(to).unwrap())
}

#[test]
fn a_connect_gets_the_pid_of_its_namespace() {
    for (namespace, packet_start) in
        [("/", "40"), ("/chat", "40/chat,"), ("/an{\"odd\":one", "40/an{\"odd\":one,")]
    {
        let outbound = Outbound::default();
        let from = format!(r#"{packet_start}{{"sid":"a-_Z"}}"#);
        assert_eq!(packet(from.as_bytes(), Some(&outbound)), None);
        outbound.set_pid(namespace, PID);
        let to = format!(r#"{packet_start}{{"sid":"a-_Z","pid":"{PID}"}}"#);
        // As often as one comes: a namespace may be left and joined again.
        for _ in 0..2 {
            assert_eq!(packet(from.as_bytes(), Some(&outbound)), Some(to.clone().into_bytes()));
        }
        assert_eq!(packet(to.as_bytes(), Some(&outbound)), None);
        assert_eq!(packet(from.as_bytes(), None), None);
        outbound.set_pid("/another", PID);
        assert_eq!(packet(from.as_bytes(), Some(&outbound)), None);
    }
}

#[test]
fn what_is_no_connect_of_the_namespace_passes() {
    let (connect, _) = connect(40);
    for from in [
        "40",
        "40/chat",
        "40/chat,",
        "40/chat,{}",
        r#"40{"sid":"x"}"#,
        r#"40/,{"sid":"x"}"#,
        r#"40/cha,{"sid":"x"}"#,
        r#"40/chats,{"sid":"x"}"#,
        r#"40/chat/,{"sid":"x"}"#,
        r#"40/chat?a=b,{"sid":"x"}"#,
        r#"40/chat,{"sid":1}"#,
        r#"40/chat,{"sid":"x","pid":"y"}"#,
        r#"40/chat,{"pid":"y","sid":"x"}"#,
        r#"40/chat,{"sid":"x","more":1}"#,
        r#"40/chat,{"sid":"x"} "x""#,
        &connect.replacen("40", "41", 1),
        &connect.replacen("40", "42", 1),
        &connect.replacen("40", "44", 1),
        &connect.replacen("40", "0", 1),
        &format!("4{connect}"),
    ] {
        assert_eq!(amended(from), None, "{from}");
    }
}

#[test]
fn the_data_of_a_refusal_leaves_its_message() {
    let data = json!({ "code": "AUTH_ERROR", "reason": "missing" });
    for namespace in ["", "/chat,", "/an{\"odd\":one,"] {
        let from = refusal(namespace, &connect_error("Not \"you\", é\n", &data));
        let to = format!(
            r#"44{namespace}{{"message":"Not \"you\", é\n","data":{{"code":"AUTH_ERROR","reason":"missing"}}}}"#
        );
        assert_eq!(packet(from.as_bytes(), None), Some(to.clone().into_bytes()));
        assert_eq!(amended(&from), Some(to));
    }
}

#[test]
fn what_is_no_refusal_with_data_passes() {
    let with_data = connect_error("No", &json!(1));
    for from in [
        "".to_owned(),
        "44".to_owned(),
        "44/chat".to_owned(),
        refusal("/chat,", "Invalid namespace"),
        refusal("/chat,", "no data\u{1f}"),
        refusal("/chat,", "no JSON\u{1f}{"),
        refusal("/chat,", &with_data).replacen("44", "42", 1),
        format!("44/chat,{}", json!({ "message": with_data, "data": 2 })),
        format!("44/chat,{}", json!({ "message": 1 })),
        format!("44/chat,{}", json!(with_data)),
    ] {
        assert_eq!(amended(&from), None, "{from}");
    }
}

#[test]
fn packets_of_a_batch_are_amended_where_they_stand() {
    let join = |packets: &[&str]| packets.join("\x1e").into_bytes();
    let (one, one_amended) = sized(100, &json!({ "a": "b" }));
    let (two, two_amended) = sized(90, &json!(1));
    let (connect, connect_amended) = connect(40);
    let plain = refusal("/nowhere,", "Invalid namespace");
    let root = r#"40{"sid":"x"}"#;
    let outbound = outbound();
    assert_eq!(batch(b"", Protocol::V4, &outbound), None);
    assert_eq!(
        batch(&join(&["2", "42[\"44\"]", "42[\"40\"]", "bNDQ="]), Protocol::V4, &outbound),
        None
    );
    for (from, to) in [(&one, &one_amended), (&connect, &connect_amended)] {
        assert_eq!(batch(from.as_bytes(), Protocol::V4, &outbound), Some(to.clone().into_bytes()));
    }
    let from = ["2", &one, "42[1]", root, &connect, &plain, "42[2]", &two, &connect];
    let (a, b, c) = (&one_amended, &two_amended, &connect_amended);
    assert_eq!(
        batch(&join(&from), Protocol::V4, &outbound),
        Some(join(&["2", a, "42[1]", root, c, &plain, "42[2]", b, c]))
    );
    outbound.set_pid("/chat", "");
    assert_eq!(
        batch(&join(&from), Protocol::V4, &outbound),
        Some(join(&["2", a, "42[1]", root, &connect, &plain, "42[2]", b, &connect]))
    );
}

#[test]
fn a_connect_gets_the_pid_that_was_said_last() {
    let outbound = Arc::new(Outbound::default());
    let mut writer = Writer::of(Arc::clone(&outbound), Kernel::new(usize::MAX, false));
    let (from, to) = connect(40);
    let mut expected = Vec::new();
    for pid in ["", PID, "another", PID] {
        // Said while the frame is under way.
        let frame = frames([Message::text(&*from)]);
        writer.write(&frame[..7]);
        outbound.set_pid("/chat", pid);
        writer.write(&frame[7..]);
        writer.flush();
        let to = if pid.is_empty() { from.clone() } else { to.replace(PID, pid) };
        expected.extend(frames([Message::text(to)]));
        assert_eq!(writer.kernel.taken, expected);
    }
}

#[test]
fn every_split_is_amended_the_same() {
    for pair in everything().windows(2) {
        let (from, to) = both_frames(pair);
        for at in 0..=from.len() {
            let mut writer = Writer::new(Kernel::new(usize::MAX, false));
            writer.write(&from[..at]);
            writer.flush();
            writer.write(&from[at..]);
            writer.flush();
            assert!(writer.kernel.taken == to, "split at {at}: {pair:?}");
        }
    }
}

#[test]
fn pieces_and_partial_writes_of_every_small_size_are_amended_the_same() {
    let (from, to) = both_frames(&everything());
    for size in (1..20).chain([128, 1_024, from.len()]) {
        for most in (1..20).chain([126, usize::MAX]) {
            let mut writer = Writer::new(Kernel::new(most, size % 2 == 0));
            for piece in from.chunks(size) {
                writer.write(piece);
            }
            writer.flush();
            assert!(writer.kernel.taken == to, "pieces of {size}, {most} taken");
        }
    }
}

#[test]
fn long_and_fragmented_messages_pass() {
    let (refused, amended) = sized(100, &json!({ "a": "b" }));
    let fragments = [b"\x01\x0244\x80\x64".as_slice(), refused.as_bytes()].concat();
    let long = frames([70_000, 65_535].map(|len| Message::text("44".repeat(len / 2))));
    let from = [&*fragments, &*long, &*frames([Message::text(refused)])].concat();
    let to = [fragments, long, frames([Message::text(amended)])].concat();
    for size in [1, 2, 3, 4_099, from.len()] {
        let mut writer = Writer::new(Kernel::new(1_000, false));
        for piece in from.chunks(size) {
            writer.write(piece);
        }
        writer.flush();
        assert!(writer.kernel.taken == to, "pieces of {size}");
    }
}

#[test]
fn what_passes_is_written_uncopied_and_at_once() {
    let events = frames((0..50).map(|len| Message::text(format!("42{}", "x".repeat(len * 5)))));
    let mut writer = Writer::new(Kernel::new(usize::MAX, false));
    writer.write(&events);
    assert_eq!(writer.kernel.from, [events.as_ptr()]);
    assert_eq!(writer.kernel.taken, events);
    assert_eq!((writer.amender.held.capacity(), writer.amender.left), (0, 0));
}

#[test]
fn a_refusal_is_written_when_it_is_complete() {
    let (from, to) = sized(130, &json!({ "code": "INVALID" }));
    let (from, to) = (frames([Message::text(from)]), frames([Message::text(to)]));
    let (last, before) = from.split_last().unwrap();
    let mut writer = Writer::new(Kernel::new(usize::MAX, false));
    writer.write(before);
    writer.flush();
    assert_eq!(writer.kernel.taken, b"");
    writer.write(&[*last]);
    writer.flush();
    assert_eq!(writer.kernel.taken, to);

    // A writer that gives up in the middle leaves nothing behind either.
    writer.write(before);
    let mut cx = Context::from_waker(noop_waker_ref());
    assert!(writer.amender.poll_shutdown(&mut cx, &mut writer.kernel).is_ready());
    assert_eq!(writer.kernel.taken, [&to[..], before].concat());
    assert!(writer.kernel.shut);
}

#[test]
fn a_kernel_that_takes_nothing_is_an_error() {
    let (from, _) = sized(100, &json!({ "code": "INVALID" }));
    let mut writer = Writer::new(Kernel::new(0, false));
    writer.write(&frames([Message::text(from)]));
    let mut cx = Context::from_waker(noop_waker_ref());
    let Poll::Ready(Err(error)) = writer.amender.poll_flush(&mut cx, &mut writer.kernel) else {
        panic!("an error");
    };
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}
