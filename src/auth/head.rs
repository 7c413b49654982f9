//! The header of a token: what is read before its signature is known to be right, and so no more
//! than which key to look for.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// What no header may have: extensions that would have to be understood (RFC 7515 § 4.1.11),
/// among them a payload that is not in base64 (RFC 7797); a key that the token brings along or
/// names the place of (RFC 8725 § 3.10); encryption and compression.
const REFUSED: [&str; 8] = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "enc", "zip"];

/// What a token says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) algorithm: Algorithm,
    /// Which of its issuer's keys it is.
    pub(super) kid: Option<String>,
}

impl Head {
    /// The header of a token in three parts; `None` where it is none that is taken.
    pub(super) fn read(token: &str) -> Option<Self> {
        let (head, rest) = token.split_once('.')?;
        if rest.bytes().filter(|byte| *byte == b'.').count() != 1 {
            return None;
        }
        let Members(members) = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        if REFUSED.iter().any(|name| members.contains_key(*name)) {
            return None;
        }
        let algorithm = members.get("alg")?.as_str()?.parse().ok()?;
        let kid = match members.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return None,
        };
        Some(Self { algorithm, kid })
    }
}

/// An object that has each member once.
struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Once)
    }
}
