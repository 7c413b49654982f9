//! docs/LIMITS.md against the program: each limit that is counted stands there, and each variable
//! that stands there exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tokencast::config::VARIABLES;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What stands between backticks.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_limit_is_told() {
    let document = read("docs/LIMITS.md");
    let told = quoted(&document);
    let source = read("src/telemetry/limit.rs");
    let names: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split('"').nth(1))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let untold: Vec<_> = names.iter().filter(|name| !told.contains(*name)).collect();
    assert!(untold.is_empty(), "not in docs/LIMITS.md: {untold:?}");
}

#[test]
fn every_variable_that_is_told_exists() {
    let document = read("docs/LIMITS.md");
    let is_variable = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let codes = ["RATE_LIMIT", "NOT_FOUND"];
    let told: Vec<_> = quoted(&document)
        .into_iter()
        .map(|word| word.split('=').next().unwrap_or_default())
        .filter(is_variable)
        .filter(|word| !codes.contains(word))
        .collect();
    assert!(told.len() > 30, "{told:?}");
    let known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
    let unknown: Vec<_> = told.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "no such variable: {unknown:?}");
}

#[test]
fn nginx_gives_connections_up_before_the_nodes_do() {
    let conf = read("nginx/tokencast.conf");
    let kept = conf.lines().find_map(|line| line.trim().strip_prefix("keepalive_timeout "));
    let kept: u64 = kept.unwrap().trim_end_matches("s;").parse().unwrap();
    let timeout = VARIABLES.iter().find(|variable| variable.name == "HEADERS_TIMEOUT").unwrap();
    let tokencast::config::Unset::Is(timeout) = timeout.unset else { panic!("it has a default") };
    let timeout = tokencast::config::parse_duration(timeout).unwrap();
    assert!(kept < timeout.as_secs(), "{kept} s, and a node's {timeout:?}");
}
