//! Cross-origin requests: browsers may call from every origin, without credentials.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::errors::http::empty;
use crate::Body;

const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const METHODS: [Method; 6] = [Method::HEAD, Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, Location, Cache-Control, X-Content-Type-Options",
);
/// Two hours, which is the most that any browser honours.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// Whether a browser asks for permission only. Such a request carries no credentials and is never handed on.
pub(super) fn is_preflight(request: &Request<Body>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a browser that asks for permission.
pub(super) fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let out = response.headers_mut();
    out.insert(VARY, HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"));
    let Some(method) = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|method| allowed(method.as_bytes())) else {
        return response;
    };
    if !headers.contains_key(ORIGIN) {
        return response;
    }
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| !names.is_empty()) {
        out.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    out.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    response
}

/// What the response needs to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    cross: bool,
}

impl Origin {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let cross = request.headers().contains_key(ORIGIN) && allowed(request.method().as_str().as_bytes());
        Self { cross }
    }

    /// Lets the calling page read the response.
    pub(super) fn admit(self, headers: &mut HeaderMap) {
        // Downloads have their own list of what the response depends on.
        if !headers.contains_key(VARY) {
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
        if self.cross {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

fn allowed(method: &[u8]) -> bool {
    METHODS.iter().any(|known| known.as_str().as_bytes() == method)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn asking(method: &str, names: Option<&str>) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "https://page".parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, method.parse().unwrap());
        if let Some(names) = names {
            headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, names.parse().unwrap());
        }
        preflight(&headers)
    }

    #[test]
    fn a_preflight_echoes_what_was_asked_for() {
        let response = asking("POST", Some("x-access-token, connect-protocol-version"));
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let headers = response.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "POST");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "x-access-token, connect-protocol-version");
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "7200");
        assert_eq!(headers[VARY], "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
        assert!(!asking("GET", None).headers().contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
    }

    #[test]
    fn a_preflight_for_another_method_gets_only_vary() {
        let response = asking("TRACE", Some("x"));
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers().keys().collect::<Vec<_>>(), [&VARY]);
    }

    #[test]
    fn responses_are_readable_from_every_origin_and_vary_by_it() {
        let request = Request::builder().header(ORIGIN, "https://page").body(Body::empty()).unwrap();
        let mut headers = HeaderMap::new();
        Origin::of(&request).admit(&mut headers);
        assert_eq!(headers[VARY], "Origin");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], EXPOSED);

        let mut headers = HeaderMap::new();
        headers.insert(VARY, "Accept-Encoding".parse().unwrap());
        Origin::of(&Request::new(Body::empty())).admit(&mut headers);
        assert_eq!(headers[VARY], "Accept-Encoding");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}
