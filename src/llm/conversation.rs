//! What a model is told: the agent's instructions and the turns, with what a gate and an answer
//! begun by an earlier attempt add to them.
//!
//! It must not know any provider's wire format.

use std::borrow::Cow;

use super::{Request, Speaker};

/// What a user's last turn says where a model is to go on with its own answer, which stands just
/// before as the assistant's turn, byte for byte. An upstream that honours it answers with what
/// follows that turn and nothing else.
pub const GO_ON: &str = "Your answer above was cut off. Go on exactly where it stopped: begin with \
     the very next character, white space included, repeat nothing of it, and do not mention the \
     interruption.";

/// What the instructions end with where the answer is a gate's.
pub const GATE: &str = "Answer with one JSON object and nothing else, without code fences: \
     {\"proceed\": <true or false>, \"output\": <a string>}. \"proceed\" says whether to go on; \
     \"output\" is what the next step is told, or, where it is false, what the user is told.";

/// How an answer that has begun is given back to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumption {
    /// As the last turn, which the model goes on with. It may not end with white space.
    Prefill,
    /// As a turn of its own, and [`GO_ON`].
    Instruction,
}

/// What a model is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conversation<'a> {
    /// The instructions.
    pub system: Option<Cow<'a, str>>,
    /// Oldest first.
    pub turns: Vec<(Speaker, Cow<'a, str>)>,
    /// White space that the answer so far ends with and the model was not told: where it says it
    /// again, at the head of what it says, it is to be left out.
    pub seam: &'a str,
}

impl<'a> Conversation<'a> {
    /// The conversation that `request` asks for.
    pub(super) fn of(request: &'a Request, resumption: Resumption) -> Self {
        let mut turns: Vec<_> = request
            .turns
            .iter()
            .map(|turn| (turn.speaker, Cow::Borrowed(turn.content.as_str())))
            .collect();
        let partial = request.partial.as_deref().unwrap_or_default();
        let told = partial.trim_end();
        let mut seam = &partial[told.len()..];
        if !told.is_empty() {
            match resumption {
                Resumption::Prefill => turns.push((Speaker::Assistant, told.into())),
                Resumption::Instruction => {
                    turns.push((Speaker::Assistant, partial.into()));
                    turns.push((Speaker::User, GO_ON.into()));
                    seam = "";
                }
            }
        }
        let system = request.system.as_deref().map(Cow::Borrowed);
        let system = match (system, request.is_gate) {
            (system, false) => system,
            (Some(system), true) => Some(format!("{system}\n\n{GATE}").into()),
            (None, true) => Some(GATE.into()),
        };
        Self { system, turns, seam }
    }

    /// The same with users and the assistant by turns, a user first: turns of one after another
    /// become one, a blank line between them. Blank turns are left out, and so is what the
    /// assistant said before any user.
    pub(super) fn alternating(mut self) -> Self {
        let mut merged: Vec<(Speaker, Cow<'a, str>)> = Vec::with_capacity(self.turns.len());
        for (speaker, content) in self.turns {
            if content.trim().is_empty() {
                continue;
            }
            match merged.last_mut() {
                Some((last, before)) if *last == speaker => {
                    let before = before.to_mut();
                    before.push_str("\n\n");
                    before.push_str(&content);
                }
                None if speaker == Speaker::Assistant => {}
                _ => merged.push((speaker, content)),
            }
        }
        self.turns = merged;
        self
    }
}

/// The name that all providers have for `speaker`.
pub(super) const fn role(speaker: Speaker) -> &'static str {
    match speaker {
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Turn;
    use super::*;

    fn request(turns: &[(Speaker, &str)], partial: Option<&str>) -> Request {
        let turns = turns
            .iter()
            .map(|(speaker, content)| Turn { speaker: *speaker, content: (*content).to_owned() });
        Request {
            model: "m".into(),
            system: None,
            turns: turns.collect(),
            partial: partial.map(str::to_owned),
            is_gate: false,
            temperature: None,
            max_tokens: None,
        }
    }

    fn told<'a>(conversation: &'a Conversation<'_>) -> Vec<(&'static str, &'a str)> {
        conversation.turns.iter().map(|(speaker, text)| (role(*speaker), &**text)).collect()
    }

    #[test]
    fn a_partial_answer_is_given_back_as_the_model_takes_it() {
        let hi = [(Speaker::User, "Hi")];
        for (partial, resumption, turns, seam) in [
            (None, Resumption::Prefill, vec![], ""),
            (Some("Half an"), Resumption::Prefill, vec![("assistant", "Half an")], ""),
            (Some("Half \n"), Resumption::Prefill, vec![("assistant", "Half")], " \n"),
            (
                Some("Half \n"),
                Resumption::Instruction,
                vec![("assistant", "Half \n"), ("user", GO_ON)],
                "",
            ),
            // Nothing to go on with; the model begins anew.
            (Some(""), Resumption::Instruction, vec![], ""),
            (Some("\n "), Resumption::Instruction, vec![], "\n "),
            (Some("\n "), Resumption::Prefill, vec![], "\n "),
        ] {
            let request = request(&hi, partial);
            let conversation = Conversation::of(&request, resumption);
            let context = format!("{partial:?} {resumption:?}");
            assert_eq!(told(&conversation)[0], ("user", "Hi"), "{context}");
            assert_eq!(told(&conversation)[1..], turns, "{context}");
            assert_eq!(conversation.seam, seam, "{context}");
        }
    }

    #[test]
    fn a_gate_is_told_its_form_after_its_own_instructions() {
        let mut request = request(&[], None);
        let system = |request: &Request| {
            let conversation = Conversation::of(request, Resumption::Instruction);
            conversation.system.map(Cow::into_owned)
        };
        assert_eq!(system(&request), None);
        request.is_gate = true;
        assert_eq!(system(&request).as_deref(), Some(GATE));
        request.system = Some("Be wise.".into());
        assert_eq!(system(&request), Some(format!("Be wise.\n\n{GATE}")));
        request.is_gate = false;
        assert_eq!(system(&request).as_deref(), Some("Be wise."));
    }

    #[test]
    fn turns_alternate_and_nothing_a_user_said_is_lost() {
        use Speaker::{Assistant, User};
        let request = request(
            &[(Assistant, "Welcome"), (User, "a"), (User, "b"), (Assistant, " "), (User, "c")],
            Some("d"),
        );
        let conversation = Conversation::of(&request, Resumption::Prefill).alternating();
        assert_eq!(told(&conversation), [("user", "a\n\nb\n\nc"), ("assistant", "d")]);
    }
}
