//! Calls with enveloped messages: server, client and bidirectional streams. Whatever goes wrong, the answer
//! is HTTP 200 and exactly one end-of-stream frame.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use http::{Response, header::CONTENT_TYPE};
use http_body_util::Full;
use tonic::{Status, Streaming, metadata::MetadataMap};

use super::{
    Trailers,
    call::{Call, Opened, stream_headers},
    codec::{Decodable, Encodable, WriteJson, decode},
    error::ProtocolError,
    error_wire::{end_of_stream, metadata_headers},
    frame::{FrameReader, FrameWriter},
    input::streaming,
    output::Messages,
    timeout::before,
};
use crate::Body;

/// One message in, many out.
pub(super) async fn serve_server<Req, Resp, S, F, Fut>(
    call: Call,
    handler: Arc<F>,
    write_json: WriteJson<Resp>,
) -> Response<Body>
where
    Req: Decodable,
    Resp: Encodable,
    S: Stream<Item = Result<Resp, Status>> + Send + 'static,
    F: Fn(tonic::Request<Req>) -> Fut,
    Fut: Future<Output = Result<tonic::Response<S>, Status>>,
{
    answer(call, write_json, |opened| async move {
        let mut reader = FrameReader::new(opened.body, opened.request_encoding, opened.max_message_bytes);
        let payload = reader.next().await.ok_or(ProtocolError::NoMessage)??;
        // An empty payload is the empty message in both codecs.
        let message = if payload.is_empty() { Req::default() } else { decode(opened.codec, payload)? };
        match reader.next().await {
            None => {}
            Some(Ok(_)) => return Err(ProtocolError::SeveralMessages.into()),
            Some(Err(error)) => return Err(error.into()),
        }
        handler(tonic::Request::from_parts(opened.metadata, opened.extensions, message)).await
    })
    .await
}

/// Many messages in, one out.
pub(super) async fn serve_client<Req, Resp, F, Fut>(
    call: Call,
    handler: Arc<F>,
    write_json: WriteJson<Resp>,
) -> Response<Body>
where
    Req: Decodable,
    Resp: Encodable,
    F: Fn(tonic::Request<Streaming<Req>>) -> Fut,
    Fut: Future<Output = Result<tonic::Response<Resp>, Status>>,
{
    answer(call, write_json, |opened| async move {
        let response = handler(stream_request(opened)).await?;
        Ok(response.map(|message| stream::iter([Ok(message)])))
    })
    .await
}

/// Many messages in, many out.
pub(super) async fn serve_bidi<Req, Resp, S, F, Fut>(
    call: Call,
    handler: Arc<F>,
    write_json: WriteJson<Resp>,
) -> Response<Body>
where
    Req: Decodable,
    Resp: Encodable,
    S: Stream<Item = Result<Resp, Status>> + Send + 'static,
    F: Fn(tonic::Request<Streaming<Req>>) -> Fut,
    Fut: Future<Output = Result<tonic::Response<S>, Status>>,
{
    answer(call, write_json, |opened| handler(stream_request(opened))).await
}

fn stream_request<Req: Decodable>(opened: Opened) -> tonic::Request<Streaming<Req>> {
    let reader = FrameReader::new(opened.body, opened.request_encoding, opened.max_message_bytes);
    tonic::Request::from_parts(opened.metadata, opened.extensions, streaming(reader, opened.codec))
}

/// Opens the call, lets `start` produce the stream of responses within the time limit, and answers with it.
async fn answer<Resp, S, H, Fut>(call: Call, write_json: WriteJson<Resp>, start: H) -> Response<Body>
where
    Resp: Encodable,
    S: Stream<Item = Result<Resp, Status>> + Send + 'static,
    H: FnOnce(Opened) -> Fut,
    Fut: Future<Output = Result<tonic::Response<S>, Status>>,
{
    let content_type = call.content_type;
    let (encoding, opened) = call.open();
    let mut writer = FrameWriter::new(encoding);
    let (deadline, started) = match opened {
        Ok(opened) => {
            let deadline = opened.deadline;
            // `start` runs inside the limit: called in an async block, so not at all when it has expired.
            (deadline, before(deadline, async { start(opened).await }).await)
        }
        Err(error) => (None, Err(error.into())),
    };
    let mut response = match started {
        Ok(started) => {
            let (metadata, stream, extensions) = started.into_parts();
            let trailers = extensions.get::<Trailers>().map(|trailers| trailers.0.clone()).unwrap_or_default();
            let messages = Messages::new(stream, deadline, writer, content_type.codec, write_json, trailers);
            let mut response = Response::new(Body::new(messages));
            *response.headers_mut() = metadata_headers(metadata);
            response
        }
        Err(status) => {
            let end: Bytes = writer.end(&end_of_stream(Some(&status), MetadataMap::new()));
            Response::new(Body::new(Full::new(end)))
        }
    };
    response.headers_mut().insert(CONTENT_TYPE, content_type.header());
    stream_headers(response.headers_mut(), encoding);
    response
}
