//! Recordings, read in memory: cut at every byte, and broken off after every event.

use axum::body::Bytes;
use futures::{FutureExt, StreamExt, stream};
use tokencast::llm::{Delta, ProviderError, replay};

use super::recordings::{End, PROVIDERS, Read, Recording, assert_is, recordings};

/// Recordings are cut into pieces of so many bytes, from each of so many bytes on.
const PIECE_BYTES: usize = 64;
/// Recordings up to this size are also cut in two at every byte.
const SHORT_BYTES: usize = 700;

#[test]
fn recordings_are_read_the_same_wherever_they_are_cut() {
    for recording in recordings() {
        let lf = recording.bytes.clone();
        let crlf = lf.replace('\n', "\r\n");
        let with_mark = format!("\u{feff}{lf}");
        for (variant, text) in [("LF", lf), ("CRLF", crlf), ("byte-order mark", with_mark)] {
            let context = format!("{} {variant}", recording.name);
            let bytes = Bytes::from(text);
            let whole = read(&recording, [bytes.clone()]);
            assert_is(&recording, &whole, &context);
            // The same deltas, not only the same text: nothing is split that came at once.
            let whole = format!("{whole:?}");
            let single: Vec<_> = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
            let single = read(&recording, single);
            assert_eq!(format!("{single:?}"), whole, "{context} byte by byte");
            // Every byte is the last of a piece once.
            for first in 1..=PIECE_BYTES {
                let (head, tail) = bytes.split_at(first.min(bytes.len()));
                let pieces = [head].into_iter().chain(tail.chunks(PIECE_BYTES));
                let cut = read(&recording, pieces.map(Bytes::copy_from_slice));
                assert_eq!(format!("{cut:?}"), whole, "{context} cut from {first} on");
            }
            let ats = if bytes.len() <= SHORT_BYTES { 1..bytes.len() } else { 0..0 };
            for at in ats {
                let cut = read(&recording, [bytes.slice(..at), bytes.slice(at..)]);
                assert_eq!(format!("{cut:?}"), whole, "{context} cut at {at}");
            }
        }
    }
}

#[test]
fn an_answer_that_is_not_whole_is_never_done() {
    for recording in recordings() {
        let whole = read(&recording, [Bytes::from(recording.bytes.clone())]);
        let ends: Vec<_> =
            recording.bytes.match_indices("\n\n").map(|(at, blank)| at + blank.len()).collect();
        for at in ends.into_iter().chain([0]) {
            let (told, rest) = recording.bytes.split_at(at);
            // What follows may begin, too.
            let begun =
                rest.char_indices().nth(20).map_or(told, |(to, _)| &recording.bytes[..at + to]);
            for cut in [told, begun] {
                let context = format!("{} up to {}", recording.name, cut.len());
                let read = read(&recording, [Bytes::copy_from_slice(cut.as_bytes())]);
                let (end, before) = read.split_last().expect(&context);
                if format!("{end:?}") == format!("{:?}", whole.last().unwrap()) {
                    assert!(may_end(&recording, cut), "{context}: {end:?}");
                    continue;
                }
                assert!(matches!(end, Err(ProviderError::BrokenOff(None))), "{context}: {end:?}");
                assert_eq!(
                    format!("{before:?}"),
                    format!("{:?}", &whole[..before.len()]),
                    "{context}"
                );
            }
        }
    }
}

/// Whether an answer of which `told` came ends as the whole one does.
fn may_end(recording: &Recording, told: &str) -> bool {
    let is_whole = match recording.provider {
        "anthropic" => told.contains(r#""type":"message_stop"}"#),
        // Some compatible servers close after the reason.
        "openai" => told.contains(r#""finish_reason":""#),
        "openai-responses" => [r#""response.completed""#, r#""response.incomplete""#]
            .iter()
            .any(|kind| told.contains(&format!("{{\"type\":{kind}"))),
        other => panic!("{other}: say when its answers are whole"),
    };
    match &recording.meaning.end {
        End::Done(_) => is_whole,
        // Every recorded error quotes this.
        End::Failed { error } => error == "broken_off" || told.contains("hunter2"),
    }
}

#[test]
fn every_provider_has_recordings_of_all_that_counts() {
    let all = recordings();
    for provider in PROVIDERS {
        let own = || all.iter().filter(|recording| recording.provider == provider);
        let ends_with = |word: &str| {
            own().any(|recording| match &recording.meaning.end {
                End::Done(end) | End::Failed { error: end } => end == word,
            })
        };
        for end in ["end_turn", "max_tokens", "overloaded", "broken_off", "protocol"] {
            assert!(ends_with(end), "{provider}: {end}");
        }
        let says = |is: fn(&Recording) -> bool| own().any(is);
        assert!(says(Recording::says_thinking), "{provider}: thinking");
        assert!(says(Recording::says_tools), "{provider}: tools");
        assert!(says(Recording::says_citations), "{provider}: citations");
        assert!(says(Recording::says_cached), "{provider}: cached tokens");
    }
}

#[test]
fn who_asks_nobody_has_nothing_to_replay() {
    assert!(replay("scripted", stream::empty()).is_none());
    assert!(replay("nobody", stream::empty()).is_none());
}

#[test]
fn nothing_is_read_after_the_end() {
    for (provider, end) in [
        ("anthropic", "data: {\"type\":\"message_stop\"}\n\n"),
        ("openai", "data: [DONE]\n\n"),
        ("openai-responses", "data: {\"type\":\"response.completed\"}\n\n"),
    ] {
        let read = deltas(provider, [Bytes::from(format!("{end}{end}data: nonsense\n\n"))]);
        assert!(matches!(&read[..], [Ok(Delta::Done(_))]), "{provider}: {read:?}");
    }
}

fn read(recording: &Recording, pieces: impl IntoIterator<Item = Bytes>) -> Read {
    deltas(recording.provider, pieces)
}

fn deltas(provider: &str, pieces: impl IntoIterator<Item = Bytes>) -> Read {
    let pieces: Vec<_> = pieces.into_iter().collect();
    let deltas = replay(provider, stream::iter(pieces)).expect("it has an upstream");
    deltas.collect().now_or_never().expect("a stream in memory never waits")
}
