//! Claims of every odd type and value, rightly signed, under a secret and under public keys.

use jsonwebtoken::{Algorithm, get_current_timestamp};

use super::signers::{
    P256, P256_PUBLIC, RSA, RSA_PUBLIC, SECRET, Signer, auth, verifier_of, verify,
};
use super::{Refused, TOKEN_BYTES_MAX, Verifier};
use crate::config::Auth;
use crate::telemetry::metrics;

/// What becomes of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Good,
    Expired,
    Invalid,
}

use Is::{Expired, Good, Invalid};

fn check(payload: &str, expected: Is) {
    let secret = Verifier::new(&Auth { jwt_secret: Some(SECRET.into()), ..auth() });
    for (signer, verifier) in [
        (Signer::secret(Algorithm::HS256, SECRET.as_bytes()), secret),
        (Signer::new(Algorithm::ES256, P256), verifier_of(P256_PUBLIC)),
        (Signer::new(Algorithm::RS256, RSA), verifier_of(RSA_PUBLIC)),
    ] {
        let verified = verify(&verifier, &signer.token_of(&signer.header(), payload));
        let found = match &verified {
            Ok(claims) => {
                assert!(!claims.expires_at.to_string().is_empty(), "far dates can be written");
                Good
            }
            Err(Refused::Expired) => Expired,
            Err(_) => Invalid,
        };
        assert_eq!(found, expected, "{:?}: {payload}", signer.algorithm);
    }
}

/// Past, present and future, in seconds.
fn moments() -> (u64, u64, u64) {
    let now = get_current_timestamp();
    (now - 3600, now, now + 3600)
}

#[test]
fn exp_is_a_number_that_has_not_passed() {
    let (past, now, soon) = moments();
    for (exp, expected) in [
        (format!("{soon}"), Good),
        (format!("{soon}.5"), Good),
        (format!("{}e0", soon), Good),
        ("1e10".to_owned(), Good),
        ("1e300".to_owned(), Invalid),
        (u64::MAX.to_string(), Good),
        ("18446744073709551616".to_owned(), Invalid),
        (format!("{}", now - 20), Good),
        (format!("{past}"), Expired),
        (format!("{past}.9"), Expired),
        ("0".to_owned(), Expired),
        ("0.0".to_owned(), Expired),
        ("1e-5".to_owned(), Expired),
        ("1e400".to_owned(), Invalid),
        ("-1e400".to_owned(), Invalid),
        ("-1".to_owned(), Invalid),
        ("-9223372036854775808".to_owned(), Invalid),
        (format!("\"{soon}\""), Invalid),
        ("\"never\"".to_owned(), Invalid),
        ("\"\"".to_owned(), Invalid),
        (format!("[{soon}]"), Invalid),
        (format!("{{\"at\":{soon}}}"), Invalid),
        ("null".to_owned(), Invalid),
        ("true".to_owned(), Invalid),
        ("NaN".to_owned(), Invalid),
        ("Infinity".to_owned(), Invalid),
        (format!("0x{soon:x}"), Invalid),
        (format!("0{soon}"), Invalid),
        (format!("+{soon}"), Invalid),
        (format!("{soon},\"exp\":{soon}"), Invalid),
        (format!("{past},\"exp\":{soon}"), Invalid),
        (format!("{soon},\"\\u0065xp\":{soon}"), Invalid),
    ] {
        check(&format!(r#"{{"sub":"ada","exp":{exp}}}"#), expected);
    }
    check(r#"{"sub":"ada"}"#, Invalid);
    check(&format!(r#"{{"sub":"ada","EXP":{soon}}}"#), Invalid);
}

#[test]
fn nbf_is_a_number_that_has_passed_where_there_is_one() {
    let (past, now, soon) = moments();
    for (nbf, expected) in [
        (format!("{past}"), Good),
        (format!("{past}.5"), Good),
        ("0".to_owned(), Good),
        (format!("{}", now + 20), Good),
        (format!("{soon}"), Invalid),
        (format!("{soon}.5"), Invalid),
        ("1e300".to_owned(), Invalid),
        (u64::MAX.to_string(), Invalid),
        ("1e400".to_owned(), Invalid),
        (format!("\"{past}\""), Invalid),
        (format!("[{past}]"), Invalid),
        ("{}".to_owned(), Invalid),
        ("true".to_owned(), Invalid),
        ("-1".to_owned(), Invalid),
        (format!("{past},\"nbf\":{past}"), Invalid),
        (format!("{soon},\"nbf\":{past}"), Invalid),
    ] {
        check(&format!(r#"{{"sub":"ada","exp":{soon},"nbf":{nbf}}}"#), expected);
    }
}

#[test]
fn iat_decides_nothing_but_has_to_be_json() {
    let (_, _, soon) = moments();
    for (iat, expected) in [
        (format!("{soon}"), Good),
        ("\"1\"".to_owned(), Good),
        ("-1".to_owned(), Good),
        ("1.5".to_owned(), Good),
        ("null".to_owned(), Good),
        ("[1]".to_owned(), Good),
        (u64::MAX.to_string(), Good),
        ("1e400".to_owned(), Invalid),
        ("1,\"iat\":1".to_owned(), Invalid),
    ] {
        check(&format!(r#"{{"sub":"ada","exp":{soon},"iat":{iat}}}"#), expected);
    }
}

#[test]
fn sub_is_a_text_that_can_be_a_user() {
    let (_, _, soon) = moments();
    let long = |bytes: usize| format!("\"{}\"", "a".repeat(bytes));
    for (sub, expected) in [
        ("\"ada\"".to_owned(), Good),
        (long(256), Good),
        ("\"a b\"".to_owned(), Good),
        ("\"auth0|5f7c\"".to_owned(), Good),
        ("\"\\u00fc\"".to_owned(), Good),
        (long(257), Invalid),
        ("\"\"".to_owned(), Invalid),
        ("\"a\\u0000\"".to_owned(), Invalid),
        ("\"\\ud800\"".to_owned(), Invalid),
        ("7".to_owned(), Invalid),
        ("1.5".to_owned(), Invalid),
        ("null".to_owned(), Invalid),
        ("true".to_owned(), Invalid),
        ("[\"ada\"]".to_owned(), Invalid),
        ("{\"id\":\"ada\"}".to_owned(), Invalid),
        ("\"ada\",\"sub\":\"ada\"".to_owned(), Invalid),
        ("\"ada\",\"sub\":\"root\"".to_owned(), Invalid),
        ("\"ada\",\"s\\u0075b\":\"root\"".to_owned(), Invalid),
    ] {
        check(&format!(r#"{{"sub":{sub},"exp":{soon}}}"#), expected);
    }
}

#[test]
fn a_payload_is_one_object_of_json() {
    let (_, _, soon) = moments();
    let right = format!(r#"{{"sub":"ada","exp":{soon}}}"#);
    for payload in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        format!("[{right}]"),
        format!("{right}{right}"),
        format!("{right},"),
        right.replace('"', "'"),
        right[..right.len() - 1].to_owned(),
        format!("\u{feff}{right}"),
        "[".repeat(2500),
        format!(r#"{{"sub":"ada","exp":{soon},"deep":{}"#, "{\"a\":".repeat(400)),
    ] {
        check(&payload, Invalid);
    }
    check(&format!(" \n{right}\t"), Good);
    check(&format!(r#"{{"sub":"ada","exp":{soon},"own":[1,{{"a":null}}],"own":2}}"#), Good);
}

#[test]
fn a_token_of_more_than_4_kib_is_not_looked_at() {
    let (_, _, soon) = moments();
    let signer = Signer::secret(Algorithm::HS256, SECRET.as_bytes());
    let verifier = Verifier::new(&Auth { jwt_secret: Some(SECRET.into()), ..auth() });
    let of = |pad: usize| {
        let pad = "a".repeat(pad);
        signer.token_of(&signer.header(), &format!(r#"{{"sub":"ada","exp":{soon},"pad":"{pad}"}}"#))
    };
    // Base64 has no text of every length.
    let first = (2_900..3_100).find(|pad| of(*pad).len() > TOKEN_BYTES_MAX).unwrap();
    assert!(TOKEN_BYTES_MAX - of(first - 1).len() < 2);
    assert!(verify(&verifier, &of(first - 1)).is_ok());
    let before = seen();
    assert_eq!(verify(&verifier, &of(first)), Err(Refused::Invalid));
    assert!(seen() > before, "it is counted");
}

/// How many tokens were too long, in this process.
fn seen() -> u64 {
    let text = metrics::render();
    let line = text.lines().find(|line| line.starts_with("limit_reached_total{limit=\"token\"}"));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}
