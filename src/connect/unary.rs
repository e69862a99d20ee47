//! Unary calls: one bare message each way.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tonic::Status;

use super::{
    Trailers,
    call::{Call, Opened},
    codec::{Decodable, Encodable, WriteJson, decode, encode},
    compression::{Encoding, Gzip, gunzip},
    content_type::Codec,
    error::ProtocolError,
    error_wire::{GZIP_VALUE, append, metadata_headers, unary_error},
    frame::FRAMES,
    timeout::before,
};
use crate::{Body, system::buffers::Buffer};

/// Answers one call.
pub(super) async fn serve<Req, Resp, F, Fut>(call: Call, handler: Arc<F>, write_json: WriteJson<Resp>) -> Response<Body>
where
    Req: Decodable,
    Resp: Encodable,
    F: Fn(tonic::Request<Req>) -> Fut,
    Fut: Future<Output = Result<tonic::Response<Resp>, Status>>,
{
    let content_type = call.content_type;
    let (encoding, opened) = call.open();
    let outcome = match opened {
        Ok(opened) => run(opened, handler).await,
        Err(error) => Err(error.into()),
    };
    let encoded = outcome.and_then(|response| {
        let (metadata, message, extensions) = response.into_parts();
        let body = write(content_type.codec, encoding, &message, write_json)?;
        let mut headers = metadata_headers(metadata);
        if let Some(Trailers(trailers)) = extensions.get() {
            append(&mut headers, trailer_headers(metadata_headers(trailers.clone())));
        }
        Ok((headers, body))
    });
    let mut response = match encoded {
        Ok((headers, body)) => {
            let mut response = Response::new(Body::new(Full::new(body)));
            *response.headers_mut() = headers;
            response.headers_mut().insert(CONTENT_TYPE, content_type.header());
            if encoding == Encoding::Gzip {
                response.headers_mut().insert(CONTENT_ENCODING, GZIP_VALUE);
            }
            response
        }
        Err(status) => unary_error(&status),
    };
    response.headers_mut().insert(ACCEPT_ENCODING, GZIP_VALUE);
    response
}

/// Reads the request and runs the handler. The time limit bounds the reading and is checked once before the
/// handler; a running handler is left alone.
async fn run<Req, Resp, F, Fut>(opened: Opened, handler: Arc<F>) -> Result<tonic::Response<Resp>, Status>
where
    Req: Decodable,
    F: Fn(tonic::Request<Req>) -> Fut,
    Fut: Future<Output = Result<tonic::Response<Resp>, Status>>,
{
    let Opened { body, codec, request_encoding, max_message_bytes, deadline, metadata, extensions } = opened;
    let payload = before(deadline, read(body, max_message_bytes)).await?;
    let payload = match request_encoding {
        Encoding::Gzip if !payload.is_empty() => gunzip(&payload, max_message_bytes)?,
        _ => payload,
    };
    let message = decode(codec, payload)?;
    if deadline.is_some_and(|deadline| deadline.expired()) {
        return Err(ProtocolError::DeadlineExceeded.into());
    }
    handler(tonic::Request::from_parts(metadata, extensions, message)).await
}

/// The whole body. A body of one chunk, the usual case, is not copied. What arrives in several is put together in a
/// buffer that is used again, and each chunk is let go at once, so that its memory serves for the next.
async fn read(mut body: Body, max_bytes: usize) -> Result<Bytes, Status> {
    let mut whole: Option<Buffer> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ProtocolError::Canceled)?.into_data() else {
            continue;
        };
        if whole.as_ref().map_or(0, Buffer::len) + data.len() > max_bytes {
            return Err(ProtocolError::TooLarge { max_bytes }.into());
        }
        if whole.is_none() && body.is_end_stream() {
            return Ok(data);
        }
        whole.get_or_insert_with(|| FRAMES.take()).put(&data);
    }
    Ok(whole.map_or_else(Bytes::new, Buffer::freeze))
}

fn write<M: Encodable>(
    codec: Codec,
    encoding: Encoding,
    message: &M,
    write_json: WriteJson<M>,
) -> Result<Bytes, ProtocolError> {
    let mut plain = Buffer::new();
    encode(codec, message, write_json, &mut plain)?;
    if encoding == Encoding::Identity {
        return Ok(plain.freeze());
    }
    let mut packed = Buffer::new();
    Gzip::new().compress(plain.filled(), &mut packed).map_err(|error| ProtocolError::Marshal(error.to_string()))?;
    Ok(packed.freeze())
}

fn trailer_headers(trailers: HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &trailers {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
    headers
}
