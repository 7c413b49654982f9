//! What the server writes on a connection, and what is read of a request for one. The input is
//! frames, a polling batch, a body and a query alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokencast::net::seam;
use tokencast_fuzz::cut;

fuzz_target!(|bytes: &[u8]| {
    let pieces = cut(bytes);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();

    // Of a WebSocket's frames: wherever the kernel cuts them.
    let events = seam::event_bytes_written([bytes]);
    assert!(events <= bytes.len() as u64);
    assert_eq!(seam::event_bytes_written(pieces.iter().copied()), events);
    assert_eq!(seam::event_bytes_written(single.iter().copied()), events);

    let amended = seam::amended([bytes], usize::MAX);
    assert_eq!(seam::amended(pieces.iter().copied(), 7), amended);
    assert_eq!(seam::amended(single.iter().copied(), 1), amended);
    assert_others_pass(bytes, &amended);

    // Of a polling response.
    for version in [3, 4] {
        assert!(seam::event_bytes_of_batch(bytes, version) <= bytes.len() as u64);
    }
    if let Some(amended) = seam::amended_batch(bytes) {
        let packets = |batch: &[u8]| batch.split(|byte| *byte == 0x1e).count();
        assert_eq!(packets(&amended), packets(bytes), "as many packets as before");
    }
    seam::is_opened(bytes);

    // Of a request.
    if let Ok(query) = std::str::from_utf8(bytes) {
        seam::is_wanted(query);
    }
});

/// Every frame but those of a CONNECT and its refusal goes out as it came, in its place.
fn assert_others_pass(mut from: &[u8], mut to: &[u8]) {
    while let Some((frame, from_rest)) = split_frame(from) {
        let (sent, to_rest) = split_frame(to).expect("as many frames go out");
        if !(is_packet(frame, b"40") || is_packet(frame, b"44")) {
            assert_eq!(sent, frame);
        }
        (from, to) = (from_rest, to_rest);
    }
    assert_eq!(from, to, "what is no whole frame");
}

/// The first frame of a server, where it is complete, and what follows it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = header_len(bytes)?;
    let payload = match bytes[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes(bytes[2..4].try_into().expect("two"))),
        127 => u64::from_be_bytes(bytes[2..10].try_into().expect("eight")),
        short => u64::from(short),
    };
    let end = usize::try_from(payload).ok()?.checked_add(header)?;
    bytes.split_at_checked(end)
}

fn header_len(bytes: &[u8]) -> Option<usize> {
    let header = match bytes.get(1)? & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (bytes.len() >= header).then_some(header)
}

/// Whether a frame is a whole text message that is such a packet.
fn is_packet(frame: &[u8], kind: &[u8]) -> bool {
    let payload = header_len(frame).map(|header| &frame[header..]);
    frame[0] == 0x81 && payload.is_some_and(|payload| payload.starts_with(kind))
}
