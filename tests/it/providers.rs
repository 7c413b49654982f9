//! The suite that every provider passes: recorded streams, in memory cut at every byte and
//! replayed by a test upstream, and what an upstream can do besides.
//!
//! A new provider adds itself to [`PROVIDERS`], its words to [`text_saying`] and [`end_of`], and a
//! folder of recordings.

mod recordings;
mod replays;
mod requests;
mod upstream;

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use serde_json::json;
use tokencast::domain::StopReason;
use tokencast::llm::{
    Delta, ProviderError, Request, Settings, SetupError, SharedProvider, Speaker, Turn, provider,
    script,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use self::recordings::{
    PROVIDERS, Read, assert_conforms, assert_is, assert_tells_nothing, recordings, text_of,
};
use self::upstream::{OnDrop, Upstream, events, pieces};

const KEY: &str = "sk-hunter2";

/// The event in which `provider` says `text`.
fn text_saying(provider: &str, text: &str) -> String {
    let event = match provider {
        "anthropic" => json!({
            "type": "content_block_delta",
            "index": 0,
            "delta": { "type": "text_delta", "text": text },
        }),
        "openai" => json!({ "choices": [{ "delta": { "content": text } }] }),
        "openai-responses" => json!({ "type": "response.output_text.delta", "delta": text }),
        other => panic!("{other}: say how it says a text"),
    };
    format!("data: {event}\n\n")
}

/// The event that ends an answer of `provider`.
fn end_of(provider: &str) -> &'static str {
    match provider {
        "anthropic" => "data: {\"type\":\"message_stop\"}\n\n",
        "openai" => "data: [DONE]\n\n",
        "openai-responses" => "data: {\"type\":\"response.completed\"}\n\n",
        other => panic!("{other}: say how it ends"),
    }
}

#[tokio::test]
async fn recordings_are_read_over_http() {
    for recording in recordings() {
        let bytes = recording.bytes.clone();
        let half = (bytes.len() / 2).to_string();
        let upstream = Upstream::start(move |(_, body)| {
            // The model's name says where to cut.
            let cut = body["model"].as_str().expect("a request names its model");
            let body = pieces(bytes.as_bytes(), cut);
            async { events(body) }
        })
        .await;
        let provider = make(recording.provider, &upstream);
        for cut in ["none", "single", &half] {
            let context = format!("{} cut {cut}", recording.name);
            assert_is(&recording, &read(&provider, &asked(cut)).await, &context);
        }
    }
}

#[tokio::test]
async fn connections_are_used_again_after_whole_answers() {
    for id in PROVIDERS {
        let upstream = Upstream::start(move |_| {
            let all = text_saying(id, "Hi") + end_of(id);
            async { events(Body::from(all)) }
        })
        .await;
        let provider = make(id, &upstream);
        for _ in 0..20 {
            read(&provider, &asked("none")).await;
            // The client's own task gives the connection back.
            tokio::task::yield_now().await;
        }
        assert!(upstream.connections() < 20, "{id}: {}", upstream.connections());
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    for id in PROVIDERS {
        let (gone, mut was_closed) = mpsc::unbounded_channel();
        let upstream = Upstream::start(move |_| {
            let guard = OnDrop(gone.clone());
            async move {
                let first = Bytes::from(text_saying(id, "Hi"));
                let first = stream::iter([Ok::<_, std::io::Error>(first)]);
                let never = stream::pending().map(move |item| {
                    let _kept = &guard;
                    item
                });
                events(Body::from_stream(first.chain(never)))
            }
        })
        .await;
        let mut deltas = make(id, &upstream).stream(&asked("m")).await.expect("accepted");
        assert_eq!(deltas.next().await.unwrap().unwrap(), Delta::Text("Hi".into()));
        assert!(was_closed.try_recv().is_err(), "it is open while it is read");
        drop(deltas);
        within(was_closed.recv()).await;
    }
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    for id in PROVIDERS {
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
        let provider = make(id, &upstream);
        let request = asked("m");
        let asking = provider.stream(&request);
        tokio::select! {
            _ = asking => panic!("the upstream never answers"),
            begun = happened.recv() => begun.expect("the request came"),
        }
        within(happened.recv()).await;
    }
}

#[tokio::test]
async fn refusals_are_told_apart_and_say_when_to_try_again() {
    for id in PROVIDERS {
        for (status, retry_after, expected) in [
            (429, Some("7"), Some(Some(Duration::from_secs(7)))),
            (503, Some("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Some(Duration::ZERO))),
            (529, None, Some(None)),
            (400, None, None),
            (408, None, None),
            (401, None, None),
            (404, None, None),
            (307, None, None),
            (500, Some("7"), None),
        ] {
            let upstream = Upstream::start(move |_| async move {
                let mut response =
                    Response::builder().status(status).header("location", "/v1/other");
                if let Some(retry_after) = retry_after {
                    response = response.header("retry-after", retry_after);
                }
                response.body(Body::from(r#"{"error":{"message":"hunter2"}}"#)).unwrap()
            })
            .await;
            let error = refused(&make(id, &upstream)).await;
            match (&error, expected) {
                (ProviderError::Overloaded { retry_after }, Some(expected)) => {
                    assert_eq!(*retry_after, expected, "{status}");
                    assert!(error.is_retryable());
                }
                (ProviderError::Status(answered), None) => {
                    assert_eq!(*answered, status);
                    assert_eq!(error.is_retryable(), status == 408 || status >= 500);
                }
                other => panic!("{id} {status}: {other:?}"),
            }
            assert_tells_nothing(&error, "refusal");
        }
    }
}

#[tokio::test]
async fn a_document_instead_of_a_stream_is_refused() {
    for id in PROVIDERS {
        for content_type in ["application/json", "text/html; charset=utf-8"] {
            let upstream = Upstream::start(move |_| async move {
                let response = Response::builder().header("content-type", content_type);
                response.body(Body::from("hunter2")).unwrap()
            })
            .await;
            let error = refused(&make(id, &upstream)).await;
            assert!(matches!(error, ProviderError::Protocol(_)), "{error:?}");
        }
    }
}

#[tokio::test]
async fn an_event_without_end_is_cut_off() {
    for id in PROVIDERS {
        let upstream = Upstream::start(move |_| async move {
            let first = text_saying(id, "Hi") + "data: ";
            let endless = stream::repeat(Bytes::from("x".repeat(16 * 1024)));
            let all = stream::iter([Bytes::from(first)]).chain(endless);
            events(Body::from_stream(all.map(Ok::<_, std::io::Error>)))
        })
        .await;
        let read = within(read(&make(id, &upstream), &asked("m"))).await;
        assert!(
            matches!(&read[..], [Ok(Delta::Text(_)), Err(ProviderError::Protocol(_))]),
            "{read:?}"
        );
    }
}

#[tokio::test]
async fn a_large_delta_is_read_as_one() {
    for id in PROVIDERS {
        let content = "é".repeat(1500 * 1024);
        let all = text_saying(id, &content) + end_of(id);
        let upstream = Upstream::start(move |_| {
            let all = all.clone();
            async move { events(Body::from(all)) }
        })
        .await;
        let read = read(&make(id, &upstream), &asked("m")).await;
        let [Ok(Delta::Text(text)), Ok(Delta::Done(_))] = &read[..] else {
            panic!("{id}: {} deltas", read.len());
        };
        assert!(*text == content, "{id}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_apart_from_an_end() {
    let broken = |text: String| {
        Upstream::start(move |_| {
            let reset = stream::once(async {
                // What came before is written first.
                tokio::task::yield_now().await;
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            });
            let text = stream::iter([Ok(Bytes::from(text.clone()))]);
            async { events(Body::from_stream(text.chain(reset))) }
        })
    };
    for id in PROVIDERS {
        let upstream = broken(text_saying(id, "Hi")).await;
        let half = read(&make(id, &upstream), &asked("m")).await;
        let [Ok(Delta::Text(_)), Err(error @ ProviderError::BrokenOff(Some(_)))] = &half[..] else {
            panic!("{id}: {half:?}");
        };
        assert!(error.is_retryable());
        assert_tells_nothing(error, id);

        let upstream = broken(end_of(id).to_owned()).await;
        let whole = read(&make(id, &upstream), &asked("m")).await;
        assert!(matches!(&whole[..], [Ok(Delta::Done(StopReason::EndTurn))]), "{id}: {whole:?}");
    }
    let upstream = broken("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n".into()).await;
    let whole = read(&make("openai", &upstream), &asked("m")).await;
    assert!(matches!(&whole[..], [Ok(Delta::Done(StopReason::EndTurn))]), "{whole:?}");
}

#[tokio::test]
async fn who_never_shakes_hands_is_given_up() {
    for id in PROVIDERS {
        // Connections come to be in the kernel; nobody speaks TLS.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = Some(format!("https://{}/v1", listener.local_addr().unwrap()));
        let connect_timeout = Duration::from_millis(50);
        let silent = Settings { base_url, connect_timeout, ..settings() };
        let silent = provider(id, &silent).unwrap();
        let error = within(refused(&silent)).await;
        assert!(matches!(error, ProviderError::Connect(_)), "{id}: {error:?}");
        assert_tells_nothing(&error, id);
    }
}

#[test]
fn what_an_upstream_reports_is_tried_again_where_that_may_help() {
    for (word, may_help) in [
        ("api_error", true),
        ("server_error", true),
        ("invalid_request_error", false),
        ("invalid_prompt", false),
        ("error", false),
    ] {
        assert_eq!(ProviderError::Reported(word.into()).is_retryable(), may_help, "{word}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_of_its_own() {
    for id in PROVIDERS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = Some(format!("http://{}/v1", listener.local_addr().unwrap()));
        drop(listener);
        let nobody = provider(id, &Settings { base_url, ..settings() }).unwrap();
        let error = refused(&nobody).await;
        assert!(matches!(error, ProviderError::Connect(_)), "{error:?}");
        assert!(error.is_retryable());
        assert_tells_nothing(&error, "connect");
    }
}

#[tokio::test]
async fn a_bad_setup_is_refused_without_quoting_it() {
    for id in PROVIDERS {
        let refusal = |id: &str, settings: Settings| match provider(id, &settings) {
            Ok(_) => panic!("{id} was made of {settings:?}"),
            Err(error) => error,
        };
        let base_url = Some("ftp://user:hunter2@host/v1".to_owned());
        let error = refusal(id, Settings { base_url, ..settings() });
        assert!(
            matches!(error, SetupError::BaseUrl) && !format!("{error:?} {error}").contains(KEY)
        );
        let api_key = Some(SecretString::from("sk-hunter2\nx"));
        let error = refusal(id, Settings { api_key, ..settings() });
        assert!(matches!(error, SetupError::ApiKey) && !format!("{error:?} {error}").contains(KEY));
        assert!(matches!(refusal("nobody", settings()), SetupError::Unknown(id) if id == "nobody"));
    }
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

/// Where `id` finds `upstream`; one adds the version to its address itself.
fn address(id: &str, upstream: &Upstream) -> String {
    let base_url = upstream.base_url();
    match id {
        "anthropic" => base_url.strip_suffix("/v1").expect("it ends so").to_owned(),
        _ => base_url,
    }
}

fn make(id: &str, upstream: &Upstream) -> SharedProvider {
    let base_url = Some(address(id, upstream));
    let provider = provider(id, &Settings { base_url, ..settings() }).expect("it can be made");
    assert_eq!(provider.id(), id);
    provider
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens soon")
}
