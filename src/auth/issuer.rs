//! The keys that a token issuer publishes: fetched, kept, and fetched again.
//!
//! One task fetches; whoever verifies reads what it last brought. Keys that were good once stay
//! until a good set replaces them: an issuer that is down, or publishes nonsense, ends nobody's
//! token. A token that names an unknown key has them fetched at once, at most once a minute,
//! whoever else names one meanwhile: a flood of such tokens costs one request, and nobody waits
//! whose key is known.

use std::error::Error;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::Validation;
use reqwest::{Client, StatusCode, Url, header};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::head::Head;
use super::jwks::{Broken, KeySet, Published};
use super::keys::Fault;

/// How long fetching may take.
const FETCHED_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of a set.
const SET_BYTES_MAX: usize = 256 * 1024;
/// How often an unknown key may have them fetched.
const ASKED_EVERY: Duration = Duration::from_secs(60);
/// How long somebody waits whose key is unknown: one fetch, and a little of one before it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(6);
/// The most who wait so.
const WAITING_MAX: usize = 256;
/// The longest pause after a failure where nobody can be let in, and where keys are at hand.
const AGAIN_WITHOUT: Duration = Duration::from_secs(5);
const AGAIN_WITH: Duration = Duration::from_secs(60);

type Keys = Arc<[Published]>;

/// A token issuer.
pub(super) struct Issuer {
    url: String,
    refresh: Duration,
    rules: Validation,
    seen: watch::Sender<Seen>,
    asked: Mutex<Asked>,
    wanted: Notify,
    waiting: Semaphore,
}

/// What the last fetches brought.
struct Seen {
    /// `None`: there never were any.
    keys: Option<Keys>,
    /// Whether the last one succeeded.
    is_up: bool,
    /// Up to which question they are an answer.
    answered: u64,
}

/// What unknown keys have asked for.
struct Asked {
    /// The newest question, from 1: the first is the start's.
    question: u64,
    /// When an unknown key last asked.
    at: Option<Instant>,
}

/// Why a set was not fetched. Says nothing of the URL, whose query may hold a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("no answer within {} s", FETCHED_WITHIN.as_secs())]
    Late,
    #[error("{}", chain(.0))]
    Request(reqwest::Error),
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("the answer is longer than {SET_BYTES_MAX} bytes")]
    TooLong,
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error.without_url())
    }
}

/// What a fetch brought.
pub(super) type Fetched = Result<KeySet, Failed>;

/// Fetching cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The URL is none.
    #[error("JWKS_URL is no URL")]
    Url,
    /// The system's certificates cannot be loaded.
    #[error("set up the client of JWKS_URL")]
    Client(#[source] reqwest::Error),
}

impl Issuer {
    /// An issuer of whom nothing is known yet.
    pub(super) fn new(url: &str, refresh: Duration, rules: &Validation) -> Self {
        let seen = Seen { keys: None, is_up: true, answered: 0 };
        Self {
            url: url.to_owned(),
            refresh,
            rules: rules.clone(),
            seen: watch::Sender::new(seen),
            asked: Mutex::new(Asked { question: 1, at: None }),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    /// Whether the last fetch succeeded.
    pub(super) fn is_up(&self) -> bool {
        self.seen.borrow().is_up
    }

    /// Waits until the first fetch is over, well or not, at most as long as one may take.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn tried(&self) {
        let mut seen = self.seen.subscribe();
        let _ = timeout(FETCHED_WITHIN, seen.wait_for(|seen| seen.answered > 0)).await;
    }

    /// Keys among which is one that fits a token; where none does, what is wrong with it.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn keys(&self, head: &Head) -> Result<Keys, Fault> {
        let known = self.seen.borrow().keys.clone().ok_or(Fault::Unavailable)?;
        if known.iter().any(|published| published.fits(head)) {
            return Ok(known);
        }
        // Who names no key, or a known one, has nothing to hope for from new keys.
        let kid = head.kid.as_deref().ok_or(Fault::Other)?;
        if known.iter().any(|published| published.is_named(kid)) {
            return Err(Fault::Other);
        }
        self.look_again().await?;
        let seen = self.seen.borrow();
        match &seen.keys {
            Some(keys) if keys.iter().any(|published| published.fits(head)) => Ok(keys.clone()),
            // Whether there is such a key nobody can say now.
            _ if !seen.is_up => Err(Fault::Unavailable),
            _ => Err(Fault::Other),
        }
    }

    /// Waits for keys that were fetched since an unknown one was last allowed to ask for them.
    async fn look_again(&self) -> Result<(), Fault> {
        let question = self.ask();
        let mut seen = self.seen.subscribe();
        if seen.borrow().answered >= question {
            return Ok(());
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| Fault::Unavailable)?;
        let answered = seen.wait_for(|seen| seen.answered >= question);
        match timeout(ANSWERED_WITHIN, answered).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Fault::Unavailable),
        }
    }

    /// Which question is to be answered: a new one where it is time for one.
    fn ask(&self) -> u64 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.at.is_none_or(|at| at.elapsed() >= ASKED_EVERY) {
            asked.at = Some(Instant::now());
            asked.question += 1;
            self.wanted.notify_one();
        }
        asked.question
    }

    /// What fetches.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) fn fetcher(self: &Arc<Self>) -> Result<Fetcher, StartError> {
        let url = Url::parse(&self.url).map_err(|_| StartError::Url)?;
        let client = Client::builder()
            .connect_timeout(FETCHED_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("tokencast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(StartError::Client)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        Ok(Fetcher { issuer: self.clone(), client, url, host, failures: 0, secrets: 0 })
    }
}

/// The one who fetches.
pub(super) struct Fetcher {
    issuer: Arc<Issuer>,
    client: Client,
    url: Url,
    host: String,
    /// How many failed since the last that did not.
    failures: u32,
    /// How many secrets the last set had.
    secrets: usize,
}

impl Fetcher {
    /// Fetches until told to stop.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        loop {
            let question = self.question();
            let Some(fetched) = stop.run_until_cancelled(self.fetch()).await else { return };
            let pause = self.take(fetched, question);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.wanted() => {}
            }
        }
    }

    /// What a fetch that begins now is an answer to.
    pub(super) fn question(&self) -> u64 {
        self.issuer.asked.lock().unwrap_or_else(PoisonError::into_inner).question
    }

    /// Waits until an unknown key asks.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn wanted(&self) {
        self.issuer.wanted.notified().await;
    }

    async fn fetch(&self) -> Fetched {
        let fetched = timeout(FETCHED_WITHIN, async {
            let request = self.client.get(self.url.clone());
            let mut response = request.header(header::ACCEPT, "application/json").send().await?;
            if response.status() != StatusCode::OK {
                return Err(Failed::Status(response.status()));
            }
            let mut json = Vec::new();
            while let Some(piece) = response.chunk().await? {
                if json.len() + piece.len() > SET_BYTES_MAX {
                    return Err(Failed::TooLong);
                }
                json.extend_from_slice(&piece);
            }
            Ok(json)
        });
        let json = fetched.await.map_err(|_| Failed::Late)??;
        Ok(KeySet::read(&json, &self.issuer.rules)?)
    }

    /// Keeps what was fetched, and says what changed. How long to wait now.
    pub(super) fn take(&mut self, fetched: Fetched, question: u64) -> Duration {
        let host = self.host.as_str();
        let (keys, secrets) = match fetched {
            Ok(KeySet { keys, secrets }) => (Some(Keys::from(keys)), secrets),
            Err(error) => {
                let kept = self.issuer.seen.borrow().keys.as_ref().map_or(0, |keys| keys.len());
                if self.failures == 0 {
                    tracing::warn!(host, %error, kept, "the keys of JWKS_URL cannot be had");
                } else {
                    tracing::debug!(host, %error, kept, "the keys of JWKS_URL cannot be had");
                }
                (None, self.secrets)
            }
        };
        if secrets > self.secrets {
            tracing::warn!(host, secrets, "JWKS_URL publishes secrets (`oct`): they are not used");
        }
        self.secrets = secrets;
        if let Some(keys) = &keys
            && (self.failures > 0 || self.issuer.seen.borrow().keys.is_none())
        {
            tracing::info!(host, keys = keys.len(), "the keys of JWKS_URL are known");
        }
        self.failures = if keys.is_some() { 0 } else { self.failures.saturating_add(1) };
        let mut pause = self.issuer.refresh;
        self.issuer.seen.send_modify(|seen| {
            seen.is_up = keys.is_some();
            seen.answered = question;
            if let Some(keys) = keys {
                seen.keys = Some(keys);
            }
            if !seen.is_up {
                let longest = if seen.keys.is_none() { AGAIN_WITHOUT } else { AGAIN_WITH };
                pause = Duration::from_secs(1 << self.failures.min(7) >> 1).min(longest);
            }
        });
        pause
    }
}

/// An error and its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
