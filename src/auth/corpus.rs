//! Tokens that must be refused, each with the reason it would be dangerous to accept, and those
//! that must not be.

use std::time::Duration;

use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::{Claims, NewToken, Refused, TokenKind, Verifier, signers};
use crate::config::Auth;
use crate::domain::{SessionId, UserId};

const SECRET: &str = "a secret of thirty-two bytes, now";

fn auth() -> Auth {
    Auth { jwt_secret: Some(SECRET.into()), ..signers::auth() }
}

fn verifier() -> Verifier {
    Verifier::new(&auth())
}

/// Nothing is waited for where no keys are fetched.
fn verify(verifier: &Verifier, token: &str) -> Result<Claims, Refused> {
    verifier.verify(token).now_or_never().expect("it answers at once")
}

fn soon() -> u64 {
    get_current_timestamp() + 600
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word =
            three.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// A token of any header and payload text, rightly signed with HS256.
fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", base64(header.as_bytes()), base64(payload.as_bytes()));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn with(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token(claims: Value) -> String {
    with(Algorithm::HS256, &claims, SECRET)
}

/// Right claims, with one changed. `null` takes it away.
fn but(name: &str, value: Value) -> String {
    let mut claims = json!({ "sub": "ada", "exp": soon() });
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    token(claims)
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[test]
fn what_must_be_refused_is() {
    let payload = format!(r#"{{"sub":"ada","exp":{}}}"#, soon());
    let good = token(json!({ "sub": "ada", "exp": soon() }));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = head.split_once('.').unwrap();
    let none = base64(br#"{"alg":"none"}"#);
    let now = get_current_timestamp();
    let other_payload = base64(payload.replace("ada", "bob").as_bytes());
    let header_with = |extra: &str| signed(&format!(r#"{{"alg":"HS256",{extra}}}"#), &payload);
    let jwk = r#""jwk":{"kty":"oct","k":"AAAA"}"#;

    let invalid: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("no JWT", "nonsense".to_owned()),
        ("dots", "..".to_owned()),
        ("many dots", ".".repeat(4000)),
        ("not ASCII", "ä.ö.ü".to_owned()),
        ("alg none, unsigned", format!("{none}.{body}.")),
        ("alg none, with a signature", format!("{none}.{body}.{signature}")),
        ("alg none in capitals", format!("{}.{body}.", base64(br#"{"alg":"NONE"}"#))),
        ("alg of another family", signed(r#"{"alg":"RS256"}"#, &payload)),
        ("alg of elliptic curves", signed(r#"{"alg":"ES256"}"#, &payload)),
        ("alg that is none of ours", signed(r#"{"alg":"HS1"}"#, &payload)),
        ("alg that is not the signature's", signed(r#"{"alg":"HS512"}"#, &payload)),
        ("no alg", signed("{}", &payload)),
        ("alg twice", signed(r#"{"alg":"none","alg":"HS256"}"#, &payload)),
        ("header that is no object", signed("[]", &payload)),
        ("without signature", format!("{head}.")),
        ("without the last part", head.to_owned()),
        ("cut off", good[..good.len() - 1].to_owned()),
        ("longer", format!("{good}A")),
        ("another's signature", format!("{header}.{other_payload}.{signature}")),
        ("another secret", with(Algorithm::HS256, &json!({"sub":"ada","exp":soon()}), "other")),
        ("crit", header_with(r#""crit":["exp"]"#)),
        ("crit of nothing", header_with(r#""crit":[]"#)),
        ("brings its key", header_with(jwk)),
        ("says where its key is", header_with(r#""jku":"https://evil.example/k""#)),
        ("brings a certificate", header_with(r#""x5c":["AAAA"]"#)),
        ("says where its certificate is", header_with(r#""x5u":"https://evil.example/c""#)),
        ("compressed", header_with(r#""zip":"DEF""#)),
        ("payload that is no object", signed(HS256, "[1]")),
        ("payload that is no JSON", signed(HS256, "sub=ada")),
        ("payload that is empty", signed(HS256, "")),
        ("deep payload", signed(HS256, &"[".repeat(2500))),
        ("no exp", but("exp", Value::Null)),
        ("exp null", signed(HS256, r#"{"sub":"ada","exp":null}"#)),
        ("exp text", but("exp", json!(soon().to_string()))),
        ("exp negative", but("exp", json!(-1))),
        ("exp beyond any number", signed(HS256, r#"{"sub":"ada","exp":1e400}"#)),
        ("exp list", but("exp", json!([soon()]))),
        ("exp twice", signed(HS256, &format!(r#"{{"sub":"ada","exp":1,"exp":{}}}"#, soon()))),
        ("nbf in the future", but("nbf", json!(now + 120))),
        ("nbf text", but("nbf", json!("1"))),
        ("no sub", but("sub", Value::Null)),
        ("sub empty", but("sub", json!(""))),
        ("sub number", but("sub", json!(7))),
        ("sub object", but("sub", json!({ "id": "ada" }))),
        ("sub of 257 bytes", but("sub", json!("a".repeat(257)))),
        ("sub with NUL", but("sub", json!("a\0"))),
        ("sub twice", signed(HS256, &format!(r#"{{"sub":"ada","sub":"root","exp":{}}}"#, soon()))),
        ("type number", but("type", json!(1))),
        ("session that is none", but("sessionId", json!("a b"))),
        ("session number", but("sessionId", json!(1))),
        ("5 KiB", but("pad", json!("a".repeat(5 * 1024)))),
    ];
    for (what, token) in invalid {
        assert_eq!(verify(&verifier(), &token), Err(Refused::Invalid), "{what}: {token}");
    }
}

#[test]
fn an_expired_token_is_told_apart() {
    let now = get_current_timestamp();
    for exp in [json!(now - 31), json!(now as f64 - 60.0), json!(0), json!(1)] {
        assert_eq!(verify(&verifier(), &but("exp", exp.clone())), Err(Refused::Expired), "{exp}");
    }
    assert!(verify(&verifier(), &but("exp", json!(now - 20))).is_ok(), "within the leeway");
    // An attacker must not learn from it whether a forged token would have been right otherwise.
    let forged = with(Algorithm::HS256, &json!({ "sub": "ada", "exp": 1 }), "other");
    assert_eq!(verify(&verifier(), &forged), Err(Refused::Invalid));
}

#[test]
fn what_is_right_is_accepted() {
    let claims = json!({ "sub": "ada", "exp": soon() });
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let verified = verify(&verifier(), &with(algorithm, &claims, SECRET)).unwrap();
        assert_eq!(verified.user.as_str(), "ada");
        assert_eq!(verified.expires_at.as_millis() as u64 / 1000, claims["exp"].as_u64().unwrap());
        assert_eq!(
            (verified.kind, verified.session, verified.name),
            (TokenKind::Normal, None, None)
        );
    }
    for (name, value) in [
        ("sub", json!("ü".repeat(128))),
        ("exp", json!(soon() as f64 + 0.5)),
        ("exp", json!(u64::MAX)),
        ("nbf", json!(get_current_timestamp() + 20)),
        ("aud", json!("anybody's")),
        ("iss", json!(7)),
        ("type", json!("access")),
        ("name", json!(["odd"])),
        ("scope", json!({ "odd": 1 })),
    ] {
        let verified = verify(&verifier(), &but(name, value.clone()));
        // Far dates can be written.
        assert!(!verified.expect(name).expires_at.to_string().is_empty(), "{name}: {value}");
    }
}

#[test]
fn the_claims_are_read() {
    let claims = json!({
        "sub": "ada", "exp": soon(), "username": "Ada", "email": "ada@example.org", "type": "sse",
        "sessionId": "room:1", "scope": "a tokencast:admin",
    });
    let verified = verify(&verifier(), &token(claims)).unwrap();
    assert_eq!(verified.name.as_deref(), Some("Ada"));
    assert_eq!(verified.email.as_deref(), Some("ada@example.org"));
    assert_eq!(verified.session, Some(SessionId::new("room:1").unwrap()));
    assert!(verified.has_scope("tokencast:admin") && !verified.has_scope("tokencast"));
    assert_eq!(verified.kind, TokenKind::Sse);
    assert_eq!(verified.normal(), Err(Refused::Invalid));
}

#[test]
fn issuer_and_audience_are_checked_where_configured() {
    let verifier = Verifier::new(&Auth {
        issuer: Some("idp".to_owned()),
        audience: vec!["chat".to_owned(), "web".to_owned()],
        ..auth()
    });
    let verified = |iss: Value, aud: Value| {
        let mut claims = json!({ "sub": "ada", "exp": soon() });
        for (name, value) in [("iss", iss), ("aud", aud)] {
            if !value.is_null() {
                claims[name] = value;
            }
        }
        verify(&verifier, &token(claims)).map(|_| ())
    };
    assert_eq!(verified(json!("idp"), json!("chat")), Ok(()));
    assert_eq!(verified(json!("idp"), json!(["x", "web"])), Ok(()));
    for (iss, aud) in [
        (json!("other"), json!("chat")),
        (json!(null), json!("chat")),
        (json!(1), json!("chat")),
        (json!(["idp"]), json!("chat")),
        (json!(["other", "idp"]), json!("chat")),
        (json!("idp"), json!("other")),
        (json!("idp"), json!([])),
        (json!("idp"), json!(null)),
        (json!("idp"), json!({ "chat": true })),
    ] {
        assert_eq!(verified(iss.clone(), aud.clone()), Err(Refused::Invalid), "{iss} {aud}");
    }
}

#[test]
fn what_is_issued_is_accepted_here_and_nowhere_else() {
    let with_both =
        Auth { issuer: Some("idp".to_owned()), audience: vec!["chat".to_owned()], ..auth() };
    let without_key = Auth { jwt_secret: None, dev_auth: true, ..auth() };
    let user = UserId::new("ada").unwrap();
    let session = SessionId::new("room").unwrap();
    let new = NewToken {
        user: &user,
        name: Some("Ada"),
        kind: TokenKind::Sse,
        session: Some(&session),
        ttl: Duration::from_secs(300),
    };
    for auth in [auth(), with_both, without_key] {
        let verifier = Verifier::new(&auth);
        let token = verifier.issue(&new).unwrap();
        let claims = verify(&verifier, &token).unwrap();
        assert_eq!((&claims.user, claims.name.as_deref()), (&user, Some("Ada")));
        assert_eq!((claims.kind, claims.session.as_ref()), (TokenKind::Sse, Some(&session)));
        let stranger = Verifier::new(&Auth { jwt_secret: None, ..auth });
        assert_eq!(verify(&stranger, &token), Err(Refused::Invalid), "random keys differ");
    }
    let long = "a".repeat(5000);
    assert!(verifier().issue(&NewToken { name: Some(&long), ..new }).is_err());
}

#[test]
fn the_refusals_read_as_clients_rely_on() {
    assert_eq!(Refused::Missing.to_string(), "Authentication error: Token missing");
    assert_eq!(Refused::Invalid.to_string(), "Authentication error: Invalid token");
    assert_eq!(Refused::Expired.to_string(), "Authentication error: Token expired");
    assert_eq!(verifier().verify_found(None).now_or_never().unwrap(), Err(Refused::Missing));
    assert_eq!(verifier().verify_found(Some("")).now_or_never().unwrap(), Err(Refused::Invalid));
}

#[test]
fn no_key_shows_in_debug() {
    assert!(!format!("{:?} {:?}", verifier(), auth()).contains("thirty-two"));
}
