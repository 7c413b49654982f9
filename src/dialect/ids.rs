//! The ids of a request that its refusal repeats, so that a frontend that asked several things at
//! once knows which one was refused.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::SessionId;

/// The most characters of an id that is repeated.
const ID_CHARS_MAX: usize = 128;
/// The most bytes that JSON text of so many characters takes: each two escapes of six, and quotes.
const ID_JSON_BYTES_MAX: usize = ID_CHARS_MAX * 12 + 2;

/// Ids that a payload names, each as the client wrote it: a string of at most 128 characters. What
/// is anything else is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persona_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<String>,
}

/// The same fields, not yet looked into: a long value costs no copy.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(borrow)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_id: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation_id: Option<&'a RawValue>,
    #[serde(borrow)]
    persona_id: Option<&'a RawValue>,
    #[serde(borrow)]
    client_message_id: Option<&'a RawValue>,
}

impl Ids {
    /// Those that the first argument of an event names.
    pub fn of(args: &[&RawValue]) -> Self {
        // An array would be read as the fields in their order.
        let object = args.first().filter(|first| first.get().starts_with('{'));
        let named = object.and_then(|object| serde_json::from_str::<Named<'_>>(object.get()).ok());
        let Some(named) = named else { return Self::default() };
        Self {
            session_id: id(named.session_id),
            message_id: id(named.message_id),
            stream_id: id(named.stream_id),
            conversation_id: id(named.conversation_id),
            persona_id: id(named.persona_id),
            client_message_id: id(named.client_message_id),
        }
    }

    /// Each by its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("sessionId", &self.session_id),
            ("messageId", &self.message_id),
            ("streamId", &self.stream_id),
            ("conversationId", &self.conversation_id),
            ("personaId", &self.persona_id),
            ("clientMessageId", &self.client_message_id),
        ]
        .into_iter()
        .filter_map(|(name, id)| Some((name, id.as_deref()?)))
    }

    /// A session's alone.
    pub fn session(session: &SessionId) -> Self {
        Self { session_id: Some(session.as_str().to_owned()), ..Self::default() }
    }
}

fn id(value: Option<&RawValue>) -> Option<String> {
    let json = value?.get();
    if json.len() > ID_JSON_BYTES_MAX {
        return None;
    }
    let text: String = serde_json::from_str(json).ok()?;
    (text.chars().count() <= ID_CHARS_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ids(payload: &str) -> Value {
        let payload = RawValue::from_string(payload.to_owned()).unwrap();
        serde_json::to_value(Ids::of(&[&payload])).unwrap()
    }

    #[test]
    fn every_id_that_is_a_string_is_repeated_and_nothing_else() {
        let all = json!({
            "sessionId": "s", "messageId": "m", "streamId": "g", "conversationId": "c",
            "personaId": "p", "clientMessageId": "own \"id\"",
        });
        let mut sent = all.clone();
        sent["content"] = json!({ "sessionId": "inner" });
        assert_eq!(ids(&sent.to_string()), all);

        for other in
            ["{}", "null", "42", "\"text\"", "[\"s\",\"m\",\"g\",\"c\",\"p\",\"o\"]", "[[]]"]
        {
            assert_eq!(ids(other), json!({}), "{other}");
        }
        assert_eq!(
            ids(r#"{"sessionId":7,"messageId":null,"streamId":["x"],"personaId":""}"#),
            json!({ "personaId": "" })
        );
        assert_eq!(Ids::of(&[]), Ids::default());
    }

    #[test]
    fn an_id_of_more_than_128_characters_is_not_repeated() {
        for (char, json) in [("x", "x"), ("é", "é"), ("😀", r"\ud83d\ude00")] {
            let (most, more) = (json.repeat(128), json.repeat(129));
            let both = format!(r#"{{"sessionId":"{most}","messageId":"{more}"}}"#);
            assert_eq!(ids(&both), json!({ "sessionId": char.repeat(128) }));
        }
    }
}
