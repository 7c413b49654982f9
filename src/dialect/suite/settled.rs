//! Which dialect a socket is settled on.

use serde_json::json;

use super::{Asked, each_dialect, raw};
use crate::dialect::Dialects;

#[test]
fn the_first_event_that_only_one_dialect_has_settles_it() {
    let dialects = Dialects::new(false);
    let id = json!({ "sessionId": "a" });
    let conversation = json!({ "conversationId": "a" });
    let persona = json!({ "personaId": "wise" });
    let user = json!({ "userId": "ada" });
    let nothing = json!({});
    let both = json!({ "conversationId": "a", "personaId": "wise" });
    let one_is_null = json!({ "conversationId": null, "personaId": "wise" });
    let both_are_null = json!({ "conversationId": null, "personaId": null });
    let bare = json!("a");
    for (event, payload, settled) in [
        ("session:join", &id, Some("session")),
        ("stream:request", &id, Some("session")),
        ("subscribe", &id, Some("subscribe")),
        ("subscribe", &bare, Some("subscribe")),
        ("unsubscribe", &bare, Some("subscribe")),
        ("chat:join", &conversation, Some("conversation")),
        ("chat:leave", &nothing, Some("conversation")),
        ("chat:send", &conversation, Some("conversation")),
        ("chat:typing", &conversation, Some("conversation")),
        ("chat:join", &persona, Some("persona")),
        ("chat:auth", &user, Some("persona")),
        ("chat:message", &id, Some("persona")),
        ("chat:join", &one_is_null, Some("persona")),
        ("chat:join", &both_are_null, None),
        ("chat:join", &nothing, None),
        ("chat:join", &bare, None),
        ("nonsense", &nothing, None),
        ("", &nothing, None),
        ("message:chunk", &id, None),
    ] {
        for default in ["session", "subscribe", "conversation", "persona"] {
            let found = settle(&dialects, event, payload, default);
            assert_eq!(found, settled, "{event} {payload} by default {default}");
        }
    }
    for (event, payload, default, settled) in [
        ("message:send", &id, "session", "session"),
        ("message:send", &id, "subscribe", "subscribe"),
        ("message:send", &id, "conversation", "session"),
        ("message:send", &id, "persona", "session"),
        ("chat:join", &both, "session", "conversation"),
        ("chat:join", &both, "persona", "persona"),
    ] {
        let found = settle(&dialects, event, payload, default);
        assert_eq!(found, Some(settled), "{event} {payload} by default {default}");
    }
}

fn settle(
    dialects: &Dialects,
    event: &str,
    payload: &serde_json::Value,
    default: &str,
) -> Option<&'static str> {
    let default = dialects.by_name(default).unwrap();
    let settled = dialects.settle(event, &[&raw(payload)], default)?;
    Some(dialects.get(settled).name())
}

#[test]
fn whatever_a_dialect_is_asked_can_settle_on_it() {
    let dialects = Dialects::new(false);
    each_dialect(|dialect, transcript| {
        for Asked { event, args, .. } in &transcript.asked {
            let settled = settle(&dialects, event, &args[0], dialect.name());
            assert_eq!(settled, Some(dialect.name()), "{event}");
        }
    });
}
