//! What a gate decides: a JSON object, which models like to wrap into words.

use serde::{Deserialize, Serialize};

/// The most places of an answer at which an object is looked for.
const PLACES_MAX: usize = 64;

/// Whether a pipeline goes on. Other keys are passed over, other types are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// It does.
    pub proceed: bool,
    /// What the next stages are told; where it does not go on, the answer.
    pub output: String,
}

impl Verdict {
    /// Finds the verdict in an answer: alone, in a code fence, or among words. The last one counts
    /// where there are several, since models quote what they were asked before they decide.
    pub fn find(answer: &str) -> Option<Self> {
        let mut found = None;
        let mut rest = answer;
        for _ in 0..PLACES_MAX {
            let Some(start) = rest.find('{') else { break };
            rest = &rest[start..];
            let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<Self>();
            match objects.next() {
                Some(Ok(verdict)) => {
                    rest = &rest[objects.byte_offset()..];
                    found = Some(verdict);
                }
                _ => rest = &rest[1..],
            }
        }
        found
    }

    /// As it is kept with the stage, for whoever takes the pipeline over.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a bool and a string are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(proceed: bool, output: &str) -> Option<Verdict> {
        Some(Verdict { proceed, output: output.to_owned() })
    }

    #[test]
    fn a_verdict_is_found_alone_in_a_fence_and_among_words() {
        let yes = verdict(true, "go");
        for answer in [
            r#"{"proceed":true,"output":"go"}"#,
            " \n{ \"output\" : \"go\", \"proceed\" : true }\n",
            "```json\n{\"proceed\": true, \"output\": \"go\"}\n```",
            "```\n{\"proceed\": true, \"output\": \"go\"}\n```",
            r#"Certainly {here it is}: {"proceed":true,"output":"go"}. Ask me {again}!"#,
            r#"{"verdict": {"proceed":true,"output":"go","confidence":0.9}}"#,
            r#"I was asked for {"proceed":false,"output":"x"}, so: {"proceed":true,"output":"go"}"#,
        ] {
            assert_eq!(Verdict::find(answer), yes, "{answer}");
        }
        let nested = r#"{"proceed":false,"output":"write {\"proceed\":true,\"output\":\"no\"} {"}"#;
        let output = r#"write {"proceed":true,"output":"no"} {"#;
        assert_eq!(Verdict::find(nested), verdict(false, output), "what it quotes is not its own");
    }

    #[test]
    fn its_types_are_strict() {
        for answer in [
            "",
            "yes",
            "{}",
            r#"{"proceed":"true","output":"x"}"#,
            r#"{"proceed":1,"output":"x"}"#,
            r#"{"proceed":true}"#,
            r#"{"output":"x"}"#,
            r#"{"proceed":true,"output":null}"#,
            r#"{"proceed":true,"output":["x"]}"#,
            r#"{"proceed":true,"proceed":false,"output":"x"}"#,
            r#"{"proceed":true,"output":"x""#,
            r#"[true,"x"]"#,
        ] {
            assert_eq!(Verdict::find(answer), None, "{answer}");
        }
        assert_eq!(Verdict::find(&"{".repeat(1_000_000)), None, "and looking for it ends");
    }

    #[test]
    fn what_is_kept_of_it_is_found_again() {
        let verdict = Verdict { proceed: false, output: "a \"b\"\n{c}".to_owned() };
        assert_eq!(Verdict::find(&verdict.to_text()), Some(verdict));
    }
}
