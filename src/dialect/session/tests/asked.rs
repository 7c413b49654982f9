//! What is understood, and what is refused.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{DIALECT, ID};
use crate::dialect::Dialect;
use crate::domain::command::{Join, Put, RequestStream, SendMessage};
use crate::domain::{
    AgentId, Command, Error, ErrorCode, GenerationConfig, MessageId, NewAttachment, SessionId,
};

fn decode(event: &str, payload: &Value) -> Result<Command, Error> {
    let payload = RawValue::from_string(payload.to_string()).unwrap();
    DIALECT.decode(event, &[&payload])
}

fn session() -> SessionId {
    SessionId::new("room:1").unwrap()
}

fn message() -> MessageId {
    ID.parse().unwrap()
}

fn file() -> Value {
    json!({ "fileName": "a.txt", "fileUrl": "https://x/a", "mimeType": "text/plain", "fileSize": 0 })
}

#[test]
fn every_command_is_understood() {
    let metadata = json!({ "width": 3, "of": [{ "deep": null }] });
    let mut full = file();
    full["fileSize"] = json!(9_007_199_254_740_991_u64);
    full["metadata"] = metadata.clone();
    let attachment = |file_size, metadata| NewAttachment {
        file_name: "a.txt".to_owned(),
        file_url: "https://x/a".to_owned(),
        mime_type: "text/plain".to_owned(),
        file_size,
        metadata,
    };
    let metadata = metadata.as_object().unwrap().clone();
    let plain = SendMessage {
        session: session(),
        content: "Hi".to_owned(),
        parent: None,
        attachments: Vec::new(),
        client_message_id: None,
    };
    let asked = RequestStream {
        session: session(),
        prompt: "Why?".to_owned(),
        agent: None,
        config: GenerationConfig::default(),
        client_message_id: None,
        put: Put::AsRequest,
    };
    let typing = |name: Option<&str>, active| Command::Type {
        session: session(),
        name: name.map(str::to_owned),
        active,
    };
    let understood = [
        (
            "session:join",
            json!({ "sessionId": "room:1" }),
            Command::Join(Join { session: session(), last_message: None, texts: Vec::new() }),
        ),
        (
            "session:join",
            json!({ "sessionId": "room:1", "lastMessageId": ID, "streams": { ID: 7 } }),
            Command::Join(Join {
                session: session(),
                last_message: Some(message()),
                texts: vec![(ID.parse().unwrap(), 7)],
            }),
        ),
        ("session:leave", json!({ "sessionId": "room:1" }), Command::Leave { session: session() }),
        (
            "message:send",
            json!({ "sessionId": "room:1", "content": "Hi", "parentMessageId": null }),
            Command::Send(plain.clone()),
        ),
        (
            "message:send",
            json!({
                "sessionId": "room:1", "content": "Hi", "parentMessageId": ID,
                "attachments": [file(), full], "clientMessageId": "x".repeat(128), "more": [],
            }),
            Command::Send(SendMessage {
                parent: Some(message()),
                attachments: vec![
                    attachment(0, Map::new()),
                    attachment(9_007_199_254_740_991, metadata),
                ],
                client_message_id: Some("x".repeat(128)),
                ..plain
            }),
        ),
        (
            "message:edit",
            json!({ "messageId": ID, "content": " " }),
            Command::Edit { message: message(), content: " ".to_owned() },
        ),
        ("message:delete", json!({ "messageId": ID }), Command::Delete { message: message() }),
        (
            "message:seen",
            json!({ "sessionId": "room:1", "messageId": ID }),
            Command::See { session: session(), message: message() },
        ),
        (
            "message:reaction",
            json!({ "messageId": ID, "emoji": "👩‍👩‍👧‍👦" }),
            Command::React { message: message(), emoji: "👩‍👩‍👧‍👦".to_owned() },
        ),
        ("typing:start", json!({ "sessionId": "room:1" }), typing(None, true)),
        ("typing:start", json!({ "sessionId": "room:1", "userName": "" }), typing(None, true)),
        (
            "typing:start",
            json!({ "sessionId": "room:1", "userName": "Ada" }),
            typing(Some("Ada"), true),
        ),
        ("typing:stop", json!({ "sessionId": "room:1" }), typing(None, false)),
        (
            "stream:request",
            json!({ "sessionId": "room:1", "prompt": "Why?" }),
            Command::RequestStream(asked.clone()),
        ),
        (
            "stream:request",
            json!({
                "sessionId": "room:1", "prompt": "Why?", "agentId": "wise", "clientMessageId": "1",
                "config": { "temperature": 0.5, "maxTokens": 9, "model": "m" },
            }),
            Command::RequestStream(RequestStream {
                agent: Some(AgentId::new("wise").unwrap()),
                config: GenerationConfig {
                    temperature: Some(0.5),
                    max_tokens: Some(9),
                    model: Some("m".to_owned()),
                },
                client_message_id: Some("1".to_owned()),
                ..asked
            }),
        ),
        (
            "stream:stop",
            json!({ "streamId": ID }),
            Command::StopStream { generation: ID.parse().unwrap() },
        ),
    ];
    for (event, payload, command) in &understood {
        assert_eq!(decode(event, payload).as_ref(), Ok(command), "{event} {payload}");
    }
    let named: Vec<_> = understood.iter().map(|(event, ..)| *event).collect();
    for event in DIALECT.commands().iter().map(|command| command.name) {
        assert!(named.contains(&event), "{event} is not tried");
    }
}

/// A payload that is right, for each event that takes one with these fields.
fn right(event: &str) -> Value {
    match event {
        "message:send" => json!({
            "sessionId": "s", "content": "Hi", "parentMessageId": ID, "attachments": [file()],
            "clientMessageId": "1",
        }),
        "message:edit" => json!({ "messageId": ID, "content": "Hi" }),
        "message:delete" => json!({ "messageId": ID }),
        "message:seen" => json!({ "sessionId": "s", "messageId": ID }),
        "message:reaction" => json!({ "messageId": ID, "emoji": "👍" }),
        "typing:start" => json!({ "sessionId": "s", "userName": "Ada" }),
        "typing:stop" | "session:leave" | "session:join" => json!({ "sessionId": "s" }),
        "stream:request" => json!({ "sessionId": "s", "prompt": "Why?", "clientMessageId": "1" }),
        "stream:stop" => json!({ "streamId": ID }),
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrong_field_is_named() {
    let missing: &[(&str, &[&str])] = &[
        ("message:send", &["sessionId", "content"]),
        ("message:edit", &["messageId", "content"]),
        ("message:delete", &["messageId"]),
        ("message:seen", &["sessionId", "messageId"]),
        ("message:reaction", &["messageId", "emoji"]),
        ("typing:start", &["sessionId"]),
        ("typing:stop", &["sessionId"]),
        ("session:leave", &["sessionId"]),
        ("session:join", &["sessionId"]),
        ("stream:request", &["sessionId", "prompt"]),
        ("stream:stop", &["streamId"]),
    ];
    for (event, fields) in missing {
        assert!(decode(event, &right(event)).is_ok(), "{event}");
        for field in *fields {
            let mut payload = right(event);
            payload.as_object_mut().unwrap().remove(*field);
            refused(event, &payload, field);
            payload[*field] = Value::Null;
            refused(event, &payload, field);
        }
    }
    for (event, fields) in [
        (
            "message:send",
            &["sessionId", "content", "parentMessageId", "attachments", "clientMessageId"][..],
        ),
        ("message:edit", &["messageId", "content"]),
        ("message:delete", &["messageId"]),
        ("message:seen", &["sessionId", "messageId"]),
        ("message:reaction", &["messageId", "emoji"]),
        ("typing:start", &["sessionId", "userName"]),
        ("typing:stop", &["sessionId"]),
        ("stream:request", &["sessionId", "prompt", "agentId", "config", "clientMessageId"]),
        ("stream:stop", &["streamId"]),
    ] {
        for field in fields {
            for wrong in [json!(7), json!(true), json!(["x"]), json!("a\0b")] {
                let mut payload = right(event);
                payload[*field] = wrong;
                refused(event, &payload, field);
            }
        }
    }
    for (event, field, wrong) in [
        ("message:send", "sessionId", json!("a b")),
        ("message:send", "content", json!("")),
        ("message:send", "clientMessageId", json!("")),
        ("message:send", "clientMessageId", json!("x".repeat(129))),
        ("message:send", "attachments", json!({})),
        ("message:edit", "content", json!("")),
        ("message:reaction", "emoji", json!("")),
        ("message:reaction", "emoji", json!("x".repeat(65))),
        ("typing:start", "userName", json!("x".repeat(257))),
        ("stream:request", "prompt", json!("")),
        ("stream:request", "clientMessageId", json!("x".repeat(129))),
    ] {
        let mut payload = right(event);
        payload[field] = wrong;
        refused(event, &payload, field);
    }
}

#[test]
fn a_stream_is_named_once_however_its_id_is_spelt() {
    let mut payload = right("session:join");
    payload["streams"] = json!({ ID: 7, ID.replace('-', ""): 0 });
    refused("session:join", &payload, "streams");
    payload["streams"] = json!({ ID.replace('-', ""): 0 });
    assert!(decode("session:join", &payload).is_ok());
}

#[test]
fn a_wrong_attachment_is_named_with_its_field() {
    for (field, wrong) in [
        ("fileName", json!("")),
        ("fileUrl", json!(7)),
        ("fileUrl", json!("javascript:x")),
        ("mimeType", json!("")),
        ("fileSize", json!("12")),
        ("fileSize", json!(-1)),
        ("metadata", json!("text")),
        ("metadata", json!({ "a": { "b\0": 1 } })),
    ] {
        let mut wrong_file = file();
        wrong_file[field] = wrong;
        let mut payload = right("message:send");
        payload["attachments"] = json!([file(), wrong_file]);
        refused("message:send", &payload, "attachments[1]");
        refused("message:send", &payload, field);
    }
}

fn refused(event: &str, payload: &Value, field: &str) {
    let error = decode(event, payload).expect_err(&format!("{event} {payload}"));
    assert_eq!(error.code, ErrorCode::Invalid, "{event} {payload}");
    assert!(error.message.contains(field), "{event} {payload}: {}", error.message);
}

#[test]
fn what_is_no_id_of_ours_does_not_exist() {
    for (event, field, what) in [
        ("message:send", "parentMessageId", "message"),
        ("message:edit", "messageId", "message"),
        ("message:delete", "messageId", "message"),
        ("message:seen", "messageId", "message"),
        ("message:reaction", "messageId", "message"),
        ("stream:stop", "streamId", "stream"),
    ] {
        for wrong in ["", "nonsense", "../../etc", &"x".repeat(10_000)] {
            let mut payload = right(event);
            payload[field] = json!(wrong);
            assert_eq!(decode(event, &payload), Err(Error::not_found(what)), "{event}");
        }
    }
}

#[test]
fn what_is_no_object_and_what_is_unknown_is_refused() {
    for event in DIALECT.commands().iter().map(|command| command.name) {
        assert_eq!(DIALECT.decode(event, &[]), Err(Error::invalid("the payload is missing")));
        for payload in [json!(null), json!(7), json!("s"), json!([]), json!([{}])] {
            let refused = Err(Error::invalid("the payload must be a JSON object"));
            assert_eq!(decode(event, &payload), refused, "{event} {payload}");
        }
    }
    for event in ["", "nonsense", "message:sends", "connection:success", "__proto__"] {
        assert_eq!(decode(event, &json!({})), Err(Error::invalid("Unknown event")), "{event}");
    }
}
