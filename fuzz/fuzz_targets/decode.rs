//! What a client asks, in every dialect. An input's first line is an event's name, each further one
//! an argument, as JSON.
#![no_main]

mod again;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokencast::dialect::{Dialects, Ids, Refusal};
use tokencast::domain::command::{CLIENT_MESSAGE_ID_BYTES_MAX, EMOJI_BYTES_MAX};
use tokencast::domain::{Command, Error, ErrorCode, NewAttachment};

const DIALECTS: [&str; 4] = ["session", "subscribe", "conversation", "persona"];
/// The most bytes of a refusal's text: what a client sent is not sent back.
const MESSAGE_BYTES_MAX: usize = 400;

fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let mut lines = input.split('\n');
    let event = lines.next().unwrap_or_default();
    let Ok(args) = lines.map(serde_json::from_str).collect::<Result<Vec<&RawValue>, _>>() else {
        return;
    };
    let ids = Ids::of(&args);
    assert!(ids.iter().all(|(_, id)| id.chars().count() <= 128), "{ids:?}");
    let dialects = Dialects::new(false);
    assert_eq!(dialects.sockets().count(), DIALECTS.len());
    for name in DIALECTS {
        let index = dialects.by_name(name).expect("sockets speak it");
        let dialect = dialects.get(index);
        match dialect.decode(event, &args) {
            Ok(command) => {
                let settled = dialects.settle(event, &args, index);
                assert!(settled == Some(index), "{name} understands what it does not claim");
                assert_limits(&command);
                let payload = again::payload(name, &command).expect("it has a word for it");
                let payload = serde_json::value::to_raw_value(&payload).expect("it is JSON");
                let read = dialect.decode(event, &[&payload]);
                let read = read.unwrap_or_else(|error| panic!("{payload} is refused: {error}"));
                assert!(again::is_same(&command, &read), "{read:?} is read of {payload}");
            }
            Err(error) => {
                assert_error(&error);
                let frame = dialect.error(&Refusal { event, error: &error, ids: &ids });
                let told = serde_json::from_str::<Map<String, Value>>(frame.payload.get());
                assert!(told.is_ok_and(|told| !told.is_empty()), "{}", frame.payload);
            }
        }
    }
});

fn assert_error(error: &Error) {
    assert!(matches!(error.code, ErrorCode::Invalid | ErrorCode::NotFound), "{error}");
    assert!(error.retry_after.is_none());
    assert!((1..=MESSAGE_BYTES_MAX).contains(&error.message.len()), "{error}");
    assert!(!error.message.contains(char::is_control), "{error:?}");
}

fn assert_limits(command: &Command) {
    match command {
        Command::Join(join) => assert!(join.texts.len() <= 64),
        Command::Send(send) => {
            assert_text(&send.content);
            assert_own_id(send.client_message_id.as_deref());
            send.attachments.iter().for_each(assert_attachment);
        }
        Command::Edit { content, .. } => assert_text(content),
        Command::React { emoji, .. } => {
            assert!((1..=EMOJI_BYTES_MAX).contains(&emoji.len()));
            assert!(!emoji.contains(|c: char| c.is_whitespace() || c.is_control()), "{emoji:?}");
        }
        Command::Type { name: Some(name), .. } => {
            assert_text(name);
            assert!(name.len() <= 256);
        }
        Command::RequestStream(request) => {
            assert_text(&request.prompt);
            assert_own_id(request.client_message_id.as_deref());
            let config = &request.config;
            assert!(config.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)));
            assert!(config.max_tokens.is_none_or(|max| (1..=1_000_000).contains(&max)));
            if let Some(model) = &config.model {
                assert_text(model);
                assert!(model.len() <= 128);
            }
        }
        Command::Identify { .. }
        | Command::JoinPersona { .. }
        | Command::Leave { .. }
        | Command::Delete { .. }
        | Command::See { .. }
        | Command::Type { name: None, .. }
        | Command::StopStream { .. } => {}
    }
}

fn assert_text(text: &str) {
    assert!(!text.is_empty() && !text.contains('\0'), "{text:?}");
}

fn assert_own_id(id: Option<&str>) {
    if let Some(id) = id {
        assert_text(id);
        assert!(id.len() <= CLIENT_MESSAGE_ID_BYTES_MAX);
    }
}

fn assert_attachment(file: &NewAttachment) {
    for (text, max) in [(&file.file_name, 255), (&file.file_url, 2048), (&file.mime_type, 127)] {
        assert!((1..=max).contains(&text.chars().count()), "{text:?}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    // What a browser makes of it: it passes over white space before looking for a scheme.
    let url: String = file.file_url.chars().filter(|c| !c.is_whitespace()).collect();
    let url = url.to_ascii_lowercase();
    for script in ["javascript:", "data:", "vbscript:", "blob:"] {
        assert!(!url.starts_with(script), "{url}");
    }
    assert!(file.file_size < 1 << 53);
    let metadata = Value::Object(file.metadata.clone());
    assert!(metadata.to_string().len() <= 4096);
    assert!(!metadata.to_string().contains("\\u0000"), "{metadata}");
    assert!(depth(&metadata) <= 17);
}

fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 1,
    };
    1 + inner.unwrap_or(0)
}
