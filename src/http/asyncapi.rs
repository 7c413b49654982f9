//! The AsyncAPI 3.0 document of what is said over sockets and SSE, made of what each vocabulary
//! says of itself ([`Dialects`]): one channel for each.
//!
//! As that format has it, the server `receive`s what clients send. A message's key in its channel
//! starts with whose word it is, `client.` or `server.`, since both may have an event of one name;
//! its `name` is the event's.

use axum::body::Bytes;
use schemars::generate::SchemaSettings;
use schemars::transform::{RemoveRefSiblings, Transform, transform_subschemas};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::dialect::wire::FailedJson;
use crate::dialect::{CommandSpec, Dialects, EventSpec};

/// The namespace that sockets connect to.
const NAMESPACE: &str = "/chat";
/// What `EventSource` calls an event that has no name.
const UNNAMED: &str = "message";

/// The document, as JSON: the same bytes for the same vocabularies.
pub(super) fn document(dialects: &Dialects) -> Bytes {
    let mut writer = Writer::new();
    for dialect in dialects.sockets() {
        let name = dialect.name();
        let channel = json!({
            "address": NAMESPACE,
            "title": format!("Dialect {name}"),
            "description": format!(
                "Socket.IO events of the dialect `{name}`. A socket chooses it with `auth.dialect` or \
                 `?dialect=`, or by the first event that only this dialect has."
            ),
            "servers": [{ "$ref": "#/servers/sockets" }],
            "bindings": { "ws": { "query": {
                "type": "object",
                "properties": { "dialect": { "type": "string", "const": name } },
            } } },
        });
        writer.channel(name, channel, dialect.shown(), dialect.commands());
    }
    let sse = dialects.vocabulary(dialects.sse());
    let channel = json!({
        "address": "/chat/stream/{sessionId}",
        "title": "Server-sent events",
        "description": format!(
            "What `EventSource` hears of a session; its `{UNNAMED}` is the event without a name. \
             Each `data` is the payload as JSON."
        ),
        "parameters": { "sessionId": { "description": "The session." } },
        "servers": [{ "$ref": "#/servers/http" }],
    });
    writer.channel(sse.name(), channel, sse.shown(), &[]);
    Bytes::from(writer.finish().to_string())
}

struct Writer {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    /// For what is read and what is written, which differ in what may be missing.
    input: SchemaGenerator,
    output: SchemaGenerator,
}

impl Writer {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft07().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
                settings.transforms.push(Box::new(RemoveRefSiblings::default()));
            })
        };
        let output = settings().for_serialize().with_transform(LeftOut);
        Self {
            channels: Map::new(),
            operations: Map::new(),
            input: settings().for_deserialize().into_generator(),
            output: output.into_generator(),
        }
    }

    fn channel(
        &mut self,
        name: &str,
        mut channel: Value,
        shown: &[EventSpec],
        commands: &[CommandSpec],
    ) {
        let mut messages = Map::new();
        let at = json!({ "$ref": format!("#/channels/{name}") });
        let refer = |key: &str| json!([{ "$ref": format!("#/channels/{name}/messages/{key}") }]);
        for event in shown {
            let word = if event.name.is_empty() { UNNAMED } else { event.name };
            let key = format!("server.{word}");
            let operation = json!({
                "action": "send", "channel": at, "summary": event.about, "messages": refer(&key),
            });
            self.operations.insert(format!("{name}.{key}"), operation);
            let payload = (event.payload)(&mut self.output);
            messages.insert(key, message(word, event.about, payload.to_value()));
        }
        for command in commands {
            let key = format!("client.{}", command.name);
            let ack_key = format!("{key}.ack");
            let operation = json!({
                "action": "receive", "channel": at, "summary": command.about,
                "messages": refer(&key),
                "reply": { "channel": at, "messages": refer(&ack_key) },
            });
            self.operations.insert(format!("{name}.{key}"), operation);
            let payload = (command.payload)(&mut self.input);
            let ack = (command.ack)(&mut self.output);
            let failed = self.output.subschema_for::<FailedJson<'static>>();
            let ack = json!({ "oneOf": [ack, failed] });
            let about =
                format!("The acknowledgement of `{}`, where one is asked for.", command.name);
            messages.insert(key, message(command.name, command.about, payload.to_value()));
            messages.insert(ack_key, message(command.name, &about, ack));
        }
        channel["messages"] = messages.into();
        self.channels.insert(name.to_owned(), channel);
    }

    fn finish(mut self) -> Value {
        let mut schemas = self.output.take_definitions(true);
        schemas.append(&mut self.input.take_definitions(true));
        json!({
            "asyncapi": "3.0.0",
            "info": {
                "title": "tokencast",
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "MIT OR Apache-2.0" },
                "description": ABOUT,
            },
            "defaultContentType": "application/json",
            "servers": {
                "sockets": server("ws", "Socket.IO: Engine.IO 4 over WebSocket or long-polling.", Some("/socket.io/")),
                "http": server("http", "Server-sent events.", None),
            },
            "channels": self.channels,
            "operations": self.operations,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Over sockets `auth.token`, too." },
                    "query": { "type": "httpApiKey", "in": "query", "name": "token", "description": "The same JWT." },
                    "cookie": { "type": "httpApiKey", "in": "cookie", "name": "access_token", "description": "The same JWT." },
                },
            },
        })
    }
}

fn server(protocol: &str, about: &str, path: Option<&str>) -> Value {
    let security = ["bearer", "query", "cookie"]
        .map(|scheme| json!({ "$ref": format!("#/components/securitySchemes/{scheme}") }));
    let mut server = json!({
        "host": "{host}",
        "protocol": protocol,
        "description": about,
        "variables": { "host": { "default": "localhost:3000", "description": "Where this document is served." } },
        "security": security,
    });
    if let Some(path) = path {
        server["pathname"] = path.into();
    }
    server
}

fn message(name: &str, about: &str, payload: Value) -> Value {
    json!({ "name": name, "title": name, "summary": about, "payload": payload })
}

/// What is written leaves a field out where there is nothing to say, or says `null`, never both:
/// a field that may be missing is not also `null`.
#[derive(Debug, Clone)]
struct LeftOut;

impl Transform for LeftOut {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let required =
            schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
            return;
        };
        for (name, property) in properties {
            if !required.iter().any(|one| one == name) {
                without_null(property);
            }
        }
    }
}

fn without_null(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.retain(|one| one["type"] != "null");
        if any.len() == 1
            && let Some(only) = schema.remove("anyOf")
        {
            // Beside others, a `$ref` would hide them.
            schema.insert("allOf".to_owned(), only);
        }
    }
}

/// What the document says first.
const ABOUT: &str = "What is said over sockets, each of which speaks one dialect, and over SSE. A \
    session may have readers of all kinds at once, on any node; each hears it in its own \
    words.\n\nEach event of a client may ask for an acknowledgement: `{ \"ok\": true, … }`, or \
    `{ \"ok\": false, \"error\": { \"code\", \"message\", … } }`. Where it asks for none, a refusal \
    comes as the dialect's error event. An event that moves a socket's place in its sessions has a \
    second argument, a string that socket.io-client keeps for the recovery of its connection; no \
    payload here describes it. TypeScript types of all this are in `clients/typescript`.";

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Value {
        serde_json::from_slice(&document(&Dialects::new(false))).unwrap()
    }

    fn each(value: &Value, look: &mut impl FnMut(&Map<String, Value>)) {
        match value {
            Value::Object(map) => {
                look(map);
                map.values().for_each(|value| each(value, look));
            }
            Value::Array(items) => items.iter().for_each(|value| each(value, look)),
            _ => {}
        }
    }

    #[test]
    fn every_event_of_every_vocabulary_is_in_it() {
        let written = written();
        let dialects = Dialects::new(false);
        let mut count = 0;
        let mut is_there = |channel: &str, key: String, action: &str| {
            let message = &written["channels"][channel]["messages"][&key];
            assert!(message["payload"].is_object(), "{channel} {key}");
            let operation = &written["operations"][format!("{channel}.{key}")];
            assert_eq!(operation["action"], action, "{channel} {key}");
            count += 1;
        };
        for dialect in dialects.sockets() {
            for event in dialect.shown() {
                is_there(dialect.name(), format!("server.{}", event.name), "send");
            }
            for command in dialect.commands() {
                is_there(dialect.name(), format!("client.{}", command.name), "receive");
            }
        }
        for event in dialects.vocabulary(dialects.sse()).shown() {
            let word = if event.name.is_empty() { UNNAMED } else { event.name };
            is_there("sse", format!("server.{word}"), "send");
        }
        assert_eq!(written["operations"].as_object().unwrap().len(), count, "two of one name");
    }

    #[test]
    fn what_it_refers_to_is_there_and_no_two_types_have_one_name() {
        let written = written();
        each(&written, &mut |map| {
            if let Some(at) = map.get("$ref").and_then(Value::as_str) {
                let pointer = at.strip_prefix('#').expect("it refers to nothing outside");
                assert!(written.pointer(pointer).is_some(), "{at}");
            }
        });
        for name in written["components"]["schemas"].as_object().unwrap().keys() {
            // That is how the second type of a name is called.
            assert!(!name.ends_with(|c: char| c.is_ascii_digit()), "{name}: two types");
        }
    }

    #[test]
    fn what_may_be_missing_is_not_null_and_what_is_always_there_may_be() {
        let schemas = &written()["components"]["schemas"];
        let message = &schemas["Message"];
        let required = message["required"].as_array().unwrap();
        assert!(required.contains(&json!("editedAt")));
        assert_eq!(message["properties"]["editedAt"]["type"], json!(["string", "null"]));
        assert!(!required.contains(&json!("usage")));
        assert_eq!(
            message["properties"]["usage"]["allOf"],
            json!([{ "$ref": "#/components/schemas/Usage" }])
        );
        assert_eq!(schemas["Error"]["properties"]["retryAfterMs"]["type"], "integer");
        assert_eq!(schemas["Error"]["properties"]["sessionId"]["type"], "string");
        assert_eq!(
            schemas["SendMessage"]["properties"]["clientMessageId"]["type"],
            json!(["string", "null"])
        );
    }

    #[test]
    fn an_acknowledgement_says_by_ok_which_one_it_is() {
        let written = written();
        let mut tried = 0;
        for (name, channel) in written["channels"].as_object().unwrap() {
            let messages = channel["messages"].as_object().unwrap();
            for (key, ack) in messages.iter().filter(|(key, _)| key.ends_with(".ack")) {
                let kinds = ack["payload"]["oneOf"].as_array().unwrap();
                for (kind, ok) in kinds.iter().zip([true, false]) {
                    let pointer = kind["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
                    let schema = written.pointer(pointer).unwrap();
                    assert_eq!(schema["properties"]["ok"]["const"], ok, "{name} {key}");
                    let required = schema["required"].as_array().unwrap();
                    assert!(required.contains(&json!("ok")), "{name} {key}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 0);
    }
}
