//! Profanity in what people write.
//!
//! A text is looked at word by word, and only a word that is profane as a whole counts: the names
//! Scunthorpe and Cockburn, "assess", source code and identifiers stay what they are. So evasions
//! are not chased: letters apart from each other (`f.u.c.k`) or profanity inside a longer word
//! pass. Within a word, accents, look-alike letters, doubled letters and digits in the place of
//! letters are seen through. The words are those of `rustrict`: English for the most part.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use rustrict::{Censor, Type};
use tokio::sync::Semaphore;

use crate::domain::{Error, ErrorCode, Moderation};

/// Shorter words are not looked at: with two letters, nearly all are something else as well.
const WORD_CHARS_MIN: usize = 3;
/// Longer words are not looked at: no profanity is as long, and what is random is, and costly.
const WORD_CHARS_MAX: usize = 20;
/// Up to this many bytes a text takes less than a millisecond, whatever it is. The time grows with
/// the length: 32,000 characters of prose take as long, and a tenth of a second where somebody
/// made them to be slow. So a longer one is looked at on a thread of its own.
const INLINE_BYTES_MAX: usize = 512;
/// How many longer texts are looked at at once, by the whole process: half of the cores. Without a
/// limit, a few users' long texts would take nearly all the time of the threads that serve everybody.
static LOOKS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(looks_max())));
/// The fewest letters of a profanity that an ending may follow.
const STEM_CHARS_MIN: usize = 4;
/// What may follow a profanity that is listed without it.
const ENDINGS: &[&str] = &["s", "y", "in", "ing", "ty", "ting", "ers"];
/// Words that are listed, but are names, or mean something else more often.
const ORDINARY: &[&str] =
    &["anal", "bich", "cracker", "dick", "dyke", "fuk", "hitler", "hoe", "homo", "nazi", "phuc"];

/// What `moderation` makes of a text. Without profanity, it is returned byte for byte. Masked, it
/// has as many characters as before, and those outside the masked words are the same.
///
/// # Errors
/// `MODERATION_FAILED` where it is refused.
///
/// # Cancel safety
/// Safe.
pub(super) async fn moderate(moderation: Moderation, text: String) -> Result<String, Error> {
    if moderation == Moderation::Off {
        return Ok(text);
    }
    let found = if text.len() <= INLINE_BYTES_MAX {
        profanities(&text)
    } else {
        let internal = |error: &(dyn std::error::Error + 'static)| super::failure::internal(error);
        let look = LOOKS.clone().acquire_owned().await.map_err(|error| internal(&error))?;
        let own = text.clone();
        let found = tokio::task::spawn_blocking(move || {
            // Until it is over, also where nobody waits for it any more.
            let _look = look;
            profanities(&own)
        });
        found.await.map_err(|error| internal(&error))?
    };
    match moderation {
        _ if found.is_empty() => Ok(text),
        Moderation::Reject => {
            Err(Error::new(ErrorCode::ModerationFailed, "The text contains profanity"))
        }
        Moderation::Mask | Moderation::Off => Ok(masked(&text, &found)),
    }
}

fn looks_max() -> usize {
    available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Reads the list of words, which the first look would else wait for.
pub(super) async fn prepare() {
    let read = tokio::task::spawn_blocking(|| is_listed("word"));
    if let Err(error) = read.await {
        tracing::error!(%error, "read the list of profanities");
    }
}

/// The text with an asterisk in the place of each character of `words`.
fn masked(text: &str, words: &[Range<usize>]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut end = 0;
    for word in words {
        masked.push_str(&text[end..word.start]);
        masked.extend(text[word.clone()].chars().map(|_| '*'));
        end = word.end;
    }
    masked.push_str(&text[end..]);
    masked
}

/// Where the profane words are, in order.
fn profanities(text: &str) -> Vec<Range<usize>> {
    // Most words come again and again.
    let mut known: HashMap<&str, bool> = HashMap::new();
    let profane = |word: &Range<usize>| {
        let word = &text[word.clone()];
        *known.entry(word).or_insert_with(|| is_profane(word))
    };
    words(text).filter(profane).collect()
}

/// Where the words are, in order: runs of letters and digits, but for those of East Asia, which
/// stand without spaces and would hide a word that is written among them.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut characters = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = characters.find(|(_, c)| is_letter(*c))?;
        let mut end = start + first.len_utf8();
        while let Some((at, c)) = characters.next_if(|(_, c)| is_letter(*c) || is_within(*c)) {
            end = at + c.len_utf8();
        }
        Some(start..end)
    })
}

fn is_letter(c: char) -> bool {
    let east_asian = matches!(c, '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{d7ff}' | '\u{20000}'..);
    c.is_alphanumeric() && !east_asian
}

/// Whether a word goes on after this, which is no letter: combining marks, and what is not seen.
fn is_within(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}')
}

fn is_profane(word: &str) -> bool {
    let chars = word.chars().count();
    if !(WORD_CHARS_MIN..=WORD_CHARS_MAX).contains(&chars) || is_hex(word) {
        return false;
    }
    let lower = word.to_lowercase();
    !ORDINARY.contains(&lower.as_str()) && is_listed(&lower)
}

/// Whether it is a number that only looks like a word, as in `#a55`.
fn is_hex(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_hexdigit()) && word.bytes().any(|b| b.is_ascii_digit())
}

/// Whether a word in lower case is a profanity, or one with an ending.
fn is_listed(word: &str) -> bool {
    let offending = (Type::PROFANE | Type::OFFENSIVE) & Type::MODERATE_OR_HIGHER;
    let censored = Censor::from_str(word)
        .with_censor_threshold(offending)
        .with_censor_first_character_threshold(Type::ANY)
        .censor();
    let rest = censored.trim_start_matches('*');
    let stem_bytes = censored.len() - rest.len();
    match rest {
        "" => stem_bytes > 0,
        ending => stem_bytes >= STEM_CHARS_MIN && ENDINGS.contains(&ending),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> String {
        masked(text, &profanities(text))
    }

    #[test]
    fn a_profane_word_becomes_asterisks_and_nothing_else_changes() {
        for (text, expected) in [
            ("what an asshole", "what an *******"),
            ("This is SHIT.", "This is ****."),
            ("Fucking  hell,\tshit\r\n", "*******  hell,\t****\r\n"),
            ("fucks, shitty fuckers", "*****, ****** *******"),
            ("sh1t b1tch fuuuuck", "**** ***** *******"),
            ("😀 fuck 👍🏽 é e\u{301} ﬁ Å", "😀 **** 👍🏽 é e\u{301} ﬁ Å"),
            ("你好shit世界", "你好****世界"),
            ("你好 shit 世界。", "你好 **** 世界。"),
            ("ｆｕｃｋ fück fu\u{301}ck fu\u{200b}ck", "**** **** ***** *****"),
            ("fuck_this(shit)", "****_this(****)"),
        ] {
            assert_eq!(mask(text), expected);
            assert_eq!(mask(text).chars().count(), text.chars().count());
        }
    }

    #[test]
    fn what_only_contains_a_profanity_or_looks_like_one_stays() {
        for text in [
            "Scunthorpe, Penistone, Sussex, Cockburn, Lightwater, Matsushita, Clitheroe",
            "assess the classic class: mass, pass, bass, analysis, cocktail, document",
            "shitake mushrooms, niggardly, Dickens, therapist, push it, button, cocky",
            "Please kill the process: who're you? sex education, breast cancer",
            "Dick van Dyke, Homo sapiens, a garden hoe, Das Buch ist dick",
            "while (i < n) { s[h] = i; t++; } int f(u8 *ck) const x = assert(a.s.s);",
            "#a55 0xa55 deadbeefa55a55 aGVsbG8gd29ybGQgZnVjayBzaGl0Cg==",
            "**** **bold** *** ___ 5 455 80085",
            "你好，世界 こんにちは が か\u{3099} 각 \u{1100}\u{1161}\u{11a8} नमस्ते ไทย مرحبا שלום",
            "🍆🍑 👩‍👩‍👧‍👦 🏳️‍🌈 e\u{301}\u{302} Z\u{351}\u{36b}a\u{343}lgo \u{e000} \u{fffd}",
            "",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    /// The clock is moved on only while no thread looks at a text.
    #[tokio::test(start_paused = true)]
    async fn long_texts_wait_for_their_turn_and_short_ones_do_not() {
        let all = u32::try_from(looks_max()).unwrap();
        let turns = LOOKS.clone().acquire_many_owned(all).await.unwrap();
        let long = || moderate(Moderation::Mask, "shit ".repeat(INLINE_BYTES_MAX));
        let hour = std::time::Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, long()).await.is_err());
        assert_eq!(moderate(Moderation::Mask, "shit".to_owned()).await.as_deref(), Ok("****"));
        drop(turns);
        assert_eq!(long().await, Ok("**** ".repeat(INLINE_BYTES_MAX)));
    }

    #[tokio::test]
    async fn it_masks_refuses_or_does_nothing() {
        let long = format!("{} shit", "word ".repeat(INLINE_BYTES_MAX));
        for (text, expected) in
            [("shit".to_owned(), "****".to_owned()), (long.clone(), long.replace("shit", "****"))]
        {
            assert_eq!(moderate(Moderation::Mask, text.clone()).await, Ok(expected));
            assert_eq!(moderate(Moderation::Off, text.clone()).await, Ok(text.clone()));
            let refused = moderate(Moderation::Reject, text).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::ModerationFailed);
        }
        let fine = "fine ".repeat(INLINE_BYTES_MAX);
        assert_eq!(moderate(Moderation::Reject, fine.clone()).await, Ok(fine));
    }
}
