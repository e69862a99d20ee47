//! Raw requests and what comes back.

use std::{convert::Infallible, io::Read as _};

use bytes::Bytes;
use envd::{Body, connect::Router};
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

pub const JSON: &str = "application/json";
pub const PROTO: &str = "application/proto";
pub const STREAM: &str = "application/connect+json";
pub const STREAM_PROTO: &str = "application/connect+proto";

/// A response with its whole body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body's frames as they would be written.
    pub chunks: Vec<Bytes>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The frames of a stream: flags and payload.
    pub fn frames(&self) -> Vec<(u8, Bytes)> {
        let mut rest = self.body.clone();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let head = rest.split_to(5);
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            frames.push((head[0], rest.split_to(length as usize)));
        }
        frames
    }

    /// The messages of a JSON stream and the payload of its one end-of-stream frame.
    pub fn stream(&self) -> (Vec<Value>, Value) {
        assert_eq!(self.status, 200, "{self:?}");
        let mut frames: Vec<(u8, Value)> = self
            .frames()
            .into_iter()
            .map(|(flags, payload)| {
                let payload = if flags & 1 == 1 { gunzip(&payload) } else { payload.to_vec() };
                (flags, serde_json::from_slice(&payload).unwrap())
            })
            .collect();
        let (flags, end) = frames.pop().expect("a stream without frames");
        assert_eq!(flags & 2, 2, "the last frame ends the stream");
        assert!(frames.iter().all(|(flags, _)| flags & 2 == 0), "one frame ends the stream");
        (frames.into_iter().map(|(_, value)| value).collect(), end)
    }

    /// Code and message of the error in the end-of-stream frame.
    pub fn stream_error(&self) -> (String, String) {
        error_of(&self.stream().1["error"])
    }

    /// Code and message of a unary error.
    pub fn error(&self) -> (String, String) {
        assert_eq!(self.header("content-type"), Some(JSON));
        assert_eq!(self.header("content-encoding"), None);
        error_of(&self.json())
    }
}

fn error_of(value: &Value) -> (String, String) {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("message"))
}

pub fn pair(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), message.to_owned())
}

pub fn request(method: &str, content_type: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Body> {
    request_with(method, content_type, headers, Body::new(Full::new(body.into())))
}

pub fn request_with(method: &str, content_type: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut builder =
        Request::post(format!("http://host/example.Example/{method}")).header("content-type", content_type);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap()
}

pub async fn collect(response: Response<Body>) -> Reply {
    let (parts, mut body) = response.into_parts();
    let mut chunks = Vec::new();
    while let Some(frame) = body.frame().await {
        chunks.push(frame.expect("response bodies do not fail").into_data().expect("response bodies have no trailers"));
    }
    Reply { status: parts.status.as_u16(), headers: parts.headers, body: chunks.concat().into(), chunks }
}

pub async fn send(router: &Router, request: Request<Body>) -> Reply {
    collect(router.call(request).await).await
}

pub async fn call(method: &str, content_type: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    send(&super::service::router().0, request(method, content_type, headers, body)).await
}

/// A body that arrives in these pieces.
pub fn pieces(pieces: Vec<Bytes>) -> Body {
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// A body that breaks off after these pieces.
pub fn broken(pieces: Vec<Bytes>) -> Body {
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Body::new(StreamBody::new(stream::iter(frames.chain([Err(error)]))))
}

/// A body that never ends after these pieces.
pub fn endless(pieces: Vec<Bytes>) -> Body {
    use futures_util::StreamExt as _;
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    Body::new(StreamBody::new(stream::iter(frames).chain(stream::pending())))
}

pub fn frame(flags: u8, payload: impl AsRef<[u8]>) -> Bytes {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap();
    [&[flags][..], &length.to_be_bytes(), payload].concat().into()
}

pub fn frames(payloads: &[&str]) -> Bytes {
    payloads.iter().map(|payload| frame(0, payload)).collect::<Vec<_>>().concat().into()
}

pub fn gzip(plain: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(plain.as_ref(), flate2::Compression::default()).read_to_end(&mut packed).unwrap();
    packed
}

pub fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).expect("valid gzip");
    plain
}
