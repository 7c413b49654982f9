//! What a client asks in this dialect.

use serde_json::value::RawValue;

use crate::dialect::fields::Fields;
use crate::dialect::payload;
use crate::domain::command::{Join, Put, RequestStream, SendMessage};
use crate::domain::{Command, Error, GenerationConfig, GenerationId};

/// The most answers a joining client may say it has a part of.
const TEXTS_MAX: usize = 64;
const USER_NAME_BYTES_MAX: usize = 256;
const MODEL_BYTES_MAX: usize = 128;

pub(super) fn command(event: &str, args: &[&RawValue]) -> Result<Command, Error> {
    let decode = match event {
        "message:delete" => delete,
        "message:edit" => edit,
        "message:reaction" => react,
        "message:seen" => see,
        "message:send" => send,
        "session:join" => join,
        "session:leave" => leave,
        "stream:request" => request,
        "stream:stop" => stop,
        "typing:start" => start_typing,
        "typing:stop" => stop_typing,
        _ => return Err(Error::invalid("Unknown event")),
    };
    decode(Fields::of(args)?)
}

fn join(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("sessionId")?;
    let last_message = fields.optional_parsed("lastMessageId")?;
    let mut texts = Vec::new();
    if let Some(streams) = fields.optional_object("streams")? {
        if streams.len() > TEXTS_MAX {
            return Err(Error::invalid(format!("streams must name at most {TEXTS_MAX}")));
        }
        for (generation, offset) in streams.into_entries() {
            let generation: GenerationId =
                generation.parse().map_err(|error| Error::invalid(format!("streams: {error}")))?;
            let offset = offset
                .as_u64()
                .ok_or_else(|| Error::invalid("streams must map to whole numbers"))?;
            // One id may be spelt in several ways.
            if texts.iter().any(|(known, _)| *known == generation) {
                return Err(Error::invalid("streams must name each once"));
            }
            texts.push((generation, offset));
        }
    }
    Ok(Command::Join(Join { session, last_message, texts }))
}

fn leave(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Leave { session: fields.parsed("sessionId")? })
}

fn send(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Send(SendMessage {
        session: fields.parsed("sessionId")?,
        content: payload::content(fields.value("content"))?,
        parent: fields.optional_message("parentMessageId")?,
        attachments: payload::attachments(fields.value("attachments"))?,
        client_message_id: payload::client_message_id(fields.value("clientMessageId"))?,
    }))
}

fn edit(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Edit {
        message: fields.message("messageId")?,
        content: payload::content(fields.value("content"))?,
    })
}

fn delete(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Delete { message: fields.message("messageId")? })
}

fn see(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::See { session: fields.parsed("sessionId")?, message: fields.message("messageId")? })
}

fn react(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::React {
        message: fields.message("messageId")?,
        emoji: payload::emoji(fields.value("emoji"))?,
    })
}

/// A frontend that knows no name may say an empty one.
fn start_typing(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("sessionId")?;
    let name = fields.optional_text("userName")?.filter(|name| !name.is_empty());
    if name.as_ref().is_some_and(|name| name.len() > USER_NAME_BYTES_MAX) {
        let message = format!("userName must have at most {USER_NAME_BYTES_MAX} bytes");
        return Err(Error::invalid(message));
    }
    Ok(Command::Type { session, name, active: true })
}

fn stop_typing(mut fields: Fields) -> Result<Command, Error> {
    Ok(Command::Type { session: fields.parsed("sessionId")?, name: None, active: false })
}

fn request(mut fields: Fields) -> Result<Command, Error> {
    let session = fields.parsed("sessionId")?;
    let prompt = fields.text("prompt")?;
    if prompt.is_empty() {
        return Err(Error::invalid("prompt must not be empty"));
    }
    let agent = fields.optional_parsed("agentId")?;
    let client_message_id = payload::client_message_id(fields.value("clientMessageId"))?;
    let config = match fields.optional_object("config")? {
        None => GenerationConfig::default(),
        Some(mut config) => GenerationConfig {
            temperature: config.optional_number("temperature", 0.0..=2.0)?,
            max_tokens: config.optional_integer("maxTokens", 1..=1_000_000)?,
            model: config.optional_short_text("model", MODEL_BYTES_MAX)?,
        },
    };
    Ok(Command::RequestStream(RequestStream {
        session,
        prompt,
        agent,
        config,
        client_message_id,
        put: Put::AsRequest,
    }))
}

/// An id that is no UUID is one that does not exist.
fn stop(mut fields: Fields) -> Result<Command, Error> {
    let generation = fields.text("streamId")?;
    let generation = generation.parse().map_err(|_| Error::not_found("stream"))?;
    Ok(Command::StopStream { generation })
}
