//! Pipelines, with providers that do as they are told.

use std::time::Duration;

use tokio::sync::mpsc;

use super::super::ask::fake::*;
use super::super::ask::{SAID_MAX, ask};
use super::super::tries::CUT;
use super::*;
use crate::domain::Usage;
use crate::llm::ProviderError;

const YES: &str = r#"{"proceed":true,"output":"go"}"#;
const NO: &str = r#"{"proceed":false,"output":"Not this."}"#;

/// A gate `g`, two agents `a` and `b`, and `z`, who is heard.
fn panel(cast: &mut Cast) {
    cast.pipeline(&[("gate", &["g"], true), ("both", &["a", "b"], false), ("last", &["z"], false)]);
}

/// A stage of it, over, in which `said` was said.
fn over(index: u32, name: &str, agents: &[&str], said: &[&str]) -> Stage {
    Stage {
        name: name.to_owned(),
        agents: agents.iter().map(|id| agent(id)).collect(),
        index,
        total: 3,
        said: Some(said.iter().map(|text| (*text).to_owned()).collect()),
    }
}

fn told(said: &[&str]) -> Option<Vec<String>> {
    Some(said.iter().map(|text| (*text).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn stages_speak_in_order_and_the_last_one_is_heard() {
    let mut cast = Cast::default();
    panel(&mut cast);
    let g = cast
        .agent("g", vec![vec![Step::Think("?"), Step::Say(YES), Step::Cost(1, 2, 0), Step::Done]]);
    let slow =
        vec![Step::Wait(Duration::from_secs(5)), Step::Say("A"), Step::Cost(10, 20, 5), Step::Done];
    let a = cast.agent("a", vec![slow]);
    let b = cast.agent(
        "b",
        vec![vec![Step::Cost(100, 0, 0), Step::Say("B"), Step::Cost(100, 200, 0), Step::Done]],
    );
    let last = vec![
        Step::Think("hm"),
        Step::Say("x"),
        Step::Say("y"),
        Step::Cost(1000, 2000, 0),
        Step::Done,
    ];
    let z = cast.agent("z", vec![last]);
    let mut asked = question("p");
    asked.config.model = Some("chosen".into());
    asked.config.max_tokens = Some(99);
    let (said, end) = listen(&cast.voices(), asked).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), "xy".into()));
    assert_eq!(
        stages(&said),
        [
            (0, None),
            (0, told(&[YES])),
            (1, None),
            (1, told(&["A", "B"])),
            (2, None),
            (2, told(&[])),
        ]
    );
    let Some(Said::Stage(end)) = said.last() else { panic!("{said:?}") };
    assert_eq!((end.name.as_str(), end.total, &end.agents[..]), ("last", 3, &[agent("z")][..]));
    let asides = said.iter().filter(|said| matches!(said, Said::Aside(_))).count();
    assert_eq!(asides, 1, "only of who is heard");
    let all = Usage { input_tokens: 1111, output_tokens: 2222, cached_tokens: 5 };
    assert_eq!(cost(&said), Some(all));

    let requests = [&g, &a, &b, &z].map(|fake| fake.requests().remove(0));
    assert_eq!(requests.each_ref().map(|r| r.is_gate), [true, false, false, false]);
    let models = requests.each_ref().map(|r| r.model.as_str());
    assert_eq!(models, ["model of g", "model of a", "model of b", "chosen"]);
    assert_eq!(requests.each_ref().map(|r| r.max_tokens), [Some(7), Some(7), Some(7), Some(99)]);
    let systems = requests.each_ref().map(|r| r.system.clone().unwrap());
    assert_eq!(systems[0], "You are g.");
    assert_eq!(systems[1], format!("You are a.\n\n{TOLD}\n\ng: go"));
    assert_eq!(systems[2], format!("You are b.\n\n{TOLD}\n\ng: go"));
    assert_eq!(systems[3], format!("You are z.\n\n{TOLD}\n\ng: go\n\na: A\n\nb: B"));
    assert!(requests.iter().all(|r| r.turns.len() == 1 && r.turns[0].content == "why?"));
}

#[tokio::test(start_paused = true)]
async fn the_agents_of_a_stage_answer_at_the_same_time() {
    let mut cast = Cast::default();
    cast.pipeline(&[("both", &["a", "b"], false), ("last", &["z"], false)]);
    for id in ["a", "b"] {
        cast.agent(id, vec![vec![Step::Wait(Duration::from_secs(20)), Step::Say("x"), Step::Done]]);
    }
    cast.agent("z", vec![says("z")]);
    let begun = tokio::time::Instant::now();
    let (said, end) = listen(&cast.voices(), question("p")).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), "z".into()));
    assert!(begun.elapsed() < Duration::from_secs(21), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_gate_ends_the_pipeline_with_its_output() {
    for answer in [NO.to_owned(), format!("```json\n{NO}\n```")] {
        let mut cast = Cast::default();
        panel(&mut cast);
        cast.agent("g", vec![vec![Step::SayAll(answer), Step::Done]]);
        let rest = ["a", "b", "z"].map(|id| cast.agent(id, vec![]));
        let (said, end) = listen(&cast.voices(), question("p")).await;
        assert_eq!(end, Ok(StopReason::EndTurn));
        assert_eq!(stages(&said), [(0, None), (0, told(&[NO]))]);
        assert_eq!(said.last(), Some(&Said::Text("Not this.".into())));
        assert_eq!(text(&said), "Not this.");
        assert!(rest.iter().all(|fake| fake.times() == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_not_understood_ends_the_pipeline() {
    for answer in ["yes", "{\"proceed\":\"true\",\"output\":\"x\"}", "{\"proceed\":true}"] {
        let mut cast = Cast::default();
        panel(&mut cast);
        cast.agent("g", vec![says(answer)]);
        let a = cast.agent("a", vec![]);
        let (said, end) = listen(&cast.voices(), question("p")).await;
        let error = end.unwrap_err();
        assert_eq!(error.code, ErrorCode::Provider);
        assert_eq!(error.message, "Stage \"gate\", g: the gate's answer was not understood");
        assert_eq!((stages(&said), a.times()), (vec![(0, None)], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_ends_the_pipeline_at_once_and_by_name() {
    let mut cast = Cast::default();
    panel(&mut cast);
    cast.agent("g", vec![says(YES)]);
    let a = cast.agent("a", vec![vec![Step::Say("A"), Step::Hang]]);
    let refused = ProviderError::Overloaded { retry_after: Some(Duration::from_secs(60)) };
    let b = cast.agent("b", vec![vec![Step::Wait(Duration::from_secs(1)), Step::Fail(refused)]]);
    let z = cast.agent("z", vec![]);
    let begun = tokio::time::Instant::now();
    let (said, end) = listen(&cast.voices(), question("p")).await;
    let error = end.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert_eq!(error.message, "Stage \"both\", b: The model's provider is overloaded");
    assert_eq!(error.retry_after, Some(Duration::from_secs(60)));
    assert!(begun.elapsed() < Duration::from_secs(2), "the other is not waited for");
    assert_eq!([a.open(), b.open(), z.times()], [0, 0, 0]);
    assert_eq!(stages(&said).last(), Some(&(1, None)), "it is not over");

    let mut cast = Cast::default();
    cast.pipeline(&[("only", &["z"], false)]);
    cast.agent("z", vec![vec![Step::Say("x"), Step::Fail(ProviderError::Status(500))]]);
    let (said, end) = listen(&cast.voices(), question("p")).await;
    assert_eq!(end.unwrap_err().message, "Stage \"only\", z: The model's provider failed");
    assert_eq!((text(&said), stages(&said)), ("x".into(), vec![(0, None)]));
}

#[tokio::test(start_paused = true)]
async fn each_agent_is_asked_again_and_has_its_fallback() {
    let mut cast = Cast::default();
    panel(&mut cast);
    cast.agent("g", vec![vec![Step::Stall], says(YES)]);
    // Nobody sees what it says: it may be asked again although it began.
    let cut = vec![Step::Say("half"), Step::Fail(ProviderError::BrokenOff(None))];
    let a = cast.agent("a", vec![cut, says("A")]);
    cast.agent_with("b", Some("c"), vec![refuses(ProviderError::Status(401))]);
    let c = cast.agent("c", vec![says("C")]);
    let z = cast.agent_with("z", Some("y"), vec![refuses(ProviderError::Status(401))]);
    let y = cast.agent("y", vec![says("Y")]);
    let (said, end) = listen(&cast.voices(), question("p")).await;
    assert_eq!((end, text(&said), failures(&said)), (Ok(StopReason::EndTurn), "Y".into(), 4));
    assert_eq!([a.times(), c.times(), z.times(), y.times()], [2, 1, 1, 1]);
    assert_eq!(stages(&said)[3], (1, told(&["A", "C"])), "and what it began is forgotten");
    let answered: Vec<_> =
        said.iter().filter(|said| matches!(said, Said::AnsweredBy { .. })).collect();
    let heard = Said::AnsweredBy { provider: "y".into(), model: "model of y".into() };
    assert_eq!(answered, [&heard], "only of who is heard");
    let system = y.requests()[0].system.clone().unwrap();
    assert_eq!(system, format!("You are y.\n\n{TOLD}\n\ng: go\n\na: A\n\nb: C"));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_cut_and_not_kept() {
    let mut cast = Cast::default();
    cast.pipeline(&[("both", &["a", "b"], false), ("last", &["z"], false)]);
    let long = "é".repeat(40_000);
    let long = vec![Step::Say("x"), Step::SayAll(long), Step::SayAll("more".into()), Step::Hang];
    let a = cast.agent("a", vec![long]);
    cast.agent("b", vec![says("B")]);
    let z = cast.agent("z", vec![says("z")]);
    let (said, end) = listen(&cast.voices(), question("p")).await;
    assert_eq!((end, a.open()), (Ok(StopReason::EndTurn), 0));
    assert_eq!(stages(&said)[1], (0, told(&[])), "too long to be kept");
    let system = z.requests()[0].system.clone().unwrap();
    assert!(system.ends_with(&format!("é{CUT}\n\nb: B")));
    let of_a = system.len() - "You are z.\n\n".len() - TOLD.len() - "\n\na: \n\nb: B".len();
    assert!((TOLD_MAX - 2..=TOLD_MAX).contains(&of_a), "{of_a}");
}

#[tokio::test(start_paused = true)]
async fn stop_closes_every_connection() {
    let mut cast = Cast::default();
    panel(&mut cast);
    cast.agent("g", vec![says(YES)]);
    let both = ["a", "b"].map(|id| cast.agent(id, vec![vec![Step::Say("x"), Step::Hang]]));
    let voices = cast.voices();
    let (say, _said) = mpsc::channel(SAID_MAX);
    let asking = ask(&voices, question("p"), say);
    assert!(tokio::time::timeout(Duration::from_secs(1), asking).await.is_err());
    for fake in both {
        assert_eq!((fake.times(), fake.open()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_goes_on_after_the_stages_left_behind() {
    let mut cast = Cast::default();
    panel(&mut cast);
    let before = ["g", "a", "b"].map(|id| cast.agent(id, vec![]));
    let z = cast.agent("z", vec![says(" world")]);
    let asked = crate::generation::ask::Question {
        partial: Some("Hello".into()),
        stages: vec![over(0, "gate", &["g"], &[YES]), over(1, "both", &["a", "b"], &["A", "B"])],
        ..question("p")
    };
    let (said, end) = listen(&cast.voices(), asked).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), " world".into()));
    assert_eq!(stages(&said), [(2, None), (2, told(&[]))]);
    assert!(before.iter().all(|fake| fake.times() == 0));
    let request = z.requests().remove(0);
    assert_eq!(request.partial.as_deref(), Some("Hello"));
    assert!(request.system.unwrap().ends_with("g: go\n\na: A\n\nb: B"));
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_a_stage_is_not_told_again() {
    // Over, but too long to be kept: done again. Begun: done again. The last one: written on.
    let mut cast = Cast::default();
    panel(&mut cast);
    let g = cast.agent("g", vec![]);
    let a = cast.agent("a", vec![says("A")]);
    cast.agent("b", vec![says("B")]);
    cast.agent("z", vec![says("z")]);
    let begun = Stage { said: None, ..over(2, "last", &["z"], &[]) };
    let asked = crate::generation::ask::Question {
        partial: Some("x".into()),
        stages: vec![over(0, "gate", &["g"], &[YES]), over(1, "both", &["a", "b"], &[]), begun],
        ..question("p")
    };
    let (said, end) = listen(&cast.voices(), asked).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), "z".into()));
    assert_eq!(stages(&said), [(2, told(&[]))]);
    assert_eq!((g.times(), a.times()), (0, 1));
    assert_eq!(a.requests()[0].partial, None, "the beginning is of who is heard");

    // Of a pipeline that was changed, nothing is left behind.
    let mut cast = Cast::default();
    cast.pipeline(&[("first", &["a"], false), ("mid", &["b"], false), ("last", &["z"], false)]);
    for id in ["a", "b", "z"] {
        cast.agent(id, vec![says("new")]);
    }
    let asked = crate::generation::ask::Question {
        stages: vec![over(0, "first", &["q"], &["old"]), over(1, "other", &["b"], &["old"])],
        ..question("p")
    };
    let (said, _) = listen(&cast.voices(), asked).await;
    assert_eq!(stages(&said).len(), 6);
    assert_eq!(stages(&said)[1], (0, told(&["new"])));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_finishes_what_a_gate_answered() {
    for (partial, rest) in [(None, "Not this."), (Some("Not"), " this."), (Some("Other"), "")] {
        let mut cast = Cast::default();
        panel(&mut cast);
        let all = ["g", "a", "b", "z"].map(|id| cast.agent(id, vec![]));
        let asked = crate::generation::ask::Question {
            partial: partial.map(str::to_owned),
            stages: vec![over(0, "gate", &["g"], &[NO])],
            ..question("p")
        };
        let (said, end) = listen(&cast.voices(), asked).await;
        assert_eq!((end, text(&said).as_str()), (Ok(StopReason::EndTurn), rest));
        assert_eq!(stages(&said), []);
        assert!(all.iter().all(|fake| fake.times() == 0));
    }
}
