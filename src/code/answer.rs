//! Short answers of the code port: plain text and JSON.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, LOCATION},
};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::kernels::Described;
use crate::Body;

fn with(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(content.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A sentence.
pub(super) fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    with(status, "text/plain; charset=utf-8", content)
}

/// Any value as JSON.
pub(super) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(content) => with(status, "application/json", content),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the answer: {error}")),
    }
}

/// `{"detail": …}`, the form of all errors that do not come from a context.
pub(super) fn detail<T: Serialize>(status: StatusCode, detail: T) -> Response<Body> {
    json(status, &json!({ "detail": detail }))
}

/// 405 with the methods that would do.
pub(super) fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// 307 to another path on this port.
pub(super) fn redirect(target: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(target) = HeaderValue::from_str(target) {
        response.headers_mut().insert(LOCATION, target);
    }
    response
}

/// A context as clients read it; more keys would be safe, fewer would not.
pub(super) fn context(context: &Described) -> serde_json::Value {
    json!({ "id": context.id, "language": context.language, "cwd": context.cwd })
}
