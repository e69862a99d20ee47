#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

use futures_util::stream;
use http_body_util::BodyExt;
use prost::Message;
use tonic::{Response as Answer, codec::CompressionEncoding};

use super::*;
use crate::proto::process::{
    CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, ListRequest, ListResponse, ProcessInfo,
    SendInputRequest, SendInputResponse, SendSignalRequest, SendSignalResponse, StartRequest, StartResponse,
    StreamInputRequest, StreamInputResponse, UpdateRequest, UpdateResponse,
    process_server::{Process, ProcessServer},
};

/// Answers `List` with the time limit that it was told, in milliseconds, as the pid.
struct Stub;

type Refusal<T> = Result<Answer<T>, Status>;

fn refuse<T>() -> Refusal<T> {
    Err(Status::not_found("not here"))
}

#[tonic::async_trait]
impl Process for Stub {
    type ConnectStream = stream::Empty<Result<ConnectResponse, Status>>;
    type StartStream = stream::Empty<Result<StartResponse, Status>>;

    async fn list(&self, request: tonic::Request<ListRequest>) -> Refusal<ListResponse> {
        let limit = request.extensions().get::<Deadline>().map_or(0, |deadline| deadline.limit.as_millis());
        let pid = u32::try_from(limit).unwrap();
        Ok(Answer::new(ListResponse { processes: vec![ProcessInfo { pid, ..ProcessInfo::default() }] }))
    }

    async fn connect(&self, _: tonic::Request<ConnectRequest>) -> Refusal<Self::ConnectStream> {
        refuse()
    }

    async fn start(&self, _: tonic::Request<StartRequest>) -> Refusal<Self::StartStream> {
        refuse()
    }

    async fn update(&self, _: tonic::Request<UpdateRequest>) -> Refusal<UpdateResponse> {
        refuse()
    }

    async fn stream_input(
        &self,
        _: tonic::Request<tonic::Streaming<StreamInputRequest>>,
    ) -> Refusal<StreamInputResponse> {
        refuse()
    }

    async fn send_input(&self, _: tonic::Request<SendInputRequest>) -> Refusal<SendInputResponse> {
        refuse()
    }

    async fn send_signal(&self, _: tonic::Request<SendSignalRequest>) -> Refusal<SendSignalResponse> {
        refuse()
    }

    async fn close_stdin(&self, _: tonic::Request<CloseStdinRequest>) -> Refusal<CloseStdinResponse> {
        refuse()
    }
}

/// Calls with one empty message; answers the head, the bytes of all data frames, and the trailers.
async fn call(path: &str, headers: &[(&str, &str)]) -> (Response<()>, Vec<u8>, HeaderMap) {
    let server = ProcessServer::new(Stub)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let grpc = Grpc::default().service(server);
    let mut request = Request::builder().method("POST").uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Body::new(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])));
    let request = request.body(body).unwrap();
    let protocol = Protocol::of(request.headers()).unwrap();
    let (head, body) = grpc.call(protocol, request).await.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    (Response::from_parts(head, ()), collected.to_bytes().to_vec(), trailers)
}

fn framed(pid: u32) -> Vec<u8> {
    let message = ListResponse { processes: vec![ProcessInfo { pid, ..ProcessInfo::default() }] }.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

#[tokio::test]
async fn grpc_answers_with_trailers_and_hands_on_the_time_limit() {
    let (head, body, trailers) =
        call("/process.Process/List", &[("content-type", "application/grpc"), ("grpc-timeout", "1500m")]).await;
    assert_eq!((head.status(), body), (StatusCode::OK, framed(1500)));
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn grpc_web_answers_with_trailers_in_the_body() {
    let (head, body, _) = call("/process.Process/List", &[("content-type", "application/grpc-web+proto")]).await;
    assert_eq!(head.headers()["content-type"], "application/grpc-web+proto");
    assert!(body.starts_with(&framed(0)), "{body:?}");
    assert!(String::from_utf8_lossy(&body).contains("grpc-status:0"), "{body:?}");
}

#[tokio::test]
async fn compressed_answers_go_to_who_accepts_them() {
    let headers = [("content-type", "application/grpc"), ("grpc-accept-encoding", "gzip")];
    let (head, body, _) = call("/process.Process/List", &headers).await;
    assert_eq!(head.headers()["grpc-encoding"], "gzip");
    assert_eq!(body.first(), Some(&1));
}

#[tokio::test]
async fn errors_are_statuses_in_the_headers() {
    let (head, body, _) = call("/process.Process/Update", &[("content-type", "application/grpc")]).await;
    assert_eq!((head.status(), body.len()), (StatusCode::OK, 0));
    assert_eq!(head.headers()["grpc-status"], "5");
    assert_eq!(head.headers()["grpc-message"], "not%20here");
    let ours = error(Protocol::Web, Status::unauthenticated("invalid username: 'x'"));
    assert_eq!(ours.headers()["grpc-status"], "16");
    assert_eq!(ours.headers()["content-type"], "application/grpc-web+proto");
}

#[tokio::test]
async fn other_codecs_are_415() {
    let (head, ..) = call("/process.Process/List", &[("content-type", "application/grpc+json")]).await;
    assert_eq!(head.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(head.headers().contains_key("accept-post"));
}

#[test]
fn protocols_are_told_by_the_content_type() {
    let of = |value: &str| Protocol::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]));
    assert_eq!(of("application/grpc"), Some(Protocol::Grpc));
    assert_eq!(of("application/grpc+proto; charset=utf-8"), Some(Protocol::Grpc));
    assert_eq!(of("application/grpc-web-text"), Some(Protocol::Web));
    assert_eq!(of("application/grpc+thrift"), Some(Protocol::Unsupported));
    for other in ["application/json", "application/connect+json", "application/proto", ""] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn time_limits_have_a_number_and_a_unit() {
    for (text, limit) in [
        ("1H", Duration::from_secs(3600)),
        ("2M", Duration::from_secs(120)),
        ("3S", Duration::from_secs(3)),
        ("4m", Duration::from_millis(4)),
        ("5u", Duration::from_micros(5)),
        ("99999999n", Duration::from_nanos(99_999_999)),
    ] {
        assert_eq!(time_limit(text), Some(limit), "{text}");
    }
    for odd in ["", "m", "5", "-1S", "+1S", "1.5S", "123456789m", "5x", "5é", "é"] {
        assert_eq!(time_limit(odd), None, "{odd:?}");
    }
}
