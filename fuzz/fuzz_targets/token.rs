//! The token of a handshake or request. An input has a line for each place: `auth` as JSON, the
//! `Authorization` header, the query, and then one for each `Cookie` header.
#![no_main]

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokencast::auth::find_token;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let auth: Option<Value> =
        lines.next().filter(|line| !line.is_empty()).and_then(|l| serde_json::from_slice(l).ok());
    let header = lines.next().unwrap_or_default();
    let query = lines.next().unwrap_or_default();
    let cookies: Vec<&[u8]> = lines.collect();

    let from_auth = find(auth.as_ref(), b"", b"", &[]);
    let from_header = find(None, header, b"", &[]);
    let from_query = find(None, b"", query, &[]);
    let from_cookies = find(None, b"", b"", &cookies);
    for (token, bytes) in [
        (&from_auth, auth.as_ref().map_or(0, |auth| auth.to_string().len())),
        (&from_header, header.len()),
        // Bytes that are no UTF-8 become three each.
        (&from_query, 3 * query.len()),
        (&from_cookies, 3 * cookies.iter().map(|cookie| cookie.len()).max().unwrap_or(0)),
    ] {
        let Some(token) = token else { continue };
        assert!(token.len() <= bytes, "{token:?}");
        assert_eq!(token.trim(), token);
    }
    assert!(from_header.as_ref().is_none_or(|token| !token.contains(' ')), "another scheme");
    assert!(from_query.as_ref().is_none_or(|token| !token.is_empty()));
    assert!(from_cookies.as_ref().is_none_or(|token| !token.is_empty()));
    // The first place that has one, whatever stands in the others.
    let all = find(auth.as_ref(), header, query, &cookies);
    assert_eq!(all, from_auth.or(from_header).or(from_query).or(from_cookies));
});

fn find(auth: Option<&Value>, header: &[u8], query: &[u8], cookies: &[&[u8]]) -> Option<String> {
    find_token(auth, &parts(header, query, cookies))
}

/// A request with what of these may stand in one.
fn parts(header: &[u8], query: &[u8], cookies: &[&[u8]]) -> Parts {
    let uri = [b"/?", query].concat();
    let mut request = Request::new(());
    *request.uri_mut() = uri.as_slice().try_into().unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(value) = Some(header).filter(|value| !value.is_empty()) {
        headers.extend(HeaderValue::from_bytes(value).ok().map(|value| (AUTHORIZATION, value)));
    }
    for cookie in cookies {
        if let Ok(value) = HeaderValue::from_bytes(cookie) {
            headers.append(COOKIE, value);
        }
    }
    request.into_parts().0
}
