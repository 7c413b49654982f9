//! A command, asked again in the plainest words that a dialect has for it.

use serde_json::{Map, Value, json};
use tokencast::domain::command::RequestStream;
use tokencast::domain::{Command, NewAttachment};
use tokencast_fuzz::{is_near, is_same_map};

/// The payload of the event that was `command`. `None` where the dialect has none.
pub fn payload(dialect: &str, command: &Command) -> Option<Value> {
    let session_key = if dialect == "conversation" { "conversationId" } else { "sessionId" };
    let mut payload = match command {
        Command::Identify { user } => json!({ "userId": user.as_str() }),
        Command::JoinPersona { agent } => json!({ "personaId": agent.as_str() }),
        Command::Join(join) => {
            let streams: Map<_, _> =
                join.texts.iter().map(|(id, offset)| (id.to_string(), json!(offset))).collect();
            json!({
                session_key: join.session.as_str(),
                "lastMessageId": join.last_message.map(|id| id.to_string()),
                "streams": streams,
            })
        }
        Command::Leave { session } => json!({ session_key: session.as_str() }),
        Command::Send(send) => json!({
            session_key: send.session.as_str(),
            "content": send.content,
            "parentMessageId": send.parent.map(|id| id.to_string()),
            "attachments": send.attachments.iter().map(attachment).collect::<Vec<_>>(),
            "clientMessageId": send.client_message_id,
        }),
        Command::Edit { message, content } => {
            json!({ "messageId": message.to_string(), "content": content })
        }
        Command::Delete { message } => json!({ "messageId": message.to_string() }),
        Command::See { session, message } => {
            json!({ session_key: session.as_str(), "messageId": message.to_string() })
        }
        Command::React { message, emoji } => {
            json!({ "messageId": message.to_string(), "emoji": emoji })
        }
        Command::Type { session, name, active } => json!({
            session_key: session.as_str(),
            "userName": name,
            "isTyping": active,
        }),
        Command::RequestStream(request) => self::request(dialect, session_key, request),
        Command::StopStream { generation } => json!({ "streamId": generation.to_string() }),
    };
    // What a client leaves out is the same as what it says to be null.
    payload.as_object_mut()?.retain(|_, value| !value.is_null());
    Some(payload)
}

fn request(dialect: &str, session_key: &str, request: &RequestStream) -> Value {
    let prompt_key = if dialect == "session" { "prompt" } else { "content" };
    let config = &request.config;
    json!({
        session_key: request.session.as_str(),
        prompt_key: request.prompt,
        "agentId": request.agent.as_ref().map(|agent| agent.as_str()),
        "clientMessageId": request.client_message_id,
        "config": {
            "temperature": config.temperature,
            "maxTokens": config.max_tokens,
            "model": config.model,
        },
    })
}

fn attachment(file: &NewAttachment) -> Value {
    json!({
        "fileName": file.file_name,
        "fileUrl": file.file_url,
        "mimeType": file.mime_type,
        "fileSize": file.file_size,
        "metadata": file.metadata,
    })
}

/// Whether both ask the same; numbers as far as JSON's text tells.
pub fn is_same(one: &Command, other: &Command) -> bool {
    match (one, other) {
        (Command::Join(one), Command::Join(other)) => {
            let (mut texts, mut others) = (one.texts.clone(), other.texts.clone());
            texts.sort_unstable();
            others.sort_unstable();
            (&one.session, one.last_message, texts) == (&other.session, other.last_message, others)
        }
        (Command::Send(one), Command::Send(other)) => {
            let plain = |files: &[NewAttachment]| -> Vec<_> {
                let without =
                    |file: &NewAttachment| NewAttachment { metadata: Map::new(), ..file.clone() };
                files.iter().map(without).collect()
            };
            let metadata = |file: &NewAttachment| file.metadata.clone();
            let pairs = one.attachments.iter().zip(&other.attachments);
            (&one.session, &one.content, one.parent, &one.client_message_id)
                == (&other.session, &other.content, other.parent, &other.client_message_id)
                && plain(&one.attachments) == plain(&other.attachments)
                && pairs.into_iter().all(|(a, b)| is_same_map(&metadata(a), &metadata(b)))
        }
        (Command::RequestStream(one), Command::RequestStream(other)) => {
            let mut same = other.clone();
            same.config.temperature = one.config.temperature;
            is_near(one.config.temperature, other.config.temperature) && same == *one
        }
        (one, other) => one == other,
    }
}
