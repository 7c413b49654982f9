//! One key, and what may be verified with it.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

use super::Refused;
use super::payload::Payload;
use crate::config::{self, PublicKey};

use Algorithm::{
    ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
};

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another key signed it.
    Signature,
    /// It was right once.
    Expired,
    /// It names a key of the issuer's that is not known now, and may be right.
    Unavailable,
    Other,
}

impl Fault {
    pub(super) fn refused(self) -> Refused {
        match self {
            Self::Expired => Refused::Expired,
            Self::Unavailable => Refused::Unavailable,
            Self::Signature | Self::Other => Refused::Invalid,
        }
    }
}

/// What every token has to be, whichever key signed it.
pub(super) fn rules(auth: &config::Auth) -> Validation {
    let mut rules = Validation::new(HS256);
    // A key adds its own.
    rules.algorithms = Vec::new();
    rules.leeway = auth.leeway.as_secs();
    rules.validate_nbf = true;
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &auth.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    rules.validate_aud = !auth.audience.is_empty();
    if rules.validate_aud {
        rules.set_audience(&auth.audience);
        required.push("aud");
    }
    rules.set_required_spec_claims(&required);
    rules
}

/// A key with the algorithms that are its own: a token cannot choose how its key is used.
#[derive(Clone)]
pub(super) struct Key {
    decoding: DecodingKey,
    rules: Validation,
}

impl Key {
    /// A secret, for HMAC.
    pub(super) fn secret(secret: &[u8], rules: &Validation) -> Self {
        Self::new(DecodingKey::from_secret(secret), &[HS256, HS384, HS512], rules)
    }

    /// A public key, for the algorithms of its kind.
    pub(super) fn public(key: &PublicKey, rules: &Validation) -> Self {
        match key {
            PublicKey::Rsa { modulus, exponent } => Self::new(
                DecodingKey::from_rsa_raw_components(modulus, exponent),
                &[RS256, RS384, RS512, PS256, PS384, PS512],
                rules,
            ),
            PublicKey::P256(point) => Self::new(DecodingKey::from_ec_der(point), &[ES256], rules),
            PublicKey::P384(point) => Self::new(DecodingKey::from_ec_der(point), &[ES384], rules),
            PublicKey::Ed25519(key) => Self::new(DecodingKey::from_ed_der(key), &[EdDSA], rules),
        }
    }

    fn new(decoding: DecodingKey, algorithms: &[Algorithm], rules: &Validation) -> Self {
        Self { decoding, rules: Validation { algorithms: algorithms.to_vec(), ..rules.clone() } }
    }

    /// The same key for one of its algorithms only; `None` where that is none of its own.
    pub(super) fn only(mut self, algorithm: Algorithm) -> Option<Self> {
        self.rules.algorithms.retain(|own| *own == algorithm);
        (!self.rules.algorithms.is_empty()).then_some(self)
    }

    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.rules.algorithms.contains(&algorithm)
    }

    /// What `token` says that this key signed; `may_have_ended`: whenever its `exp` was.
    pub(super) fn read(&self, token: &str, may_have_ended: bool) -> Result<Payload, Fault> {
        let decoded = if may_have_ended {
            let rules = Validation { validate_exp: false, ..self.rules.clone() };
            decode::<Payload>(token, &self.decoding, &rules)
        } else {
            decode::<Payload>(token, &self.decoding, &self.rules)
        };
        let token = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Fault::Signature,
            ErrorKind::ExpiredSignature => Fault::Expired,
            _ => Fault::Other,
        })?;
        // One of a list would do for the check above, and RFC 7519 § 4.1.1 knows no lists.
        if self.rules.iss.is_some() && !token.claims.iss.is_string() {
            return Err(Fault::Other);
        }
        Ok(token.claims)
    }
}
