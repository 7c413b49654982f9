//! The layers of the program, as docs/ARCHITECTURE.md draws them, enforced on the source text:
//! imports point down only, and modules on one line do not import each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom. A module may import those of the lines below its own.
const LAYERS: &[&[&str]] = &[
    &["main", "app", "cli"],
    &["socketio", "http"],
    &["chat"],
    &["generation", "hub"],
    &["outbox"],
    &["auth", "llm", "store", "adapter", "net"],
    &["config", "telemetry", "lifecycle", "dialect", "codec"],
    &["domain"],
];

/// On the top line, which is the composition root, modules do import each other.
const ROOT: usize = 0;

/// What the domain does without: no runtime, no I/O, no wire or row format of its own.
const FOREIGN_TO_DOMAIN: &[&str] =
    &["axum", "fred", "serde", "socketioxide", "sqlx", "tokio", "tokio_util"];

/// The most lines of a source file.
const LINES_MAX: usize = 450;

#[test]
fn imports_point_down() {
    let faults: Vec<String> =
        sources().iter().flat_map(|(path, source)| faults_of(path, source)).collect();
    assert!(faults.is_empty(), "layers:\n  {}", faults.join("\n  "));
}

#[test]
fn every_module_has_a_layer() {
    let unknown: BTreeSet<String> = sources()
        .iter()
        .filter_map(|(path, _)| module_of(path))
        .filter(|module| layer_of(module).is_none())
        .collect();
    assert!(
        unknown.is_empty(),
        "{unknown:?} is in src/ but in no layer: say in LAYERS of tests/it/layers.rs, and in \
         docs/ARCHITECTURE.md, what it may import"
    );
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, source)| (path, source.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("src/{} has {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "more than {LINES_MAX} lines: {long:?}: split by what changes together"
    );
}

#[test]
fn a_wrong_import_is_found() {
    let found = |path: &str, source: &str| faults_of(Path::new(path), source);

    assert_eq!(
        found("hub/tail.rs", "use crate::domain::Event;\nuse crate::chat::Chat;\n"),
        ["src/hub/tail.rs:2: hub must not import chat"]
    );
    // On one line; in a group, over several lines, nested; inline; by `super`.
    assert_eq!(found("hub/mod.rs", "use crate::generation::X;").len(), 1);
    assert_eq!(
        found(
            "store/mod.rs",
            "use crate::{\n    domain::{Event, hub},\n    hub as h,\n    adapter,\n};"
        ),
        [
            "src/store/mod.rs:1: store must not import hub",
            "src/store/mod.rs:1: store must not import adapter"
        ]
    );
    assert_eq!(found("dialect/mod.rs", "fn f() { let x = crate :: hub::new(); }").len(), 1);
    assert_eq!(
        found("codec/mod.rs", "pub(in crate::codec) fn f(x: super::store::Row) {}").len(),
        1
    );
    assert_eq!(found("codec/a/b.rs", "use super::super::super::store::Row;").len(), 1);
    assert_eq!(found("outbox.rs", "use crate::hub::Hub;").len(), 1);
    // A module that is not in the table; the program itself.
    assert_eq!(
        found("hub/mod.rs", "use crate::util::x;"),
        ["src/hub/mod.rs:1: crate::util is in no layer: see LAYERS in tests/it/layers.rs"]
    );
    assert_eq!(found("domain/mod.rs", "use tokio::sync::Mutex;").len(), 1);
    assert_eq!(found("domain/mod.rs", "#[derive(serde::Serialize)] struct X;").len(), 1);

    // What is right, and what only looks wrong.
    for (path, source) in [
        ("hub/mod.rs", "use crate::adapter::Feed;\nuse crate::{codec, domain::Event};"),
        ("main.rs", "fn main() { tokencast::app::run(); tokencast::cli::parse(); }"),
        ("hub/tail.rs", "use super::store::Mine; use crate::hub::members;"),
        (
            "store/mod.rs",
            "// crate::hub\n/* crate::hub /* nested */ crate::chat */ const A: &str = \"crate::hub\";",
        ),
        (
            "store/mod.rs",
            "const A: &str = r#\"a \" crate::hub\"#; const B: char = '\"'; fn f<'a>(x: &'a u8) {}",
        ),
        ("domain/mod.rs", "//! no tokio, no serde\nconst X: &str = \"tokio\";"),
    ] {
        assert_eq!(found(path, source), Vec::<String>::new(), "{path}: {source}");
    }
    // A quote in a character does not hide what follows it.
    assert_eq!(found("store/mod.rs", "const Q: char = '\"'; use crate::hub::X; // \"").len(), 1);
    assert_eq!(found("store/mod.rs", r"const Q: char = '\''; use crate::hub::X;").len(), 1);
}

/// What is wrong with one file of `src/`, one line each.
fn faults_of(path: &Path, source: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let Some(own) = layer_of(&module) else { return Vec::new() };
    let code = code_only(source);
    let mut faults = Vec::new();
    for (at, name) in imports(path, &code) {
        let line = code[..at].lines().count().max(1);
        let place = format!("src/{}:{line}", path.display());
        match layer_of(&name) {
            _ if name == module => {}
            Some(layer) if layer > own || (layer == own && own == ROOT) => {}
            Some(_) => faults.push(format!("{place}: {module} must not import {name}")),
            None => faults.push(format!(
                "{place}: crate::{name} is in no layer: see LAYERS in tests/it/layers.rs"
            )),
        }
    }
    if module == "domain" {
        for (at, word) in words(&code).filter(|(_, word)| FOREIGN_TO_DOMAIN.contains(word)) {
            let line = code[..at].lines().count().max(1);
            faults.push(format!("src/{}:{line}: domain must not know {word}", path.display()));
        }
    }
    faults
}

/// The top-level module of a file of `src/`; `lib.rs`, which only lists them, has none.
fn module_of(path: &Path) -> Option<String> {
    let first = Path::new(path.iter().next()?).file_stem()?.to_str()?;
    (first != "lib").then(|| first.to_owned())
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&module))
}

/// The top-level modules that `code` names, and where: after `crate::`, after the crate's own name
/// in the program, and after as many `super::` as lead to the root.
fn imports(path: &Path, code: &str) -> Vec<(usize, String)> {
    let squeezed = Squeezed::new(code);
    let mut found = Vec::new();
    for root in ["crate::", "tokencast::"] {
        for (at, _) in squeezed.text.match_indices(root) {
            if !squeezed.continues_a_path(at) {
                let names = first_names(&squeezed.text[at + root.len()..]);
                found.extend(names.into_iter().map(|name| (squeezed.origin[at], name)));
            }
        }
    }
    let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
    let chain = "super::".repeat(depth);
    for (at, _) in squeezed.text.match_indices(&chain) {
        if !squeezed.continues_a_path(at) {
            // Inside an inline module the same path leads elsewhere: only known names count.
            let names = first_names(&squeezed.text[at + chain.len()..]);
            let known = names.into_iter().filter(|name| layer_of(name).is_some());
            found.extend(known.map(|name| (squeezed.origin[at], name)));
        }
    }
    found
}

/// The names at the start of a path, or at the start of each path of a group: `a::b` gives `a`,
/// `{a::{b, c}, d as e}` gives `a` and `d`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = Vec::new();
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0_usize;
        let mut starts = true;
        for (at, c) in group.char_indices() {
            if starts {
                names.push(name(&group[at..]));
            }
            starts = depth == 0 && c == ',';
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
        }
    } else {
        names.push(name(rest));
    }
    names.retain(|name| !name.is_empty() && name != "self");
    names
}

/// Code without the spaces that may stand within a path, and where each byte was.
struct Squeezed {
    text: String,
    origin: Vec<usize>,
}

impl Squeezed {
    fn new(code: &str) -> Self {
        let mut text = String::new();
        let mut origin = Vec::new();
        let bytes = code.as_bytes();
        let is_word =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        for (at, c) in code.char_indices() {
            if c.is_whitespace() {
                // Two words keep one space between them.
                let next = bytes[at..].iter().find(|b| !b.is_ascii_whitespace());
                if !(is_word(text.as_bytes().last()) && is_word(next)) {
                    continue;
                }
            }
            text.push(if c.is_whitespace() { ' ' } else { c });
            origin
                .extend(std::iter::repeat_n(at, if c.is_whitespace() { 1 } else { c.len_utf8() }));
        }
        Self { text, origin }
    }

    /// Whether what stands at `at` belongs to a longer word or path.
    fn continues_a_path(&self, at: usize) -> bool {
        let before = &self.text[..at];
        before.ends_with("::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    }
}

/// The words of the code, and where.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.split(move |c| !is_word(c)).filter(|word| !word.is_empty()).map(move |word| {
        let at = word.as_ptr() as usize - code.as_ptr() as usize;
        (at, word)
    })
}

/// The source with comments and the contents of literals blanked out; lines stay.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = literal_or_comment(rest).unwrap_or(0);
        if length > 0 {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            // A word is taken as a whole: its last letter starts no raw string.
            if c.is_alphanumeric() || c == '_' {
                let word =
                    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                code.push_str(&rest[..word]);
                rest = &rest[word..];
            }
        }
    }
    code
}

/// The length of the comment or literal that `text` starts with.
fn literal_or_comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if let Some(quote) = text.strip_prefix('\'') {
        // A character, not a lifetime: it is closed after one character or an escape.
        let mut chars = quote.char_indices();
        return match chars.next()?.1 {
            '\\' => quote[2..].find('\'').map(|end| 1 + 2 + end + 1),
            _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| 1 + at + 1),
        };
    }
    let unprefixed = text.trim_start_matches(['b', 'c']);
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - raw.len() + hashes + 1;
            return Some(
                text[start..].find(&close).map_or(text.len(), |end| start + end + close.len()),
            );
        }
    }
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                '"' if !escaped => return Some(at + 1),
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        return Some(text.len());
    }
    None
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// All files of `src/`, by their path in it.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src/ can be listed") {
            let path = entry.expect("src/ can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("sources are UTF-8");
                let inside = path.strip_prefix(&root).expect("it is in src/").to_owned();
                files.push((inside, source));
            }
        }
    }
    assert!(!files.is_empty(), "nothing found in {}", root.display());
    files.sort();
    files
}
