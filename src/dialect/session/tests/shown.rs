//! What is sent.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{DIALECT, ID};
use crate::dialect::{Answer, Dialect, Frame, Greeting, Ids, Refusal, Shown, Vocabulary, wire};
use crate::domain::{
    AgentId, Attachment, Author, Error, ErrorCode, Event, EventId, EventKind, Message,
    PresenceChange, Reaction, Reply, Revoked, SessionId, Signal, Timestamp, UserId,
};

const AT: Timestamp = Timestamp::from_millis(1_767_323_045_678);
const AT_TEXT: &str = "2026-01-02T03:04:05.678Z";

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn message() -> Message {
    Message {
        id: ID.parse().unwrap(),
        session: session(),
        ordinal: 3,
        user: Some(user("ada")),
        agent: None,
        author: Author::User,
        content: "Hi \"there\"".to_owned(),
        metadata: Map::new(),
        tokens: None,
        usage: None,
        parent: None,
        client_message_id: Some("own".to_owned()),
        edited_at: Some(AT),
        deleted_at: None,
        created_at: AT,
        updated_at: AT,
        reactions: vec![Reaction { emoji: "👍".to_owned(), users: vec![user("bob")] }],
        attachments: vec![Attachment {
            id: ID.parse().unwrap(),
            file_name: "a.txt".to_owned(),
            file_url: "https://x/a".to_owned(),
            mime_type: "text/plain".to_owned(),
            file_size: 5,
            metadata: Map::new(),
        }],
    }
}

fn message_json() -> Value {
    json!(wire::MessageJson::from(&message()))
}

/// The events and their payloads; all are among those that the dialect says it sends.
fn read(frames: &[Frame]) -> Vec<(&'static str, Value)> {
    for frame in frames {
        let is_said = DIALECT.shown().iter().any(|event| event.name == frame.event);
        assert!(is_said, "{} is not said to be sent", frame.event);
    }
    let payload = |frame: &Frame| serde_json::from_str(frame.payload.get()).unwrap();
    frames.iter().map(|frame| (frame.event, payload(frame))).collect()
}

fn event(kind: EventKind) -> Vec<(&'static str, Value)> {
    let event = Event { id: EventId::new(), at: AT, kind };
    read(&DIALECT.encode(&session(), Shown::Event { event: &event, seq: 0, cursor: None }))
}

fn signal(signal: &Signal) -> Vec<(&'static str, Value)> {
    read(&DIALECT.encode(&session(), Shown::Signal(signal)))
}

fn answer(reply: &Reply) -> (Value, Vec<(&'static str, Value)>) {
    let Answer { ack, frames } = DIALECT.answer(reply);
    (serde_json::from_str(ack.get()).unwrap(), read(&frames))
}

#[test]
fn what_becomes_of_a_message() {
    let whole = message_json();
    assert_eq!(whole["isEdited"], true);
    assert_eq!(whole["editedAt"], AT_TEXT);
    let of = Arc::new(message());
    assert_eq!(event(EventKind::MessageNew(of.clone())), [("message:new", whole.clone())]);
    assert_eq!(event(EventKind::MessageEdited(of)), [("message:edited", whole)]);
    let message = ID.parse().unwrap();
    assert_eq!(
        event(EventKind::MessageDeleted { message, by: user("ada"), at: AT }),
        [(
            "message:deleted",
            json!({ "sessionId": "s", "messageId": ID, "deletedBy": "ada", "deletedAt": AT_TEXT })
        )]
    );
    assert_eq!(
        event(EventKind::MessageSeen { message, user: user("ada"), at: AT }),
        [(
            "message:seen:update",
            json!({ "sessionId": "s", "messageId": ID, "userId": "ada", "seenAt": AT_TEXT })
        )]
    );
    for (added, counts, shown) in [
        (true, vec![("👍".to_owned(), 2), ("\"".to_owned(), 1)], json!({ "👍": 2, "\"": 1 })),
        (false, Vec::new(), json!({})),
    ] {
        let emoji = "👍".to_owned();
        assert_eq!(
            event(EventKind::ReactionChanged { message, user: user("ada"), emoji, added, counts }),
            [(
                "message:reaction:update",
                json!({
                    "sessionId": "s", "messageId": ID, "userId": "ada", "emoji": "👍",
                    "added": added, "counts": shown,
                })
            )]
        );
    }
}

#[test]
fn what_is_not_for_clients_is_not_shown() {
    for kind in [EventKind::AccessRevoked(Revoked::User(user("ada"))), EventKind::Unknown] {
        assert_eq!(event(kind), []);
    }
}

#[test]
fn who_comes_goes_and_types() {
    let ada = user("ada");
    let name = Some("Ada".to_owned());
    let joined = Signal::UserJoined { user: ada.clone(), name: name.clone(), online: 2 };
    let shown = json!({ "sessionId": "s", "userId": "ada", "userName": "Ada", "online": 2 });
    assert_eq!(signal(&joined), [("user:joined", shown)]);
    let left = Signal::UserLeft { user: ada.clone(), name: None, online: 0 };
    let shown = json!({ "sessionId": "s", "userId": "ada", "online": 0 });
    assert_eq!(signal(&left), [("user:left", shown)]);
    let typing = Signal::TypingStarted { user: ada.clone(), name };
    let shown = json!({ "sessionId": "s", "userId": "ada", "userName": "Ada" });
    assert_eq!(signal(&typing), [("typing:start", shown)]);
    let silent = Signal::TypingStopped { user: ada.clone(), name: None };
    assert_eq!(signal(&silent), [("typing:stop", json!({ "sessionId": "s", "userId": "ada" }))]);

    for (online, status) in [(true, "online"), (false, "offline")] {
        let change = PresenceChange { user: ada.clone(), online, last_seen_at: AT };
        let shown = json!({ "userId": "ada", "status": status, "lastSeenAt": AT_TEXT });
        let frames: Vec<_> = DIALECT.presence(&change).into_iter().collect();
        assert_eq!(read(&frames), [("presence:update", shown)]);
    }
}

#[test]
fn what_commands_are_answered_with() {
    let stored = json!({ "ok": true, "message": message_json() });
    let sent =
        |message| Reply::Sent { message: Arc::new(message), delivered_at: AT, recipients: 4 };
    let mut delivered = json!({
        "sessionId": "s", "messageId": ID, "clientMessageId": "own", "deliveredAt": AT_TEXT,
        "recipients": 4,
    });
    let expected = (stored.clone(), vec![("message:delivered", delivered.clone())]);
    assert_eq!(answer(&sent(message())), expected);
    let unnamed = Message { client_message_id: None, ..message() };
    delivered.as_object_mut().unwrap().remove("clientMessageId");
    assert_eq!(answer(&sent(unnamed)).1, [("message:delivered", delivered)]);

    assert_eq!(answer(&Reply::Edited { message: Arc::new(message()) }), (stored, vec![]));
    for added in [true, false] {
        let shown = json!({ "ok": true, "added": added });
        assert_eq!(answer(&Reply::Reacted { added }), (shown, vec![]));
    }
    for reply in [
        Reply::Left { session: session() },
        Reply::Deleted,
        Reply::Seen,
        Reply::Typed,
        Reply::StopStored,
    ] {
        assert_eq!(answer(&reply), (json!({ "ok": true }), vec![]), "{reply:?}");
    }
}

#[test]
fn a_refusal_repeats_the_ids_of_what_is_refused_in_the_ack_and_in_the_event() {
    let payload = json!({ "sessionId": "s", "clientMessageId": "own", "content": "Hi" });
    let payload = serde_json::value::to_raw_value(&payload).unwrap();
    let error =
        Error::new(ErrorCode::RateLimit, "Too many").retry_after(Duration::from_micros(6_001));
    let refusal = Refusal { event: "message:send", error: &error, ids: &Ids::of(&[&payload]) };
    let shown = json!({
        "type": "RATE_LIMIT", "code": "RATE_LIMIT", "message": "Too many", "event": "message:send",
        "retryAfterMs": 7, "sessionId": "s", "clientMessageId": "own",
    });
    assert_eq!(read(&[DIALECT.error(&refusal)]), [("error", shown.clone())]);
    let ack: Value = serde_json::from_str(wire::failed(&refusal).get()).unwrap();
    assert_eq!(ack, json!({ "ok": false, "error": shown }));
}

#[test]
fn who_may_not_see_a_session_any_more_is_told_which() {
    let shown = json!({
        "type": "NOT_FOUND", "code": "NOT_FOUND", "event": "session:join", "sessionId": "s",
        "message": "You may not see this session any more",
    });
    assert_eq!(read(&[DIALECT.revoked(&session())]), [("error", shown)]);
}

#[test]
fn what_a_connection_is_told() {
    let greeting = Greeting { user: "ada", socket: "x", node: "n", now: AT, recovered: false };
    let frames: Vec<_> = DIALECT.greet(greeting).into_iter().collect();
    let shown = json!({
        "userId": "ada", "socketId": "x", "nodeId": "n", "serverTime": AT_TEXT, "recovered": false,
    });
    assert_eq!(read(&frames), [("connection:success", shown)]);
    let shutdown = json!({ "message": "This server is shutting down", "reconnectInMs": 1500 });
    let said = DIALECT.shutdown(Duration::from_millis(1500));
    assert_eq!(read(said.as_slice()), [("server:shutdown", shutdown)]);
    let timeout = json!({ "message": "This connection has reached its age" });
    assert_eq!(read(DIALECT.timeout().as_slice()), [("server:timeout", timeout)]);
}

#[test]
fn what_becomes_of_an_answer() {
    let generation = ID.parse().unwrap();
    let id = ID.parse().unwrap();
    let of = || Arc::new(message());
    let agent = AgentId::new("wise").unwrap();
    let base = json!({ "streamId": ID, "sessionId": "s", "messageId": ID });
    let with = |more: Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let started =
        EventKind::GenerationStarted { generation, message: id, agent: agent.clone(), attempt: 1 };
    assert_eq!(event(started), [("stream:start", with(json!({ "agentId": "wise" })))]);
    let reason = "again".to_owned();
    let reset = EventKind::GenerationReset { generation, message: id, agent, attempt: 2, reason };
    let shown = with(json!({ "attempt": 2, "reason": "again" }));
    assert_eq!(event(reset), [("stream:reset", shown)]);
    let stopped = EventKind::GenerationStopped { generation, message: of(), by: user("ada") };
    let shown = with(json!({ "stoppedBy": "ada", "content": "Hi \"there\"" }));
    assert_eq!(event(stopped), [("stream:stopped", shown)]);
    let error = Error::new(ErrorCode::Provider, "No");
    let failed = EventKind::GenerationFailed { generation, message: of(), error };
    let shown = with(json!({
        "error": {
            "type": "PROVIDER_ERROR", "code": "PROVIDER_ERROR", "message": "No",
            "event": "stream:request",
        },
    }));
    assert_eq!(event(failed), [("stream:error", shown)]);
}
