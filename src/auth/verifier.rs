//! Verifying and making tokens. RFC 7519, and RFC 8725 for what to refuse.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Claims, Refused, TokenKind};
use crate::config;
use crate::domain::{SessionId, Timestamp, UserId};

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

/// The end of the year 9999, in seconds: what RFC 3339 can still write.
const LAST_SECOND: u64 = 253_402_300_799;

/// Verifies and makes the cluster's tokens.
pub struct Verifier {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
    stream_decoding: DecodingKey,
    stream_encoding: EncodingKey,
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
    /// With the keys, issuer and audience of `auth`. Where there is no key, as under `DEV_AUTH`, a
    /// random one is made: then only this verifier's own tokens are good. Stream tokens have a key
    /// of their own, `SIGNING_SECRET`; where it is unset, the SHA-256 of a label and the other key.
    pub fn new(auth: &config::Auth) -> Self {
        let key = match &auth.jwt_secret {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => random_key(),
        };
        let stream_key = match &auth.signing_secret {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => derived_key(&key),
        };
        let mut validation = Validation::new(Algorithm::HS256);
        // One key is for one family: a token cannot choose how its key is used.
        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        validation.leeway = auth.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = &auth.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.validate_aud = !auth.audience.is_empty();
        if validation.validate_aud {
            validation.set_audience(&auth.audience);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self {
            decoding: DecodingKey::from_secret(&key),
            encoding: EncodingKey::from_secret(&key),
            validation,
            stream_decoding: DecodingKey::from_secret(&stream_key),
            stream_encoding: EncodingKey::from_secret(&stream_key),
            issuer: auth.issuer.clone(),
            audience: auth.audience.first().cloned(),
        }
    }

    /// What `token`, without `Bearer `, says. Tokens made by [`Verifier::issue_stream`] are not
    /// known here.
    ///
    /// # Errors
    /// [`Refused::Expired`] where all but its time is right, as far as was looked;
    /// [`Refused::Invalid`] for everything else, the empty text included.
    pub fn verify(&self, token: &str) -> Result<Claims, Refused> {
        let payload = decoded(token, &self.decoding, &self.validation).map_err(Fault::refused)?;
        payload.read().ok_or(Refused::Invalid)
    }

    /// Verifies what [`find_token`](super::find_token) gave for opening a stream: a normal token,
    /// or a stream token of either key. One that is bound to the session is good for resuming its
    /// stream until an hour after its issue.
    ///
    /// # Errors
    /// [`Refused::Missing`] for `None`; [`Refused::Expired`] and [`Refused::Invalid`] as
    /// [`Verifier::verify`], the latter also for a stream token that is bound to another session.
    pub fn verify_opening(
        &self,
        token: Option<&str>,
        opening: Opening<'_>,
    ) -> Result<Claims, Refused> {
        let token = token.ok_or(Refused::Missing)?;
        let (payload, is_own) = match self.decode_either(token, &self.validation) {
            Err(Fault::Expired) if opening.resumes => {
                let validation = Validation { validate_exp: false, ..self.validation.clone() };
                let decoded = self.decode_either(token, &validation).map_err(Fault::refused)?;
                if !self.is_resumable(&decoded.0, opening.session) {
                    return Err(Refused::Expired);
                }
                decoded
            }
            decoded => decoded.map_err(Fault::refused)?,
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

    /// By the key of normal tokens, else by that of stream tokens; `true`: by the latter.
    fn decode_either(
        &self,
        token: &str,
        validation: &Validation,
    ) -> Result<(Payload, bool), Fault> {
        match decoded(token, &self.decoding, validation) {
            Err(Fault::Signature) => {
                decoded(token, &self.stream_decoding, validation).map(|payload| (payload, true))
            }
            decoded => decoded.map(|payload| (payload, false)),
        }
    }

    /// Whether a token that has expired may still resume a stream of the session.
    fn is_resumable(&self, payload: &Payload, session: Option<&SessionId>) -> bool {
        let (Some(issued_at), Some(session)) = (payload.iat.as_u64(), session) else {
            return false;
        };
        let (now, leeway) = (jsonwebtoken::get_current_timestamp(), self.validation.leeway);
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
    pub fn verify_found(&self, token: Option<&str>) -> Result<Claims, Refused> {
        self.verify(token.ok_or(Refused::Missing)?)
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

/// What is wrong with a token.
enum Fault {
    /// Another key signed it.
    Signature,
    /// It was right once.
    Expired,
    Other,
}

impl Fault {
    fn refused(self) -> Refused {
        match self {
            Self::Expired => Refused::Expired,
            Self::Signature | Self::Other => Refused::Invalid,
        }
    }
}

/// What a token says that `key` signed.
fn decoded(token: &str, key: &DecodingKey, validation: &Validation) -> Result<Payload, Fault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::Other);
    }
    let token = decode::<Payload>(token, key, validation).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Fault::Signature,
        ErrorKind::ExpiredSignature => Fault::Expired,
        _ => Fault::Other,
    })?;
    if demands_more(&token.header) { Err(Fault::Other) } else { Ok(token.claims) }
}

const SSE: &str = "sse";

/// A key nobody else has: 366 random bits of the operating system.
fn random_key() -> Vec<u8> {
    (0..3).flat_map(|_| Uuid::new_v4().into_bytes()).collect()
}

/// The key of stream tokens where none is set. It does not lead back to `key`.
fn derived_key(key: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(STREAM_KEY_LABEL).chain_update(key).finalize().to_vec()
}

/// Whether a header names extensions that must be understood (RFC 7515 § 4.1.11), or brings its
/// own key (RFC 8725 § 3.10). Here none is, and no key is taken from a token.
fn demands_more(header: &Header) -> bool {
    header.crit.is_some()
        || header.jwk.is_some()
        || header.jku.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
}

/// The claims that are used. Their types are looked at one by one; a claim that stands twice is
/// refused by serde.
#[derive(Deserialize)]
struct Payload {
    sub: Value,
    exp: Value,
    #[serde(default)]
    iat: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    username: Value,
    #[serde(default)]
    email: Value,
    #[serde(default, rename = "type")]
    kind: Value,
    #[serde(default, rename = "sessionId")]
    session: Value,
    #[serde(default)]
    scope: Value,
}

impl Payload {
    /// `None` where a claim that decides something has the wrong type; those for show are dropped.
    fn read(self) -> Option<Claims> {
        let exp = self.exp.as_u64().or_else(|| self.exp.as_f64().map(|exp| exp.round() as u64))?;
        let kind = match self.kind {
            Value::Null => TokenKind::Normal,
            Value::String(kind) if kind == SSE => TokenKind::Sse,
            Value::String(_) => TokenKind::Normal,
            _ => return None,
        };
        let session = match self.session {
            Value::Null => None,
            Value::String(id) => Some(SessionId::new(id).ok()?),
            _ => return None,
        };
        Some(Claims {
            user: UserId::new(self.sub.as_str()?).ok()?,
            name: text(self.name).or_else(|| text(self.username)),
            email: text(self.email),
            kind,
            session,
            scope: text(self.scope).unwrap_or_default(),
            expires_at: Timestamp::from_millis(exp.min(LAST_SECOND) as i64 * 1000),
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// The claims of a token made here.
#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: u64,
    exp: u64,
}
