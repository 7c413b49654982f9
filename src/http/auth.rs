//! Who a request is from: the token of its `Authorization` header, else of the cookie
//! `access_token`. A token in the URL is not looked at, since URLs end in logs.
//!
//! A browser sends the cookie whichever page asks, so a foreign page could act in its user's name
//! (CSRF). CORS keeps it from reading answers, and from sending what needs a preflight: another
//! method than POST, or a body of JSON. What is left is a form's POST. So a request that changes
//! something and has only the cookie has to come from an allowed `Origin`, which every browser of
//! today sends with it; without one, a POST must say that it is JSON, which no form can.
//! With an `Authorization` header there is nothing to forge.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};

use super::HttpState;
use super::origin::Origins;
use crate::auth::{Claims, Refused, find_token};
use crate::domain::{Error, ErrorCode};

/// Who the request is from.
///
/// # Errors
/// `AUTH_ERROR` without a normal token that holds; `OVERLOADED` where that cannot be told now;
/// `FORBIDDEN` where a foreign page may be asking.
pub(super) async fn authenticate(state: &HttpState, head: &mut Parts) -> Result<Claims, Error> {
    let uri = std::mem::replace(&mut head.uri, Uri::from_static("/"));
    let cookies = head.headers.remove(header::COOKIE);
    let by_header = find_token(None, head);
    let token = match cookies {
        Some(cookies) if by_header.is_none() => {
            head.headers.insert(header::COOKIE, cookies);
            find_token(None, head)
        }
        _ => by_header.clone(),
    };
    head.uri = uri;
    let claims = state.verifier.verify_found(token.as_deref()).await?.normal()?;
    if by_header.is_none() && !is_own_doing(&state.origins, &head.method, &head.headers) {
        let message = "With the cookie alone, a change needs an allowed Origin, or a JSON body";
        return Err(Error::new(ErrorCode::Forbidden, message));
    }
    Ok(claims)
}

/// Whether a request by cookie comes from a page that may act for its user.
fn is_own_doing(origins: &Origins, method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return true;
    }
    if headers.contains_key(header::ORIGIN) {
        return origins.admits(headers);
    }
    method != Method::POST || is_json(headers)
}

/// Whether the body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = said.and_then(|said| said.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// # Errors
/// `FORBIDDEN` where the token's `scope` does not hold the operators' word.
pub(super) fn require_operator(state: &HttpState, claims: &Claims) -> Result<(), Error> {
    if claims.has_scope(&state.admin_scope) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden, "The token's scope does not allow this"))
}

impl From<Refused> for super::HttpError {
    fn from(refused: Refused) -> Self {
        Error::from(refused).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(method: Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let origins = Origins::new(&["https://app.example".to_owned()], "/socket.io");
        let headers = pairs.iter().map(|(name, value)| {
            let name = header::HeaderName::from_static(name);
            (name, header::HeaderValue::from_static(value))
        });
        is_own_doing(&origins, &method, &headers.collect())
    }

    #[test]
    fn a_foreign_page_cannot_act_by_the_cookie() {
        let json = ("content-type", "application/json; charset=utf-8");
        let form = ("content-type", "text/plain; x=application/json");
        let (own, foreign) =
            (("origin", "https://app.example"), ("origin", "https://evil.example"));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(is_own(method.clone(), &[own]));
            assert!(!is_own(method.clone(), &[foreign, json]));
            assert!(!is_own(method.clone(), &[("origin", "null"), json]));
            assert!(!is_own(method, &[own, foreign]));
        }
        assert!(is_own(Method::GET, &[foreign]));
        assert!(is_own(Method::POST, &[json]));
        assert!(!is_own(Method::POST, &[form]));
        assert!(!is_own(Method::POST, &[]));
        assert!(is_own(Method::DELETE, &[]), "no form sends it");
    }
}
