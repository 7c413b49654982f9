//! The suite that every provider passes: recorded streams replayed by a test upstream, cut at
//! every byte, and what an upstream can do besides.
//!
//! A new provider adds its recordings to [`recordings()`].

mod recordings;
mod upstream;

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use tokencast::domain::StopReason;
use tokencast::llm::{
    Delta, ProviderError, Request, Settings, SetupError, SharedProvider, Speaker, Turn, provider,
    script,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use self::recordings::{
    Read, assert_conforms, assert_is, assert_tells_nothing, recordings, text_of,
};
use self::upstream::{OnDrop, Upstream, events, pieces};

const KEY: &str = "sk-hunter2";
/// Recordings up to this size are replayed cut in two at every byte.
const SHORT_BYTES: usize = 1024;

#[tokio::test]
async fn recordings_are_read_the_same_however_they_are_cut() {
    for recording in recordings() {
        let lf = recording.bytes.to_owned();
        let crlf = lf.replace('\n', "\r\n");
        let with_mark = format!("\u{feff}{lf}");
        for (variant, text) in [("LF", lf), ("CRLF", crlf), ("byte-order mark", with_mark)] {
            let bytes = text.len();
            let upstream = Upstream::start(move |(_, body)| {
                // The model's name says where to cut.
                let cut = body["model"].as_str().expect("a request names its model");
                let body = pieces(text.as_bytes(), cut);
                async { events(body) }
            })
            .await;
            let provider = make(recording.provider, &upstream);
            let mut cuts = vec!["none".to_owned(), "single".to_owned()];
            if bytes <= SHORT_BYTES {
                cuts.extend((1..bytes).map(|at| at.to_string()));
            }
            let read = stream::iter(cuts).map(|cut| {
                let (provider, recording) = (provider.clone(), &recording);
                async move {
                    let context = format!("{} {variant} cut {cut}", recording.name);
                    assert_is(recording, &read(&provider, &asked(&cut)).await, &context);
                }
            });
            read.buffer_unordered(8).collect::<Vec<_>>().await;
        }
    }
}

#[tokio::test]
async fn connections_are_used_again_after_whole_answers() {
    let whole = recordings().remove(0);
    let upstream = Upstream::start(move |_| {
        let body = pieces(whole.bytes.as_bytes(), "none");
        async { events(body) }
    })
    .await;
    let provider = make("openai", &upstream);
    for _ in 0..20 {
        read(&provider, &asked("none")).await;
        // The client's own task gives the connection back.
        tokio::task::yield_now().await;
    }
    assert!(upstream.connections() < 20, "{}", upstream.connections());
}

#[tokio::test]
async fn the_request_is_what_the_api_asks_for() {
    let (sent, mut seen) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |request| {
        sent.send(request).expect("the test listens");
        async { events(pieces(b"data: [DONE]\n\n", "none")) }
    })
    .await;
    let mut request = asked("gpt-4.1");
    request.system = Some("Be brief.".into());
    request.temperature = Some(0.5);
    request.max_tokens = Some(64);
    request.turns.push(Turn { speaker: Speaker::Assistant, content: "Half".into() });
    read(&make("openai", &upstream), &request).await;

    let (head, body) = seen.recv().await.expect("a request came");
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri.path(), "/v1/chat/completions");
    assert_eq!(head.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(
        body,
        serde_json::json!({
            "model": "gpt-4.1",
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "Hello?" },
                { "role": "assistant", "content": "Half" },
            ],
            "stream": true,
            "stream_options": { "include_usage": true },
            "temperature": 0.5,
            "max_tokens": 64,
        })
    );

    let base_url = Some(upstream.base_url() + "/");
    let keyless = provider("openai", &Settings { base_url, ..Settings::default() }).unwrap();
    read(&keyless, &asked("m")).await;
    let (head, body) = seen.recv().await.expect("a request came");
    assert_eq!(head.uri.path(), "/v1/chat/completions");
    assert!(!head.headers.contains_key("authorization"));
    assert!(body.get("temperature").is_none() && body.get("max_tokens").is_none(), "{body}");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (gone, mut was_closed) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |_| {
        let guard = OnDrop(gone.clone());
        async move {
            let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(
                "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n",
            ))]);
            let never = stream::pending().map(move |item| {
                let _kept = &guard;
                item
            });
            events(Body::from_stream(first.chain(never)))
        }
    })
    .await;
    let mut deltas = make("openai", &upstream).stream(&asked("m")).await.expect("accepted");
    assert_eq!(deltas.next().await.unwrap().unwrap(), Delta::Text("Hi".into()));
    assert!(was_closed.try_recv().is_err(), "it is open while it is read");
    drop(deltas);
    within(was_closed.recv()).await;
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    let (events_of, mut happened) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |_| {
        events_of.send(()).expect("the test listens");
        let guard = OnDrop(events_of.clone());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    })
    .await;
    let provider = make("openai", &upstream);
    let request = asked("m");
    let asking = provider.stream(&request);
    tokio::select! {
        _ = asking => panic!("the upstream never answers"),
        begun = happened.recv() => begun.expect("the request came"),
    }
    within(happened.recv()).await;
}

#[tokio::test]
async fn refusals_are_told_apart_and_say_when_to_try_again() {
    for (status, retry_after, expected) in [
        (429, Some("7"), Some(Some(Duration::from_secs(7)))),
        (503, Some("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Some(Duration::ZERO))),
        (529, None, Some(None)),
        (400, None, None),
        (401, None, None),
        (404, None, None),
        (307, None, None),
        (500, Some("7"), None),
    ] {
        let upstream = Upstream::start(move |_| async move {
            let mut response = Response::builder().status(status).header("location", "/v1/other");
            if let Some(retry_after) = retry_after {
                response = response.header("retry-after", retry_after);
            }
            response.body(Body::from(r#"{"error":{"message":"hunter2"}}"#)).unwrap()
        })
        .await;
        let error = refused(&make("openai", &upstream)).await;
        match (&error, expected) {
            (ProviderError::Overloaded { retry_after }, Some(expected)) => {
                assert_eq!(*retry_after, expected, "{status}");
                assert!(error.is_retryable());
            }
            (ProviderError::Status(answered), None) => {
                assert_eq!(*answered, status);
                assert_eq!(error.is_retryable(), status >= 500);
            }
            other => panic!("{status}: {other:?}"),
        }
        assert_tells_nothing(&error, "refusal");
    }
}

#[tokio::test]
async fn a_document_instead_of_a_stream_is_refused() {
    for content_type in ["application/json", "text/html; charset=utf-8"] {
        let upstream = Upstream::start(move |_| async move {
            let response = Response::builder().header("content-type", content_type);
            response.body(Body::from("hunter2")).unwrap()
        })
        .await;
        let error = refused(&make("openai", &upstream)).await;
        assert!(matches!(error, ProviderError::Protocol(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_event_without_end_is_cut_off() {
    let upstream = Upstream::start(|_| async {
        let first = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: ";
        let endless = stream::repeat(Bytes::from("x".repeat(16 * 1024)));
        let all = stream::iter([Bytes::from(first)]).chain(endless);
        events(Body::from_stream(all.map(Ok::<_, std::io::Error>)))
    })
    .await;
    let read = within(read(&make("openai", &upstream), &asked("m"))).await;
    assert!(matches!(&read[..], [Ok(Delta::Text(_)), Err(ProviderError::Protocol(_))]), "{read:?}");
}

#[tokio::test]
async fn a_large_delta_is_read() {
    let content = "é".repeat(400 * 1024);
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n");
    let upstream = Upstream::start(move |_| {
        let event = event.clone();
        async move { events(Body::from(event + "data: [DONE]\n\n")) }
    })
    .await;
    let read = read(&make("openai", &upstream), &asked("m")).await;
    assert_eq!(read[0].as_ref().unwrap(), &Delta::Text(content));
    assert_eq!(read.len(), 2);
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_apart_from_an_end() {
    let broken = |text: &'static str| {
        Upstream::start(move |_| async move {
            let reset = stream::once(async {
                // What came before is written first.
                tokio::task::yield_now().await;
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            });
            let text = stream::iter([Ok(Bytes::from(text))]);
            events(Body::from_stream(text.chain(reset)))
        })
    };
    let upstream = broken("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n").await;
    let half = read(&make("openai", &upstream), &asked("m")).await;
    let [Ok(Delta::Text(_)), Err(error @ ProviderError::BrokenOff(Some(_)))] = &half[..] else {
        panic!("{half:?}");
    };
    assert!(error.is_retryable());
    assert_tells_nothing(error, "broken");

    let upstream = broken("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n").await;
    let whole = read(&make("openai", &upstream), &asked("m")).await;
    assert!(matches!(&whole[..], [Ok(Delta::Done(StopReason::EndTurn))]), "{whole:?}");
}

#[tokio::test]
async fn nobody_there_is_an_error_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = Some(format!("http://{}/v1", listener.local_addr().unwrap()));
    drop(listener);
    let nobody = provider("openai", &Settings { base_url, ..settings() }).unwrap();
    let error = refused(&nobody).await;
    assert!(matches!(error, ProviderError::Connect(_)), "{error:?}");
    assert!(error.is_retryable());
    assert_tells_nothing(&error, "connect");
}

#[tokio::test]
async fn a_bad_setup_is_refused_without_quoting_it() {
    let refusal = |id: &str, settings: Settings| match provider(id, &settings) {
        Ok(_) => panic!("{id} was made of {settings:?}"),
        Err(error) => error,
    };
    let base_url = Some("ftp://user:hunter2@host/v1".to_owned());
    let error = refusal("openai", Settings { base_url, ..settings() });
    assert!(matches!(error, SetupError::BaseUrl) && !format!("{error:?} {error}").contains(KEY));
    let api_key = Some(SecretString::from("sk-hunter2\nx"));
    let error = refusal("openai", Settings { api_key, ..settings() });
    assert!(matches!(error, SetupError::ApiKey) && !format!("{error:?} {error}").contains(KEY));
    assert!(matches!(refusal("nobody", settings()), SetupError::Unknown(id) if id == "nobody"));
}

#[tokio::test]
async fn the_scripted_provider_keeps_the_same_rules() {
    let settings = Settings { tokens_per_second: 0.0, tokens: 50, ..Settings::default() };
    let scripted = provider("scripted", &settings).unwrap();
    assert_eq!(scripted.id(), "scripted");
    let answer = read(&scripted, &asked("m")).await;
    assert_conforms(&answer, "scripted");
    let texts: Vec<_> = answer.iter().filter_map(text_of).collect();
    assert_eq!(texts, script(&asked("m"), 50));
}

/// All that `provider` answers. One that does not accept the request fails the test.
async fn read(provider: &SharedProvider, request: &Request) -> Read {
    provider.stream(request).await.expect("the request is accepted").collect().await
}

async fn refused(provider: &SharedProvider) -> ProviderError {
    match provider.stream(&asked("m")).await {
        Ok(deltas) => panic!("accepted: {:?}", deltas.try_collect::<Vec<_>>().await),
        Err(error) => error,
    }
}

fn asked(model: &str) -> Request {
    Request {
        model: model.to_owned(),
        system: None,
        turns: vec![Turn { speaker: Speaker::User, content: "Hello?".into() }],
        partial: None,
        is_gate: false,
        temperature: None,
        max_tokens: None,
    }
}

fn settings() -> Settings {
    Settings { api_key: Some(SecretString::from(KEY)), ..Settings::default() }
}

fn make(id: &str, upstream: &Upstream) -> SharedProvider {
    let base_url = Some(upstream.base_url());
    let provider = provider(id, &Settings { base_url, ..settings() }).expect("it can be made");
    assert_eq!(provider.id(), id);
    provider
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens soon")
}
