//! Answers of the plain HTTP routes, errors first of all: a status with a JSON object, a line of text, or nothing.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::Body;

#[derive(Serialize)]
struct Problem<'a> {
    code: u16,
    message: &'a str,
}

/// `{"code":<status>,"message":"<text>"}` and a newline. The code is a number: clients of remote procedures take
/// it for "not a Connect error" and go by the HTTP status, and platforms rely on the text that this gives.
pub fn json(status: StatusCode, message: &str) -> Response<Body> {
    let mut body = serde_json::to_vec(&Problem { code: status.as_u16(), message }).unwrap_or_default();
    body.push(b'\n');
    let mut response = with_type(status, "application/json; charset=utf-8", body.into());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A status with a text, as it is.
pub fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = with_type(status, "text/plain; charset=utf-8", message.into().into());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A status and nothing else.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The answer for a path that does not exist.
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The answer for a method that the path does not have; one `Allow` line for each that it has.
pub fn method_not_allowed<'a>(allowed: impl IntoIterator<Item = &'a http::Method>) -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    for method in allowed {
        if let Ok(value) = HeaderValue::from_str(method.as_str()) {
            response.headers_mut().append(header::ALLOW, value);
        }
    }
    response
}

/// The answer where the agent itself failed.
pub fn internal() -> Response<Body> {
    json(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}

/// An answer of this type.
pub(in crate::server) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: bytes::Bytes,
) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
