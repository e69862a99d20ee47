//! Cross-origin rules of the code port: everybody may call, nobody's credentials are used.

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, COOKIE, ORIGIN, VARY,
    },
};

use super::answer;
use crate::Body;

const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// The answer to a preflight request; `None` if the request is not one.
pub(super) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let is_known = METHODS.iter().any(|method| wanted.as_bytes() == method.as_bytes());
    let mut response = if is_known {
        answer::text(StatusCode::OK, "OK")
    } else {
        answer::text(StatusCode::BAD_REQUEST, "Disallowed CORS method")
    };
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    answer
        .insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    Some(response)
}

/// Headers for the answer to an ordinary request: the origin is echoed only to requests with cookies, because
/// browsers do not take `*` for those.
pub(super) fn grant(request: &HeaderMap, response: &mut HeaderMap) {
    let Some(origin) = request.get(ORIGIN) else { return };
    if request.contains_key(COOKIE) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.append(VARY, HeaderValue::from_static("Origin"));
    } else {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    }
}
