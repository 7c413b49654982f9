//! The words that messages are found by, made here for both databases and for messages and
//! queries alike, so that both databases find the same. It must not know any of them.
//!
//! A word is a run of letters and digits without regard to case, accents and compatibility forms.
//! There are no stems and no stop words. Scripts that write no spaces between words are found by
//! their characters: a message has each of them and each pair of neighbours, and a query asks for
//! its pairs.
//!
//! Each word begins with a digest of its session. So the index alone tells a session's words from
//! all others', and what is asked costs what it matches there, however large the session and the
//! rest of the database are.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::domain::SessionId;

/// The most different words kept of a message, its first ones. 32,000 Chinese characters seldom
/// have as many, and no 32,000 characters of a language with spaces do.
const WORDS_MAX: usize = 20_000;

/// The most bytes of all words kept of a message, its first ones. A `tsvector` made of an array that
/// has more than 1 MiB is broken, and nothing says so; see
/// <https://www.postgresql.org/docs/current/textsearch-limitations.html>. 32,000 characters have
/// half as many, unless they are compatibility forms of many letters each.
const WORDS_BYTES_MAX: usize = 1_000_000;

/// The most different words minded of a query, its first ones.
const QUERY_WORDS_MAX: usize = 64;

/// The most bytes kept of a word; a `tsvector` has room for 2 KB.
const WORD_BYTES_MAX: usize = 64;

/// The words of a message that stands in `session`, each once. ASCII letters and digits, and
/// characters beyond ASCII.
pub(super) fn of_message(session: &SessionId, text: &str) -> Vec<String> {
    let mut kept = Kept::new(session, WORDS_MAX);
    let mut before = None;
    for piece in pieces(text) {
        if kept.is_full() {
            break;
        }
        let neighbour = before.take();
        match piece {
            Piece::Word(word) => kept.keep(&word),
            Piece::Character(character) => {
                kept.keep(character.encode_utf8(&mut [0; 4]));
                if let Some(neighbour) = neighbour {
                    kept.keep(&pair(neighbour, character));
                }
                before = Some(character);
            }
            Piece::Space => {}
        }
    }
    kept.words
}

/// The words that a message of `session` must have, all of them, to be found by `query`.
pub(super) fn of_query(session: &SessionId, query: &str) -> Vec<String> {
    let mut kept = Kept::new(session, QUERY_WORDS_MAX);
    // The one before, and whether it has its part in a pair.
    let mut before: Option<(char, bool)> = None;
    for piece in pieces(query).chain([Piece::Space]) {
        if kept.is_full() {
            break;
        }
        let neighbour = before.take();
        match (piece, neighbour) {
            (Piece::Character(character), Some((neighbour, _))) => {
                kept.keep(&pair(neighbour, character));
                before = Some((character, true));
                continue;
            }
            (Piece::Character(character), None) => before = Some((character, false)),
            (piece, neighbour) => {
                if let Some((alone, false)) = neighbour {
                    kept.keep(alone.encode_utf8(&mut [0; 4]));
                }
                if let Piece::Word(word) = piece {
                    kept.keep(&word);
                }
            }
        }
    }
    kept.words
}

/// Different words, in the order they came.
struct Kept {
    session: String,
    max: usize,
    /// How many bytes more may be kept.
    room: usize,
    known: HashSet<String>,
    words: Vec<String>,
}

impl Kept {
    fn new(session: &SessionId, max: usize) -> Self {
        let (known, words) = (HashSet::new(), Vec::new());
        Self { session: digest(session), max, room: WORDS_BYTES_MAX, known, words }
    }

    fn is_full(&self) -> bool {
        self.words.len() >= self.max
    }

    fn keep(&mut self, word: &str) {
        if self.is_full() {
            return;
        }
        let word = format!("{}{}", self.session, &word[..word.floor_char_boundary(WORD_BYTES_MAX)]);
        if self.known.contains(&word) {
            return;
        }
        let Some(room) = self.room.checked_sub(word.len()) else {
            self.max = self.words.len();
            return;
        };
        self.room = room;
        self.known.insert(word.clone());
        self.words.push(word);
    }
}

/// Of one length, so that no session's word is also another's: 80 bits of a digest in 16 letters
/// and digits. A session's own id may have characters that a word must not have, and be long.
fn digest(session: &SessionId) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(session.as_str().as_bytes());
    let bits = digest.iter().take(10).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..16).map(|at| char::from(DIGITS[(bits >> (5 * at) & 31) as usize])).collect()
}

/// What a text is made of.
#[derive(Debug, PartialEq)]
enum Piece {
    /// Of a script that writes spaces.
    Word(String),
    /// Of a script that writes none.
    Character(char),
    /// Whatever divides the others.
    Space,
}

fn pieces(text: &str) -> impl Iterator<Item = Piece> {
    let mut characters = folded(text).peekable();
    std::iter::from_fn(move || {
        let first = characters.next()?;
        if is_unspaced(first) {
            return Some(Piece::Character(first));
        }
        if !is_of_word(first) {
            return Some(Piece::Space);
        }
        let mut word = String::from(first);
        while let Some(next) = characters.next_if(|next| is_of_word(*next) && !is_unspaced(*next)) {
            // What would be cut off anyway is not gathered.
            if word.len() < WORD_BYTES_MAX {
                word.push(next);
            }
        }
        Some(Piece::Word(word))
    })
}

/// Without regard to case, accents and compatibility forms. What is left of letters with marks
/// that are no accents (a kana's voice, a vowel of Devanagari) is composed again. Letters that
/// share an uppercase one (σ and ς, в and ᲀ) become the same lowercase one.
///
/// The Greek iota below a letter counts as an accent: where it is written beside the letter, as
/// capitals have it, it is another word.
fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .nfkd()
        .filter(|character| !is_dropped(*character))
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .flat_map(spelled)
        .nfc()
}

/// The plain spelling of letters that do not decompose into one.
fn spelled(character: char) -> impl Iterator<Item = char> {
    let (first, second) = match character {
        'ß' => ('s', Some('s')),
        'æ' => ('a', Some('e')),
        'œ' => ('o', Some('e')),
        'þ' => ('t', Some('h')),
        'ø' => ('o', None),
        'ł' => ('l', None),
        'đ' | 'ð' => ('d', None),
        'ħ' => ('h', None),
        other => (other, None),
    };
    [Some(first), second].into_iter().flatten()
}

/// Accents, the vowel points of Hebrew and Arabic, and what is not seen.
fn is_dropped(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}'
        | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' | '\u{6e7}' | '\u{6e8}'
        | '\u{6ea}'..='\u{6ed}'
        // The soft hyphen, joiners, direction and variation.
        | '\u{ad}' | '\u{61c}' | '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{e0100}'..='\u{e01ef}')
}

/// Letters, digits, and the marks that were not dropped.
fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || is_combining_mark(character)
}

/// Whether it belongs to a word of a script that writes no spaces between words.
fn is_unspaced(character: char) -> bool {
    let of_script = matches!(character,
        // Thai and Lao, Myanmar, Khmer, and their relatives.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{1950}'..='\u{19ff}' | '\u{1a20}'..='\u{1aaf}' | '\u{1b00}'..='\u{1b7f}'
        | '\u{a980}'..='\u{a9ff}' | '\u{aa60}'..='\u{aadf}'
        // Han, kana, Bopomofo and Yi.
        | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}'
        | '\u{3031}'..='\u{3035}' | '\u{303b}' | '\u{3041}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{1aff0}'..='\u{1b16f}'
        | '\u{20000}'..='\u{3ffff}');
    of_script && is_of_word(character)
}

fn pair(first: char, second: char) -> String {
    String::from_iter([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::new("s").unwrap()
    }

    /// Without the session's digest.
    fn plain(words: &[String]) -> Vec<&str> {
        words.iter().map(|word| &word[16..]).collect()
    }

    #[test]
    fn a_message_has_each_word_once() {
        let words = of_message(&session(), "One TWO, one\u{301}: 3.14");
        assert_eq!(plain(&words), ["one", "two", "3", "14"]);
        assert_eq!(of_message(&session(), "🎉 …\0\u{301}"), [""; 0]);
    }

    #[test]
    fn a_message_has_characters_and_pairs_of_which_a_query_takes_what_it_needs() {
        let message = of_message(&session(), "東京でAb");
        assert_eq!(plain(&message), ["東", "京", "東京", "で", "京で", "ab"]);
        let asked = |query| of_query(&session(), query);
        assert_eq!(plain(&asked("東京で")), ["東京", "京で"]);
        assert_eq!(plain(&asked("東")), ["東"]);
        assert_eq!(plain(&asked("東 京x で")), ["東", "京", "x", "で"]);
        assert_eq!(plain(&asked("x東京")), ["x", "東京"]);
        assert_eq!(plain(&asked("東京、京")), ["東京", "京"]);
    }

    #[test]
    fn words_are_of_one_session_and_of_letters_and_digits() {
        let ids = ["s", "S", "s-s", "s.s", "a:b", &"x".repeat(128)];
        let mut known = HashSet::new();
        for id in ids {
            let words = of_message(&SessionId::new(id).unwrap(), "wOrd, 'x' \"y\" z*^:-_({é");
            assert_eq!(plain(&words), ["word", "x", "y", "z", "e"]);
            for word in words {
                assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
                assert!(known.insert(word));
            }
        }
    }

    #[test]
    fn every_character_is_a_space_or_one_token() {
        // Between and beyond these are Han alone and what is private or nothing yet.
        for character in ('\0'..='\u{1ffff}').chain('\u{e0000}'..='\u{e01ff}') {
            for piece in pieces(character.encode_utf8(&mut [0; 4])) {
                let token = match piece {
                    Piece::Word(word) => word,
                    Piece::Character(character) => character.to_string(),
                    Piece::Space => continue,
                };
                let odd = token
                    .chars()
                    .find(|c| c.is_ascii() && !c.is_ascii_lowercase() && !c.is_ascii_digit());
                assert_eq!(odd, None, "{character:?}");
            }
        }
    }

    #[test]
    fn the_spelling_of_a_letter_makes_no_difference() {
        let fold = |text: &str| folded(text).collect::<String>();
        let is_letter = |character: &char| character.is_alphabetic() && !is_dropped(*character);
        for character in ('\0'..='\u{1ffff}').filter(is_letter) {
            let text = character.to_string();
            let decomposed: String = text.nfd().collect();
            // In capitals the iota below a letter is a letter of its own, like any other iota.
            let has_iota_below = decomposed.contains('\u{345}');
            let uppercase = if has_iota_below { text.clone() } else { text.to_uppercase() };
            let spellings = [uppercase, text.to_lowercase(), text.nfkc().collect(), decomposed];
            for spelling in spellings.iter().filter(|spelling| **spelling != text) {
                assert_eq!(fold(spelling), fold(&text), "{text:?} {spelling:?}");
            }
        }
        for (text, other) in [("τῷ", "τω"), ("ΣΊΣΥΦΟΣ", "σισυφοσ"), ("ᲀолᲁ", "ВОЛД"), ("ẞ", "SS")]
        {
            assert_eq!(fold(text), fold(other));
        }
    }

    #[test]
    fn words_and_queries_are_bounded() {
        let many: String = (0..WORDS_MAX + 10).map(|at| format!("w{at} ")).collect();
        assert_eq!(of_message(&session(), &many).len(), WORDS_MAX);
        assert_eq!(of_query(&session(), &many).len(), QUERY_WORDS_MAX);
        let long = "é".repeat(50_000) + &"日".repeat(50_000);
        let words = of_message(&session(), &long);
        assert_eq!(plain(&words), [&*"e".repeat(WORD_BYTES_MAX), "日", "日日"]);
        let wide = of_message(&session(), &"д".repeat(100));
        assert_eq!(plain(&wide), ["д".repeat(WORD_BYTES_MAX / 2)]);
        assert_eq!(of_query(&session(), &"д".repeat(33)), wide);
        let much: String = (0..13_500).map(|at| format!("{at:0>60} ")).collect();
        let words = of_message(&session(), &much);
        let bytes = words.iter().map(String::len).sum::<usize>();
        assert!((WORDS_BYTES_MAX - 80..=WORDS_BYTES_MAX).contains(&bytes), "{bytes}");
        assert_eq!(plain(&words)[1], format!("{:0>60}", 1));
    }
}
