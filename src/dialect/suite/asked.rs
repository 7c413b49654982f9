//! What clients ask.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::schema::{Described, is_a};
use super::{Asked, each_dialect, is_recording, raw};
use crate::dialect::{Dialect, Dialects, Ids};
use crate::domain::{Command, Error, ErrorCode};

fn decode(dialect: &dyn Dialect, event: &str, args: &[Value]) -> Result<Command, Error> {
    let args: Vec<_> = args.iter().map(raw).collect();
    let args: Vec<_> = args.iter().map(|arg| &**arg).collect();
    dialect.decode(event, &args)
}

#[test]
fn what_is_asked_is_the_command_that_was_recorded() {
    if is_recording() {
        return;
    }
    each_dialect(|dialect, transcript| {
        let name = dialect.name();
        for Asked { event, args, command } in &transcript.asked {
            let decoded = decode(dialect, event, args);
            let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {event}: {error}"));
            assert_eq!(format!("{decoded:?}"), *command, "{name}: {event}");
        }
    });
}

/// Of each command, the payload that was recorded first; it has every field that is described.
fn full(dialect: &dyn Dialect, asked: &[Asked]) -> Vec<(&'static str, Described, Value)> {
    let full = |spec: &crate::dialect::CommandSpec| {
        let (name, event) = (dialect.name(), spec.name);
        let first = asked.iter().find(|asked| asked.event == event);
        let first = first.unwrap_or_else(|| panic!("{name}: no {event} was recorded"));
        let described = Described::by(spec.payload);
        for (field, ..) in described.fields() {
            let has_it = first.args[0].get(&field).is_some();
            assert!(has_it, "{name}: the first {event} that was recorded has no {field}");
        }
        (event, described, first.args[0].clone())
    };
    dialect.commands().iter().map(full).collect()
}

#[test]
fn what_is_asked_is_as_it_is_described() {
    each_dialect(|dialect, transcript| {
        for (event, described, _) in full(dialect, &transcript.asked) {
            for asked in transcript.asked.iter().filter(|asked| asked.event == event) {
                let fault = described.fault(&asked.args[0]);
                assert_eq!(fault, None, "{}: {event} {}", dialect.name(), asked.args[0]);
            }
        }
        for Asked { event, .. } in &transcript.asked {
            let is_one = dialect.commands().iter().any(|spec| spec.name == event);
            assert!(is_one, "{}: {event} is not named", dialect.name());
        }
    });
}

#[test]
fn a_field_that_has_to_be_there_is_missed_by_its_name_and_no_other_is() {
    each_dialect(|dialect, transcript| {
        for (event, described, payload) in full(dialect, &transcript.asked) {
            for (field, _, is_required) in described.fields() {
                let mut without = payload.clone();
                without.as_object_mut().unwrap().remove(&field);
                let mut null = payload.clone();
                null[&field] = Value::Null;
                for wrong in [without, null] {
                    if is_required {
                        refused(dialect, event, &wrong, &field);
                    } else {
                        let decoded = decode(dialect, event, std::slice::from_ref(&wrong));
                        assert!(decoded.is_ok(), "{}: {event} {wrong}", dialect.name());
                    }
                }
            }
        }
    });
}

#[test]
fn a_field_of_another_type_is_refused_by_its_name() {
    let wrongs = [json!(7.5), json!(true), json!(["x"]), json!({ "x": 1 }), json!("a\0b")];
    each_dialect(|dialect, transcript| {
        for (event, described, payload) in full(dialect, &transcript.asked) {
            for (field, types, _) in described.fields() {
                for wrong in &wrongs {
                    // No text has a NUL in it.
                    let is_right = types.iter().any(|word| is_a(word, wrong));
                    if is_right && !wrong.is_string() {
                        continue;
                    }
                    let mut payload = payload.clone();
                    payload[&field] = wrong.clone();
                    refused(dialect, event, &payload, &field);
                }
            }
        }
    });
}

fn refused(dialect: &dyn Dialect, event: &str, payload: &Value, field: &str) {
    let name = dialect.name();
    let decoded = decode(dialect, event, std::slice::from_ref(payload));
    let error = decoded.expect_err(&format!("{name}: {event} {payload}"));
    assert_eq!(error.code, ErrorCode::Invalid, "{name}: {event} {payload}");
    let named = error.message.contains(field);
    assert!(named, "{name}: {event} {payload} is refused with {}", error.message);
}

#[test]
fn what_is_no_event_of_a_dialect_is_refused() {
    let dialects = Dialects::new(false);
    let all = dialects.commands().into_iter().chain(dialects.shown());
    let all: Vec<_> = all.chain(["", "nonsense", "__proto__", "subscribe "]).collect();
    each_dialect(|dialect, _| {
        for event in &all {
            if dialect.commands().iter().any(|spec| spec.name == *event) {
                let missing = Err(Error::invalid("the payload is missing"));
                assert_eq!(dialect.decode(event, &[]), missing, "{}: {event}", dialect.name());
                continue;
            }
            let unknown = Err(Error::invalid("Unknown event"));
            assert_eq!(decode(dialect, event, &[json!({})]), unknown, "{}", dialect.name());
            assert_eq!(dialect.decode(event, &[]), unknown, "{}: {event}", dialect.name());
        }
    });
}

/// JSON that means harm, or is only odd.
fn nasty() -> Vec<Box<RawValue>> {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let deep_objects = |n: usize| r#"{"a":"#.repeat(n) + "1" + &"}".repeat(n);
    let json = [
        "null".to_owned(),
        "true".to_owned(),
        "-0".to_owned(),
        "1e400".to_owned(),
        "18446744073709551616".to_owned(),
        "-9223372036854775809".to_owned(),
        r#""""#.to_owned(),
        r#""\u0000""#.to_owned(),
        r#""\ud800""#.to_owned(),
        r#""\udc00\ud800""#.to_owned(),
        "\"\u{feff}\u{202e}\u{10ffff}\"".to_owned(),
        format!("\"{}\"", "x".repeat(1 << 16)),
        format!("\"{}\"", r"\n".repeat(1 << 12)),
        "[]".to_owned(),
        "[[],{}]".to_owned(),
        "{}".to_owned(),
        r#"{"":{}}"#.to_owned(),
        r#"{"sessionId":"a","sessionId":7}"#.to_owned(),
        r#"{"\u0073essionId":"a","content":"\ud83d"}"#.to_owned(),
        r#"{"__proto__":{"sessionId":"a"},"constructor":null}"#.to_owned(),
        r#"{"_placeholder":true,"num":0}"#.to_owned(),
        r#"{"\ud800":1}"#.to_owned(),
        deep(100),
        deep(127),
        deep(200),
        deep(10_000),
        deep_objects(100),
        deep_objects(5_000),
        format!("{{{}\"z\":1}}", r#""k":1,"#.repeat(1_000)),
    ];
    json.into_iter().map(|json| RawValue::from_string(json).unwrap()).collect()
}

/// A text that stands for a nasty value until the payload is text.
const PLACE: &str = "a nasty value";

#[test]
fn no_payload_ends_the_process() {
    let nasty = nasty();
    each_dialect(|dialect, transcript| {
        for (event, described, payload) in full(dialect, &transcript.asked) {
            let mut payloads = nasty.clone();
            for (field, ..) in described.fields() {
                let mut payload = payload.clone();
                payload[&field] = json!(PLACE);
                let place = json!(PLACE).to_string();
                payloads.extend(nasty.iter().map(|nasty| {
                    let json = payload.to_string().replace(&place, nasty.get());
                    RawValue::from_string(json).unwrap()
                }));
            }
            for payload in &payloads {
                // Both are fine; a panic is not.
                let _ = dialect.decode(event, &[payload]);
                let _ = dialect.decode(event, &[payload, payload]);
                let _ = Ids::of(&[payload]);
            }
        }
    });
    let dialects = Dialects::new(false);
    for payload in &nasty {
        for event in dialects.commands() {
            let _ = dialects.settle(event, &[payload], dialects.native());
        }
    }
}
