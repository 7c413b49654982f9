//! Tokens whose signature, header or form is wrong, under every kind of public key: the kinds of
//! attack that are known on JSON web signatures.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, get_current_timestamp};
use serde_json::{Value, json};

use Algorithm::{
    ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
};

use super::signers::{
    ED25519, ED25519_PUBLIC, OTHER_P256, OTHER_RSA, OTHER_RSA_PUBLIC, P256, P256_PUBLIC, P384,
    P384_PUBLIC, RSA, RSA_PUBLIC, SECRET, Signer, auth, base64, der, verifier_of, verify,
};
use super::{Refused, Verifier};
use crate::config::{Auth, PublicKey};

/// Every algorithm of public keys, with a key pair.
const PAIRS: [(Algorithm, &str, &str); 9] = [
    (RS256, RSA, RSA_PUBLIC),
    (RS384, RSA, RSA_PUBLIC),
    (RS512, RSA, RSA_PUBLIC),
    (PS256, RSA, RSA_PUBLIC),
    (PS384, RSA, RSA_PUBLIC),
    (PS512, RSA, RSA_PUBLIC),
    (ES256, P256, P256_PUBLIC),
    (ES384, P384, P384_PUBLIC),
    (EdDSA, ED25519, ED25519_PUBLIC),
];

fn claims() -> Value {
    json!({ "sub": "ada", "exp": get_current_timestamp() + 600 })
}

/// A public key of the pair's, beside the cluster's secret.
fn verifiers(public: &str) -> [Verifier; 2] {
    let public_key = Some(PublicKey::from_pem(public).unwrap());
    let both = Auth { public_key, jwt_secret: Some(SECRET.into()), ..auth() };
    [verifier_of(public), Verifier::new(&both)]
}

fn all_refused(algorithm: Algorithm, public: &str, tokens: &[(String, String)]) {
    for verifier in verifiers(public) {
        for (what, token) in tokens {
            let verified = verify(&verifier, token);
            assert_eq!(verified, Err(Refused::Invalid), "{algorithm:?}, {what}: {token}");
        }
    }
}

fn parts(token: &str) -> (&str, &str, Vec<u8>) {
    let mut parts = token.split('.');
    let (header, payload) = (parts.next().unwrap(), parts.next().unwrap());
    (header, payload, URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap())
}

#[test]
fn every_algorithm_of_a_key_is_accepted_and_no_other() {
    for (algorithm, private, public) in PAIRS {
        let token = Signer::new(algorithm, private).token(&claims());
        for verifier in verifiers(public) {
            assert_eq!(verify(&verifier, &token).unwrap().user.as_str(), "ada", "{algorithm:?}");
        }
        for (_, _, other) in PAIRS.iter().filter(|pair| pair.2 != public) {
            all_refused(algorithm, other, &[("a key of another kind".to_owned(), token.clone())]);
        }
        let alone = Verifier::new(&Auth { jwt_secret: Some(SECRET.into()), ..auth() });
        assert_eq!(verify(&alone, &token), Err(Refused::Invalid), "{algorithm:?}");
    }
    let [alone, both] = verifiers(RSA_PUBLIC);
    for algorithm in [HS256, HS384, HS512] {
        let token = Signer::secret(algorithm, SECRET.as_bytes()).token(&claims());
        assert!(verify(&both, &token).is_ok(), "{algorithm:?}");
        assert_eq!(verify(&alone, &token), Err(Refused::Invalid), "{algorithm:?}");
    }
}

#[test]
fn a_signature_that_is_not_whole_or_not_its_own() {
    for (algorithm, private, public) in PAIRS {
        let signer = Signer::new(algorithm, private);
        let token = signer.token(&claims());
        let (header, payload, right) = parts(&token);
        let head = format!("{header}.{payload}");
        let mut tokens = Vec::new();
        let mut add = |what: &str, signature: &[u8]| {
            tokens.push((what.to_owned(), format!("{head}.{}", base64(signature))));
        };
        let flipped = |at: usize| {
            let mut bytes = right.clone();
            bytes[at] ^= 1;
            bytes
        };
        let length = right.len();
        add("no signature", &[]);
        add("one byte", &[0]);
        add("the first byte missing", &right[1..]);
        add("the last byte missing", &right[..length - 1]);
        add("half of it", &right[..length / 2]);
        add("a zero before it", &[&[0], right.as_slice()].concat());
        add("a zero behind it", &[right.as_slice(), &[0]].concat());
        add("twice", &[right.as_slice(), &right].concat());
        add("zeros", &vec![0; length]);
        add("ones", &vec![255; length]);
        add("its first bit", &flipped(0));
        add("its middle", &flipped(length / 2));
        add("its last bit", &flipped(length - 1));
        for (what, signature) in [
            ("of the payload alone", signer.signature(payload)),
            ("of nothing", signer.signature("")),
            ("of another payload", signer.signature(&format!("{header}.e30"))),
        ] {
            tokens.push((what.to_owned(), format!("{head}.{signature}")));
        }
        tokens.push(("no third part".to_owned(), head.clone()));
        let changed = json!({ "alg": algorithm, "typ": "JWT", "kid": "1" }).to_string();
        let root = json!({ "sub": "root", "exp": get_current_timestamp() + 600 }).to_string();
        let signature = base64(&right);
        tokens.extend([
            ("header".to_owned(), format!("{}.{payload}.{signature}", base64(changed))),
            ("payload".to_owned(), format!("{header}.{}.{signature}", base64(root))),
        ]);
        all_refused(algorithm, public, &tokens);
    }
    for (algorithm, private, public) in [
        (RS256, OTHER_RSA, RSA_PUBLIC),
        (PS256, RSA, OTHER_RSA_PUBLIC),
        (ES256, OTHER_P256, P256_PUBLIC),
    ] {
        let token = Signer::new(algorithm, private).token(&claims());
        all_refused(algorithm, public, &[("another key of its kind".to_owned(), token)]);
    }
}

/// A number as DER has it.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let mut digits = number[zeros..].to_vec();
    if digits.first().is_none_or(|byte| *byte >= 0x80) {
        digits.insert(0, 0);
    }
    [vec![2, digits.len() as u8], digits].concat()
}

#[test]
fn an_elliptic_signature_of_other_numbers_or_another_form() {
    for (algorithm, private, public) in [(ES256, P256, P256_PUBLIC), (ES384, P384, P384_PUBLIC)] {
        let token = Signer::new(algorithm, private).token(&claims());
        let (header, payload, right) = parts(&token);
        let (r, s) = right.split_at(right.len() / 2);
        let zero = vec![0; r.len()];
        let inner = [integer(r), integer(s)].concat();
        let sequence = [vec![0x30, inner.len() as u8], inner].concat();
        let tokens = [
            ("r is zero", [zero.as_slice(), s].concat()),
            ("s is zero", [r, zero.as_slice()].concat()),
            ("r is one, s is zero", [&zero[1..], &[1], &zero].concat()),
            ("swapped", [s, r].concat()),
            ("r twice", [r, r].concat()),
            ("DER", sequence),
        ]
        .map(|(what, bytes)| (what.to_owned(), format!("{header}.{payload}.{}", base64(bytes))));
        all_refused(algorithm, public, &tokens);
    }
    // The other curve's key, with the header that its signature is right for, and with the key's.
    for (algorithm, other, private, public) in
        [(ES256, ES384, P256, P384_PUBLIC), (ES384, ES256, P384, P256_PUBLIC)]
    {
        let signer = Signer::new(algorithm, private);
        let lies = json!({ "alg": other }).to_string();
        let tokens = [
            ("the other curve".to_owned(), signer.token(&claims())),
            ("says its key's".to_owned(), signer.token_of(&lies, &claims().to_string())),
        ];
        all_refused(algorithm, public, &tokens);
    }
}

#[test]
fn another_algorithm_than_the_signatures() {
    let all = [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    for (algorithm, private, public) in PAIRS {
        let signer = Signer::new(algorithm, private);
        let payload = claims().to_string();
        let said = |alg: Value| {
            (format!("says {alg}"), signer.token_of(&json!({ "alg": alg }).to_string(), &payload))
        };
        let mut tokens: Vec<_> = all
            .iter()
            .filter(|other| **other != algorithm)
            .map(|other| said(json!(other)))
            .collect();
        let unknown = [
            "none", "None", "NONE", "nOnE", "none ", " none", "", "HS1", "RS1", "RS224", "ES256K",
            "ES512", "Ed25519", "Ed448", "rs256", "RS256 ", "RSA-OAEP", "dir", "A128KW",
        ];
        tokens.extend(unknown.map(|alg| said(json!(alg))));
        let odd =
            [json!(null), json!(0), json!(true), json!([algorithm]), json!({ "alg": algorithm })];
        tokens.extend(odd.map(said));
        for alg in ["none", "None", "NONE", "nOnE"] {
            let head = format!("{}.{}", base64(format!(r#"{{"alg":"{alg}"}}"#)), base64(&payload));
            tokens.push((format!("unsigned, {alg}"), format!("{head}.")));
            tokens.push((format!("two parts, {alg}"), head));
        }
        tokens.push(("no alg".to_owned(), signer.token_of(r#"{"typ":"JWT"}"#, &payload)));
        all_refused(algorithm, public, &tokens);
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for (_, _, public) in PAIRS {
        let bare = match PublicKey::from_pem(public).unwrap() {
            PublicKey::Rsa { modulus, .. } => modulus,
            PublicKey::P256(bytes) | PublicKey::P384(bytes) | PublicKey::Ed25519(bytes) => bytes,
        };
        let in_base64 = base64(&bare);
        let one_line = public.replace('\n', "\\n");
        let secrets: [(&str, &[u8]); 8] = [
            ("its PEM", public.as_bytes()),
            ("its PEM without the last line end", public.trim_end().as_bytes()),
            ("its PEM on one line", one_line.as_bytes()),
            ("its PEM with CR", &public.replace('\n', "\r\n").into_bytes()),
            ("its DER", &der(public)),
            ("itself", &bare),
            ("itself in base64", in_base64.as_bytes()),
            ("nothing", b""),
        ];
        for algorithm in [HS256, HS384, HS512] {
            let signed = secrets.map(|(what, secret)| {
                (what.to_owned(), Signer::secret(algorithm, secret).token(&claims()))
            });
            all_refused(algorithm, public, &signed);
        }
    }
}

#[test]
fn a_header_that_asks_for_more_or_is_ambiguous() {
    for (algorithm, private, public) in PAIRS {
        let signer = Signer::new(algorithm, private);
        let payload = claims().to_string();
        let with = |members: &str| {
            signer.token_of(&format!(r#"{{"alg":{},{members}}}"#, json!(algorithm)), &payload)
        };
        let refused = [
            r#""crit":["exp"]"#,
            r#""crit":[]"#,
            r#""crit":null"#,
            r#""crit":["b64"],"b64":false"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""jwk":{"kty":"oct","k":"AAAA"}"#,
            r#""jwk":null"#,
            r#""jku":"https://evil.example/k""#,
            r#""x5u":"https://evil.example/c""#,
            r#""x5c":["AAAA"]"#,
            r#""enc":"A128GCM""#,
            r#""zip":"DEF""#,
            r#""alg":"none""#,
            r#""alg":"HS256""#,
            r#""typ":"JWT","typ":"JWT""#,
            r#""kid":"a","kid":"b""#,
            r#""own":1,"own":1"#,
            r#""kid":1"#,
            r#""kid":null"#,
            r#""kid":["a"]"#,
            r#""typ":1"#,
            r#""own":1e400"#,
        ]
        .map(|members| (members.to_owned(), with(members)));
        all_refused(algorithm, public, &refused);
        let headers = ["", "{}", "[]", "null", "\"RS256\"", "{\"alg\"", "{} {}"];
        let headers =
            headers.map(|header| (format!("header {header}"), signer.token_of(header, &payload)));
        all_refused(algorithm, public, &headers);
        // What says nothing about the signature does no harm; real issuers send the thumbprints.
        for members in [
            r#""typ":"at+jwt""#,
            r#""typ":"JOSE""#,
            r#""typ":"nonsense""#,
            r#""kid":"any""#,
            r#""x5t":"AAAA","x5t#S256":"AAAA""#,
            r#""own":{"a":[1]}"#,
            r#""cty":"json""#,
        ] {
            assert!(
                verify(&verifier_of(public), &with(members)).is_ok(),
                "{algorithm:?}: {members}"
            );
        }
        // A token in a token: its payload is no object.
        let inner = signer.token(&claims());
        let nested =
            signer.token_of(&format!(r#"{{"alg":{},"cty":"JWT"}}"#, json!(algorithm)), &inner);
        all_refused(algorithm, public, &[("nested".to_owned(), nested)]);
    }
}

#[test]
fn another_form_than_three_parts_in_base64() {
    for (algorithm, private, public) in PAIRS {
        let signer = Signer::new(algorithm, private);
        // One whose signature looks different in the alphabet of files, and one that needs padding.
        let token = (0..)
            .map(|n| {
                signer.token(&json!({ "sub": "ada", "exp": get_current_timestamp() + 600, "n": n }))
            })
            .find(|token| {
                token.rsplit('.').next().unwrap().contains(['-', '_'])
                    && token.split('.').nth(1).unwrap().len() % 4 != 0
            })
            .unwrap();
        assert!(verify(&verifier_of(public), &token).is_ok());
        let (header, payload, bytes) = parts(&token);
        let signature = base64(&bytes);
        let padded = |part: &str| URL_SAFE.encode(URL_SAFE_NO_PAD.decode(part).unwrap());
        // Bits behind the last byte, which say nothing.
        let loose = |part: &str| {
            let last = part.chars().last().unwrap();
            let next = char::from(last as u8 + 1);
            format!("{}{next}", &part[..part.len() - 1])
        };
        let flattened = json!({ "protected": header, "payload": payload, "signature": signature });
        let general = json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] });
        let mut tokens = vec![
            ("padded payload", format!("{header}.{}.{signature}", padded(payload))),
            ("=", format!("{token}=")),
            ("==", format!("{token}==")),
            ("the alphabet of files", format!("{header}.{payload}.{}", STANDARD.encode(&bytes))),
            ("a space behind", format!("{token} ")),
            ("a space before", format!(" {token}")),
            ("a line end behind", format!("{token}\n")),
            ("a line end inside", token.replace('.', ".\n")),
            ("NUL", format!("{token}\0")),
            ("not ASCII", format!("{token}ä")),
            ("spaces", token.replace('.', " . ")),
            ("percent", token.replace('.', "%2E")),
            ("a dot before", format!(".{token}")),
            ("a dot behind", format!("{token}.")),
            ("four parts", format!("{token}.{signature}")),
            ("five parts", format!("{header}.{payload}.{payload}.{payload}.{signature}")),
            ("two dots between", token.replacen('.', "..", 1)),
            ("two dots behind", format!("{header}.{payload}..{signature}")),
            ("no header", format!(".{payload}.{signature}")),
            ("no payload", format!("{header}..{signature}")),
            ("dots", "...".to_owned()),
            ("flattened JSON", flattened.to_string()),
            ("general JSON", general.to_string()),
            ("twice", format!("{token},{token}")),
            ("quoted", format!("\"{token}\"")),
        ];
        if bytes.len() % 3 != 0 {
            tokens.push(("loose bits", format!("{header}.{payload}.{}", loose(&signature))));
        }
        let tokens: Vec<_> =
            tokens.into_iter().map(|(what, token)| (what.to_owned(), token)).collect();
        all_refused(algorithm, public, &tokens);
    }
}
