//! What goes on beside an answer's text.

use super::*;
use crate::domain::{Aside, Stage};

const ID: &str = "0192f0c1-2d3e-7abc-8def-0123456789ab";

fn stage(said: Option<Vec<String>>) -> EventKind {
    let agents = vec![AgentId::new("anna").unwrap(), AgentId::new("bert").unwrap()];
    let stage = Stage { name: "the wise \"𝄞\"".to_owned(), agents, index: 1, total: 3, said };
    EventKind::StageChanged { generation: ID.parse().unwrap(), stage }
}

fn aside(aside: Aside) -> EventKind {
    EventKind::Aside { generation: ID.parse().unwrap(), message: ID.parse().unwrap(), aside }
}

fn citation(url: Option<&str>) -> EventKind {
    aside(Aside::Citation { title: "A book".to_owned(), url: url.map(str::to_owned) })
}

fn tool() -> EventKind {
    let (id, name) = ("call_1".to_owned(), "search".to_owned());
    aside(Aside::Tool { id, name, input: r#"{"q":"\u00e9"}"#.to_owned() })
}

/// Samples of each.
pub(super) fn kinds() -> Vec<EventKind> {
    vec![
        stage(None),
        stage(Some(vec!["One\n".to_owned(), String::new()])),
        // Over, but what was said was too long: something else than one that still runs.
        stage(Some(Vec::new())),
        aside(Aside::Thinking { text: "Hm, é€😀 \"\u{0}\"".to_owned() }),
        tool(),
        citation(Some("https://example.org/?a=\"b\"")),
        citation(None),
    ]
}

#[test]
fn the_written_form_does_not_change_by_accident() {
    let written = |kind| as_json(&encode_event(&Event::new(kind)))["event"].clone();
    let running = json!({
        "name": "the wise \"𝄞\"", "agents": ["anna", "bert"], "index": 1, "total": 3,
    });
    let mut over = running.clone();
    over["said"] = json!(["One"]);
    for (said, expected) in [(None, running), (Some(vec!["One".to_owned()]), over)] {
        let expected = json!({"stageChanged": {"generation": ID, "stage": expected}});
        assert_eq!(written(stage(said)), expected);
    }
    for (kind, expected) in [
        (
            aside(Aside::Thinking { text: "Hm".to_owned() }),
            json!({"kind": "thinking", "text": "Hm"}),
        ),
        (
            tool(),
            json!({
                "kind": "tool", "id": "call_1", "name": "search", "input": r#"{"q":"\u00e9"}"#,
            }),
        ),
        (citation(None), json!({"kind": "citation", "title": "A book"})),
        (citation(Some("u")), json!({"kind": "citation", "title": "A book", "url": "u"})),
    ] {
        let expected = json!({"aside": {"generation": ID, "message": ID, "aside": expected}});
        assert_eq!(written(kind), expected);
    }
}

#[test]
fn an_aside_of_a_newer_build_keeps_its_place_and_is_unknown() {
    let id = EventId::new();
    let event = |aside: Value| {
        let event = json!({"aside": {"generation": ID, "message": ID, "aside": aside}});
        decode(&json!({"v": 1, "id": id.to_string(), "at": 5, "event": event}))
    };
    for aside in [
        json!({"kind": "picture", "url": "x", "deep": {"n": [1]}}),
        json!({"kind": "picture"}),
        // Its fields may be called as those of others are, and hold something else.
        json!({"kind": "thought", "text": {"parts": []}}),
    ] {
        let expected = Event { id, at: Timestamp::from_millis(5), kind: EventKind::Unknown };
        assert_eq!(event(aside).unwrap(), expected);
    }
    // One that has more to say than this build knows.
    let more = event(json!({"kind": "thinking", "text": "Hm", "signature": "x"})).unwrap();
    assert_eq!(more.kind, aside(Aside::Thinking { text: "Hm".to_owned() }));
    // A broken one is no new one.
    for aside in [
        json!({"kind": "thinking"}),
        json!({"kind": "tool", "id": 1, "name": "a", "input": ""}),
        json!({"text": "Hm"}),
        json!("thinking"),
    ] {
        assert!(matches!(event(aside), Err(CodecError::Malformed(_))));
    }
}

#[test]
fn an_id_of_the_wrong_shape_is_refused_by_its_field() {
    for (kind, pointer, field) in [
        (stage(None), "/event/stageChanged/generation", "generation"),
        (stage(None), "/event/stageChanged/stage/agents/1", "stage.agents"),
        (tool(), "/event/aside/generation", "generation"),
        (tool(), "/event/aside/message", "message"),
    ] {
        let mut wire = as_json(&encode_event(&Event::new(kind)));
        *wire.pointer_mut(pointer).unwrap() = json!("a/b");
        match decode(&wire) {
            Err(CodecError::Value(named)) => assert_eq!(named, field),
            other => panic!("{pointer}: {other:?}"),
        }
    }
}

/// Nodes before there were any neither write nor read them.
#[test]
fn cached_tokens_are_left_out_where_there_are_none() {
    let ended = |cached_tokens| EventKind::GenerationEnded {
        generation: ID.parse().unwrap(),
        attempt: 1,
        length: 2,
        reason: StopReason::EndTurn,
        usage: Usage { input_tokens: 10, output_tokens: 20, cached_tokens },
    };
    for (cached, expected) in [
        (0, json!({"input": 10, "output": 20})),
        (4, json!({"input": 10, "output": 20, "cached": 4})),
    ] {
        let event = Event::new(ended(cached));
        let wire = as_json(&encode_event(&event));
        assert_eq!(wire["event"]["generationEnded"]["usage"], expected);
        assert_eq!(decode(&wire).unwrap(), event);
    }
}
