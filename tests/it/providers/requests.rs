//! What providers send: addresses, headers and bodies, and how an answer is gone on with.

use axum::body::Body;
use http::request::Parts;
use serde_json::{Value, json};
use tokencast::llm::{Delta, GATE, GO_ON, Request, Settings, Speaker, Turn, provider};
use tokio::sync::mpsc;

use super::upstream::{Asked, Upstream, events};
use super::{KEY, address, asked, end_of, make, read, text_of, text_saying};

/// What `provider` sends for `request`, and the text that it reads where the upstream says `said`.
async fn sent(provider: &str, request: &Request, said: &'static [&'static str]) -> (Asked, String) {
    let (send, mut seen) = mpsc::unbounded_channel();
    let id = provider.to_owned();
    let upstream = Upstream::start(move |request| {
        send.send(request).expect("the test listens");
        let texts: String = said.iter().map(|text| text_saying(&id, text)).collect();
        let all = texts + end_of(&id);
        async { events(Body::from(all)) }
    })
    .await;
    let answer = read(&make(provider, &upstream), request).await;
    assert!(matches!(answer.last(), Some(Ok(Delta::Done(_)))), "{answer:?}");
    let text = answer.iter().filter_map(text_of).collect();
    (seen.recv().await.expect("a request came"), text)
}

async fn body(provider: &str, request: &Request) -> Value {
    sent(provider, request, &[]).await.0.1
}

fn full(model: &str) -> Request {
    let mut request = asked(model);
    request.system = Some("Be brief.".into());
    request.temperature = Some(0.5);
    request.max_tokens = Some(64);
    request.turns.push(Turn { speaker: Speaker::Assistant, content: "Yes?".into() });
    request.turns.push(Turn { speaker: Speaker::User, content: "Why?".into() });
    request
}

fn assert_is_post(head: &Parts, path: &str) {
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri.path(), path);
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["accept"], "text/event-stream");
}

#[tokio::test]
async fn openai_is_asked_as_its_api_has_it() {
    let ((head, body), _) = sent("openai", &full("gpt-4.1"), &[]).await;
    assert_is_post(&head, "/v1/chat/completions");
    assert_eq!(head.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        body,
        json!({
            "model": "gpt-4.1",
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "Hello?" },
                { "role": "assistant", "content": "Yes?" },
                { "role": "user", "content": "Why?" },
            ],
            "stream": true,
            "stream_options": { "include_usage": true },
            "temperature": 0.5,
            "max_tokens": 64,
        })
    );
}

#[tokio::test]
async fn openai_responses_is_asked_as_its_api_has_it() {
    let ((head, body), _) = sent("openai-responses", &full("gpt-4.1"), &[]).await;
    assert_is_post(&head, "/v1/responses");
    assert_eq!(head.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        body,
        json!({
            "model": "gpt-4.1",
            "instructions": "Be brief.",
            "input": [
                { "role": "user", "content": "Hello?" },
                { "role": "assistant", "content": "Yes?" },
                { "role": "user", "content": "Why?" },
            ],
            "stream": true,
            "store": false,
            "temperature": 0.5,
            "max_output_tokens": 64,
        })
    );
}

#[tokio::test]
async fn anthropic_is_asked_as_its_api_has_it() {
    let ((head, body), _) = sent("anthropic", &full("claude-sonnet-4-5"), &[]).await;
    assert_is_post(&head, "/v1/messages");
    assert_eq!(head.headers["x-api-key"], KEY);
    assert_eq!(head.headers["anthropic-version"], "2023-06-01");
    assert!(!head.headers.contains_key("authorization"));
    assert_eq!(
        body,
        json!({
            "model": "claude-sonnet-4-5",
            "max_tokens": 64,
            "system": "Be brief.",
            "messages": [
                { "role": "user", "content": "Hello?" },
                { "role": "assistant", "content": "Yes?" },
                { "role": "user", "content": "Why?" },
            ],
            "stream": true,
            "temperature": 0.5,
        })
    );
}

#[tokio::test]
async fn anthropic_is_sent_nothing_that_it_refuses() {
    let mut request = asked("claude-sonnet-4-5");
    request.system = Some(" ".into());
    request.temperature = Some(1.7);
    request.turns.push(Turn { speaker: Speaker::User, content: "Anybody?".into() });
    let body = body("anthropic", &request).await;
    assert_eq!(body["temperature"], 1.0);
    assert_eq!(body["max_tokens"], 8192, "it has no default");
    assert!(body.get("system").is_none(), "{body}");
    let one = json!([{ "role": "user", "content": "Hello?\n\nAnybody?" }]);
    assert_eq!(body["messages"], one);
}

#[tokio::test]
async fn what_is_not_configured_is_not_sent() {
    for id in super::recordings::PROVIDERS {
        let (send, mut seen) = mpsc::unbounded_channel();
        let upstream = Upstream::start(move |request| {
            send.send(request).expect("the test listens");
            async { events(Body::from(end_of(id))) }
        })
        .await;
        let base_url = Some(address(id, &upstream) + "/");
        let keyless = provider(id, &Settings { base_url, ..Settings::default() }).unwrap();
        read(&keyless, &asked("m")).await;
        let (head, body) = seen.recv().await.expect("a request came");
        assert!(head.uri.path().starts_with("/v1/"), "{id}: {}", head.uri.path());
        for name in ["authorization", "x-api-key"] {
            assert!(!head.headers.contains_key(name), "{id}: {name}");
        }
        for name in ["temperature", "max_output_tokens", "system", "instructions"] {
            assert!(body.get(name).is_none(), "{id}: {body}");
        }
    }
}

#[tokio::test]
async fn an_answer_is_gone_on_with_by_an_instruction() {
    for (id, model, turns) in [
        ("openai", "gpt-4.1", "messages"),
        ("openai-responses", "gpt-4.1", "input"),
        ("anthropic", "claude-opus-4-6", "messages"),
        ("anthropic", "of-tomorrow", "messages"),
    ] {
        let mut request = asked(model);
        request.partial = Some("Half an ".into());
        let ((_, body), text) = sent(id, &request, &[" answer"]).await;
        assert_eq!(
            body[turns],
            json!([
                { "role": "user", "content": "Hello?" },
                { "role": "assistant", "content": "Half an " },
                { "role": "user", "content": GO_ON },
            ]),
            "{id} {model}"
        );
        assert_eq!(text, " answer", "{id}: it was told all of the text");
    }
}

#[tokio::test]
async fn an_answer_is_gone_on_with_by_a_prefill_where_the_model_takes_it() {
    let mut request = asked("claude-sonnet-4-5-20250929");
    request.partial = Some("Half\n\n".into());
    for (said, text) in [
        // The model, not told of the white space, says it again: as a whole, in parts, not at all.
        (&["\n\nan answer"][..], "an answer"),
        (&["\n", "\n", "\n", "an"], "\nan"),
        (&["\nan", "\n"], "an\n"),
        (&["an", "\n\n"], "an\n\n"),
    ] {
        let ((_, body), read) = sent("anthropic", &request, said).await;
        let turns = json!([
            { "role": "user", "content": "Hello?" },
            { "role": "assistant", "content": "Half" },
        ]);
        assert_eq!(body["messages"], turns);
        assert_eq!(read, text, "{said:?}");
    }
}

#[tokio::test]
async fn a_gate_is_told_its_form() {
    let mut request = asked("m");
    request.system = Some("Be wise.".into());
    request.is_gate = true;
    let told = format!("Be wise.\n\n{GATE}");
    assert_eq!(body("openai", &request).await["messages"][0]["content"], told);
    assert_eq!(body("openai-responses", &request).await["instructions"], told);
    assert_eq!(body("anthropic", &request).await["system"], told);
}
