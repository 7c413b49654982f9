//! Whoever is cut off at any frame and comes back, on whatever node, ends with what an uncut reader
//! was shown; and so does one that falls behind what is kept. In each vocabulary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokencast::adapter::{Memory, SharedAdapter, SharedMemory};
use tokencast::dialect::{DialectIndex, Dialects, Frame};
use tokencast::domain::{Cursor, Event, EventKind, NodeId, Position};
use tokencast::hub::{FromStore, Standing, Start, Stored};

use super::reader::{Random, TestReader, place};
use super::told::Talk;
use super::{Node, node_keeping, session, watch};

/// As many as a page from the store has.
const PAGE_MAX: usize = 3;

fn all() -> Vec<DialectIndex> {
    let dialects = Dialects::new(false);
    let names = ["session", "subscribe", "conversation", "persona"];
    let sockets = names.into_iter().map(|name| dialects.by_name(name).unwrap());
    sockets.chain([dialects.sse()]).collect()
}

/// A node whose log keeps so many events, and itself so many for its readers.
fn keeping(shared: &SharedMemory, log: usize, recent: usize) -> Node {
    let ttl = Duration::from_secs(60);
    let adapter: SharedAdapter = Arc::new(Memory::new(NodeId::new(), log, ttl, shared.clone()));
    node_keeping(adapter, Dialects::new(false), recent)
}

/// What a client has that was told all this, whatever it speaks. One answer runs at a time.
#[derive(Debug, Clone, Default)]
struct Heard {
    /// Everything but text and what voids it.
    said: Vec<String>,
    /// Of answers that are not over.
    texts: BTreeMap<String, String>,
    /// How often it was told that it may lack changes.
    incomplete: usize,
}

impl Heard {
    fn hear(&mut self, talk: &Talk, frames: &[Frame]) {
        for frame in frames {
            let body: Value = serde_json::from_str(frame.payload.get()).unwrap();
            self.hear_one(talk, frame.event, &body);
        }
    }

    fn hear_one(&mut self, talk: &Talk, event: &str, body: &Value) {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let about = match (event, &body["streamId"]) {
            ("", _) => "sse".to_owned(),
            ("chat:streaming", _) => text("messageId"),
            _ => text("streamId"),
        };
        let is_last = body["isComplete"] == true;
        match event {
            "stream:chunk" | "message:chunk" | "chat:streaming" if !is_last => {
                let key = if event == "stream:chunk" { "delta" } else { "chunk" };
                self.grow(&about, body["offset"].as_u64(), &text(key));
            }
            "" if body["chunk"].is_string() => self.grow(&about, None, &text("chunk")),
            "messages:missed" => {
                assert_eq!(
                    (&body["messages"], &body["hasMore"]),
                    (&Value::Array(vec![]), &Value::Bool(true))
                );
                self.incomplete += 1;
            }
            "stream:reset" | "message:reset" => {
                self.texts.remove(&about);
            }
            "chat:thinking" | "reset" => self.texts.clear(),
            "stream:resumed" => {}
            "stream:start" => {
                self.texts.remove(&about);
                self.said.push(format!("start {about}"));
            }
            "" if body["status"].is_string() => {
                self.texts.clear();
                self.said.push("start".to_owned());
            }
            _ => self.end(talk, event, body, &about),
        }
    }

    fn grow(&mut self, about: &str, offset: Option<u64>, delta: &str) {
        let text = self.texts.entry(about.to_owned()).or_default();
        let units = text.encode_utf16().count() as u64;
        assert_eq!(offset.unwrap_or(units), units, "a gap or an overlap: {delta}");
        text.push_str(delta);
    }

    /// A message, or a piece of the end of an answer, which tells what its text is.
    fn end(&mut self, talk: &Talk, event: &str, body: &Value, about: &str) {
        let message = if body["message"].is_object() { &body["message"] } else { body };
        let id = ["id", "messageId"].into_iter().find_map(|key| message[key].as_str());
        let id = id.unwrap_or_default();
        self.said.push(format!("{event} {id}{about}{}", body["isComplete"]));
        if event == "error" {
            self.texts.remove(if about.is_empty() { "sse" } else { about });
            return;
        }
        let answer = talk.answers.iter().find(|answer| answer.message.to_string() == id);
        let Some(answer) = answer.filter(|_| event != "chat:response" && event != "chat:error")
        else {
            return;
        };
        let about = match event {
            "" => "sse".to_owned(),
            "chat:streaming" | "chat:message" | "chat:complete" => id.to_owned(),
            _ => answer.generation.to_string(),
        };
        let whole = self.texts.get(&about).map_or("", String::as_str);
        if !["stream:error", "chat:complete"].contains(&event) {
            assert_eq!(whole, answer.text, "the text at its end: {event}");
        }
        if ["stream:complete", "stream:stopped", "stream:error", "chat:complete", ""]
            .contains(&event)
        {
            self.texts.remove(&about);
        }
    }

    /// Without what only the log tells.
    fn stored(&self) -> Vec<&String> {
        self.said.iter().filter(|said| !said.starts_with("start")).collect()
    }

    fn running(&self, talk: &Talk) -> Vec<&String> {
        let is_running = |id: &String| {
            let over = |answer: &super::told::Written| {
                let is_it =
                    answer.message.to_string() == *id || answer.generation.to_string() == *id;
                is_it && talk.stored.iter().any(|e| e.kind.generation() == Some(answer.generation))
            };
            !talk.answers.iter().any(over)
        };
        let texts = self.texts.iter().filter(|(id, text)| !text.is_empty() && is_running(id));
        texts.map(|(_, text)| text).collect()
    }
}

/// A page of what the store has after an ordinal.
fn page(talk: &Talk, after: u64, dialect: DialectIndex) -> FromStore {
    let answers_only = dialect == Dialects::new(false).sse();
    let is_wanted = |stored: &&Stored| !answers_only || stored.event.kind.answer().is_some();
    let ordinal = |stored: &Stored| match &stored.event.kind {
        EventKind::MessageNew(message) => message.ordinal,
        kind => kind.answer().unwrap().ordinal,
    };
    let after = talk.kept.iter().filter(|stored| ordinal(stored) > after).filter(is_wanted);
    let mut missed: Vec<Stored> = after.cloned().collect();
    let has_more = missed.len() > PAGE_MAX;
    missed.truncate(PAGE_MAX);
    let upto = if has_more { ordinal(&missed[PAGE_MAX - 1]) } else { talk.ordinal };
    let known = missed.iter().filter_map(|stored| stored.event.kind.brings()).collect();
    FromStore { known, missed, has_more, upto }
}

/// As its owner does that heard that it fell behind.
fn supply(node: &Node, talk: &Talk, reader: &TestReader) {
    use tokencast::hub::Reader;
    for _ in 0..100 {
        let Some(after) = node.hub.skip_ahead(&talk.session, reader.number()) else { return };
        node.hub.supply(&talk.session, reader.number(), page(talk, after, reader.dialect()));
    }
    panic!("it does not get on");
}

async fn enter(
    node: &Node,
    talk: &Talk,
    dialect: DialectIndex,
    at: &Cursor,
) -> (Arc<TestReader>, bool) {
    let reader = TestReader::of("ada", dialect);
    let start = Start::After(at);
    let join = node.hub.join(&talk.session, reader.clone(), Standing::Belongs, start, talk.ordinal);
    let entered = join.await.unwrap();
    let from_store = match entered.is_whole {
        true => FromStore::default(),
        false => page(talk, at.has_upto(), dialect),
    };
    node.hub.go_live(&talk.session, reader.number(), from_store);
    supply(node, talk, &reader);
    (reader, entered.is_whole)
}

/// One reader, and what its client had before.
struct Reading {
    had: Heard,
    node: usize,
    reader: Arc<TestReader>,
    /// Never brought on from the store.
    is_whole: bool,
}

impl Reading {
    fn has(&self, talk: &Talk) -> Heard {
        let mut has = self.had.clone();
        has.hear(talk, &self.reader.frames());
        has
    }

    /// Cuts it after a frame, and has it come back.
    async fn cut(&self, talk: &Talk, nodes: &[Node], at: usize, node: usize) -> Option<Self> {
        use tokencast::hub::Reader;
        let frames = self.reader.frames();
        let cursor = place(frames[at].cursor.as_deref()?);
        let mut had = self.had.clone();
        had.hear(talk, &frames[..=at]);
        let (reader, is_whole) = enter(&nodes[node], talk, self.reader.dialect(), &cursor).await;
        if !is_whole {
            // All of an event comes again of which it had a part.
            had.said.truncate(had.said.len() - usize::from(cursor.part));
        }
        let is_whole = is_whole && self.is_whole && self.is_quick();
        Some(Self { had, node, reader, is_whole })
    }

    fn is_quick(&self) -> bool {
        self.reader.fell_behind.load(Ordering::SeqCst) == 0
    }

    fn check(&self, talk: &Talk, uncut: &Heard, what: &str) {
        let has = self.has(talk);
        if self.is_whole && self.is_quick() {
            assert_eq!(has.said, uncut.said, "{what}");
            assert_eq!(has.incomplete, 0, "{what}");
        } else {
            assert_eq!(has.stored(), uncut.stored(), "{what}");
        }
        assert_eq!(has.running(talk), uncut.running(talk), "{what}: the running text");
    }
}

/// Messages, an answer that goes on, starts over, is taken over, and each way to end.
async fn step(
    node: &Node,
    talk: &mut Talk,
    open: &mut Option<usize>,
    what: usize,
    random: &mut Random,
) {
    let log = &*node.adapter;
    match (*open, what) {
        (_, 0 | 1) => talk.say(log).await,
        (None, _) => *open = Some(talk.start(log).await),
        (Some(at), 2) => talk.reset(log, at).await,
        (Some(at), 3) => talk.resume(log, at).await,
        (Some(at), 4) => {
            talk.end(log, at, random.below(3)).await;
            *open = None;
        }
        (Some(at), _) => {
            let delta = ["é", "one ", "😀", "longer words ", "\n"][random.below(5)];
            talk.grow(log, at, delta).await;
        }
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    seed
}

/// Prints its seed; `SEED` repeats one.
#[tokio::test(start_paused = true)]
async fn from_every_frame_in_every_vocabulary_what_was_missed_follows_once() {
    let mut random = Random(seed());
    // In one round, to one vocabulary, there may be nothing to tell.
    let mut told = 0;
    for (round, dialect) in all().into_iter().cycle().take(10).enumerate() {
        let log = if round % 2 == 0 { 4 } else { 512 };
        let (shared, session) = (SharedMemory::default(), session());
        let mut nodes = vec![keeping(&shared, log, 512), keeping(&shared, log, 8)];
        let first = TestReader::of("ada", dialect);
        watch(&nodes[0], &session, &first, Standing::Belongs).await;
        let root = Reading { had: Heard::default(), node: 0, reader: first, is_whole: true };
        let (mut talk, mut open) = (Talk::new(&session), None);
        let mut others: Vec<Reading> = Vec::new();
        for n in 0..30 {
            let what = random.below(12);
            match (open, what) {
                (Some(at), 4) if random.below(2) == 0 => {
                    // The store has the end before the log.
                    let end = talk.finish(at, n);
                    open = None;
                    let frames = root.reader.frames().len();
                    if frames > 0 {
                        others.extend(root.cut(&talk, &nodes, random.below(frames), 1).await);
                    }
                    let log = nodes[0].adapter.clone();
                    talk.deliver(&*log, end).await;
                }
                _ => step(&nodes[0], &mut talk, &mut open, what, &mut random).await,
            }
            let from = match others.len() {
                0 => &root,
                some => [&root, &others[random.below(some)]][random.below(2)],
            };
            let frames = from.reader.frames().len();
            if frames > 0 {
                let node = random.below(2);
                let cut = from.cut(&talk, &nodes, random.below(frames), node).await;
                others.extend(cut);
            }
            if !others.is_empty() {
                let Reading { reader, node, .. } = &others[random.below(others.len())];
                if reader.full.fetch_xor(true, Ordering::SeqCst) {
                    reader.full_after_next.store(random.below(3) == 0, Ordering::SeqCst);
                    nodes[*node].hub.resume(reader.number(), [&session]);
                    supply(&nodes[*node], &talk, reader);
                }
            }
        }
        for Reading { reader, node, .. } in &others {
            reader.full.store(false, Ordering::SeqCst);
            reader.full_after_next.store(false, Ordering::SeqCst);
            nodes[*node].hub.resume(reader.number(), [&session]);
            supply(&nodes[*node], &talk, reader);
        }
        let uncut = root.has(&talk);
        for (n, other) in others.iter().enumerate() {
            other.check(&talk, &uncut, &format!("round {round}, reader {n}"));
        }
        nodes.push(keeping(&shared, log, 512));
        for at in 0..root.reader.frames().len() {
            for node in 0..nodes.len() {
                let Some(cut) = root.cut(&talk, &nodes, at, node).await else { continue };
                let frame = &root.reader.frames()[at];
                cut.check(&talk, &uncut, &format!("round {round}, after {frame:?} on {node}"));
                let again = cut.reader.frames().len();
                if again > 0 {
                    let then = random.below(again);
                    if let Some(twice) = cut.cut(&talk, &nodes, then, node).await {
                        twice.check(&talk, &uncut, &format!("round {round}, {at}, then {then}"));
                    }
                }
            }
        }
        told += uncut.said.len();
    }
    assert!(told > 10, "there was something to miss");
}

#[tokio::test]
async fn cut_between_the_pieces_of_one_end_the_other_pieces_follow_or_all_of_it_again() {
    for dialect in all() {
        for how in 0..3 {
            let (shared, session) = (SharedMemory::default(), session());
            let nodes = [keeping(&shared, 4, 512), keeping(&shared, 4, 512)];
            let first = TestReader::of("ada", dialect);
            watch(&nodes[0], &session, &first, Standing::Belongs).await;
            let root = Reading { had: Heard::default(), node: 0, reader: first, is_whole: true };
            let (mut talk, log) = (Talk::new(&session), nodes[0].adapter.clone());
            talk.say(&*log).await;
            let at = talk.start(&*log).await;
            talk.grow(&*log, at, "né€").await;
            talk.end(&*log, at, how).await;
            let pieces: Vec<usize> = (0..root.reader.frames().len())
                .filter(|n| {
                    let frame = &root.reader.frames()[*n];
                    frame.cursor.as_deref().is_some_and(|cursor| place(cursor).part > 0)
                })
                .collect();
            for _ in 0..6 {
                talk.say(&*log).await;
            }
            let uncut = root.has(&talk);
            for piece in pieces {
                let whole = root.cut(&talk, &nodes, piece, 0).await.unwrap();
                assert!(whole.is_whole);
                whole.check(&talk, &uncut, "the other pieces");
                assert_eq!(whole.has(&talk).said.len(), uncut.said.len());
                let anew = root.cut(&talk, &nodes, piece, 1).await.unwrap();
                assert!(!anew.is_whole);
                anew.check(&talk, &uncut, "all of it again");
                // And once more, at each frame of that.
                for frame in 0..anew.reader.frames().len() {
                    for node in 0..2 {
                        if let Some(twice) = anew.cut(&talk, &nodes, frame, node).await {
                            twice.check(&talk, &uncut, &format!("cut again at {frame}"));
                        }
                    }
                }
            }
        }
    }
}

/// Joins in the middle of an answer, and is cut off before the first text.
#[tokio::test]
async fn who_was_never_told_of_a_running_answer_is_told_once_when_it_comes_back() {
    for dialect in all() {
        let (shared, session) = (SharedMemory::default(), session());
        let (a, b) = (keeping(&shared, 512, 512), keeping(&shared, 512, 512));
        let (mut talk, log) = (Talk::new(&session), a.adapter.clone());
        talk.say(&*log).await;
        let answer = talk.start(&*log).await;
        talk.grow(&*log, answer, "so far").await;
        let told = TestReader::of("ada", dialect);
        watch(&a, &session, &told, Standing::Belongs).await;
        let cut = TestReader::of("ada", dialect);
        let (start, standing) = (Start::Now(&[]), Standing::Belongs);
        let at = a.hub.join(&session, cut.clone(), standing, start, 0).await.unwrap().at;
        for node in [&a, &b] {
            let (next, is_whole) = enter(node, &talk, dialect, &at).await;
            assert!(is_whole);
            assert_eq!(next.shown(), told.shown());
            // From its last place nothing comes twice.
            if let Some(cursor) = next.frames().last().and_then(|frame| frame.cursor.clone()) {
                let (again, _) = enter(node, &talk, dialect, &place(&cursor)).await;
                assert_eq!(again.shown(), []);
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_falls_behind_what_is_kept_gets_all_messages_late_in_order_and_once() {
    for dialect in all() {
        let (shared, session) = (SharedMemory::default(), session());
        let node = keeping(&shared, 512, 8);
        let (first, slow) = (TestReader::of("ada", dialect), TestReader::of("bob", dialect));
        watch(&node, &session, &first, Standing::Belongs).await;
        watch(&node, &session, &slow, Standing::Belongs).await;
        let (mut talk, log) = (Talk::new(&session), node.adapter.clone());
        talk.say(&*log).await;
        let slow = Reading { had: Heard::default(), node: 0, reader: slow, is_whole: true };
        slow.reader.full.store(true, Ordering::SeqCst);
        for n in 0..100 {
            talk.say(&*log).await;
            if n % 10 == 0 {
                let at = talk.start(&*log).await;
                talk.grow(&*log, at, "text ").await;
                talk.end(&*log, at, n / 10).await;
            }
            if n > 60 && n % 3 == 0 {
                slow.reader.full.store(false, Ordering::SeqCst);
                slow.reader.full_after_next.store(true, Ordering::SeqCst);
                node.hub.resume(slow.reader.number(), [&session]);
                if n % 2 == 0 {
                    supply(&node, &talk, &slow.reader);
                }
            }
        }
        assert!(!slow.is_quick());
        let at = talk.start(&*log).await;
        talk.grow(&*log, at, "runs").await;
        slow.reader.full.store(false, Ordering::SeqCst);
        slow.reader.full_after_next.store(false, Ordering::SeqCst);
        node.hub.resume(slow.reader.number(), [&session]);
        supply(&node, &talk, &slow.reader);
        let root = Reading { had: Heard::default(), node: 0, reader: first, is_whole: true };
        slow.check(&talk, &root.has(&talk), "late");
        let has_word = Dialects::new(false).vocabulary(dialect).incomplete(&session).is_some();
        assert_eq!(slow.has(&talk).incomplete, usize::from(has_word), "told once");
        // It is live again, and no more behind.
        let told = slow.reader.fell_behind.load(Ordering::SeqCst);
        talk.grow(&*log, at, " on").await;
        talk.say(&*log).await;
        talk.end(&*log, at, 0).await;
        slow.check(&talk, &root.has(&talk), "live");
        assert_eq!(slow.reader.fell_behind.load(Ordering::SeqCst), told);
    }
}

/// Where the store cannot be read, nothing is lost and nothing overtakes.
#[tokio::test]
async fn who_waits_for_the_store_is_shown_nothing_else_meanwhile() {
    let dialect = all()[0];
    let (shared, session) = (SharedMemory::default(), session());
    let node = keeping(&shared, 512, 4);
    let slow = TestReader::of("ada", dialect);
    watch(&node, &session, &slow, Standing::Belongs).await;
    let (mut talk, log) = (Talk::new(&session), node.adapter.clone());
    slow.full.store(true, Ordering::SeqCst);
    for _ in 0..9 {
        talk.say(&*log).await;
    }
    slow.full.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        node.hub.resume(slow.number(), [&session]);
        assert_eq!(node.hub.skip_ahead(&session, slow.number()), Some(0));
        talk.say(&*log).await;
        // It joins again.
        node.hub.join(&session, slow.clone(), Standing::Belongs, Start::Now(&[]), 0).await.unwrap();
        node.hub.go_live(&session, slow.number(), FromStore::default());
        assert!(slow.frames().is_empty());
    }
    assert_eq!(slow.fell_behind.load(Ordering::SeqCst), 1, "told once");
    supply(&node, &talk, &slow);
    assert_eq!(slow.names().iter().filter(|name| *name == "message:new").count(), 12);
    assert_eq!(slow.names().last().unwrap(), "messages:missed");
    assert_eq!(node.hub.skip_ahead(&session, slow.number()), None);
    // What the log had not brought when the store was read is not shown again.
    slow.full.store(true, Ordering::SeqCst);
    for _ in 0..9 {
        talk.say(&*log).await;
    }
    let late = talk.kept.len();
    slow.full.store(false, Ordering::SeqCst);
    node.hub.resume(slow.number(), [&session]);
    let new = super::said(&session, "late");
    let EventKind::MessageNew(new) = new else { unreachable!() };
    talk.ordinal += 1;
    let mut new = (*new).clone();
    new.ordinal = talk.ordinal;
    let event = Arc::new(Event::new(EventKind::MessageNew(Arc::new(new))));
    talk.kept.push(Stored { event: event.clone(), attempt: 0 });
    supply(&node, &talk, &slow);
    let shown = slow.names().len();
    assert_eq!(
        place(slow.frames().last().unwrap().cursor.as_deref().unwrap()).ordinal,
        talk.ordinal
    );
    log.append_event(&session, event).await.unwrap();
    assert_eq!((slow.names().len(), late), (shown, 21));
    talk.say(&*log).await;
    assert_eq!(slow.names().len(), shown + 1);
}

/// A place in no log: only the store can bring it on from there.
#[tokio::test]
async fn in_the_middle_of_what_is_from_the_store_its_place_is_in_no_log() {
    let (shared, session) = (SharedMemory::default(), session());
    let nodes = [keeping(&shared, 4, 512), keeping(&shared, 4, 512)];
    let first = TestReader::of("ada", all()[0]);
    watch(&nodes[0], &session, &first, Standing::Belongs).await;
    let (mut talk, log) = (Talk::new(&session), nodes[0].adapter.clone());
    for _ in 0..20 {
        talk.say(&*log).await;
    }
    let cursor = place(first.frames()[2].cursor.as_deref().unwrap());
    let (next, is_whole) = enter(&nodes[1], &talk, all()[0], &cursor).await;
    assert!(!is_whole);
    let frames = next.frames();
    let places: Vec<_> = frames.iter().map(|f| place(f.cursor.as_deref().unwrap())).collect();
    let (end, middle) = places.split_last().unwrap();
    assert!(middle.iter().all(|place| place.position == Position::default()));
    let ordinals: Vec<_> = middle.iter().map(|place| place.ordinal).collect();
    assert_eq!(ordinals, (4..=20).collect::<Vec<_>>());
    let last = place(first.frames().last().unwrap().cursor.as_deref().unwrap());
    assert_eq!(*end, last, "with the word that it may lack changes it is back in the log");
}
