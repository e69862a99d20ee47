//! gRPC over cleartext HTTP/2 and gRPC-Web over HTTP/1.1.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    agent::{Agent, PATIENCE, START},
    stream::{frame, frames},
};

const LIST: &str = "/process.Process/List";
const SIGNAL: &str = "/process.Process/SendSignal";
/// `StartRequest { process { cmd: "/bin/sh", args: ["-c", "echo hi; exit 3"] }, stdin: false }`.
const SCRIPT: &[u8] = b"\x0a\x1e\x0a\x07/bin/sh\x12\x02-c\x12\x0fecho hi; exit 3\x20\x00";
/// `SendSignalRequest { process { pid: 65535 } }`.
const UNKNOWN: &[u8] = b"\x0a\x04\x08\xff\xff\x03";

type Sender = http2::SendRequest<Full<Bytes>>;

/// What came back: head, body, trailers.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn h2c(address: std::net::SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(sender: &Sender, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post(format!("http://agent{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let response = timeout(PATIENCE, sender.clone().send_request(request)).await.unwrap().unwrap();
    let (parts, body) = response.into_parts();
    let whole = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
    let trailers = whole.trailers().cloned().unwrap_or_default();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: whole.to_bytes().to_vec(), trailers }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_over_grpc() {
    let agent = Agent::start().await;
    let sender = h2c(agent.agent).await;
    let answer = send(&sender, START, &[GRPC, ("te", "trailers")], frame(0, SCRIPT)).await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (200, &"application/grpc".parse().unwrap()));
    assert_eq!(answer.trailers["grpc-status"], "0");
    let frames = frames(&answer.body);
    assert_eq!(frames.len(), 3, "{frames:?}");
    assert_eq!((frames[0].0, frames[0].1[0], frames[0].1[2], frames[0].1[4]), (0, 0x0a, 0x0a, 0x08));
    assert_eq!(frames[1], (0, b"\x0a\x07\x12\x05\x0a\x03hi\n".to_vec()));
    // exit_code is a zig-zag 3.
    let end = b"\x0a\x26\x1a\x24\x08\x06\x10\x01\x1a\x0dexit status 3\x22\x0dexit status 3";
    let end = [&[0x0a, end.len() as u8 - 2, 0x1a, end.len() as u8 - 4][..], &end[4..]].concat();
    assert_eq!(frames[2], (0, end));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_trailers() {
    let agent = Agent::start().await;
    let sender = h2c(agent.agent).await;
    let status = |answer: &Answer| {
        let find = |name: &str| {
            answer.trailers.get(name).or(answer.headers.get(name)).map(|value| value.to_str().unwrap().to_owned())
        };
        (answer.status, find("grpc-status").unwrap(), find("grpc-message").unwrap_or_default())
    };
    let answer = send(&sender, LIST, &[GRPC], frame(0, "")).await;
    assert_eq!((status(&answer), answer.body), ((200, "0".into(), String::new()), frame(0, "")));
    let answer = send(&sender, SIGNAL, &[GRPC], frame(0, UNKNOWN)).await;
    assert_eq!(status(&answer), (200, "5".into(), "process%20with%20pid%2065535%20not%20found".into()));
    for path in [LIST, START] {
        let user = ("authorization", "Basic bm8tc3VjaC11c2VyOg==");
        let answer = send(&sender, path, &[GRPC, user], frame(0, "")).await;
        assert_eq!(status(&answer).1, "16", "{path}");
        let answer = send(&sender, path, &[GRPC], frame(0, "\x07")).await;
        assert_ne!(status(&answer).1, "0", "{path}");
        let answer = send(&sender, path, &[GRPC, ("grpc-timeout", "x")], frame(0, "")).await;
        assert_eq!(status(&answer).1, "3", "{path}");
    }
    let answer = send(
        &sender,
        START,
        &[GRPC, ("grpc-timeout", "200m")],
        frame(0, b"\x0a\x11\x0a\x0a/bin/sleep\x12\x03600\x20\x00"),
    )
    .await;
    assert_eq!(status(&answer).1, "4", "the time limit ends the stream");
    assert_eq!(send(&sender, "/process.Process/Nope", &[GRPC], frame(0, "")).await.status, 404);
    assert_eq!(send(&sender, LIST, &[("content-type", "application/grpc+json")], frame(0, "")).await.status, 415);
    // The token comes first, as a plain answer.
    assert_eq!(agent.send("POST", "/init", &[], r#"{"accessToken":"tok"}"#).await.status, 204);
    assert_eq!(send(&sender, LIST, &[GRPC], frame(0, "")).await.status, 401);
    assert_eq!(status(&send(&sender, LIST, &[GRPC, ("x-access-token", "tok")], frame(0, "")).await).1, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_works_over_http2_as_well() {
    let agent = Agent::start().await;
    let sender = h2c(agent.agent).await;
    let calls =
        (0..50).map(|_| send(&sender, START, &[("content-type", "application/connect+proto")], frame(0, SCRIPT)));
    for answer in futures_util::future::join_all(calls).await {
        let frames = frames(&answer.body);
        assert_eq!((frames.len(), frames.last()), (4, Some(&(2, b"{}".to_vec()))));
    }
    let answer = send(&sender, LIST, &[("content-type", "application/json")], b"{}".to_vec()).await;
    assert_eq!((answer.status, answer.body), (200, b"{}".to_vec()));
    let code = h2c(agent.code).await;
    assert_eq!(send(&code, "/execute", &[], b"{".to_vec()).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_puts_its_trailers_into_the_body() {
    let agent = Agent::start().await;
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        let headers = [("content-type", content_type), ("x-grpc-web", "1")];
        let reply = agent.send("POST", START, &headers, frame(0, SCRIPT)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/grpc-web+proto")));
        let frames = frames(&reply.body);
        assert_eq!((frames.len(), &frames[1].1), (4, &b"\x0a\x07\x12\x05\x0a\x03hi\n".to_vec()));
        let trailers = String::from_utf8(frames[3].1.clone()).unwrap();
        assert_eq!((frames[3].0, trailers.contains("grpc-status:0")), (0x80, true), "{trailers:?}");
        let reply = agent.send("POST", SIGNAL, &headers, frame(0, UNKNOWN)).await;
        let told = reply.header("grpc-status").map(str::to_owned).unwrap_or_else(|| reply.text());
        assert!(told == "5" || told.contains("grpc-status:5"), "{reply:?}");
    }
    let headers = [("content-type", "application/grpc-web-text")];
    let body = base64_simd::STANDARD.encode_to_string(frame(0, ""));
    let reply = agent.send("POST", LIST, &headers, body).await;
    let decoded = base64_simd::STANDARD.decode_to_vec(reply.body.split(|byte| *byte == b'=').next().unwrap());
    assert_eq!(reply.status, 200, "{decoded:?}");
    let user = [("content-type", "application/grpc-web+proto"), ("authorization", "Basic bm8tc3VjaC11c2VyOg==")];
    let reply = agent.send("POST", LIST, &user, frame(0, "")).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("16")));
}
