//! Verifying and making tokens. RFC 7519, and RFC 8725 for what to refuse.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::head::Head;
use super::issuer::{Issuer, StartError};
use super::keys::{Fault, Key, rules};
use super::payload::{Issued, Payload, SSE};
use super::{Claims, Refused, TokenKind};
use crate::config;
use crate::domain::{SessionId, UserId};
use crate::lifecycle::Tasks;
use crate::telemetry::metrics::{Limit, limited};

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// How long a stream token is good for opening a stream anew.
pub const STREAM_TOKEN_TTL: Duration = Duration::from_secs(300);

/// How long after its issue a stream token is good for resuming the stream that it is bound to:
/// `EventSource` cannot change its URL.
const RESUMABLE_FOR: Duration = Duration::from_secs(60 * 60);

/// What is hashed with the key of normal tokens to make that of stream tokens. Nodes of one
/// cluster have to agree on it.
const STREAM_KEY_LABEL: &[u8] = b"tokencast stream tokens 1\0";

/// The most of an issuer's keys that are tried for a token that names none.
const KEYS_TRIED_MAX: usize = 8;

/// Verifies and makes the cluster's tokens.
pub struct Verifier {
    /// `None`: no token is under HMAC but those that open streams.
    secret: Option<Key>,
    public: Option<Key>,
    issuer_keys: Option<Arc<Issuer>>,
    stream: Key,
    encoding: EncodingKey,
    stream_encoding: EncodingKey,
    leeway: Duration,
    issuer: Option<String>,
    audience: Option<String>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It would be longer than [`TOKEN_BYTES_MAX`].
    #[error("the token would be longer than {TOKEN_BYTES_MAX} bytes: shorten the name")]
    TooLong,
    /// It could not be signed.
    #[error("sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// What a token is to say.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// Who.
    pub user: &'a UserId,
    /// What people see.
    pub name: Option<&'a str>,
    /// What it is good for.
    pub kind: TokenKind,
    /// The only session it opens.
    pub session: Option<&'a SessionId>,
    /// How long it is good, in whole seconds, at least one.
    pub ttl: Duration,
}

/// The stream that somebody wants to open with a token.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Of which session; `None`: it names none that could be.
    pub session: Option<&'a SessionId>,
    /// Whether it goes on where an earlier one broke off.
    pub resumes: bool,
}

impl Verifier {
    /// With the keys, issuer and audience of `auth`. Where there is no secret under `DEV_AUTH`, and
    /// where there is no key at all, a random one is made: only this verifier's own tokens are good
    /// under it. Stream tokens have a key of their own, `SIGNING_SECRET`; where it is unset, the
    /// SHA-256 of a label and the secret, or of a label and a random one.
    ///
    /// Published keys are not fetched before [`Verifier::start`].
    pub fn new(auth: &config::Auth) -> Self {
        let rules = rules(auth);
        let is_keyless = auth.public_key.is_none() && auth.jwks_url.is_none();
        let takes_secrets = auth.jwt_secret.is_some() || auth.dev_auth || is_keyless;
        let key = match &auth.jwt_secret {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => random_key(),
        };
        let stream_key = match &auth.signing_secret {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => derived_key(&key),
        };
        let published = auth.jwks_url.as_deref();
        Self {
            secret: takes_secrets.then(|| Key::secret(&key, &rules)),
            public: auth.public_key.as_ref().map(|key| Key::public(key, &rules)),
            issuer_keys: published.map(|url| Arc::new(Issuer::new(url, auth.jwks_refresh, &rules))),
            stream: Key::secret(&stream_key, &rules),
            encoding: EncodingKey::from_secret(&key),
            stream_encoding: EncodingKey::from_secret(&stream_key),
            leeway: auth.leeway,
            issuer: auth.issuer.clone(),
            audience: auth.audience.first().cloned(),
        }
    }

    /// Begins to fetch the issuer's keys, where it publishes any, and waits for the first set, at
    /// most as long as fetching may take: without it, tokens are refused as
    /// [`Refused::Unavailable`] until there is one.
    ///
    /// # Errors
    /// Where fetching cannot even begin.
    pub async fn start(&self, tasks: &Tasks) -> Result<(), StartError> {
        let Some(issuer) = &self.issuer_keys else { return Ok(()) };
        let (fetcher, stop) = (issuer.fetcher()?, tasks.stopping().clone());
        tasks.spawn(async move { fetcher.run(&stop).await });
        issuer.tried().await;
        Ok(())
    }

    /// Whether the issuer's keys could be fetched when that was last tried; `true` where there are
    /// none to fetch.
    pub fn is_up(&self) -> bool {
        self.issuer_keys.as_ref().is_none_or(|issuer| issuer.is_up())
    }

    /// What `token`, without `Bearer `, says. Tokens made by [`Verifier::issue_stream`] are not
    /// known here.
    ///
    /// # Errors
    /// [`Refused::Expired`] where all but its time is right, as far as was looked;
    /// [`Refused::Unavailable`] where its key is the issuer's and is not known now;
    /// [`Refused::Invalid`] for everything else, the empty text included.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn verify(&self, token: &str) -> Result<Claims, Refused> {
        let payload = self.read(token, false).await.map_err(Fault::refused)?;
        payload.read().ok_or(Refused::Invalid)
    }

    /// Verifies what [`find_token`](super::find_token) gave for opening a stream: a normal token,
    /// or a stream token of either key. One that is bound to the session is good for resuming its
    /// stream until an hour after its issue.
    ///
    /// # Errors
    /// [`Refused::Missing`] for `None`; the others as [`Verifier::verify`], [`Refused::Invalid`]
    /// also for a stream token that is bound to another session.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn verify_opening(
        &self,
        token: Option<&str>,
        opening: Opening<'_>,
    ) -> Result<Claims, Refused> {
        let token = token.ok_or(Refused::Missing)?;
        let (payload, is_own) = match self.read_either(token, false).await {
            Err(Fault::Expired) if opening.resumes => {
                let read = self.read_either(token, true).await.map_err(Fault::refused)?;
                if !self.is_resumable(&read.0, opening.session) {
                    return Err(Refused::Expired);
                }
                read
            }
            read => read.map_err(Fault::refused)?,
        };
        let claims = payload.read().ok_or(Refused::Invalid)?;
        let elsewhere = claims.session.is_some() && claims.session.as_ref() != opening.session;
        match claims.kind {
            // Our own key signs stream tokens and nothing else.
            TokenKind::Normal if is_own => Err(Refused::Invalid),
            TokenKind::Sse if elsewhere => Err(Refused::Invalid),
            TokenKind::Normal | TokenKind::Sse => Ok(claims),
        }
    }

    /// By the keys of normal tokens, else by that of stream tokens; `true`: by the latter.
    async fn read_either(
        &self,
        token: &str,
        may_have_ended: bool,
    ) -> Result<(Payload, bool), Fault> {
        match self.read(token, may_have_ended).await {
            Err(Fault::Signature) => {
                self.stream.read(token, may_have_ended).map(|payload| (payload, true))
            }
            read => read.map(|payload| (payload, false)),
        }
    }

    /// By the keys of normal tokens whose algorithm the token has.
    async fn read(&self, token: &str, may_have_ended: bool) -> Result<Payload, Fault> {
        if token.len() > TOKEN_BYTES_MAX {
            limited(Limit::Token).increment(1);
            return Err(Fault::Other);
        }
        let head = Head::read(token).ok_or(Fault::Other)?;
        let set = [&self.secret, &self.public].into_iter().flatten();
        for key in set.filter(|key| key.fits(head.algorithm)) {
            match key.read(token, may_have_ended) {
                Err(Fault::Signature) => {}
                read => return read,
            }
        }
        let Some(issuer) = self.issuer_keys.as_ref().filter(|_| !is_hmac(head.algorithm)) else {
            return Err(Fault::Signature);
        };
        let keys = issuer.keys(&head).await?;
        let fitting = keys.iter().filter(|published| published.fits(&head));
        for published in fitting.take(KEYS_TRIED_MAX) {
            match published.key.read(token, may_have_ended) {
                Err(Fault::Signature) => {}
                read => return read,
            }
        }
        Err(Fault::Signature)
    }

    /// Whether a token that has expired may still resume a stream of the session.
    fn is_resumable(&self, payload: &Payload, session: Option<&SessionId>) -> bool {
        let (Some(issued_at), Some(session)) = (payload.iat.as_u64(), session) else {
            return false;
        };
        let (now, leeway) = (jsonwebtoken::get_current_timestamp(), self.leeway.as_secs());
        let until = issued_at.saturating_add(RESUMABLE_FOR.as_secs()).saturating_add(leeway);
        payload.kind.as_str() == Some(SSE)
            && payload.session.as_str() == Some(session.as_str())
            && issued_at <= now.saturating_add(leeway)
            && now < until
    }

    /// Verifies what [`find_token`](super::find_token) gave.
    ///
    /// # Errors
    /// [`Refused::Missing`] for `None`, else as [`Verifier::verify`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn verify_found(&self, token: Option<&str>) -> Result<Claims, Refused> {
        self.verify(token.ok_or(Refused::Missing)?).await
    }

    /// Makes a token that this verifier, and every one with the same key, accepts.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, token: &NewToken<'_>) -> Result<String, IssueError> {
        self.sign(token, &self.encoding)
    }

    /// Makes a stream token for `user`, good for [`STREAM_TOKEN_TTL`], that opens the streams of
    /// all sessions or of one, here and on every node with the same key.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_stream(
        &self,
        user: &UserId,
        name: Option<&str>,
        session: Option<&SessionId>,
    ) -> Result<String, IssueError> {
        let token = NewToken { user, name, kind: TokenKind::Sse, session, ttl: STREAM_TOKEN_TTL };
        self.sign(&token, &self.stream_encoding)
    }

    fn sign(&self, token: &NewToken<'_>, key: &EncodingKey) -> Result<String, IssueError> {
        let now = jsonwebtoken::get_current_timestamp();
        let claims = Issued {
            sub: token.user.as_str(),
            name: token.name,
            kind: match token.kind {
                TokenKind::Normal => None,
                TokenKind::Sse => Some(SSE),
            },
            session: token.session.map(SessionId::as_str),
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
            iat: now,
            exp: now.saturating_add(token.ttl.as_secs().max(1)),
        };
        let text =
            encode(&Header::new(Algorithm::HS256), &claims, key).map_err(IssueError::Sign)?;
        if text.len() > TOKEN_BYTES_MAX { Err(IssueError::TooLong) } else { Ok(text) }
    }
}

fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// A key nobody else has: 366 random bits of the operating system.
fn random_key() -> Vec<u8> {
    (0..3).flat_map(|_| Uuid::new_v4().into_bytes()).collect()
}

/// The key of stream tokens where none is set. It does not lead back to `key`.
fn derived_key(key: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(STREAM_KEY_LABEL).chain_update(key).finalize().to_vec()
}
