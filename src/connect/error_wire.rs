//! Errors on the wire: codes, JSON bodies, end-of-stream frames.

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::Full;
use prost::Message as _;
use serde::{Serialize, Serializer, ser::SerializeMap};
use tonic::{Code, Status, metadata::MetadataMap};

use super::{
    call::{ACCEPT_STREAM_ENCODING, STREAM_ENCODING, header_text, stream_headers},
    compression::{Encodings, GZIP, negotiate},
    detail::RichStatus,
    frame::FrameWriter,
};
use crate::Body;

/// The name and the HTTP status of a code.
fn code_of(code: Code) -> (&'static str, StatusCode) {
    match code {
        Code::Cancelled => ("canceled", StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)),
        // A success cannot be an error: whoever returned it did not know.
        Code::Ok | Code::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Code::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Code::Aborted => ("aborted", StatusCode::CONFLICT),
        Code::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
    }
}

#[derive(Serialize)]
struct WireError<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<WireDetail>,
}

#[derive(Serialize)]
struct WireDetail {
    r#type: String,
    value: String,
}

#[derive(Serialize)]
struct EndOfStream<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WireError<'a>>,
    #[serde(skip_serializing_if = "HeaderMap::is_empty", serialize_with = "write_metadata")]
    metadata: HeaderMap,
}

fn write_metadata<S: Serializer>(metadata: &HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(metadata.keys_len()))?;
    for name in metadata.keys() {
        let values: Vec<_> =
            metadata.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        object.serialize_entry(name.as_str(), &values)?;
    }
    object.end()
}

fn wire_error(status: &Status) -> WireError<'_> {
    let details = RichStatus::decode(status.details()).map(|rich| rich.details).unwrap_or_default();
    let details = details.into_iter().map(|any| WireDetail {
        r#type: any.type_url.strip_prefix("type.googleapis.com/").unwrap_or(&any.type_url).to_owned(),
        value: base64_simd::STANDARD_NO_PAD.encode_to_string(any.value.chunk()),
    });
    WireError { code: code_of(status.code()).0, message: status.message(), details: details.collect() }
}

/// The headers that metadata turns into: everything but what belongs to the protocol itself.
pub(super) fn metadata_headers(metadata: MetadataMap) -> HeaderMap {
    let mut headers = metadata.into_headers();
    for name in [CONTENT_TYPE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["content-length", "content-encoding", "accept-encoding", "connection", "host"] {
        headers.remove(name);
    }
    let reserved = |name: &HeaderName| name.as_str().starts_with("connect-") || name.as_str().starts_with("grpc-");
    let reserved: Vec<_> = headers.keys().filter(|name| reserved(name)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
    headers
}

/// The JSON of the frame that ends a stream, well or with a failure.
pub(super) fn end_of_stream(failure: Option<&Status>, trailers: MetadataMap) -> Vec<u8> {
    let mut metadata = metadata_headers(trailers);
    let error = failure.map(|status| {
        append(&mut metadata, metadata_headers(status.metadata().clone()));
        wire_error(status)
    });
    serde_json::to_vec(&EndOfStream { error, metadata }).unwrap_or_else(|_| b"{}".to_vec())
}

/// A failed unary call.
pub(super) fn unary_error(status: &Status) -> Response<Body> {
    let json = serde_json::to_vec(&wire_error(status)).unwrap_or_default();
    let mut response = Response::new(Body::new(Full::new(Bytes::from(json))));
    *response.status_mut() = code_of(status.code()).1;
    append(response.headers_mut(), metadata_headers(status.metadata().clone()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds headers and keeps those that are there.
pub(super) fn append(headers: &mut HeaderMap, more: HeaderMap) {
    let mut last = None;
    for (name, value) in more {
        last = name.or(last);
        if let Some(name) = &last {
            headers.append(name.clone(), value);
        }
    }
}

/// Something with request headers.
pub trait RequestHead {
    /// The headers of the request.
    fn headers(&self) -> &HeaderMap;
}

impl RequestHead for HeaderMap {
    fn headers(&self) -> &HeaderMap {
        self
    }
}

impl RequestHead for http::request::Parts {
    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl<B> RequestHead for http::Request<B> {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

/// Answers a request that never reaches its handler in the shape that its protocol expects: streams get
/// HTTP 200 with one end-of-stream frame, gRPC gets its trailers, all others the JSON of a failed unary call.
pub fn error_response(request: &(impl RequestHead + ?Sized), status: Status) -> Response<Body> {
    let headers = request.headers();
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        let mut response: Response<Body> = status.into_http();
        // A gRPC-Web client expects its own content type back.
        if let Some(value) = headers.get(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, value.clone());
        }
        return response;
    }
    if !content_type.starts_with(b"application/connect+") {
        return unary_error(&status);
    }
    let sent = header_text(headers, STREAM_ENCODING);
    let accepted = header_text(headers, ACCEPT_STREAM_ENCODING);
    let Encodings { response: encoding, .. } = negotiate(sent.as_deref(), accepted.as_deref()).unwrap_or_default();
    let frame = FrameWriter::new(encoding).end(&end_of_stream(Some(&status), MetadataMap::new()));
    let mut response = Response::new(Body::new(Full::new(frame)));
    stream_headers(response.headers_mut(), encoding);
    if let Some(value) = headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, value.clone());
    }
    response
}

/// `gzip`, as a header value.
pub(super) const GZIP_VALUE: HeaderValue = HeaderValue::from_static(GZIP);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::{super::detail::Any, *};

    #[test]
    fn details_and_metadata_are_written() {
        let rich = RichStatus {
            details: vec![Any {
                type_url: "type.googleapis.com/a.B".to_owned(),
                value: Bytes::from_static(b"\x0a\x01x\xff"),
            }],
            ..RichStatus::default()
        };
        let mut status = Status::with_details(Code::Aborted, "no <way>", rich.encode_to_vec().into());
        status.metadata_mut().insert("x-reason", "because".parse().unwrap());
        status.metadata_mut().append("x-reason", "really".parse().unwrap());
        status.metadata_mut().insert("grpc-secret", "internal".parse().unwrap());
        let json = String::from_utf8(end_of_stream(Some(&status), MetadataMap::new())).unwrap();
        assert_eq!(
            json,
            r#"{"error":{"code":"aborted","message":"no <way>","details":[{"type":"a.B","value":"CgF4/w"}]},"metadata":{"x-reason":["because","really"]}}"#
        );
        assert_eq!(end_of_stream(None, MetadataMap::new()), b"{}");
    }

    #[test]
    fn every_code_has_its_status() {
        let statuses: Vec<_> = (0..=16).map(|code| code_of(Code::from_i32(code)).1.as_u16()).collect();
        assert_eq!(statuses, [500, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]);
    }
}
