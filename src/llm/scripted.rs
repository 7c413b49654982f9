//! A model without an upstream, for demonstrations and tests: its answer follows from the request
//! alone, so every node and process gives the same one, at any time.
//!
//! It must not read a clock or a random source for what it says, only for when it says it.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::prose::Prose;
use super::{Delta, Deltas, Provider, ProviderError, Request, Speaker};
use crate::domain::{StopReason, Usage};

/// The most tokens that an answer has, whatever is asked for.
pub const TOKENS_MAX: u32 = 100_000;

/// A slower pace is not kept.
const TOKENS_PER_SECOND_MIN: f64 = 0.001;
/// After so many tokens without a wait, other tasks get their turn.
const TOKENS_PER_TURN: u32 = 32;
/// What it answers as a gate, whatever is asked.
const VERDICT: &str = "{\"proceed\":true,\"output\":\"This is tokencast's scripted model, not a \
     language model: as a gate it lets everything pass.\"}";

/// The scripted provider.
#[derive(Debug, Clone, Copy)]
pub struct Scripted {
    tokens_per_second: f64,
    tokens: u32,
}

impl Scripted {
    /// Answers with `tokens` tokens, or as many as the request allows, [`TOKENS_MAX`] at most, at
    /// `tokens_per_second`; 0, or what is no pace at all, means at once.
    pub fn new(tokens_per_second: f64, tokens: u32) -> Self {
        let is_paced = tokens_per_second.is_finite() && tokens_per_second > 0.0;
        let tokens_per_second =
            if is_paced { tokens_per_second.max(TOKENS_PER_SECOND_MIN) } else { 0.0 };
        Self { tokens_per_second, tokens }
    }
}

impl Default for Scripted {
    /// 120 tokens at 50 a second.
    fn default() -> Self {
        Self::new(50.0, 120)
    }
}

#[async_trait]
impl Provider for Scripted {
    fn id(&self) -> &'static str {
        "scripted"
    }

    /// As [`Provider::stream`]; never fails. One token is one [`Delta::Text`]; tokens that are
    /// late come at once, each by itself. The first is due immediately.
    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError> {
        let tokens = Tokens::of(request, self.tokens);
        let usage = Usage {
            input_tokens: words_asked(request),
            output_tokens: u64::from(tokens.left) + u64::from(tokens.cut.is_some()),
            cached_tokens: 0,
        };
        let reason = match request.max_tokens {
            Some(max) if max < self.tokens && !request.is_gate => StopReason::MaxTokens,
            _ => StopReason::EndTurn,
        };
        let pace = self.tokens_per_second;
        let start = Instant::now();
        let texts = stream::unfold((tokens, 0u32), move |(mut tokens, told)| async move {
            let token = tokens.next()?;
            if pace > 0.0 {
                sleep_until(start + Duration::from_secs_f64(f64::from(told) / pace)).await;
            }
            if told % TOKENS_PER_TURN == TOKENS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            Some((Delta::Text(token), (tokens, told + 1)))
        });
        let end = [Delta::Usage(usage), Delta::Done(reason)];
        Ok(texts.chain(stream::iter(end)).map(Ok).boxed())
    }
}

/// The tokens of the answer to `request`, by a provider that answers with `tokens` of them: what
/// [`Scripted`] streams, without its pace. The prompt is the last thing that a user said; the
/// model counts too, the rest of the conversation does not.
///
/// Where the request's partial answer is the beginning of just this one, what follows it: a
/// takeover goes on exactly. `tokens` and `max_tokens` count the whole answer then, beginning
/// included. A gate lets everything pass, in a whole JSON object whatever the limits.
pub fn script(request: &Request, tokens: u32) -> Vec<String> {
    Tokens::of(request, tokens).collect()
}

/// The tokens not yet told.
struct Tokens {
    words: Words,
    /// What is left of the token that the request's partial answer cut.
    cut: Option<String>,
    /// How many, the cut one apart.
    left: u32,
}

enum Words {
    Prose(Prose),
    Verdict(std::str::SplitInclusive<'static, char>),
}

impl Tokens {
    fn of(request: &Request, tokens: u32) -> Self {
        let whole = || Self::whole(request, tokens);
        let told = request.partial.as_deref();
        told.and_then(|told| whole().after(told)).unwrap_or_else(whole)
    }

    fn whole(request: &Request, tokens: u32) -> Self {
        if request.is_gate {
            let words = VERDICT.split_inclusive(' ');
            let left = words.clone().fold(0, |count, _| count + 1);
            return Self { words: Words::Verdict(words), cut: None, left };
        }
        let said = request.turns.iter().rfind(|turn| turn.speaker == Speaker::User);
        let prompt = said.map_or("", |turn| &turn.content);
        let left = request.max_tokens.unwrap_or(tokens).min(TOKENS_MAX);
        Self { words: Words::Prose(Prose::new(&request.model, prompt)), cut: None, left }
    }

    /// What follows `told`; `None` where the answer does not begin so.
    fn after(mut self, mut told: &str) -> Option<Self> {
        while !told.is_empty() {
            let token = self.next()?;
            if let Some(rest) = told.strip_prefix(token.as_str()) {
                told = rest;
            } else {
                self.cut = Some(token.strip_prefix(told)?.to_owned());
                break;
            }
        }
        Some(self)
    }
}

impl Iterator for Tokens {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if let Some(cut) = self.cut.take() {
            return Some(cut);
        }
        self.left = self.left.checked_sub(1)?;
        match &mut self.words {
            Words::Prose(prose) => Some(prose.token()),
            Words::Verdict(words) => words.next().map(str::to_owned),
        }
    }
}

fn words_asked(request: &Request) -> u64 {
    let turns = request.turns.iter().map(|turn| &turn.content);
    let texts = request.system.iter().chain(turns).chain(&request.partial);
    texts.map(|text| text.split_whitespace().count() as u64).sum()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::Turn;
    use super::super::prose::{OPENING, fnv1a};
    use super::*;

    fn request(prompt: &str, max_tokens: Option<u32>) -> Request {
        let turns = vec![Turn { speaker: Speaker::User, content: prompt.to_owned() }];
        Request {
            model: "m".into(),
            system: None,
            turns,
            partial: None,
            is_gate: false,
            temperature: None,
            max_tokens,
        }
    }

    async fn answer(scripted: Scripted, request: &Request) -> Vec<Delta> {
        let deltas = scripted.stream(request).await.expect("it never fails");
        deltas.map(|delta| delta.expect("it never fails")).collect().await
    }

    fn texts(deltas: &[Delta]) -> Vec<&str> {
        let texts = deltas.iter().filter_map(|delta| match delta {
            Delta::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn the_same_request_has_the_same_answer_for_ever() {
        let text = script(&request("Why is the sky blue?", None), 60).concat();
        assert!(text.starts_with(OPENING), "{text}");
        // Pinned: nodes of different versions must agree while a cluster is being upgraded.
        assert_eq!(fnv1a(&[text.as_bytes()]), 4_498_192_005_919_560_578, "{text}");
        for other in ["Why is the sky blue", "Why is the sky blue? ", ""] {
            assert_ne!(script(&request(other, None), 60).concat(), text);
        }
        let mut other_model = request("Why is the sky blue?", None);
        other_model.model = "n".into();
        assert_ne!(script(&other_model, 60).concat(), text);
    }

    #[test]
    fn it_speaks_more_than_ascii_and_two_utf16_units_a_character() {
        let text = script(&request("hi", None), 500).concat();
        assert!(text.chars().any(|c| c.len_utf8() == 2), "{text}");
        assert!(text.chars().any(|c| c.len_utf8() == 3), "{text}");
        assert!(text.chars().any(|c| c.len_utf16() == 2), "{text}");
    }

    #[tokio::test]
    async fn it_has_exactly_as_many_tokens_as_were_asked_for() {
        for (max_tokens, count, reason) in [
            (None, 120, StopReason::EndTurn),
            (Some(0), 0, StopReason::MaxTokens),
            (Some(7), 7, StopReason::MaxTokens),
            (Some(120), 120, StopReason::EndTurn),
            (Some(300), 300, StopReason::EndTurn),
            (Some(u32::MAX), TOKENS_MAX, StopReason::EndTurn),
        ] {
            let request = request("two words", max_tokens);
            let deltas = answer(Scripted::new(0.0, 120), &request).await;
            assert_eq!(texts(&deltas), script(&request, 120));
            assert_eq!(texts(&deltas).len(), count as usize);
            let usage =
                Usage { input_tokens: 2, output_tokens: u64::from(count), cached_tokens: 0 };
            assert_eq!(deltas[count as usize..], [Delta::Usage(usage), Delta::Done(reason)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_token_has_its_deadline_and_late_ones_come_at_once() {
        let request = request("pace", None);
        let start = Instant::now();
        let mut deltas = Scripted::new(50.0, 10).stream(&request).await.expect("it never fails");
        assert!(deltas.next().now_or_never().is_some(), "the first is due at once");
        assert!(deltas.next().now_or_never().is_none(), "the second is not");
        deltas.next().await;
        assert_eq!(start.elapsed(), Duration::from_millis(20));
        tokio::time::advance(Duration::from_millis(100)).await;
        for late in 2..7 {
            assert!(deltas.next().now_or_never().is_some(), "token {late} was due");
        }
        let rest: Vec<_> = deltas.collect().await;
        assert_eq!(rest.len(), 3 + 2);
        assert_eq!(start.elapsed(), Duration::from_millis(180), "the pace is made up for");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_pace_means_at_once() {
        for pace in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let start = Instant::now();
            answer(Scripted::new(pace, 100), &request("now", None)).await;
            assert_eq!(start.elapsed(), Duration::ZERO, "{pace}");
        }
        let slow = Scripted::new(1e-300, 100).stream(&request("never", None)).await;
        let mut slow = slow.expect("it never fails");
        slow.next().await;
        assert!(slow.next().now_or_never().is_none(), "waits, and does not overflow");
    }

    #[tokio::test]
    async fn at_once_leaves_other_tasks_their_turn() {
        let mut deltas = Scripted::new(0.0, 1000).stream(&request("all", None)).await.unwrap();
        let waits = (0..1002).filter(|_| deltas.next().now_or_never().is_none()).count();
        assert!(waits >= 30, "{waits}");
    }

    #[tokio::test]
    async fn a_takeover_goes_on_exactly_wherever_the_text_was_cut() {
        let asked = request("go on", Some(40));
        let whole = script(&asked, 120).concat();
        for (at, _) in whole.char_indices().chain([(whole.len(), ' ')]) {
            let mut resumed = asked.clone();
            resumed.partial = Some(whole[..at].to_owned());
            let deltas = answer(Scripted::new(0.0, 120), &resumed).await;
            assert_eq!(whole[..at].to_owned() + &texts(&deltas).concat(), whole, "cut at {at}");
            assert!(texts(&deltas).iter().all(|text| !text.is_empty()), "cut at {at}");
            let [.., Delta::Usage(usage), Delta::Done(StopReason::MaxTokens)] = &deltas[..] else {
                panic!("cut at {at}: {deltas:?}");
            };
            assert_eq!(usage.output_tokens, texts(&deltas).len() as u64, "cut at {at}");
        }
        let mut foreign = asked.clone();
        foreign.partial = Some("Something else".to_owned());
        assert_eq!(script(&foreign, 120).concat(), whole);
    }

    #[tokio::test]
    async fn a_gate_says_openly_that_it_lets_everything_pass() {
        for max_tokens in [None, Some(1)] {
            let mut asked = request("May I?", max_tokens);
            asked.is_gate = true;
            let deltas = answer(Scripted::new(0.0, 5), &asked).await;
            let verdict = texts(&deltas).concat();
            let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("it is JSON");
            assert_eq!(verdict["proceed"], true);
            assert!(verdict["output"].as_str().unwrap().contains("scripted model"), "{verdict}");
            assert_eq!(verdict.as_object().unwrap().len(), 2);
            assert_eq!(deltas.last(), Some(&Delta::Done(StopReason::EndTurn)));
        }
    }
}
