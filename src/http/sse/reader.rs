//! An SSE response as the hub sees it, and as hyper does: a queue that the one fills and the other
//! empties.
//!
//! What hyper has not taken yet is bounded by this account, one batch of frames that is larger by
//! itself excepted; hyper takes [`PIECE_BYTES`] at a time and at most 16 of those before the
//! kernel has taken them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame as BodyFrame};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dialect::{DialectIndex, Frame};
use crate::domain::{Cursor, SessionId, UserId};
use crate::hub::{Offer, Reader, ReaderId};

/// How many bytes hyper is given at once.
const PIECE_BYTES: usize = 4 * 1024;
/// How long `EventSource` waits before it comes back, in milliseconds.
const RETRY_MS: u64 = 3_000;
/// What a proxy and a client hear that nothing happened.
const KEEPALIVE: &[u8] = b": keepalive\n\n";

/// An SSE response's place in the hub.
pub(super) struct SseReader {
    id: ReaderId,
    user: UserId,
    dialect: DialectIndex,
    outbound_max: usize,
    state: Mutex<State>,
    /// For the stream's task, which alone waits for it.
    happened: Notify,
}

struct State {
    queue: BytesMut,
    queued_at: Instant,
    /// Whoever polls the body.
    body: Option<Waker>,
    /// Nothing more is queued.
    ended: bool,
    /// It refused something: once at most this much is queued, that fits.
    room_at: Option<usize>,
    has_drained: bool,
    is_gone: bool,
    is_disconnected: bool,
    has_fallen_behind: bool,
    is_revoked: bool,
}

/// What a stream's task has to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// The response is over, or its client is gone.
    Gone,
    /// An operator ends it.
    Disconnected,
    /// It fell behind what is kept, and goes on from the store.
    FellBehind,
    /// It may not see its session any more.
    Revoked,
    /// It was slow, and can take more.
    Drained,
}

impl SseReader {
    /// With an account of `outbound_max` bytes.
    pub(super) fn new(
        id: ReaderId,
        user: UserId,
        dialect: DialectIndex,
        outbound_max: usize,
    ) -> Self {
        let state = State {
            queue: BytesMut::new(),
            queued_at: Instant::now(),
            body: None,
            ended: false,
            room_at: None,
            has_drained: false,
            is_gone: false,
            is_disconnected: false,
            has_fallen_behind: false,
            is_revoked: false,
        };
        Self { id, user, dialect, outbound_max, state: Mutex::new(state), happened: Notify::new() }
    }

    /// Sends what stands before everything else: when to come back, and where the reader stands,
    /// which `EventSource` keeps as the last event's id although there is no event.
    pub(super) fn greet(&self, at: &Cursor) {
        let block = format!("retry: {RETRY_MS}\nid: {at}\n\n");
        self.change(|state| state.queue.extend_from_slice(block.as_bytes()));
    }

    /// Waits for the next thing to see to. One that ends the stream is given again and again; the
    /// others once each time that they happen.
    ///
    /// # Cancel safety
    /// Safe. One caller at a time.
    pub(super) async fn happens(&self) -> Happening {
        loop {
            if let Some(happening) = self.state().happened() {
                return happening;
            }
            self.happened.notified().await;
        }
    }

    /// Waits until the body was taken to its end, or dropped.
    ///
    /// # Cancel safety
    /// Safe. One caller at a time, and none in [`SseReader::happens`].
    pub(super) async fn gone(&self) {
        while !self.state().is_gone {
            self.happened.notified().await;
        }
    }

    /// When something was last queued.
    pub(super) fn queued_at(&self) -> Instant {
        self.state().queued_at
    }

    /// Breaks the silence, where there is any.
    pub(super) fn keep_alive(&self) {
        self.change(|state| {
            if state.queue.is_empty() && !state.ended {
                state.queue.extend_from_slice(KEEPALIVE);
            }
            state.queued_at = Instant::now();
        });
    }

    /// Sends a last frame, past the account.
    pub(super) fn send(&self, frame: &Frame) {
        self.change(|state| {
            if !state.ended {
                write(&mut state.queue, frame);
            }
        });
    }

    /// Ends the response once what is queued was taken.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the body has to give, and wakes whoever polls it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        let body = state.body.take();
        drop(state);
        if let Some(body) = body {
            body.wake();
        }
        changed
    }

    /// Something that the stream's task has to see to.
    fn happen(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.happened.notify_one();
    }
}

impl State {
    fn happened(&mut self) -> Option<Happening> {
        Some(match () {
            () if self.is_gone => Happening::Gone,
            () if self.is_disconnected => Happening::Disconnected,
            () if std::mem::take(&mut self.is_revoked) => Happening::Revoked,
            () if std::mem::take(&mut self.has_fallen_behind) => Happening::FellBehind,
            () if std::mem::take(&mut self.has_drained) => Happening::Drained,
            () => return None,
        })
    }

    /// The next piece; `true`: so much is taken that what was refused fits.
    fn take_piece(&mut self) -> Option<(Bytes, bool)> {
        if self.queue.is_empty() {
            return None;
        }
        let bytes = self.queue.len().min(PIECE_BYTES);
        let piece = self.queue.split_to(bytes).freeze();
        if self.queue.is_empty() {
            // Idle streams are many: none keeps the memory that it once needed.
            self.queue = BytesMut::new();
        }
        let drained = self.room_at.is_some_and(|room_at| self.queue.len() <= room_at);
        if drained {
            self.room_at = None;
            self.has_drained = true;
        }
        Some((piece, drained))
    }
}

impl Reader for SseReader {
    fn id(&self) -> ReaderId {
        self.id
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn dialect(&self) -> DialectIndex {
        self.dialect
    }

    fn offer(&self, frames: &[Frame]) -> Offer {
        let bytes: usize = frames.iter().map(written_len).sum();
        let max = self.outbound_max;
        self.change(|state| {
            if state.ended || state.is_gone {
                return Offer::Gone;
            }
            let queued = state.queue.len();
            if queued > 0 && queued + bytes > max {
                // Less than what is queued, so the body's next pieces come past it.
                state.room_at = Some(max.saturating_sub(bytes).min(max / 2));
                return Offer::Full;
            }
            state.queue.reserve(bytes);
            for frame in frames {
                write(&mut state.queue, frame);
            }
            state.queued_at = Instant::now();
            Offer::Taken
        })
    }

    /// It is in one session only.
    fn fell_behind(&self, _session: &SessionId) {
        self.happen(|state| state.has_fallen_behind = true);
    }

    /// It is in one session only.
    fn revoke(&self, _session: &SessionId) {
        self.happen(|state| state.is_revoked = true);
    }

    fn disconnect(&self) {
        self.happen(|state| state.is_disconnected = true);
    }
}

/// The response's body. Dropped, its client is gone.
pub(super) struct Events(Arc<SseReader>);

impl Events {
    /// What `reader` is offered. There is one for each reader.
    pub(super) fn new(reader: Arc<SseReader>) -> Self {
        Self(reader)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        let mut state = self.0.state();
        match state.take_piece() {
            Some((piece, drained)) => {
                drop(state);
                if drained {
                    self.0.happened.notify_one();
                }
                Poll::Ready(Some(Ok(BodyFrame::data(piece))))
            }
            None if state.ended => Poll::Ready(None),
            None => {
                state.body = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.happen(|state| {
            state.is_gone = true;
            state.queue = BytesMut::new();
        });
    }
}

/// `id:`, `event:` and `data:`, each where there is one. JSON on one line has no line end in it,
/// and neither names nor cursors have.
fn write(queue: &mut BytesMut, frame: &Frame) {
    for (field, value) in fields(frame) {
        queue.extend_from_slice(field.as_bytes());
        queue.extend_from_slice(value.as_bytes());
        queue.extend_from_slice(b"\n");
    }
    queue.extend_from_slice(b"\n");
}

fn written_len(frame: &Frame) -> usize {
    fields(frame).map(|(field, value)| field.len() + value.len() + 1).sum::<usize>() + 1
}

fn fields(frame: &Frame) -> impl Iterator<Item = (&'static str, &str)> {
    let id = frame.cursor.as_deref().map(|cursor| ("id: ", cursor));
    let event = Some(("event: ", frame.event)).filter(|(_, name)| !name.is_empty());
    [id, event, Some(("data: ", frame.payload.get()))].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;
    use crate::dialect::Dialects;

    fn opened(outbound_max: usize) -> (Arc<SseReader>, Events) {
        let user = UserId::new("ada").unwrap();
        let sse = Dialects::new(false).sse();
        let reader = Arc::new(SseReader::new(ReaderId(1), user, sse, outbound_max));
        reader.greet(&"1-2:2".parse().unwrap());
        (reader.clone(), Events::new(reader))
    }

    /// A frame without a name that takes so many bytes as text.
    fn frame(bytes: usize) -> Frame {
        Frame::new("", &"x".repeat(bytes - written_len(&Frame::new("", &""))))
    }

    /// What there is of the body now; `true`: it is over.
    fn taken(events: &mut Events) -> (String, bool) {
        let mut text = String::new();
        loop {
            match events.frame().now_or_never() {
                None => return (text, false),
                Some(None) => return (text, true),
                Some(Some(frame)) => {
                    let data = frame.unwrap().into_data().unwrap();
                    assert!(data.len() <= PIECE_BYTES);
                    text.push_str(std::str::from_utf8(&data).unwrap());
                }
            }
        }
    }

    fn happens(reader: &SseReader) -> Option<Happening> {
        reader.happens().now_or_never()
    }

    #[tokio::test]
    async fn frames_are_written_as_the_specification_has_them() {
        let (reader, mut events) = opened(1 << 16);
        let named = Frame { cursor: Some("1-2:3".into()), ..Frame::new("done", &json!({})) };
        let unnamed = Frame::new("", &json!({ "chunk": "a\nb\r\u{2028}é" }));
        assert_eq!(reader.offer(&[unnamed, named]), Offer::Taken);
        let expected = "retry: 3000\nid: 1-2:2\n\n\
            data: {\"chunk\":\"a\\nb\\r\u{2028}é\"}\n\n\
            id: 1-2:3\nevent: done\ndata: {}\n\n";
        assert_eq!(taken(&mut events), (expected.to_owned(), false));
        reader.keep_alive();
        assert_eq!(taken(&mut events), (": keepalive\n\n".to_owned(), false));
        reader.offer(&[Frame::new("", &1)]);
        reader.keep_alive();
        reader.end();
        assert_eq!(reader.offer(&[Frame::new("", &2)]), Offer::Gone);
        reader.keep_alive();
        reader.send(&Frame::new("error", &3));
        assert_eq!(taken(&mut events), ("data: 1\n\n".to_owned(), true), "no silence, no comment");
    }

    #[tokio::test]
    async fn what_is_queued_is_bounded_and_what_was_refused_fits_later() {
        let max = 10_000;
        let (reader, mut events) = opened(max);
        assert!(taken(&mut events).0.starts_with("retry: "));
        let batch = [frame(3000), frame(1000)];
        assert_eq!(reader.offer(&batch), Offer::Taken);
        assert_eq!(reader.offer(&batch), Offer::Taken);
        assert_eq!(reader.offer(&batch), Offer::Full);
        assert_eq!(happens(&reader), None);
        let piece = events.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece.len(), PIECE_BYTES);
        assert_eq!(happens(&reader), Some(Happening::Drained));
        assert_eq!(happens(&reader), None, "told once");
        assert_eq!(reader.offer(&batch), Offer::Taken);
        assert_eq!(taken(&mut events).0.len(), 12_000 - PIECE_BYTES);
        assert_eq!(happens(&reader), None);

        // What is larger than the account goes alone.
        assert_eq!(reader.offer(&[frame(20)]), Offer::Taken);
        assert_eq!(reader.offer(&[frame(2 * max)]), Offer::Full);
        assert_eq!(taken(&mut events).0.len(), 20);
        assert_eq!(happens(&reader), Some(Happening::Drained));
        assert_eq!(reader.offer(&[frame(2 * max)]), Offer::Taken);
        assert_eq!(taken(&mut events).0.len(), 2 * max);
    }

    #[tokio::test]
    async fn the_body_wakes_for_what_is_queued_and_for_the_end() {
        let (reader, mut events) = opened(1 << 16);
        taken(&mut events);
        let (frame, ()) = tokio::join!(events.frame(), async { reader.keep_alive() });
        assert!(frame.is_some());
        let (end, ()) = tokio::join!(events.frame(), async { reader.end() });
        assert!(end.is_none());
    }

    #[tokio::test]
    async fn whatever_happens_the_task_hears_of_it() {
        let session = SessionId::new("room").unwrap();
        let (reader, events) = opened(1 << 16);
        assert_eq!(happens(&reader), None);
        reader.revoke(&session);
        assert_eq!(happens(&reader), Some(Happening::Revoked));
        assert_eq!(happens(&reader), None);
        reader.fell_behind(&session);
        assert_eq!(happens(&reader), Some(Happening::FellBehind));
        reader.disconnect();
        assert_eq!(happens(&reader), Some(Happening::Disconnected));
        assert_eq!(reader.gone().now_or_never(), None);
        // Also where it was never polled.
        drop(events);
        assert_eq!(happens(&reader), Some(Happening::Gone));
        assert_eq!(reader.gone().now_or_never(), Some(()));
        assert_eq!(reader.offer(&[frame(100)]), Offer::Gone);

        let (reader, events) = opened(1 << 16);
        let waited = tokio::join!(reader.happens(), async { drop(events) }).0;
        assert_eq!(waited, Happening::Gone);
    }
}
