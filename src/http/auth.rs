//! Who a request is from: the token of its `Authorization` header, else of the cookie
//! `access_token`. A token in the URL is not looked at, since URLs end in logs.
//!
//! A browser sends the cookie whichever page asks, so a foreign page could act in its user's name
//! (CSRF). [`super::origin`] refuses foreign origins, and takes the cookies of what a foreign page
//! has sent as far as the browser says so. What is left is a form's POST from a browser that says
//! neither: without an `Origin`, a POST by cookie must say that it is JSON, which no form can.
//! With an `Authorization` header there is nothing to forge.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};

use super::HttpState;
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
    if by_header.is_none() && may_be_a_form(&head.method, &head.headers) {
        let message = "With the cookie alone, a POST needs an allowed Origin, or a JSON body";
        return Err(Error::new(ErrorCode::Forbidden, message));
    }
    Ok(claims)
}

/// Whether it may be a form's that any page may have sent.
fn may_be_a_form(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::POST && !headers.contains_key(header::ORIGIN) && !is_json(headers)
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

    #[test]
    fn a_form_is_no_users_doing() {
        let is_form = |method: Method, pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                let name = header::HeaderName::from_static(name);
                (name, header::HeaderValue::from_static(value))
            });
            may_be_a_form(&method, &headers.collect())
        };
        let json = ("content-type", "application/json; charset=utf-8");
        let text = ("content-type", "text/plain; x=application/json");
        assert!(is_form(Method::POST, &[]));
        assert!(is_form(Method::POST, &[text]));
        assert!(!is_form(Method::POST, &[json]));
        // Foreign ones do not come as far as here.
        assert!(!is_form(Method::POST, &[("origin", "https://app.example")]));
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!is_form(method, &[]), "no form sends it with a body, or it changes nothing");
        }
    }
}
