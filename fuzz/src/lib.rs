//! What several fuzz targets need. A target is one program in `fuzz_targets/`: it reads bytes as
//! the server does and asserts what the server promises of them, not only that nothing panics.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Map, Value};
use tokencast::domain::{Aside, StopReason};
use tokencast::llm::{Delta, ProviderError, replay};

/// The most characters of an upstream's own word.
const WORD_CHARS_MAX: usize = 64;
/// Up to this size a body is also read byte by byte, which takes long.
const SINGLE_BYTES_MAX: usize = 400;
/// What the input of a call is that says none.
const NO_INPUT: &str = "{}";

/// Holds what `provider` reads of a response with this body to what it promises: the same wherever
/// the body is cut, one end and nothing behind it, no more text than there were bytes, and errors
/// that quote nothing.
pub fn read_answer(provider: &str, body: &[u8]) {
    let whole = answer(provider, vec![Bytes::copy_from_slice(body)]);
    if body.len() <= SINGLE_BYTES_MAX {
        let single = body.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect();
        assert_same(&whole, &answer(provider, single), "byte by byte");
    }
    let pieces = cut(body).into_iter().map(Bytes::copy_from_slice).collect();
    assert_same(&whole, &answer(provider, pieces), "in pieces");
    let (end, before) = whole.split_last().expect("every answer ends");
    match end {
        Ok(Delta::Done(StopReason::Other(word))) => assert_word(word),
        Ok(Delta::Done(_)) => {}
        Ok(delta) => panic!("ends with {delta:?}"),
        Err(error) => assert_quotes_nothing(error),
    }
    let mut bytes = 0;
    for delta in before {
        bytes += match delta {
            Ok(Delta::Text(text) | Delta::Aside(Aside::Thinking { text })) => {
                assert_ne!(text, "");
                text.len()
            }
            Ok(Delta::Aside(Aside::Tool { id, name, input })) => {
                assert_ne!(name, "");
                id.len() + name.len() + if input == NO_INPUT { 0 } else { input.len() }
            }
            Ok(Delta::Aside(Aside::Citation { title, url })) => {
                title.len() + url.as_ref().map_or(0, String::len)
            }
            Ok(Delta::Usage(_)) => 0,
            Ok(Delta::Done(_)) | Err(_) => panic!("goes on after {delta:?}"),
        };
    }
    assert!(bytes <= body.len(), "{bytes} bytes were read of {}", body.len());
}

type Answer = Vec<Result<Delta, ProviderError>>;

fn answer(provider: &str, pieces: Vec<Bytes>) -> Answer {
    let deltas = replay(provider, stream::iter(pieces)).expect("there is such a provider");
    deltas.collect().now_or_never().expect("a body in memory never waits")
}

fn assert_same(one: &Answer, other: &Answer, how: &str) {
    let same = one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Ok(one), Ok(other)) => one == other,
            (Err(one), Err(other)) => one.to_string() == other.to_string(),
            _ => false,
        });
    assert!(same, "{how}: {other:?} instead of {one:?}");
}

fn assert_quotes_nothing(error: &ProviderError) {
    match error {
        ProviderError::Reported(word) => assert_word(word),
        ProviderError::Overloaded { retry_after: None }
        | ProviderError::BrokenOff(None)
        | ProviderError::Protocol(_) => {}
        error => panic!("no body makes {error:?}"),
    }
}

fn assert_word(word: &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    assert!((1..=WORD_CHARS_MAX).contains(&word.len()) && word.chars().all(fits), "{word:?}");
    assert!(word.bytes().filter(u8::is_ascii_digit).count() <= 3, "{word:?} may be a key");
}

/// `bytes` in pieces, empty ones among them: where follows from the bytes themselves, so that an
/// input needs nothing but what is read.
pub fn cut(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let most = [8, 64, 512, 2048][state as usize % 4];
        let (piece, rest) = bytes.split_at(bytes.len().min((state >> 32) as usize % most));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Whether two values are the same, numbers with a fraction as far as JSON's text tells: reading
/// one may miss its last bit.
pub fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || is_near(a.as_f64(), b.as_f64()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => is_same_map(a, b),
        (one, other) => one == other,
    }
}

/// The same of two objects.
pub fn is_same_map(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((key, a), (same, b))| key == same && is_same(a, b))
}

/// The same of two numbers.
pub fn is_near(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= one.abs() * 1e-12,
        (one, other) => one.is_none() && other.is_none(),
    }
}
