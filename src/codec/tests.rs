mod beside;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::domain::{
    AgentId, Attachment, AttachmentId, Author, Error, ErrorCode, EventKind, GenerationId, Message,
    MessageId, Reaction, Revoked, SessionId, StopReason, Usage, UserId,
};

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A message with nothing in it that may be left out.
fn bare() -> Message {
    Message {
        id: MessageId::new(),
        session: SessionId::new("s").unwrap(),
        ordinal: 1,
        user: None,
        agent: None,
        author: Author::System,
        content: String::new(),
        metadata: serde_json::Map::new(),
        tokens: None,
        usage: None,
        parent: None,
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        created_at: Timestamp::from_millis(1),
        updated_at: Timestamp::from_millis(2),
        reactions: Vec::new(),
        attachments: Vec::new(),
    }
}

/// A message with everything in it.
fn full() -> Message {
    Message {
        user: Some(user("ada@example.org")),
        agent: Some(AgentId::new("helper").unwrap()),
        author: Author::Assistant,
        content: "aé€😀 \"quoted\" \\ \u{0} \n \u{2028}".to_owned(),
        metadata: object(json!({"partial": true, "deep": {"n": [1, 2.5, null]}})),
        tokens: Some(7),
        usage: Some(Usage { input_tokens: 3, output_tokens: u64::MAX, cached_tokens: 2 }),
        parent: Some(MessageId::new()),
        client_message_id: Some("c-1".to_owned()),
        edited_at: Some(Timestamp::from_millis(3)),
        deleted_at: Some(Timestamp::from_millis(-4)),
        reactions: vec![Reaction {
            emoji: "👍🏽".to_owned(), users: vec![user("a"), user("ü")]
        }],
        attachments: vec![Attachment {
            id: AttachmentId::new(),
            file_name: "a.png".to_owned(),
            file_url: "https://example.org/a.png".to_owned(),
            mime_type: "image/png".to_owned(),
            file_size: 9,
            metadata: object(json!({"width": 2})),
        }],
        ..bare()
    }
}

/// At least one of each kind that is written. The match makes a new kind fail to compile here, to
/// remind of its sample.
fn kinds() -> Vec<EventKind> {
    let generation = GenerationId::new();
    let agent = AgentId::new("helper").unwrap();
    let (message, attempt) = (MessageId::new(), 2);
    let usage = Usage { input_tokens: 10, output_tokens: 20, cached_tokens: 0 };
    let kinds = vec![
        EventKind::MessageNew(Arc::new(bare())),
        EventKind::MessageNew(Arc::new(full())),
        EventKind::GenerationStarted { generation, message, agent: agent.clone(), attempt },
        EventKind::GenerationResumed {
            generation,
            message,
            agent: agent.clone(),
            attempt,
            offset: 1 << 40,
            utf16_offset: 1 << 39,
        },
        EventKind::GenerationReset {
            generation,
            message,
            agent,
            attempt,
            reason: "the text was lost\n".to_owned(),
        },
        EventKind::GenerationEnded {
            generation,
            attempt,
            length: 12,
            reason: StopReason::MaxTokens,
            usage,
        },
        EventKind::GenerationCompleted {
            generation,
            message: Arc::new(full()),
            reason: StopReason::EndTurn,
            usage,
        },
        EventKind::GenerationCompleted {
            generation,
            message: Arc::new(bare()),
            reason: StopReason::Other("refusal \"x\"".to_owned()),
            usage,
        },
        EventKind::GenerationStopped { generation, message: Arc::new(full()), by: user("bob") },
        EventKind::GenerationFailed {
            generation,
            message: Arc::new(full()),
            error: Error::new(ErrorCode::Overloaded, "busy").retry_after(Duration::from_millis(1)),
        },
        EventKind::GenerationFailed {
            generation,
            message: Arc::new(full()),
            error: Error::new(ErrorCode::Provider, "refused"),
        },
    ];
    let (at, by) = (Timestamp::from_millis(-7), user("ü \"x\""));
    let reaction = |added, counts| EventKind::ReactionChanged {
        message,
        user: user("ada"),
        emoji: "👍🏽".to_owned(),
        added,
        counts,
    };
    let others = vec![
        EventKind::MessageEdited(Arc::new(full())),
        EventKind::MessageDeleted { message, by, at },
        EventKind::MessageSeen { message, user: user("ada"), at },
        reaction(true, vec![("👍🏽".to_owned(), 2), ("\"".to_owned(), u64::MAX)]),
        reaction(false, Vec::new()),
        EventKind::AccessRevoked(Revoked::User(user("ada"))),
        EventKind::AccessRevoked(Revoked::Guests),
        EventKind::AccessRevoked(Revoked::Everyone),
    ];
    let kinds: Vec<EventKind> = others.into_iter().chain(beside::kinds()).chain(kinds).collect();
    for kind in &kinds {
        match kind {
            EventKind::MessageNew(_)
            | EventKind::MessageEdited(_)
            | EventKind::MessageDeleted { .. }
            | EventKind::MessageSeen { .. }
            | EventKind::ReactionChanged { .. }
            | EventKind::AccessRevoked(_)
            | EventKind::Unknown
            | EventKind::GenerationStarted { .. }
            | EventKind::GenerationResumed { .. }
            | EventKind::GenerationReset { .. }
            | EventKind::StageChanged { .. }
            | EventKind::Aside { .. }
            | EventKind::GenerationEnded { .. }
            | EventKind::GenerationCompleted { .. }
            | EventKind::GenerationStopped { .. }
            | EventKind::GenerationFailed { .. } => {}
        }
    }
    kinds
}

/// The sample that is written under this name.
fn sample(name: &str) -> EventKind {
    let named = |kind: &EventKind| name_of(&Event::new(kind.clone())) == name;
    kinds().into_iter().find(named).unwrap()
}

/// What an event's kind is called where it is written.
fn name_of(event: &Event) -> String {
    let wire = as_json(&encode_event(event));
    wire["event"].as_object().unwrap().keys().next().unwrap().clone()
}

fn as_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn decode(value: &Value) -> Result<Event, CodecError> {
    decode_event(value.to_string().as_bytes())
}

#[test]
fn every_kind_of_event_reads_back_as_it_was_written() {
    for kind in kinds() {
        let event = Event::new(kind);
        let bytes = encode_event(&event);
        let back = decode_event(&bytes);
        assert_eq!(back.unwrap(), event, "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn every_signal_reads_back_as_it_was_written() {
    for signal in [
        Signal::UserJoined { user: user("ada"), name: Some("Ada \"😀\"".to_owned()), online: 3 },
        Signal::UserLeft { user: user("ü"), name: None, online: 0 },
        Signal::TypingStarted { user: user("ada"), name: Some("Ada".to_owned()) },
        Signal::TypingStopped { user: user("ada"), name: None },
    ] {
        assert_eq!(decode_signal(&encode_signal(&signal)).unwrap(), signal);
    }
}

/// What is in logs and outboxes today has to be read by the builds of tomorrow: a change here is
/// a new version.
#[test]
fn the_written_form_does_not_change_by_accident() {
    let id = "0192f0c1-2d3e-7abc-8def-0123456789ab";
    let event = Event {
        id: id.parse().unwrap(),
        at: Timestamp::from_millis(1_767_323_045_678),
        kind: EventKind::GenerationResumed {
            generation: id.parse().unwrap(),
            message: id.parse().unwrap(),
            agent: AgentId::new("helper").unwrap(),
            attempt: 2,
            offset: 5,
            utf16_offset: 4,
        },
    };
    let expected = json!({
        "v": 1, "id": id, "at": 1_767_323_045_678_i64,
        "event": {"generationResumed": {
            "generation": id, "message": id, "agent": "helper", "attempt": 2, "offset": 5, "utf16_offset": 4,
        }},
    });
    assert_eq!(as_json(&encode_event(&event)), expected);
    let message = Message { id: id.parse().unwrap(), user: Some(user("ada")), ..bare() };
    let event = Event { kind: EventKind::MessageNew(Arc::new(message)), ..event };
    let expected = json!({
        "v": 1, "id": id, "at": 1_767_323_045_678_i64,
        "event": {"messageNew": {
            "id": id, "session": "s", "ordinal": 1, "user": "ada", "author": "system",
            "content": "", "createdAt": 1, "updatedAt": 2,
        }},
    });
    assert_eq!(as_json(&encode_event(&event)), expected);
    let (message, emoji) = (id.parse().unwrap(), "👍".to_owned());
    let (at, counts) = (Timestamp::from_millis(9), vec![(emoji.clone(), 2)]);
    let written = |kind| as_json(&encode_event(&Event::new(kind)))["event"].clone();
    assert_eq!(
        written(EventKind::MessageDeleted { message, by: user("ada"), at }),
        json!({"messageDeleted": {"message": id, "by": "ada", "at": 9}}),
    );
    assert_eq!(
        written(EventKind::MessageSeen { message, user: user("ada"), at }),
        json!({"messageSeen": {"message": id, "user": "ada", "at": 9}}),
    );
    let (user, added) = (user("ada"), true);
    assert_eq!(
        written(EventKind::ReactionChanged { message, user: user.clone(), emoji, added, counts }),
        json!({"reactionChanged": {
            "message": id, "user": "ada", "emoji": "👍", "added": true, "counts": [["👍", 2]],
        }}),
    );
    for (revoked, json) in [
        (Revoked::User(user.clone()), json!({"user": "ada"})),
        (Revoked::Guests, json!("guests")),
        (Revoked::Everyone, json!("everyone")),
    ] {
        let expected = json!({"accessRevoked": json});
        assert_eq!(written(EventKind::AccessRevoked(revoked)), expected);
    }
    let signal = Signal::UserLeft { user: user.clone(), name: None, online: 2 };
    let expected = json!({"v": 1, "signal": {"userLeft": {"user": "ada", "online": 2}}});
    assert_eq!(as_json(&encode_signal(&signal)), expected);
    let signal = Signal::TypingStarted { user, name: Some("Ada".to_owned()) };
    let expected = json!({"v": 1, "signal": {"typingStarted": {"user": "ada", "name": "Ada"}}});
    assert_eq!(as_json(&encode_signal(&signal)), expected);
}

/// Such a kind would read as unknown where it is broken, and pass unseen.
#[test]
fn the_name_of_each_kind_is_known() {
    for kind in kinds() {
        let name = name_of(&Event::new(kind));
        assert!(wire::KINDS.contains(&name.as_str()), "{name}");
    }
    let written: std::collections::HashSet<_> =
        kinds().into_iter().map(|kind| name_of(&Event::new(kind))).collect();
    assert_eq!(written.len(), wire::KINDS.len() - 1, "all but the unknown one");
}

#[test]
fn another_version_is_unknown_whatever_else_it_holds() {
    let (id, before) = (EventId::new(), Timestamp::now());
    let bare = decode_event(br#"{"v":2}"#).unwrap();
    assert_eq!(bare.kind, EventKind::Unknown);
    assert!(bare.at >= before, "the present");
    for id in [json!(7), json!("nonsense"), json!({"deep": [1]})] {
        let event = decode(&json!({"v": 2, "id": id, "at": "later", "event": []})).unwrap();
        assert_eq!(event.kind, EventKind::Unknown);
        assert_ne!(event.id, bare.id, "a new one each");
    }
    for version in [0, 2, u64::MAX] {
        let wire = json!({"v": version, "id": id.to_string(), "at": -3, "event": {"new": [1]}});
        let expected = Event { id, at: Timestamp::from_millis(-3), kind: EventKind::Unknown };
        assert_eq!(decode(&wire).unwrap(), expected);
    }
    // Also one that this version could read as something else.
    let mut wire = as_json(&encode_event(&Event::new(sample("messageNew"))));
    wire["v"] = json!(2);
    assert_eq!(decode(&wire).unwrap().kind, EventKind::Unknown);
    for bytes in [&br#"{"v":2}"#[..], br#"{"v":2,"signal":{"new":[]}}"#] {
        assert!(matches!(decode_signal(bytes), Err(CodecError::Version(2))));
    }
}

#[test]
fn an_unknown_kind_keeps_its_id_and_time() {
    let id = EventId::new();
    for event in [json!({"generationPaused": {}}), json!({"new": [1]}), json!("generationPaused")] {
        let wire = json!({"v": 1, "id": id.to_string(), "at": 5, "event": event, "later": 1});
        let expected = Event { id, at: Timestamp::from_millis(5), kind: EventKind::Unknown };
        assert_eq!(decode(&wire).unwrap(), expected);
    }
    let event = decode(&json!({"v": 1, "event": {"generationPaused": {}}})).unwrap();
    assert_eq!(event.kind, EventKind::Unknown);
}

/// It is broken, which nobody may take for something new.
#[test]
fn a_known_kind_of_the_wrong_shape_is_no_unknown_one() {
    let id = EventId::new().to_string();
    for event in [
        json!({"messageNew": {"id": id}}),
        json!({"accessRevoked": {"nobody": 1}}),
        json!({"messageSeen": []}),
        json!("messageNew"),
        json!({"newer": {}, "newest": {}}),
        json!({}),
        json!(7),
        json!(null),
    ] {
        let wire = json!({"v": 1, "id": id, "at": 5, "event": event});
        assert!(matches!(decode(&wire), Err(CodecError::Malformed(_))), "{wire}");
    }
}

#[test]
fn what_is_no_event_is_refused() {
    let whole = encode_event(&Event::new(kinds().remove(0)));
    let cut: Vec<&[u8]> = (0..whole.len()).map(|end| &whole[..end]).collect();
    let others: [&[u8]; 6] = [b"null", b"[]", b"{}", b"{\"v\":-1}", b"{\"v\":1}", b"\xff\xfe"];
    for bytes in cut.into_iter().chain(others) {
        assert!(matches!(decode_event(bytes), Err(CodecError::Malformed(_))), "{bytes:?}");
        assert!(matches!(decode_signal(bytes), Err(CodecError::Malformed(_))), "{bytes:?}");
    }
    let unknown = json!({"v": 1, "signal": {"userSlept": {"user": "ada", "online": 2}}});
    let refused = decode_signal(unknown.to_string().as_bytes());
    assert!(matches!(refused, Err(CodecError::Malformed(_))));
}

#[test]
fn an_unknown_field_is_passed_over() {
    let event = Event::new(sample("generationResumed"));
    let mut wire = as_json(&encode_event(&event));
    wire["later"] = json!(1);
    wire["event"]["generationResumed"]["later"] = json!({"a": 1});
    assert_eq!(decode(&wire).unwrap(), event);
}

#[test]
fn an_id_or_code_of_the_wrong_shape_is_refused_by_its_field() {
    let refusals = [
        ("/id", "id", json!("nonsense")),
        ("/event/generationFailed/generation", "generation", json!("")),
        ("/event/generationFailed/error/code", "error.code", json!("NO_SUCH_CODE")),
        ("/event/generationFailed/message/id", "message.id", json!("x")),
        ("/event/generationFailed/message/session", "message.session", json!("a b")),
        ("/event/generationFailed/message/user", "message.user", json!("a\nb")),
        ("/event/generationFailed/message/agent", "message.agent", json!("a/b")),
        ("/event/generationFailed/message/parent", "message.parent", json!("x")),
        (
            "/event/generationFailed/message/reactions/0/users/0",
            "message.reactions.users",
            json!(""),
        ),
    ];
    for (pointer, field, bad) in refusals {
        let mut wire = as_json(&encode_event(&Event::new(kinds().pop().unwrap())));
        *wire.pointer_mut(pointer).unwrap() = bad;
        match decode(&wire) {
            Err(CodecError::Value(named)) => assert_eq!(named, field),
            other => panic!("{pointer}: {other:?}"),
        }
    }
    let mut wire = as_json(&encode_event(&Event::new(kinds().pop().unwrap())));
    wire["event"]["generationFailed"]["message"]["author"] = json!("nobody");
    assert!(matches!(decode(&wire), Err(CodecError::Malformed(_))));
    let wire = json!({"v": 1, "signal": {"userLeft": {"user": "", "online": 2}}});
    let refused = decode_signal(wire.to_string().as_bytes());
    assert!(matches!(refused, Err(CodecError::Value("user"))));
}
