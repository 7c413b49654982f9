//! Verifying and making tokens. RFC 7519, and RFC 8725 for what to refuse.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Claims, Refused, TokenKind};
use crate::config;
use crate::domain::{SessionId, Timestamp, UserId};

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The end of the year 9999, in seconds: what RFC 3339 can still write.
const LAST_SECOND: u64 = 253_402_300_799;

/// Verifies and makes the cluster's tokens.
pub struct Verifier {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
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

impl Verifier {
    /// With the key, issuer and audience of `auth`. Where there is no key, as under `DEV_AUTH`, a
    /// random one is made: then only this verifier's own tokens are good.
    pub fn new(auth: &config::Auth) -> Self {
        let key = match &auth.jwt_secret {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => random_key(),
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
            issuer: auth.issuer.clone(),
            audience: auth.audience.first().cloned(),
        }
    }

    /// What `token`, without `Bearer `, says.
    ///
    /// # Errors
    /// [`Refused::Expired`] where all but its time is right, as far as was looked;
    /// [`Refused::Invalid`] for everything else, the empty text included.
    pub fn verify(&self, token: &str) -> Result<Claims, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let token = decode::<Payload>(token, &self.decoding, &self.validation).map_err(
            |error| match error.kind() {
                ErrorKind::ExpiredSignature => Refused::Expired,
                _ => Refused::Invalid,
            },
        )?;
        if demands_more(&token.header) {
            return Err(Refused::Invalid);
        }
        token.claims.read().ok_or(Refused::Invalid)
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
        let text = encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(IssueError::Sign)?;
        if text.len() > TOKEN_BYTES_MAX { Err(IssueError::TooLong) } else { Ok(text) }
    }
}

const SSE: &str = "sse";

/// A key nobody else has: 366 random bits of the operating system.
fn random_key() -> Vec<u8> {
    (0..3).flat_map(|_| Uuid::new_v4().into_bytes()).collect()
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
