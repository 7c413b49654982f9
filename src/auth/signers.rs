//! Whoever signs tokens in tests: fixed keys, which everybody knows, and tokens of any text.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{Claims, Refused, Verifier};
use crate::config::{Auth, PublicKey};

pub(super) const SECRET: &str = "a secret of thirty-two bytes, now";

pub(super) const RSA: &str = include_str!("../../tests/fixtures/keys/rsa.pem");
pub(super) const RSA_PUBLIC: &str = include_str!("../../tests/fixtures/keys/rsa.pub.pem");
pub(super) const OTHER_RSA: &str = include_str!("../../tests/fixtures/keys/rsa-other.pem");
pub(super) const OTHER_RSA_PUBLIC: &str =
    include_str!("../../tests/fixtures/keys/rsa-other.pub.pem");
pub(super) const P256: &str = include_str!("../../tests/fixtures/keys/p256.pem");
pub(super) const P256_PUBLIC: &str = include_str!("../../tests/fixtures/keys/p256.pub.pem");
pub(super) const OTHER_P256: &str = include_str!("../../tests/fixtures/keys/p256-other.pem");
pub(super) const P384: &str = include_str!("../../tests/fixtures/keys/p384.pem");
pub(super) const P384_PUBLIC: &str = include_str!("../../tests/fixtures/keys/p384.pub.pem");
pub(super) const ED25519: &str = include_str!("../../tests/fixtures/keys/ed25519.pem");
pub(super) const ED25519_PUBLIC: &str = include_str!("../../tests/fixtures/keys/ed25519.pub.pem");

/// No key at all.
pub(super) fn auth() -> Auth {
    Auth {
        jwt_secret: None,
        public_key: None,
        jwks_url: None,
        jwks_refresh: Duration::from_secs(600),
        expire: false,
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::from_secs(30),
        dev_auth: false,
        chat_auth: false,
        signing_secret: None,
        admin_scope: "tokencast:admin".to_owned(),
    }
}

/// Who verifies with a public key, and with nothing else.
pub(super) fn verifier_of(pem: &str) -> Verifier {
    Verifier::new(&Auth { public_key: Some(PublicKey::from_pem(pem).unwrap()), ..auth() })
}

/// Nothing is waited for where no keys are fetched.
pub(super) fn verify(verifier: &Verifier, token: &str) -> Result<Claims, Refused> {
    verifier.verify(token).now_or_never().expect("it answers at once")
}

/// The bytes of a PEM.
pub(super) fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Somebody's key; how it signs is said by the algorithm, not by the token's header.
pub(super) struct Signer {
    key: EncodingKey,
    pub(super) algorithm: Algorithm,
}

impl Signer {
    pub(super) fn new(algorithm: Algorithm, pem: &str) -> Self {
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&der(pem)),
            Algorithm::EdDSA => EncodingKey::from_ed_der(&der(pem)),
            _ => EncodingKey::from_rsa_der(&der(pem)),
        };
        Self { key, algorithm }
    }

    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { key: EncodingKey::from_secret(secret), algorithm }
    }

    /// A signature, in base64.
    pub(super) fn signature(&self, message: &str) -> String {
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap()
    }

    /// A token of any header and payload.
    pub(super) fn token_of(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", base64(header), base64(payload));
        format!("{message}.{}", self.signature(&message))
    }

    /// A header that is right.
    pub(super) fn header(&self) -> String {
        json!({ "alg": self.algorithm, "typ": "JWT" }).to_string()
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_of(&self.header(), &claims.to_string())
    }
}

/// A public key as an issuer publishes it, with further members.
pub(super) fn jwk(pem: &str, members: Value) -> Value {
    let point = |crv: &str, point: &[u8]| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({ "kty": "EC", "crv": crv, "x": base64(x), "y": base64(y) })
    };
    let mut jwk = match PublicKey::from_pem(pem).unwrap() {
        PublicKey::Rsa { modulus, exponent } => {
            json!({ "kty": "RSA", "n": base64(modulus), "e": base64(exponent) })
        }
        PublicKey::P256(bytes) => point("P-256", &bytes),
        PublicKey::P384(bytes) => point("P-384", &bytes),
        PublicKey::Ed25519(bytes) => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(bytes) }),
    };
    for (name, value) in members.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}
