//! What is heard.

use serde_json::Value;

use super::scenario::{self, Happening};
use super::schema::Described;
use super::{Asked, Heard, Subject, Transcript, each, is_recording, parsed, raw};
use crate::dialect::{Frame, offset};
use crate::domain::text::utf16_len;
use crate::domain::{Command, Reply};

#[test]
fn what_is_heard_is_what_was_recorded() {
    each(|subject| {
        let name = subject.vocabulary.name();
        let heard = heard(subject);
        if is_recording() {
            record(subject, heard);
            return;
        }
        let recorded = Transcript::read(name).shown;
        for (heard, recorded) in heard.iter().zip(&recorded) {
            assert_eq!(heard, recorded, "{name}: {}", recorded.when);
        }
        assert_eq!(heard.len(), recorded.len(), "{name} has another scenario");
    });
}

fn heard(subject: &Subject<'_>) -> Vec<Heard> {
    let all = scenario::all();
    let said = |(at, (when, happening)): (usize, &(&str, Happening))| {
        scenario::say(subject, at, happening).heard(when)
    };
    all.iter().enumerate().map(said).collect()
}

fn record(subject: &Subject<'_>, shown: Vec<Heard>) {
    let name = subject.vocabulary.name();
    let mut asked = match Transcript::path(name).exists() {
        true => Transcript::read(name).asked,
        false => Vec::new(),
    };
    if let Some(dialect) = subject.dialect {
        for Asked { event, args, command } in &mut asked {
            let args: Vec<_> = args.iter().map(raw).collect();
            let args: Vec<_> = args.iter().map(|arg| &**arg).collect();
            *command = format!("{:?}", dialect.decode(event, &args).unwrap());
        }
    }
    Transcript { asked, shown }.write(name);
}

/// Every frame of the scenario.
fn frames(subject: &Subject<'_>) -> Vec<Frame> {
    let all = scenario::all();
    let said = |(at, (_, happening)): (usize, &(&str, Happening))| {
        scenario::say(subject, at, happening).frames
    };
    all.iter().enumerate().flat_map(said).collect()
}

#[test]
fn every_event_is_as_it_is_described_and_every_description_is_of_an_event() {
    each(|subject| {
        let name = subject.vocabulary.name();
        let mut frames = frames(subject);
        if subject.dialect.is_some() {
            frames.push(offset::told(offset::UNRECOVERABLE));
        }
        for frame in &frames {
            let mut specs = subject.vocabulary.shown().iter();
            let spec = specs.find(|spec| spec.name == frame.event);
            let spec = spec.unwrap_or_else(|| panic!("{name}: {} is not named", frame.event));
            let fault = Described::by(spec.payload).fault(&parsed(&frame.payload));
            assert_eq!(fault, None, "{name}: {} {}", frame.event, frame.payload);
        }
        for spec in subject.vocabulary.shown() {
            let is_sent = frames.iter().any(|frame| frame.event == spec.name);
            assert!(is_sent, "{name}: nothing that happens is a {}", spec.name);
            let plain = |c: char| c.is_ascii_alphabetic() || c == ':' || c == '-';
            assert!(spec.name.chars().all(plain), "{name}: {} would be escaped", spec.name);
        }
    });
}

#[test]
fn every_acknowledgement_is_as_it_is_described() {
    super::each_dialect(|dialect, transcript| {
        let subject = Subject { vocabulary: dialect, dialect: Some(dialect) };
        for Asked { event, args, .. } in &transcript.asked {
            let spec = dialect.commands().iter().find(|spec| spec.name == event).unwrap();
            let args: Vec<_> = args.iter().map(raw).collect();
            let args: Vec<_> = args.iter().map(|arg| &**arg).collect();
            let command = dialect.decode(event, &args).unwrap();
            let mut answers = 0;
            for (at, (_, happening)) in scenario::all().iter().enumerate() {
                let Happening::Reply(reply) = happening else { continue };
                if !is_answer(&command, reply) {
                    continue;
                }
                answers += 1;
                for ack in scenario::say(&subject, at, happening).acks {
                    assert_eq!(ack["ok"], true, "{}: {event}", dialect.name());
                    let fault = Described::by(spec.ack).fault(&ack);
                    assert_eq!(fault, None, "{}: {event} is acknowledged {ack}", dialect.name());
                }
            }
            assert!(answers > 0, "{}: nothing answers {event}", dialect.name());
        }
    });
}

fn is_answer(command: &Command, reply: &Reply) -> bool {
    matches!(
        (command, reply),
        (Command::Identify { .. }, Reply::Identified { .. })
            | (Command::Join(_), Reply::Joined(_))
            | (Command::JoinPersona { .. }, Reply::JoinedPersona(_))
            | (Command::Leave { .. }, Reply::Left { .. })
            | (Command::Send(_), Reply::Sent { .. })
            | (Command::Edit { .. }, Reply::Edited { .. })
            | (Command::Delete { .. }, Reply::Deleted)
            | (Command::See { .. }, Reply::Seen)
            | (Command::React { .. }, Reply::Reacted { .. })
            | (Command::Type { .. }, Reply::Typed)
            | (Command::RequestStream(_), Reply::Requested { .. })
            | (Command::StopStream { .. }, Reply::StopStored)
    )
}

#[test]
fn the_texts_that_are_shown_are_the_stored_one_each_in_its_place() {
    each(|subject| {
        let name = subject.vocabulary.name();
        let mut text = String::new();
        for delta in scenario::PIECES {
            let said = Happening::Text { before: text.clone(), delta: delta.to_owned() };
            let frames = scenario::say(subject, 0, &said).frames;
            if frames.is_empty() {
                continue;
            }
            assert_eq!(frames.len(), 1, "{name}");
            let payload = parsed(&frames[0].payload);
            if let Some(offset) = payload.get("offset") {
                assert_eq!(offset.as_u64(), Some(utf16_len(&text)), "{name}: {payload}");
            }
            let new = payload.get("delta").or(payload.get("chunk")).and_then(Value::as_str);
            text.push_str(new.unwrap_or_else(|| panic!("{name}: {payload} has no text")));
        }
        let whole = scenario::PIECES.concat();
        let shows_text = !text.is_empty();
        assert!(!shows_text || text == whole, "{name}: {text}");

        // Whoever hears no text hears the whole at the end.
        let end = Happening::Event(scenario::completed(&whole));
        let frames = scenario::say(subject, 0, &end).frames;
        let has_it = frames.iter().any(|frame| holds(&parsed(&frame.payload), &whole));
        assert!(has_it || shows_text, "{name} never shows the answer");
    });
}

fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(it) => it == text,
        Value::Object(fields) => fields.values().any(|field| holds(field, text)),
        _ => false,
    }
}

/// The same bytes go to every reader of a dialect, so what tells where one stands is only for the
/// transports that ask for it.
#[test]
fn an_end_says_where_a_reader_stands_once_and_last() {
    each(|subject| {
        let end = Happening::Event(scenario::completed("x"));
        let frames = scenario::say(subject, 5, &end).frames;
        let told: Vec<_> = frames.iter().map(|frame| frame.cursor.as_deref()).collect();
        if subject.dialect.is_some() {
            assert!(told.iter().all(Option::is_none), "{}", subject.vocabulary.name());
            return;
        }
        assert_eq!(told, [None, Some("1-5:7")]);
    });
}

#[test]
fn what_agents_say_to_each_other_is_shown_to_nobody() {
    each(|subject| {
        let said = |frame: &Frame| frame.payload.get().contains(scenario::UNSHOWN);
        assert!(!frames(subject).iter().any(said), "{}", subject.vocabulary.name());
    });
}
