//! A reader that checks what it is shown as a client would, and a feed that loses things.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde_json::Value;
use tokencast::adapter::{Feed, News};
use tokencast::dialect::{DialectIndex, Dialects, Frame, offset};
use tokencast::domain::{Chunk, Cursor, Event, GenerationId, Position, SessionId, Signal, UserId};
use tokencast::hub::{Offer, Reader, ReaderId};

const DIALECTS_MAX: usize = 8;

/// A small repeatable source of numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

/// Takes what it is offered unless it is `full`.
pub struct TestReader {
    id: ReaderId,
    user: UserId,
    dialect: DialectIndex,
    pub full: AtomicBool,
    pub full_after_next: AtomicBool,
    /// How often it was told that it fell behind.
    pub fell_behind: AtomicUsize,
    pub disconnected: AtomicUsize,
    revoked: Mutex<Vec<SessionId>>,
    shown: Mutex<Vec<(String, Value)>>,
    frames: Mutex<Vec<Frame>>,
    cursor: Mutex<Option<Cursor>>,
}

impl TestReader {
    pub fn new() -> Arc<Self> {
        Self::of("ada", Dialects::new(false).by_name("session").unwrap())
    }

    pub fn of(user: &str, dialect: DialectIndex) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: ReaderId(NEXT.fetch_add(1, Ordering::Relaxed)),
            user: UserId::new(user).unwrap(),
            dialect,
            full: AtomicBool::new(false),
            full_after_next: AtomicBool::new(false),
            fell_behind: AtomicUsize::new(0),
            disconnected: AtomicUsize::new(0),
            revoked: Mutex::default(),
            shown: Mutex::default(),
            frames: Mutex::default(),
            cursor: Mutex::default(),
        })
    }

    pub fn number(&self) -> ReaderId {
        self.id
    }

    pub fn names(&self) -> Vec<String> {
        self.shown.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    pub fn shown(&self) -> Vec<(String, Value)> {
        self.shown.lock().unwrap().clone()
    }

    /// All that it was shown, as it was sent.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap().clone()
    }

    /// What it was shown since it was last asked.
    pub fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.shown.lock().unwrap())
    }

    /// The last cursor that it was told.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor.lock().unwrap().clone()
    }

    /// What it may not see any more, each time it was told.
    pub fn revoked(&self) -> Vec<SessionId> {
        self.revoked.lock().unwrap().clone()
    }

    pub fn deltas(&self, generation: GenerationId) -> Vec<String> {
        let generation = generation.to_string();
        let shown = self.shown.lock().unwrap();
        let chunks = shown
            .iter()
            .filter(|(name, body)| name == "stream:chunk" && body["streamId"] == generation);
        chunks.map(|(_, body)| body["delta"].as_str().unwrap().to_owned()).collect()
    }

    pub fn is_complete(&self, generation: GenerationId) -> bool {
        let generation = generation.to_string();
        let shown = self.shown.lock().unwrap();
        let ends = shown
            .iter()
            .filter(|(name, body)| name == "stream:complete" && body["streamId"] == generation);
        assert!(ends.clone().count() <= 1, "ended twice");
        ends.count() == 1
    }

    /// The text put together, checking that offsets (in UTF-16 units) are contiguous and numbers
    /// grow.
    pub fn text(&self, generation: GenerationId) -> String {
        let generation = generation.to_string();
        let (mut text, mut units, mut seq) = (String::new(), 0, 0);
        for (name, body) in self.shown.lock().unwrap().iter() {
            if name != "stream:chunk" || body["streamId"] != generation {
                continue;
            }
            let delta = body["delta"].as_str().unwrap();
            assert_eq!(body["offset"].as_u64().unwrap(), units, "a gap or an overlap");
            assert!(body["seq"].as_u64().unwrap() > seq, "numbers grow");
            seq = body["seq"].as_u64().unwrap();
            units += delta.encode_utf16().count() as u64;
            text.push_str(delta);
            if body["isComplete"] == true {
                assert_eq!(body["content"], text, "the last chunk has it all");
            }
        }
        text
    }
}

/// Where an event's cursor says that its reader stands: as SSE writes it, or sockets.
pub fn place(cursor: &str) -> Cursor {
    let offset = || offset::read(cursor, DIALECTS_MAX).unwrap().places.remove(0).1;
    cursor.parse().unwrap_or_else(|_| offset())
}

impl Reader for TestReader {
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
        if self.full.load(Ordering::SeqCst) {
            return Offer::Full;
        }
        if self.full_after_next.swap(false, Ordering::SeqCst) {
            self.full.store(true, Ordering::SeqCst);
        }
        let mut shown = self.shown.lock().unwrap();
        for frame in frames {
            let body = serde_json::from_str(frame.payload.get()).unwrap();
            shown.push((frame.event.to_owned(), body));
            self.frames.lock().unwrap().push(frame.clone());
            if let Some(cursor) = &frame.cursor {
                *self.cursor.lock().unwrap() = Some(place(cursor));
            }
        }
        Offer::Taken
    }
    fn fell_behind(&self, _: &SessionId) {
        self.fell_behind.fetch_add(1, Ordering::SeqCst);
    }
    fn revoke(&self, session: &SessionId) {
        self.revoked.lock().unwrap().push(session.clone());
    }
    fn disconnect(&self) {
        self.disconnected.fetch_add(1, Ordering::SeqCst);
    }
}

/// A feed that loses some of what passes, or all of it, and doubles the rest.
pub struct Lossy {
    inner: Weak<dyn Feed>,
    own: Weak<Lossy>,
    pub deaf: AtomicBool,
    pub lose_one_in: AtomicUsize,
    random: Mutex<Random>,
}

impl Lossy {
    pub fn around(inner: Weak<dyn Feed>) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            inner,
            own: own.clone(),
            deaf: AtomicBool::new(false),
            lose_one_in: AtomicUsize::new(0),
            random: Mutex::new(Random(7)),
        })
    }

    pub fn feed(&self) -> Weak<dyn Feed> {
        let own: Weak<dyn Feed> = self.own.clone();
        own
    }

    /// How often something that passes arrives.
    fn times(&self) -> usize {
        let one_in = self.lose_one_in.load(Ordering::SeqCst);
        if self.deaf.load(Ordering::SeqCst) {
            return 0;
        }
        if one_in == 0 {
            return 1;
        }
        let mut random = self.random.lock().unwrap();
        if random.below(one_in) == 0 { 0 } else { 1 + random.below(2) }
    }
}

impl Feed for Lossy {
    fn chunk(&self, session: &SessionId, chunk: Chunk) {
        for _ in 0..self.times() {
            self.inner.upgrade().unwrap().chunk(session, chunk.clone());
        }
    }
    fn event(&self, session: &SessionId, position: Position, event: Arc<Event>) {
        for _ in 0..self.times() {
            self.inner.upgrade().unwrap().event(session, position, event.clone());
        }
    }
    fn ahead(&self, session: &SessionId, chunk: Chunk) {
        self.inner.upgrade().unwrap().ahead(session, chunk);
    }
    fn unlogged(&self, session: &SessionId, event: Arc<Event>) {
        self.inner.upgrade().unwrap().unlogged(session, event);
    }
    fn signal(&self, session: &SessionId, signal: Signal) {
        self.inner.upgrade().unwrap().signal(session, signal);
    }
    fn news(&self, news: News) {
        self.inner.upgrade().unwrap().news(news);
    }
    fn dirty(&self) {
        self.inner.upgrade().unwrap().dirty();
    }
}
