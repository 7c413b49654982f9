//! What a client that is cut off and comes back should have, whatever it speaks, and a reader that
//! is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokencast::adapter::{Memory, SharedAdapter, SharedMemory};
use tokencast::dialect::{DialectIndex, Dialects, Frame};
use tokencast::domain::{Cursor, EventKind, NodeId};
use tokencast::hub::{FromStore, Standing, Start, Stored};

use super::reader::{TestReader, place};
use super::told::Talk;
use super::{Node, node_keeping};

/// As many as a page from the store has.
const PAGE_MAX: usize = 3;

pub fn all() -> Vec<DialectIndex> {
    let dialects = Dialects::new(false);
    let names = ["session", "subscribe", "conversation", "persona"];
    let sockets = names.into_iter().map(|name| dialects.by_name(name).unwrap());
    sockets.chain([dialects.sse()]).collect()
}

/// A node whose log keeps so many events, and itself so many for its readers.
pub fn keeping(shared: &SharedMemory, log: usize, recent: usize) -> Node {
    let ttl = Duration::from_secs(60);
    let adapter: SharedAdapter = Arc::new(Memory::new(NodeId::new(), log, ttl, shared.clone()));
    node_keeping(adapter, Dialects::new(false), recent)
}

/// What a client has that was told all this, whatever it speaks. One answer runs at a time.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Everything but text and what voids it.
    pub said: Vec<String>,
    /// Of answers that are not over.
    texts: BTreeMap<String, String>,
    /// How often it was told that it may lack changes.
    pub incomplete: usize,
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
            ("", _) => self.nameless(),
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
        let nameless = self.nameless();
        let named = if event.is_empty() { "" } else { about };
        self.said.push(format!("{event} {id}{named}{}", body["isComplete"]));
        if event == "error" {
            self.texts.remove(if about.is_empty() { nameless.as_str() } else { about });
            return;
        }
        let answer = talk.answers.iter().find(|answer| answer.message.to_string() == id);
        let Some(answer) = answer.filter(|_| event != "chat:response" && event != "chat:error")
        else {
            return;
        };
        let about = match event {
            "" => nameless,
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

    /// Of an answer that is not named: it is the one after so many others.
    fn nameless(&self) -> String {
        let is_last = |said: &&String| said.starts_with("done ") || said.starts_with("error ");
        self.said.iter().filter(is_last).count().to_string()
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
            match id.parse::<usize>() {
                Ok(before) => before == talk.stored.len(),
                Err(_) => !talk.answers.iter().any(over),
            }
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
pub fn supply(node: &Node, talk: &Talk, reader: &TestReader) {
    use tokencast::hub::Reader;
    for _ in 0..100 {
        let Some(after) = node.hub.skip_ahead(&talk.session, reader.number()) else { return };
        node.hub.supply(&talk.session, reader.number(), page(talk, after, reader.dialect()));
    }
    panic!("it does not get on");
}

pub async fn enter(
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
pub struct Reading {
    pub had: Heard,
    pub node: usize,
    pub reader: Arc<TestReader>,
    /// Never brought on from the store.
    pub is_whole: bool,
}

impl Reading {
    pub fn has(&self, talk: &Talk) -> Heard {
        let mut has = self.had.clone();
        has.hear(talk, &self.reader.frames());
        has
    }

    /// Cuts it after a frame, and has it come back.
    pub async fn cut(&self, talk: &Talk, nodes: &[Node], at: usize, node: usize) -> Option<Self> {
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

    pub fn is_quick(&self) -> bool {
        self.reader.fell_behind.load(Ordering::SeqCst) == 0
    }

    pub fn check(&self, talk: &Talk, uncut: &Heard, what: &str) {
        self.check_said(talk, uncut, what);
        self.check_running(talk, uncut, what);
    }

    pub fn check_said(&self, talk: &Talk, uncut: &Heard, what: &str) {
        let has = self.has(talk);
        if self.is_whole && self.is_quick() {
            assert_eq!(has.said, uncut.said, "{what}");
            assert_eq!(has.incomplete, 0, "{what}");
        } else {
            assert_eq!(has.stored(), uncut.stored(), "{what}");
        }
    }

    /// That it has as much of the running answer as `expected`.
    pub fn check_running(&self, talk: &Talk, expected: &Heard, what: &str) {
        let has = self.has(talk);
        assert_eq!(has.running(talk), expected.running(talk), "{what}: the running text");
    }
}
