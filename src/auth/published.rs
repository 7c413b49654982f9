//! Keys that an issuer publishes: which are taken, which token is for which, and when they are
//! fetched.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jsonwebtoken::{Algorithm, get_current_timestamp};
use serde_json::{Value, json};

use super::head::Head;
use super::issuer::{Fetched, Issuer};
use super::jwks::{Broken, KEYS_MAX, KeySet};
use super::keys::{Fault, rules};
use super::signers::{
    ED25519, ED25519_PUBLIC, OTHER_RSA, OTHER_RSA_PUBLIC, P256, P256_PUBLIC, P384_PUBLIC, RSA,
    RSA_PUBLIC, SECRET, Signer, auth, base64, jwk,
};

fn set(keys: &[Value]) -> Result<KeySet, Broken> {
    KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), &rules(&auth()))
}

fn payload() -> String {
    json!({ "sub": "ada", "exp": get_current_timestamp() + 600 }).to_string()
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => json!({ "alg": algorithm, "kid": kid }).to_string(),
        None => json!({ "alg": algorithm }).to_string(),
    }
}

/// Whether a set has keys that a token is tried with, and one of them signed it.
fn accepts(set: &KeySet, signer: &Signer, kid: Option<&str>) -> bool {
    let token = signer.token_of(&header(signer.algorithm, kid), &payload());
    let head = Head::read(&token).unwrap();
    let mut fitting = set.keys.iter().filter(|published| published.fits(&head));
    fitting.any(|published| published.key.read(&token, false).is_ok())
}

#[test]
fn a_key_is_for_the_algorithms_of_its_kind_and_its_alg_leaves_one() {
    let all = |private| {
        [Algorithm::RS256, Algorithm::RS512, Algorithm::PS256].map(|alg| Signer::new(alg, private))
    };
    let any = set(&[jwk(RSA_PUBLIC, json!({ "kid": "a", "use": "sig" }))]).unwrap();
    for signer in all(RSA) {
        assert!(accepts(&any, &signer, Some("a")));
        assert!(accepts(&any, &signer, None), "who names none is tried with those that fit");
        assert!(!accepts(&any, &signer, Some("b")));
    }
    let one = set(&[jwk(RSA_PUBLIC, json!({ "kid": "a", "alg": "RS256" }))]).unwrap();
    let [rs256, rs512, ps256] = all(RSA);
    assert!(accepts(&one, &rs256, Some("a")) && accepts(&one, &rs256, None));
    for other in [rs512, ps256] {
        assert!(!accepts(&one, &other, Some("a")) && !accepts(&one, &other, None));
    }
    let signer = Signer::new(Algorithm::ES256, P256);
    assert!(accepts(&set(&[jwk(P256_PUBLIC, json!({}))]).unwrap(), &signer, None));
    assert!(!accepts(&set(&[jwk(P384_PUBLIC, json!({}))]).unwrap(), &signer, None));
    let signer = Signer::new(Algorithm::EdDSA, ED25519);
    assert!(accepts(
        &set(&[jwk(ED25519_PUBLIC, json!({ "alg": "EdDSA" }))]).unwrap(),
        &signer,
        None
    ));
}

#[test]
fn a_token_is_for_the_key_that_it_names() {
    let two = [
        jwk(RSA_PUBLIC, json!({ "kid": "a" })),
        jwk(OTHER_RSA_PUBLIC, json!({ "kid": "b" })),
        jwk(P256_PUBLIC, json!({ "kid": "a" })),
    ];
    let two = set(&two).unwrap();
    let [first, other] = [RSA, OTHER_RSA].map(|private| Signer::new(Algorithm::RS256, private));
    assert!(accepts(&two, &first, Some("a")) && accepts(&two, &other, Some("b")));
    assert!(!accepts(&two, &first, Some("b")) && !accepts(&two, &other, Some("a")));
    assert!(accepts(&two, &first, None) && accepts(&two, &other, None));
    assert!(accepts(&two, &Signer::new(Algorithm::ES256, P256), Some("a")), "kinds share names");
}

#[test]
fn what_is_no_key_for_signatures_is_passed_over() {
    let mut no_x = jwk(P256_PUBLIC, json!({}));
    no_x["x"] = Value::Null;
    let mut short = jwk(P256_PUBLIC, json!({}));
    short["y"] = json!("AAAA");
    let useless = [
        json!({}),
        json!({ "kty": "oct", "k": base64(SECRET) }),
        json!({ "kty": "oct", "k": base64(SECRET), "alg": "HS256", "kid": "a" }),
        json!({ "kty": "RSA" }),
        json!({ "kty": "RSA", "n": base64([0xff; 128]), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": base64([0xff; 256]), "e": "AQ" }),
        json!({ "kty": "RSA", "n": base64([0xff; 256]), "e": "Ag" }),
        json!({ "kty": "RSA", "n": base64([0xff; 2048]), "e": "AQAB" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": base64([1; 32]) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": base64([1; 31]) }),
        json!({ "kty": "EC", "crv": "P-521", "x": base64([1; 66]), "y": base64([1; 66]) }),
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA" }),
        no_x,
        short,
        jwk(P384_PUBLIC, json!({ "crv": "P-256" })),
        jwk(RSA_PUBLIC, json!({ "use": "enc" })),
        jwk(RSA_PUBLIC, json!({ "use": 1 })),
        jwk(RSA_PUBLIC, json!({ "key_ops": ["encrypt"] })),
        jwk(RSA_PUBLIC, json!({ "key_ops": [] })),
        jwk(RSA_PUBLIC, json!({ "key_ops": "verify" })),
        jwk(RSA_PUBLIC, json!({ "alg": "RSA-OAEP" })),
        jwk(RSA_PUBLIC, json!({ "alg": "HS256" })),
        jwk(RSA_PUBLIC, json!({ "alg": "ES256" })),
        jwk(RSA_PUBLIC, json!({ "alg": 1 })),
        jwk(RSA_PUBLIC, json!({ "kid": 1 })),
        jwk(RSA_PUBLIC, json!({ "kty": "EC" })),
        jwk(P256_PUBLIC, json!({ "alg": "ES384" })),
    ];
    for key in &useless {
        assert_eq!(set(std::slice::from_ref(key)).err(), Some(Broken::Useless(1)), "{key}");
    }
    let beside =
        set(&[&useless[..], &[jwk(RSA_PUBLIC, json!({ "key_ops": ["verify"] }))]].concat());
    let beside = beside.unwrap();
    assert_eq!((beside.keys.len(), beside.secrets), (1, 2));
    let secret = Signer::secret(Algorithm::HS256, SECRET.as_bytes());
    assert!(!accepts(&beside, &secret, None) && !accepts(&beside, &secret, Some("a")));
}

#[test]
fn what_is_no_set_is_said() {
    let read = |json: &str| KeySet::read(json.as_bytes(), &rules(&auth())).err();
    for json in [
        "",
        "nonsense",
        "[]",
        "{}",
        "null",
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[{}],"keys":[]}"#,
    ] {
        assert_eq!(read(json), Some(Broken::Nonsense), "{json}");
    }
    assert_eq!(read(r#"{"keys":[]}"#), Some(Broken::Useless(0)));
    let many = |count| vec![jwk(RSA_PUBLIC, json!({})); count];
    assert_eq!(set(&many(KEYS_MAX)).unwrap().keys.len(), KEYS_MAX);
    assert_eq!(set(&many(KEYS_MAX + 1)).err(), Some(Broken::TooMany(KEYS_MAX + 1)));
}

const REFRESH: Duration = Duration::from_secs(600);

fn issuer() -> Arc<Issuer> {
    Arc::new(Issuer::new("http://issuer.invalid/keys?secret=hush", REFRESH, &rules(&auth())))
}

fn head(algorithm: Algorithm, kid: Option<&str>) -> Head {
    Head { algorithm, kid: kid.map(str::to_owned) }
}

fn of(kid: &str) -> Fetched {
    Ok(set(&[jwk(RSA_PUBLIC, json!({ "kid": kid }))]).unwrap())
}

fn broken() -> Fetched {
    Err(Broken::Nonsense.into())
}

#[tokio::test(start_paused = true)]
async fn without_any_keys_nobody_can_say_whether_a_token_is_right() {
    let issuer = issuer();
    let mut fetcher = issuer.fetcher().unwrap();
    let rs256 = head(Algorithm::RS256, Some("a"));
    let keys = async || issuer.keys(&rs256).await.map(|keys| keys.len());
    assert_eq!(keys().await, Err(Fault::Unavailable));
    let pauses: Vec<_> = (0..5).map(|_| fetcher.take(broken(), 1).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 5, 5], "it goes on trying");
    assert!(!issuer.is_up());
    assert_eq!(keys().now_or_never(), Some(Err(Fault::Unavailable)), "nobody waits for that");
    assert_eq!(fetcher.take(of("a"), 1), REFRESH);
    assert!(issuer.is_up());
    assert_eq!(keys().await, Ok(1));
    let pauses: Vec<_> = (0..9).map(|_| fetcher.take(broken(), 1).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(!issuer.is_up());
    assert_eq!(keys().await, Ok(1), "good keys stay");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_asks_once_a_minute_whoever_names_one() {
    let issuer = issuer();
    let mut fetcher = issuer.fetcher().unwrap();
    fetcher.take(of("a"), fetcher.question());
    let asks = async |kid: &str| {
        issuer.keys(&head(Algorithm::RS256, Some(kid))).await.map(|keys| keys.len())
    };
    let mut fetches = 0;
    for minute in 0..3 {
        let before = fetcher.question();
        let flood =
            futures::future::join_all((0..100).map(async |n: u32| asks(&format!("x{n}")).await));
        let fetch = async {
            // As the one who fetches does: told once, however many ask.
            fetcher.wanted().await;
            assert_eq!(asks("a").now_or_never(), Some(Ok(1)), "who has a known key does not wait");
            fetches += 1;
            fetcher.take(of("a"), before + 1);
        };
        let (refused, ()) = tokio::join!(flood, fetch);
        assert!(refused.iter().all(|refused| *refused == Err(Fault::Other)));
        assert_eq!(fetcher.question(), before + 1);
        assert_eq!(fetcher.wanted().now_or_never(), None);
        // Until a minute has passed, nobody even waits.
        assert_eq!(asks("y").now_or_never(), Some(Err(Fault::Other)));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(asks("y").now_or_never(), Some(Err(Fault::Other)), "{minute}");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(fetches, 3);
    // What names no key, or a known one of another kind, asks for nothing.
    for (algorithm, kid) in [(Algorithm::ES256, None), (Algorithm::ES256, Some("a"))] {
        let found = issuer.keys(&head(algorithm, kid)).now_or_never().unwrap();
        assert_eq!(found.map(|keys| keys.len()), Err(Fault::Other));
    }
    assert_eq!(fetcher.wanted().now_or_never(), None);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_found_where_it_is_new_and_nobody_waits_for_ever() {
    let issuer = issuer();
    let mut fetcher = issuer.fetcher().unwrap();
    fetcher.take(of("a"), fetcher.question());
    let asks = async |kid: &str| {
        issuer.keys(&head(Algorithm::RS256, Some(kid))).await.map(|keys| keys.len())
    };
    let fetch = async {
        fetcher.wanted().await;
        let question = fetcher.question();
        fetcher.take(of("b"), question);
    };
    assert_eq!(tokio::join!(asks("b"), fetch).0, Ok(1));
    assert_eq!(asks("a").await, Err(Fault::Other), "what is not published any more is gone");

    // Where it fails, nobody knows; nor where it takes too long.
    tokio::time::advance(Duration::from_secs(60)).await;
    let fetch = async {
        fetcher.wanted().await;
        let question = fetcher.question();
        fetcher.take(broken(), question);
    };
    assert_eq!(tokio::join!(asks("c"), fetch).0, Err(Fault::Unavailable));
    assert_eq!(asks("b").await, Ok(1));
    tokio::time::advance(Duration::from_secs(60)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(asks("c").await, Err(Fault::Unavailable));
    assert!(began.elapsed() <= Duration::from_secs(6));
    // Of a flood only so many wait.
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..300 {
        let mut ask = Box::pin(asks("d"));
        match futures::poll!(&mut ask) {
            std::task::Poll::Ready(found) => {
                assert_eq!(found, Err(Fault::Unavailable));
                refused += 1;
            }
            std::task::Poll::Pending => waiting.push(ask),
        }
    }
    assert_eq!((waiting.len(), refused), (256, 44));
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_no_longer_than_a_fetch_may_take() {
    let issuer = issuer();
    let began = tokio::time::Instant::now();
    issuer.tried().await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let mut fetcher = issuer.fetcher().unwrap();
    fetcher.take(broken(), fetcher.question());
    assert_eq!(issuer.tried().now_or_never(), Some(()));
}
