//! Where a token may stand in a handshake or request.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use serde_json::Value;

/// The token of a handshake or request, from the first of these that has one: `token` of a
/// socket's `auth`, the `Authorization` header, `?token=`, the cookie `access_token`. A leading
/// `Bearer ` is taken off everywhere; empty values and `null` are passed over.
///
/// A token that is there but is no text (a number, bytes that are not UTF-8) gives `Some("")`,
/// which [`Verifier::verify`](super::Verifier::verify) refuses as invalid: somebody who brings a
/// token means to be that user, and is not looked for elsewhere. An `Authorization` of another
/// scheme (a proxy's `Basic`) is no token.
pub fn find_token(auth: Option<&Value>, parts: &Parts) -> Option<String> {
    from_auth(auth)
        .or_else(|| from_header(parts))
        .or_else(|| from_query(parts))
        .or_else(|| from_cookies(parts))
}

/// What stands for a token that is there but is no text.
const NO_TEXT: &str = "";

fn from_auth(auth: Option<&Value>) -> Option<String> {
    match auth?.get("token")? {
        Value::Null => None,
        Value::String(token) => bare(token),
        _ => Some(NO_TEXT.to_owned()),
    }
}

fn from_header(parts: &Parts) -> Option<String> {
    let value = parts.headers.get(AUTHORIZATION)?;
    match value.to_str() {
        Ok(text) => bare(text).filter(|token| !token.contains(' ')),
        Err(_) => Some(NO_TEXT.to_owned()),
    }
}

fn from_query(parts: &Parts) -> Option<String> {
    let query = parts.uri.query()?;
    form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "token")
        .find_map(|(_, value)| bare(&value))
}

fn from_cookies(parts: &Parts) -> Option<String> {
    let lines = parts.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == "access_token")
        .find_map(|(_, value)| {
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            // Express writes cookies percent-encoded: `Bearer%20…`.
            let pair = format!("access_token={value}");
            let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            bare(&value)
        })
}

/// The token without `Bearer `; `None` where nothing is left.
fn bare(text: &str) -> Option<String> {
    let text = text.trim();
    let token = match text.get(..6) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => match &text[6..] {
            "" => "",
            rest if rest.starts_with(' ') => rest.trim_start(),
            _ => text,
        },
        _ => text,
    };
    (!token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parts(uri: &str, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn find(auth: Option<Value>, uri: &str, headers: &[(&str, &[u8])]) -> Option<String> {
        find_token(auth.as_ref(), &parts(uri, headers))
    }

    #[test]
    fn the_four_places_are_looked_at_in_order() {
        let all: &[(&str, &[u8])] =
            &[("authorization", b"Bearer header"), ("cookie", b"a=b; access_token=cookie")];
        let auth = || Some(json!({ "token": "auth" }));
        let token = |text: &str| Some(text.to_owned());
        assert_eq!(find(auth(), "/?token=query", all), token("auth"));
        assert_eq!(find(None, "/?token=query", all), token("header"));
        assert_eq!(find(None, "/?token=query", &all[1..]), token("query"));
        assert_eq!(find(None, "/?x=1", &all[1..]), token("cookie"));
        assert_eq!(find(None, "/", &[]), None);
    }

    #[test]
    fn bearer_is_taken_off_everywhere() {
        let token = Some("a.b.c".to_owned());
        assert_eq!(find(Some(json!({ "token": "Bearer a.b.c" })), "/", &[]), token);
        assert_eq!(find(None, "/", &[("authorization", b"bearer  a.b.c")]), token);
        assert_eq!(find(None, "/", &[("authorization", b"a.b.c")]), token);
        assert_eq!(find(None, "/?token=Bearer%20a.b.c", &[]), token);
        assert_eq!(find(None, "/?token=Bearer+a%2Eb.c", &[]), token);
        assert_eq!(find(None, "/", &[("cookie", b"access_token=Bearer%20a.b.c")]), token);
        assert_eq!(find(None, "/", &[("cookie", b"access_token=\"a.b.c\"")]), token);
        let bearer_like = Some("bearertoken".to_owned());
        assert_eq!(find(None, "/?token=bearertoken", &[]), bearer_like);
    }

    #[test]
    fn empty_and_null_are_passed_over() {
        let cookie: &[(&str, &[u8])] = &[
            ("authorization", b"Bearer "),
            ("cookie", b"access_token="),
            ("cookie", b"access_token=c"),
        ];
        for auth in [json!({ "token": null }), json!({ "token": "" }), json!({ "token": "Bearer" })]
        {
            assert_eq!(find(Some(auth), "/?token=&token=", cookie), Some("c".to_owned()));
        }
        for auth in [json!(null), json!("text"), json!([1]), json!({})] {
            assert_eq!(find(Some(auth), "/", &[]), None);
        }
    }

    #[test]
    fn what_is_no_text_is_invalid_rather_than_missing() {
        let cookie: &[(&str, &[u8])] = &[("cookie", b"access_token=c")];
        for auth in [json!({ "token": 1 }), json!({ "token": {} }), json!({ "token": ["a"] })] {
            assert_eq!(find(Some(auth), "/", cookie), Some(String::new()));
        }
        assert_eq!(find(None, "/", &[("authorization", b"Bearer \xff")]), Some(String::new()));
    }

    #[test]
    fn another_scheme_is_no_token() {
        let headers: &[(&str, &[u8])] =
            &[("authorization", b"Basic dTpw"), ("cookie", b"access_token=c")];
        assert_eq!(find(None, "/", headers), Some("c".to_owned()));
    }

    #[test]
    fn odd_text_does_no_harm() {
        // `get(..6)` would be inside a character.
        assert_eq!(find(None, "/?token=%C3%A4%C3%A4%C3%A4%C3%A4", &[]), Some("ääää".to_owned()));
        assert_eq!(find(None, "/?token=%FF%zz&&=", &[]), Some("\u{fffd}%zz".to_owned()));
        assert_eq!(find(None, "/", &[("cookie", b";;=;access_token;=x;")]), None);
    }
}
