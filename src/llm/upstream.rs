//! What providers behind HTTP share: the client, the address, how a refusal becomes an error, and
//! how a response's events become deltas.
//!
//! It must not know any provider's vocabulary, and puts no body, key or address into an error.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::{HeaderMap, StatusCode, header};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::sse::{self, SseError};
use super::{Delta, Deltas, ProviderError, SetupError};
use crate::domain::{Aside, StopReason};

/// A longer `Retry-After` is shortened to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Idle connections are probed this often, so that one lost without a word is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// The most characters of an upstream's own word that are kept.
const WORD_CHARS_MAX: usize = 64;
/// The most digits of such a word: enough for a status; a key has more.
const WORD_DIGITS_MAX: usize = 3;

/// How a provider's events are read.
pub(super) trait Vocabulary: Send + 'static {
    /// Reads one event's data into `deltas`; a [`Delta::Done`] among them ends the stream.
    ///
    /// # Errors
    /// What the event reports, or [`ProviderError::Protocol`].
    fn read(&mut self, data: &str, deltas: &mut VecDeque<Delta>) -> Result<(), ProviderError>;

    /// The response ended before a [`Delta::Done`]: the reason to stop, where the answer is
    /// whole all the same.
    fn ended(&mut self) -> Option<StopReason>;
}

/// A client of one provider, without a limit on the whole request: an answer takes as long as it
/// takes, and `generation` watches its pauses.
///
/// Redirects are not followed (a prompt and a key go where the configuration says), and proxies
/// named in the environment are not used: a gateway is configured as the base URL.
///
/// # Errors
/// Where the system's certificates cannot be loaded.
pub(super) fn client(connect_timeout: Duration) -> Result<Client, SetupError> {
    Client::builder()
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(TCP_KEEPALIVE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("tokencast/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(SetupError::Client)
}

/// `path` below `base`; a slash at `base`'s end makes no difference, a query is kept.
///
/// # Errors
/// [`SetupError::BaseUrl`] where `base` is no `http` or `https` URL.
pub(super) fn endpoint(base: &str, path: &[&str]) -> Result<Url, SetupError> {
    let mut url = Url::parse(base).map_err(|_| SetupError::BaseUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SetupError::BaseUrl);
    }
    url.path_segments_mut().map_err(|()| SetupError::BaseUrl)?.pop_if_empty().extend(path);
    Ok(url)
}

/// A header value that logs do not show. `None` for an empty key.
///
/// # Errors
/// [`SetupError::ApiKey`] where it cannot stand in a header.
pub(super) fn secret_header(
    prefix: &str,
    key: &SecretString,
) -> Result<Option<http::HeaderValue>, SetupError> {
    let key = key.expose_secret().trim();
    if key.is_empty() {
        return Ok(None);
    }
    let mut value =
        http::HeaderValue::from_str(&format!("{prefix}{key}")).map_err(|_| SetupError::ApiKey)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Sends a request and answers once it is accepted with a stream of events.
///
/// # Errors
/// Any [`ProviderError`] but `Reported`.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(super) async fn send(request: RequestBuilder) -> Result<Response, ProviderError> {
    let response = request.send().await.map_err(|error| {
        let error = error.without_url();
        if error.is_connect() {
            ProviderError::Connect(error)
        } else {
            ProviderError::BrokenOff(Some(error))
        }
    })?;
    let (status, headers) = (response.status(), response.headers());
    if !status.is_success() {
        return Err(refusal(status, headers, OffsetDateTime::now_utc()));
    }
    if is_a_document(headers) {
        return Err(ProviderError::Protocol("a document where a stream of events was asked for"));
    }
    Ok(response)
}

/// The deltas that `vocabulary` reads in the response, without as much of `seam` as its text
/// begins with. Ends after `Done` or the first error.
pub(super) fn deltas(response: Response, vocabulary: impl Vocabulary, seam: String) -> Deltas {
    read(response.bytes_stream(), vocabulary, seam)
}

/// As [`deltas`], of a response's body.
pub(super) fn read<S>(bytes: S, vocabulary: impl Vocabulary, seam: String) -> Deltas
where
    S: Stream<Item = Result<Bytes, reqwest::Error>> + Send + 'static,
{
    let reading = Reading {
        events: sse::events(bytes).boxed(),
        vocabulary,
        seam,
        deltas: VecDeque::new(),
        error: None,
        is_over: false,
    };
    stream::unfold(reading, |mut reading| async {
        let delta = reading.next().await?;
        Some((delta, reading))
    })
    .boxed()
}

/// Adds text, if there is any.
pub(super) fn push_text(deltas: &mut VecDeque<Delta>, text: Option<String>) {
    deltas.extend(text.filter(|text| !text.is_empty()).map(Delta::Text));
}

/// Adds what the model thinks, if there is any.
pub(super) fn push_thinking(deltas: &mut VecDeque<Delta>, text: Option<String>) {
    let text = text.filter(|text| !text.is_empty());
    deltas.extend(text.map(|text| Delta::Aside(Aside::Thinking { text })));
}

/// An upstream's own word, as far as it may be shown: letters, digits, `_`, `-` and `.`, cut to
/// 64 characters. `None` where it has none, or says something that could quote the prompt, which
/// is a sentence, or the key, which has digits.
pub(super) fn word(raw: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let digits = raw.chars().filter(char::is_ascii_digit).count();
    if raw.is_empty() || !raw.chars().all(fits) || digits > WORD_DIGITS_MAX {
        return None;
    }
    Some(raw.chars().take(WORD_CHARS_MAX).collect())
}

struct Reading<V> {
    events: BoxStream<'static, Result<sseer::event::Event, SseError<reqwest::Error>>>,
    vocabulary: V,
    /// What the text is still to begin with to be left out; empty once it has not.
    seam: String,
    deltas: VecDeque<Delta>,
    /// Comes after the deltas that were read before it.
    error: Option<ProviderError>,
    is_over: bool,
}

impl<V: Vocabulary> Reading<V> {
    async fn next(&mut self) -> Option<Result<Delta, ProviderError>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(delta) = self.deltas.pop_front() {
                let Some(delta) = self.after_seam(delta) else { continue };
                self.is_over = matches!(delta, Delta::Done(_));
                return Some(Ok(delta));
            }
            if let Some(error) = self.error.take() {
                self.is_over = true;
                return Some(Err(error));
            }
            let event = self.events.next().await;
            self.take(event);
        }
    }

    /// `None` where nothing of it is left.
    fn after_seam(&mut self, delta: Delta) -> Option<Delta> {
        match delta {
            Delta::Text(mut text) if !self.seam.is_empty() => {
                let same = self.seam.chars().zip(text.chars()).take_while(|(a, b)| a == b);
                let bytes: usize = same.map(|(c, _)| c.len_utf8()).sum();
                text.drain(..bytes);
                if text.is_empty() {
                    self.seam.drain(..bytes);
                    return None;
                }
                self.seam.clear();
                Some(Delta::Text(text))
            }
            delta => Some(delta),
        }
    }

    fn take(&mut self, event: Option<Result<sseer::event::Event, SseError<reqwest::Error>>>) {
        let broken = match event {
            Some(Ok(event)) => {
                self.error = self.vocabulary.read(&event.data, &mut self.deltas).err();
                return;
            }
            Some(Err(SseError::TooLarge)) => {
                self.error = Some(ProviderError::Protocol("an event larger than 4 MiB"));
                return;
            }
            Some(Err(SseError::NotUtf8)) => {
                self.error = Some(ProviderError::Protocol("an event that is not UTF-8"));
                return;
            }
            Some(Err(SseError::Transport(error))) => Some(error.without_url()),
            None => None,
        };
        match self.vocabulary.ended() {
            Some(reason) => self.deltas.push_back(Delta::Done(reason)),
            None => self.error = Some(ProviderError::BrokenOff(broken)),
        }
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, now: OffsetDateTime) -> ProviderError {
    match status.as_u16() {
        429 | 503 | 529 => ProviderError::Overloaded { retry_after: retry_after(headers, now) },
        other => ProviderError::Status(other),
    }
}

/// OpenAI's `retry-after-ms`, or else seconds or a date,
/// <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let value = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let ms = value(RETRY_AFTER_MS).and_then(|ms| ms.parse::<f64>().ok());
    let exact = ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    if let Some(after) = exact {
        return Some(after.min(RETRY_AFTER_MAX));
    }
    let value = value(header::RETRY_AFTER.as_str())?;
    let after = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let left = OffsetDateTime::parse(value, &Rfc2822).ok()? - now;
            Duration::try_from(left).unwrap_or(Duration::ZERO)
        }
    };
    Some(after.min(RETRY_AFTER_MAX))
}

/// Whether a success carries a page or an object, such as a gateway's login page. Other types are
/// let through: some servers stream events as `text/plain`.
fn is_a_document(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(kind.as_str(), "text/html" | "application/json")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_absurd() {
        let now = datetime!(2015-10-21 07:27:30 UTC);
        let after = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(after("Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO), "it has passed");
        assert_eq!(after("99999999999"), Some(RETRY_AFTER_MAX));
        for nonsense in ["-1", "soon", "", "NaN", "inf", "1e300"] {
            assert_eq!(after(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);

        let both = |ms: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER_MS, HeaderValue::from_str(ms).unwrap());
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
            retry_after(&headers, now)
        };
        assert_eq!(both("250.5"), Some(Duration::from_micros(250_500)));
        assert_eq!(both("1e300"), Some(Duration::from_secs(7)));
        assert_eq!(both("soon"), Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_endpoint_tolerates_a_trailing_slash_and_refuses_what_is_no_http() {
        let path = ["chat", "completions"];
        for base in ["http://localhost:1/v1", "http://localhost:1/v1/"] {
            let url = endpoint(base, &path).unwrap();
            assert_eq!(url.as_str(), "http://localhost:1/v1/chat/completions");
        }
        let url = endpoint("https://gateway/x/v1?tenant=7", &path).unwrap();
        assert_eq!(url.as_str(), "https://gateway/x/v1/chat/completions?tenant=7");
        for base in ["localhost:8000/v1", "file:///v1", "", "api.openai.com/v1"] {
            assert!(matches!(endpoint(base, &path), Err(SetupError::BaseUrl)), "{base:?}");
        }
    }

    #[test]
    fn a_word_is_cut_and_a_sentence_is_none() {
        assert_eq!(word("server_error").as_deref(), Some("server_error"));
        assert_eq!(word(&"x".repeat(100)), Some("x".repeat(64)));
        assert_eq!(word("you wrote: secret"), None);
        assert_eq!(word("http_503").as_deref(), Some("http_503"));
        assert_eq!(word("sk-proj-aB1cD2eF3gH4"), None, "a key that came back");
        assert_eq!(word(""), None);
    }

    #[tokio::test]
    async fn only_what_the_seam_holds_is_left_out() {
        /// One event is one text.
        struct Texts;
        impl Vocabulary for Texts {
            fn read(&mut self, data: &str, to: &mut VecDeque<Delta>) -> Result<(), ProviderError> {
                push_text(to, Some(data.to_owned()));
                Ok(())
            }
            fn ended(&mut self) -> Option<StopReason> {
                None
            }
        }
        let after = async |seam: &str, texts: &[&str]| {
            let events = texts.iter().map(|text| Ok(format!("data:  {text}|\n\n").into()));
            let events: Vec<_> = events.collect();
            let deltas = super::read(stream::iter(events), Texts, seam.to_owned());
            let texts = deltas.filter_map(async |delta| match delta {
                Ok(Delta::Text(text)) => Some(text),
                _ => None,
            });
            texts.collect::<Vec<_>>().await
        };
        assert_eq!(after("", &["a", ""]).await, [" a|", " |"]);
        assert_eq!(after(" ", &["a", "b"]).await, ["a|", " b|"]);
        assert_eq!(after("\u{3000} ", &["a"]).await, [" a|"], "another white space");
        assert_eq!(after(" |  ", &["", " a"]).await, ["a|"], "over several texts");
    }
}
