//! What the scripted model says: words without end, told by a seed.
//!
//! It must not know requests, paces or the runtime. What one seed says is pinned by a test, since
//! nodes of two versions must say the same while a cluster is being upgraded.

use Slot::{Adjective, Adverb, Article, Emoji, Greeting, Noun, Preposition, Verb};

/// Of a prompt's words, how many the prose may pick up, and how much of each. Those of three bytes
/// or less make poor nouns.
const PROMPT_WORDS_MAX: usize = 24;
const PROMPT_WORD_CHARS_MAX: usize = 24;

/// How every answer begins.
pub(super) const OPENING: &str = "This is tokencast's scripted model, not a language model. It understands \
     nothing and repeats itself by design.";

/// What stands where in a sentence.
#[derive(Clone, Copy)]
enum Slot {
    Article,
    Adjective,
    Noun,
    Verb,
    Adverb,
    Preposition,
    Greeting,
    Emoji,
}

const SENTENCES: [&[Slot]; 6] = [
    &[Article, Adjective, Noun, Verb, Preposition, Article, Noun],
    &[Preposition, Article, Noun, Article, Noun, Verb, Adverb],
    &[Adverb, Article, Noun, Verb, Preposition, Article, Adjective, Noun, Emoji],
    &[Greeting, Article, Noun, Verb, Adverb],
    &[Article, Noun, Preposition, Article, Noun, Verb, Emoji],
    &[Article, Adjective, Adjective, Noun, Verb, Preposition, Article, Noun],
];

impl Slot {
    fn words(self) -> &'static [&'static str] {
        match self {
            Article => &["the", "one", "each", "another", "this", "every"],
            Adjective => {
                &["quiet", "naïve", "steady", "bright", "distant", "fabelhaft", "señorial"]
            }
            Noun => &[
                "river",
                "lantern",
                "cursor",
                "node",
                "reader",
                "token",
                "garden",
                "café",
                "façade",
                "smörgåsbord",
                "harbour",
                "letter",
                "мост",
                "東京",
            ],
            Verb => &["waits", "follows", "grows", "returns", "arrives", "listens", "écoute"],
            Adverb => &["slowly", "again", "quietly", "twice", "täglich"],
            Preposition => &["beside", "beyond", "under", "with", "für", "towards"],
            Greeting => &["привет", "καλημέρα", "안녕", "日本語", "مرحبا", "שלום", "Łódź"],
            Emoji => &["🚀", "🌍", "😀", "🦊", "👩‍🚀", "🇨🇭", "👍🏽", "𝒯"],
        }
    }
}

/// The opening, then sentences without end, of its own words and the prompt's.
pub(super) struct Prose {
    random: SplitMix64,
    opening: std::str::SplitWhitespace<'static>,
    prompt: Vec<String>,
    sentence: &'static [Slot],
    /// Before the next token.
    space: &'static str,
    begins_sentence: bool,
}

impl Prose {
    /// What there is to say about `prompt` by `model`.
    pub(super) fn new(model: &str, prompt: &str) -> Self {
        // The zero byte keeps the two apart.
        let seed = fnv1a(&[model.as_bytes(), &[0], prompt.as_bytes()]);
        Self {
            random: SplitMix64(seed),
            opening: OPENING.split_whitespace(),
            prompt: words_of(prompt),
            sentence: &[],
            space: "",
            begins_sentence: true,
        }
    }

    fn word(&mut self, slot: Slot) -> String {
        let is_of_prompt = matches!(slot, Noun) && !self.prompt.is_empty();
        let word = if is_of_prompt && self.random.below(3) == 0 {
            self.random.pick(&self.prompt).clone()
        } else {
            (*self.random.pick(slot.words())).to_owned()
        };
        if self.begins_sentence { capitalised(&word) } else { word }
    }

    /// The next word, with the space before it.
    pub(super) fn token(&mut self) -> String {
        if let Some(word) = self.opening.next() {
            let space = std::mem::replace(&mut self.space, " ");
            return format!("{space}{word}");
        }
        if self.begins_sentence {
            self.sentence = *self.random.pick(&SENTENCES);
            self.space = if self.random.below(4) == 0 { "\n\n" } else { " " };
        }
        let (slot, rest) = self.sentence.split_first().expect("a sentence is not empty");
        let word = self.word(*slot);
        let mark = match (slot, rest) {
            (Emoji, _) => "",
            (_, [] | [Emoji]) => ".",
            (Greeting, _) => ",",
            _ => "",
        };
        self.sentence = rest;
        self.begins_sentence = rest.is_empty();
        let space = std::mem::replace(&mut self.space, " ");
        format!("{space}{word}{mark}")
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[at as usize]
    }
}

/// FNV-1a, 64 bits: stable across processes and versions, unlike the standard library's hasher.
pub(super) fn fnv1a(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn words_of(prompt: &str) -> Vec<String> {
    prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 3)
        .take(PROMPT_WORDS_MAX)
        .map(|word| word.chars().take(PROMPT_WORD_CHARS_MAX).collect())
        .collect()
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).collect()
}
