//! A JSON Web Key Set (RFC 7517), as far as tokens are verified with its keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::head::Head;
use super::keys::Key;
use crate::config::PublicKey;

/// The most keys of a set, those included that are not used.
pub(super) const KEYS_MAX: usize = 64;

/// A key of a set.
#[derive(Clone)]
pub(super) struct Published {
    kid: Option<String>,
    pub(super) key: Key,
}

impl Published {
    /// Whether a token with this header may have been signed with the key: of one that names a key,
    /// only that one.
    pub(super) fn fits(&self, head: &Head) -> bool {
        self.key.fits(head.algorithm) && (head.kid.is_none() || head.kid == self.kid)
    }

    pub(super) fn is_named(&self, kid: &str) -> bool {
        self.kid.as_deref() == Some(kid)
    }
}

/// The keys of a set that are of use.
pub(super) struct KeySet {
    /// At least one.
    pub(super) keys: Vec<Published>,
    /// How many others are secrets: published, these are none.
    pub(super) secrets: usize,
}

/// A set is none that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("it is no JSON Web Key Set")]
    Nonsense,
    #[error("it has {0} keys, at most {KEYS_MAX} are taken")]
    TooMany(usize),
    #[error("none of its {0} keys verifies signatures that are known here")]
    Useless(usize),
}

impl KeySet {
    /// Reads a set. Keys that are not known, not whole, or for something else are passed over.
    ///
    /// # Errors
    /// [`Broken`], where no key is left, too.
    pub(super) fn read(json: &[u8], rules: &Validation) -> Result<Self, Broken> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Map<String, Value>>,
        }

        let Set { keys: all } = serde_json::from_slice(json).map_err(|_| Broken::Nonsense)?;
        if all.len() > KEYS_MAX {
            return Err(Broken::TooMany(all.len()));
        }
        let keys: Vec<_> = all.iter().filter_map(|jwk| published(jwk, rules)).collect();
        if keys.is_empty() {
            return Err(Broken::Useless(all.len()));
        }
        let is_secret = |jwk: &&Map<String, Value>| text(jwk, "kty") == Some("oct");
        Ok(Self { keys, secrets: all.iter().filter(is_secret).count() })
    }
}

fn published(jwk: &Map<String, Value>, rules: &Validation) -> Option<Published> {
    if jwk.get("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops")
        && !operations.as_array()?.iter().any(|operation| operation == "verify")
    {
        return None;
    }
    let key = Key::public(&public_key(jwk)?, rules);
    let key = match jwk.get("alg") {
        None => key,
        Some(named) => key.only(named.as_str()?.parse().ok()?)?,
    };
    let kid = match jwk.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str()?.to_owned()),
    };
    Some(Published { kid, key })
}

/// Its kind follows from `kty` and `crv` alone. A secret (`oct`) is none.
fn public_key(jwk: &Map<String, Value>) -> Option<PublicKey> {
    let bytes = |name| URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok();
    match (text(jwk, "kty")?, text(jwk, "crv")) {
        ("RSA", _) => PublicKey::rsa(&bytes("n")?, &bytes("e")?).ok(),
        ("EC", Some("P-256")) => PublicKey::p256(&bytes("x")?, &bytes("y")?),
        ("EC", Some("P-384")) => PublicKey::p384(&bytes("x")?, &bytes("y")?),
        ("OKP", Some("Ed25519")) => PublicKey::ed25519(&bytes("x")?),
        _ => None,
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}
