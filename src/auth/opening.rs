//! What opens an SSE stream, and what does not.

use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::{Claims, Opening, Refused, TokenKind, Verifier, signers};
use crate::config::Auth;
use crate::domain::{SessionId, UserId};

const SECRET: &str = "a secret of thirty-two bytes, now";
const SIGNING: &str = "another secret, of more than thirty-two bytes";
/// Made by hand, so that nodes of different builds are known to agree:
/// `printf 'tokencast stream tokens 1\0%s' "$SECRET" | sha256sum`.
const DERIVED: &str = "c49f642c3042d57c962f308d34f0d11010e4e8dad65f502209696c9b6e6c924e";

fn auth() -> Auth {
    let (jwt_secret, signing_secret) = (Some(SECRET.into()), Some(SIGNING.into()));
    Auth { jwt_secret, signing_secret, ..signers::auth() }
}

fn signed(key: &[u8], claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(key)).unwrap()
}

fn room() -> SessionId {
    SessionId::new("room").unwrap()
}

fn opened(
    verifier: &Verifier,
    token: Option<&str>,
    opening: Opening<'_>,
) -> Result<Claims, Refused> {
    verifier.verify_opening(token, opening).now_or_never().expect("it answers at once")
}

fn open(verifier: &Verifier, token: &str, resumes: bool) -> Result<Claims, Refused> {
    opened(verifier, Some(token), Opening { session: Some(&room()), resumes })
}

/// A stream token that was issued and expires so many seconds from now, but for `changes`.
fn stream_token(iat: i64, exp: i64, changes: Value) -> String {
    let now = get_current_timestamp() as i64;
    let mut claims = json!({ "sub": "ada", "type": "sse", "sessionId": "room", "iat": now + iat, "exp": now + exp });
    for (name, value) in changes.as_object().into_iter().flatten() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    signed(SIGNING.as_bytes(), &claims)
}

#[test]
fn a_stream_token_opens_streams_and_nothing_else() {
    let user = UserId::new("ada").unwrap();
    for auth in [
        auth(),
        Auth { signing_secret: None, ..auth() },
        Auth { issuer: Some("idp".to_owned()), audience: vec!["chat".to_owned()], ..auth() },
        Auth { jwt_secret: None, signing_secret: None, dev_auth: true, ..auth() },
        // Somebody who gives both the same key gains nothing by it.
        Auth { signing_secret: Some(SECRET.into()), ..auth() },
    ] {
        let verifier = Verifier::new(&auth);
        let bound = verifier.issue_stream(&user, Some("Ada"), Some(&room())).unwrap();
        let free = verifier.issue_stream(&user, None, None).unwrap();
        for token in [&bound, &free] {
            let claims = open(&verifier, token, false).unwrap();
            assert_eq!((&claims.user, claims.kind), (&user, TokenKind::Sse));
            let left = claims.expires_at.since(crate::domain::Timestamp::now()).as_secs();
            assert!((290..=300).contains(&left), "{left}");
            let as_normal = verifier.verify(token).now_or_never().unwrap().and_then(Claims::normal);
            assert_eq!(as_normal, Err(Refused::Invalid));
        }
        let elsewhere = SessionId::new("elsewhere").unwrap();
        for resumes in [false, true] {
            let opening = Opening { session: Some(&elsewhere), resumes };
            assert_eq!(opened(&verifier, Some(&bound), opening), Err(Refused::Invalid));
            assert!(opened(&verifier, Some(&free), opening).is_ok());
            let nowhere = Opening { session: None, resumes };
            assert_eq!(opened(&verifier, Some(&bound), nowhere), Err(Refused::Invalid));
        }
    }
}

#[test]
fn every_node_of_a_cluster_has_the_same_key() {
    let claims = json!({ "sub": "ada", "type": "sse", "exp": get_current_timestamp() + 60 });
    let derived: Vec<u8> =
        (0..32).map(|n| u8::from_str_radix(&DERIVED[2 * n..2 * n + 2], 16).unwrap()).collect();
    let without = Verifier::new(&Auth { signing_secret: None, ..auth() });
    assert!(open(&without, &signed(&derived, &claims), false).is_ok());
    assert_eq!(open(&without, &signed(SIGNING.as_bytes(), &claims), false), Err(Refused::Invalid));
    let with = Verifier::new(&auth());
    assert!(open(&with, &signed(SIGNING.as_bytes(), &claims), false).is_ok());
    assert_eq!(open(&with, &signed(&derived, &claims), false), Err(Refused::Invalid));
}

#[test]
fn other_tokens_that_open_a_stream() {
    let verifier = Verifier::new(&auth());
    let exp = get_current_timestamp() + 60;
    let normal = json!({ "sub": "ada", "exp": exp });
    let sse = json!({ "sub": "ada", "exp": exp, "type": "sse" });
    assert_eq!(
        open(&verifier, &signed(SECRET.as_bytes(), &normal), false).unwrap().kind,
        TokenKind::Normal
    );
    assert_eq!(
        open(&verifier, &signed(SECRET.as_bytes(), &sse), false).unwrap().kind,
        TokenKind::Sse
    );
    // Whoever knows the key of stream tokens cannot make themselves normal ones.
    assert_eq!(open(&verifier, &signed(SIGNING.as_bytes(), &normal), true), Err(Refused::Invalid));
    assert_eq!(open(&verifier, &signed(b"any other", &sse), true), Err(Refused::Invalid));
    assert_eq!(open(&verifier, "", true), Err(Refused::Invalid));
    let none = opened(&verifier, None, Opening { session: Some(&room()), resumes: true });
    assert_eq!(none, Err(Refused::Missing));
}

#[test]
fn an_expired_token_that_is_bound_resumes_until_an_hour_after_its_issue() {
    let verifier = Verifier::new(&auth());
    let expired = |iat: i64, changes: Value| stream_token(iat, -60, changes);
    for iat in [-360, -3500, -3620] {
        let token = expired(iat, json!({}));
        assert!(open(&verifier, &token, true).is_ok(), "{iat}");
        assert_eq!(open(&verifier, &token, false), Err(Refused::Expired), "anew: {iat}");
    }
    for (token, why) in [
        (expired(-3640, json!({})), "too long ago"),
        (expired(-360, json!({ "iat": null })), "nobody knows when"),
        (expired(-360, json!({ "iat": "1" })), "no number"),
        (expired(3600, json!({})), "issued in the future"),
        (expired(-360, json!({ "sessionId": null })), "not bound"),
        (expired(-360, json!({ "sessionId": "elsewhere" })), "bound elsewhere"),
    ] {
        assert_eq!(open(&verifier, &token, true), Err(Refused::Expired), "{why}");
    }
    let now = get_current_timestamp();
    let normal = json!({ "sub": "ada", "sessionId": "room", "iat": now - 360, "exp": now - 60 });
    assert_eq!(open(&verifier, &signed(SECRET.as_bytes(), &normal), true), Err(Refused::Expired));
    // What else is wrong stays wrong.
    for changes in [json!({ "nbf": now + 600 }), json!({ "sub": "" }), json!({ "sub": null })] {
        let refused = open(&verifier, &expired(-360, changes.clone()), true);
        assert!(refused.is_err(), "{changes}");
    }
    let forged = signed(
        b"any other",
        &json!({ "sub": "ada", "type": "sse", "sessionId": "room", "iat": now, "exp": 1 }),
    );
    assert_eq!(open(&verifier, &forged, true), Err(Refused::Invalid));
}
