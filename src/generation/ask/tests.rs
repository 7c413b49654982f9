//! One agent: its pace, its retries, its fallbacks. Time stands still but for the waits.

use std::time::Duration;

use tokio::sync::mpsc;

use super::fake::*;
use super::*;
use crate::llm::ProviderError;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn usage(input_tokens: u64, output_tokens: u64, cached_tokens: u64) -> Usage {
    Usage { input_tokens, output_tokens, cached_tokens }
}

fn broken() -> ProviderError {
    ProviderError::BrokenOff(None)
}

#[tokio::test(start_paused = true)]
async fn what_comes_is_said_in_its_order() {
    let mut cast = Cast::default();
    let answer = vec![
        Step::Cost(5, 0, 4),
        Step::Think("hm"),
        Step::Say("a"),
        Step::Say("b"),
        Step::Cost(5, 2, 4),
        Step::Done,
    ];
    let fake = cast.agent("a", vec![answer]);
    let (said, end) = listen(&cast.voices(), question("a")).await;
    assert_eq!(end, Ok(StopReason::EndTurn));
    assert_eq!(
        said,
        [
            Said::Usage(usage(5, 0, 4)),
            Said::Aside(Aside::Thinking { text: "hm".into() }),
            Said::Text("a".into()),
            Said::Text("b".into()),
            Said::Usage(usage(5, 2, 4)),
        ]
    );
    assert_eq!((fake.times(), fake.open()), (1, 0));
    let request = &fake.requests()[0];
    assert_eq!((request.model.as_str(), request.max_tokens), ("model of a", Some(7)));
    assert_eq!((request.system.as_deref(), request.is_gate), (Some("You are a."), false));
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_the_first_token_is_asked_again_after_growing_pauses() {
    let mut cast = Cast::default();
    let failures_of = || vec![Step::Cost(3, 1, 0), Step::Think("hm"), Step::Fail(broken())];
    let refused = refuses(overloaded(None));
    let fake = cast.agent(
        "a",
        vec![refused, failures_of(), vec![Step::Cost(2, 2, 1), Step::Say("x"), Step::Done]],
    );
    let (said, end) = listen(&cast.voices(), question("a")).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), "x".into()));
    assert_eq!(failures(&said), 2);
    assert_eq!(cost(&said), Some(usage(5, 3, 1)), "failed tries cost, too");
    for (pause, most) in fake.pauses().into_iter().zip([250, 500]) {
        let most = Duration::from_millis(most);
        assert!((most / 2..=most + Duration::from_millis(1)).contains(&pause), "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_bounded_and_the_pauses_too() {
    let refused = || (0..12).map(|_| refuses(ProviderError::Status(502))).collect();
    for (retries, times) in [(0, 1), (2, 3), (10, 11)] {
        let mut cast = Cast::default();
        let fake = cast.agent("a", refused());
        let (said, end) = listen(&cast.voices().retrying(retries), question("a")).await;
        assert_eq!(end.unwrap_err().code, ErrorCode::Provider);
        assert_eq!((fake.times(), failures(&said)), (times, times));
        let most = Duration::from_millis(4001);
        assert!(fake.pauses().iter().all(|pause| *pause <= most), "{:?}", fake.pauses());
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_fail_again_is_not_asked_again() {
    for error in [
        ProviderError::Status(401),
        ProviderError::Reported("invalid_request".into()),
        ProviderError::Protocol("not JSON"),
    ] {
        let mut cast = Cast::default();
        let fake = cast.agent("a", vec![refuses(error)]);
        let (said, end) = listen(&cast.voices(), question("a")).await;
        let error = end.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::Provider, "The model's provider failed")
        );
        assert_eq!((fake.times(), failures(&said)), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_says_when_to_come_back() {
    let mut cast = Cast::default();
    let fake = cast.agent("a", vec![refuses(overloaded(Some(seconds(10)))), says("x")]);
    let (said, end) = listen(&cast.voices(), question("a")).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), "x".into()));
    assert!(fake.pauses()[0] >= seconds(10) && fake.pauses()[0] < seconds(11));

    // Longer than anybody waits: the client is told, or another is asked at once.
    let mut cast = Cast::default();
    let fake = cast.agent("a", vec![refuses(overloaded(Some(seconds(11))))]);
    let (_, end) = listen(&cast.voices(), question("a")).await;
    let error = end.unwrap_err();
    assert_eq!((error.code, error.retry_after), (ErrorCode::Overloaded, Some(seconds(11))));
    assert_eq!(fake.times(), 1);
    let mut cast = Cast::default();
    let fake = cast.agent_with("a", Some("b"), vec![refuses(overloaded(Some(seconds(11))))]);
    cast.agent("b", vec![says("y")]);
    let begun = tokio::time::Instant::now();
    let (said, end) = listen(&cast.voices(), question("a")).await;
    assert_eq!((end, text(&said), fake.times()), (Ok(StopReason::EndTurn), "y".into(), 1));
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());

    // Zero does not mean without a pause.
    let mut cast = Cast::default();
    let fake = cast.agent("a", vec![refuses(overloaded(Some(seconds(0)))), says("x")]);
    listen(&cast.voices(), question("a")).await.1.unwrap();
    assert!(fake.pauses()[0] >= Duration::from_millis(125));
}

#[tokio::test(start_paused = true)]
async fn fallbacks_are_asked_in_their_order_each_with_retries() {
    let mut cast = Cast::default();
    let refused = |n| (0..n).map(|_| refuses(ProviderError::Status(500))).collect::<Vec<_>>();
    let a = cast.agent_with("a", Some("b"), refused(3));
    let b = cast.agent_with("b", Some("c"), refused(3));
    let c = cast.agent(
        "c",
        vec![refuses(overloaded(None)), vec![Step::Think("hm"), Step::Say("z"), Step::Done]],
    );
    let mut asked = question("a");
    asked.config = GenerationConfig {
        model: Some("chosen".into()),
        temperature: Some(0.5),
        max_tokens: Some(99),
    };
    let (said, end) = listen(&cast.voices(), asked).await;
    assert_eq!((end, failures(&said)), (Ok(StopReason::EndTurn), 7));
    assert_eq!([a.times(), b.times(), c.times()], [3, 3, 2]);
    let answered = Said::AnsweredBy { provider: "c".into(), model: "model of c".into() };
    let thought = Said::Aside(Aside::Thinking { text: "hm".into() });
    assert_eq!(said[7..], [thought, answered, Said::Text("z".into())], "once, and before the text");
    assert_eq!(a.requests()[2].model, "chosen", "of whoever was meant");
    let request = &c.requests()[0];
    assert_eq!(request.model, "model of c", "a fallback does not know the model that was chosen");
    assert_eq!((request.temperature, request.max_tokens), (Some(0.5), Some(99)));
    assert_eq!(request.system.as_deref(), Some("You are c."));
}

#[tokio::test(start_paused = true)]
async fn the_last_one_asked_gives_the_error() {
    let mut cast = Cast::default();
    cast.agent_with("a", Some("b"), vec![refuses(ProviderError::Status(400))]);
    cast.agent("b", vec![refuses(overloaded(Some(seconds(60))))]);
    let (said, end) = listen(&cast.voices(), question("a")).await;
    let error = end.unwrap_err();
    assert_eq!((error.code, error.retry_after), (ErrorCode::Overloaded, Some(seconds(60))));
    assert_eq!(failures(&said), 2);
    assert!(!said.iter().any(|said| matches!(said, Said::AnsweredBy { .. })), "nobody answered");
}

#[tokio::test(start_paused = true)]
async fn after_the_first_visible_token_nothing_is_asked_again() {
    for (last, code) in [
        (Step::Fail(broken()), ErrorCode::Provider),
        (Step::Fail(overloaded(Some(seconds(1)))), ErrorCode::Overloaded),
        (Step::Hang, ErrorCode::Timeout),
    ] {
        let mut cast = Cast::default();
        let a = cast.agent_with("a", Some("b"), vec![vec![Step::Say("x"), last]]);
        let b = cast.agent("b", vec![]);
        let (said, end) = listen(&cast.voices(), question("a")).await;
        assert_eq!(end.unwrap_err().code, code);
        assert_eq!((text(&said).as_str(), failures(&said)), ("x", 1));
        assert_eq!([a.times(), b.times(), a.open()], [1, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_beginning_the_first_new_token_counts() {
    let mut cast = Cast::default();
    let a = cast.agent_with("a", Some("b"), (0..3).map(|_| refuses(overloaded(None))).collect());
    let b = cast.agent("b", vec![refuses(broken()), says(" world")]);
    let asked = Question { partial: Some("Hello".into()), ..question("a") };
    let (said, end) = listen(&cast.voices(), asked).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), " world".into()));
    for request in a.requests().into_iter().chain(b.requests()) {
        assert_eq!(request.partial.as_deref(), Some("Hello"));
    }
    let mut cast = Cast::default();
    let a = cast.agent("a", vec![says("x")]);
    let asked = Question { partial: Some(String::new()), ..question("a") };
    listen(&cast.voices(), asked).await.1.unwrap();
    assert_eq!(a.requests()[0].partial, None, "nothing is no beginning");
}

#[tokio::test(start_paused = true)]
async fn a_first_token_that_does_not_come_is_waited_for_twice() {
    let stalls: [fn() -> Answer; 3] = [
        || vec![Step::Stall],
        || vec![Step::Hang],
        || vec![Step::Wait(TIMEOUT / 2), Step::Cost(1, 0, 0), Step::Hang],
    ];
    for stall in stalls {
        let mut cast = Cast::default();
        let a = cast.agent_with("a", Some("b"), vec![stall(), stall(), says("never")]);
        let b = cast.agent("b", vec![stall(), stall(), says("never")]);
        let begun = tokio::time::Instant::now();
        let (said, end) = listen(&cast.voices().retrying(5), question("a")).await;
        let error = end.unwrap_err();
        assert_eq!((error.code, failures(&said)), (ErrorCode::Timeout, 4));
        assert_eq!([a.times(), b.times(), a.open(), b.open()], [2, 2, 0, 0]);
        let whole = begun.elapsed();
        assert!(whole >= TIMEOUT * 4 && whole < TIMEOUT * 4 + seconds(2), "{whole:?}");
    }
    let mut cast = Cast::default();
    let a = cast.agent("a", vec![vec![Step::Stall], says("x")]);
    let (said, end) = listen(&cast.voices(), question("a")).await;
    assert_eq!((end, text(&said), a.times()), (Ok(StopReason::EndTurn), "x".into(), 2));
}

#[tokio::test(start_paused = true)]
async fn every_token_gets_a_wait_of_its_own() {
    let nearly = TIMEOUT - seconds(1);
    let mut cast = Cast::default();
    let patient = vec![
        Step::Wait(nearly),
        Step::Think("hm"),
        Step::Wait(nearly),
        Step::Say("a"),
        Step::Wait(nearly),
        Step::Think("hm"),
        Step::Wait(nearly),
        Step::Say("b"),
        Step::Done,
    ];
    cast.agent("a", vec![patient]);
    let late = vec![
        Step::Say("a"),
        Step::Wait(nearly),
        Step::Cost(1, 1, 0),
        Step::Wait(nearly),
        Step::Done,
    ];
    cast.agent("b", vec![late]);
    let voices = cast.voices();
    let (said, end) = listen(&voices, question("a")).await;
    assert_eq!((end, text(&said)), (Ok(StopReason::EndTurn), "ab".into()));
    let (said, end) = listen(&voices, question("b")).await;
    assert_eq!(end.unwrap_err().code, ErrorCode::Timeout, "what it costs is no token");
    assert_eq!(text(&said), "a");
}

#[tokio::test(start_paused = true)]
async fn whoever_listens_slowly_is_not_the_providers_delay() {
    let mut cast = Cast::default();
    let words = (0..200).flat_map(|_| [Step::Say("x"), Step::Cost(1, 1, 0)]);
    cast.agent("a", vec![words.chain([Step::Wait(seconds(20)), Step::Done]).collect()]);
    let (say, mut said) = mpsc::channel(1);
    let voices = cast.voices();
    let listener = async {
        let mut count = 0;
        while said.recv().await.is_some() {
            tokio::time::sleep(TIMEOUT * 2).await;
            count += 1;
        }
        count
    };
    let (end, count) = tokio::join!(ask(&voices, question("a"), say), listener);
    assert_eq!((end, count), (Ok(StopReason::EndTurn), 400));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_question_closes_the_connection() {
    for answer in [vec![Step::Stall], vec![Step::Hang], vec![Step::Say("x"), Step::Hang]] {
        let mut cast = Cast::default();
        let fake = cast.agent("a", vec![answer]);
        let voices = cast.voices();
        let (say, _said) = mpsc::channel(SAID_MAX);
        let asking = tokio::time::timeout(seconds(1), ask(&voices, question("a"), say));
        assert!(asking.await.is_err());
        assert_eq!((fake.times(), fake.open()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_end_is_broken_off_and_nobody_is_an_error() {
    let mut cast = Cast::default();
    cast.agent("a", vec![vec![Step::Say("x")]]);
    let voices = cast.voices();
    let (_, end) = listen(&voices, question("a")).await;
    assert_eq!(end.unwrap_err().code, ErrorCode::Provider);
    let (said, end) = listen(&voices, question("nobody")).await;
    assert_eq!((end.unwrap_err().code, said), (ErrorCode::Internal, Vec::new()));
}
