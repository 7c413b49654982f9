//! What every vocabulary has to hold to, whichever it is. One more of them needs one more
//! transcript, `tests/fixtures/dialects/<name>.json`, and passes.
//!
//! A transcript has what clients of the dialect ask, with the command that each is (`asked`; the
//! events and payloads are written by hand), and what they hear of [`scenario`](scenario::all)
//! (`shown`). With `RECORD_TRANSCRIPTS=1` the commands and what is heard are written anew.

mod asked;
mod scenario;
mod schema;
mod settled;
mod shown;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Dialect, Dialects, Vocabulary};

/// One vocabulary and, where sockets speak it, the dialect.
struct Subject<'a> {
    vocabulary: &'a dyn Vocabulary,
    dialect: Option<&'a dyn Dialect>,
}

/// What a client of a dialect asks.
#[derive(Clone, Deserialize)]
struct Asked {
    event: String,
    args: Vec<Value>,
    /// The command that it is, as it is debugged.
    #[serde(default)]
    command: String,
}

#[derive(Clone, Deserialize)]
struct Transcript {
    #[serde(default)]
    asked: Vec<Asked>,
    #[serde(default)]
    shown: Vec<Heard>,
}

/// What is heard of one happening.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Heard {
    when: String,
    #[serde(default)]
    acks: Vec<Value>,
    #[serde(default)]
    frames: Vec<Value>,
}

fn each(test: impl Fn(&Subject<'_>)) {
    let dialects = Dialects::new(false);
    for dialect in dialects.sockets() {
        test(&Subject { vocabulary: dialect, dialect: Some(dialect) });
    }
    test(&Subject { vocabulary: dialects.vocabulary(dialects.sse()), dialect: None });
}

fn each_dialect(test: impl Fn(&dyn Dialect, &Transcript)) {
    let dialects = Dialects::new(false);
    for dialect in dialects.sockets() {
        test(dialect, &Transcript::read(dialect.name()));
    }
}

fn is_recording() -> bool {
    std::env::var_os("RECORD_TRANSCRIPTS").is_some()
}

impl Transcript {
    fn path(name: &str) -> PathBuf {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dialects");
        PathBuf::from(root).join(format!("{name}.json"))
    }

    fn read(name: &str) -> Self {
        let path = Self::path(name);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{name} has no transcript: {path:?}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// One line for each of what is asked and heard, so that a change reads well.
    fn write(&self, name: &str) {
        let asked = lines(&self.asked, "  ", |asked| {
            let Asked { event, args, command } = asked;
            serde_json::json!({ "event": event, "args": args, "command": command }).to_string()
        });
        let shown = lines(&self.shown, "  ", |heard| {
            // What says nothing is left out, so that what is heard stands out.
            let part = |name: &str, all: &[Value]| match all {
                [] => String::new(),
                all => format!(", \"{name}\": {}", lines(all, "      ", Value::to_string)),
            };
            let (acks, frames) = (part("acks", &heard.acks), part("frames", &heard.frames));
            format!("{{ \"when\": {}{acks}{frames} }}", Value::from(heard.when.as_str()))
        });
        let text = format!("{{\n\"asked\": {asked},\n\"shown\": {shown}\n}}\n");
        std::fs::write(Self::path(name), text).unwrap();
    }
}

fn lines<T>(items: &[T], indent: &str, line: impl Fn(&T) -> String) -> String {
    let mut text = String::new();
    for (at, item) in items.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(text, "{comma}\n{indent}{}", line(item)).unwrap();
    }
    format!("[{text}]")
}

fn raw(value: &Value) -> Box<RawValue> {
    super::raw(value)
}

fn parsed(json: &RawValue) -> Value {
    serde_json::from_str(json.get()).unwrap()
}
