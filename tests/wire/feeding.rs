//! Input on its way to a process that is slow, or not there any more, or whose client has left.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64_simd::STANDARD;
use bytes::Bytes;
use envd::proto::process::{
    ProcessInput, ProcessSelector, SendInputRequest, StreamInputRequest, process_input,
    process_selector::Selector,
    stream_input_request::{DataEvent, Event, KeepAlive, StartEvent},
};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    agent::{Agent, PATIENCE, START, by_pid},
    hold::Gate,
    http1::{Exchange, request},
    stdin_pipe::StdinPipe,
    stream::{EventStream, frame, frames},
};

const SEND_INPUT: &str = "/process.Process/SendInput";
const STREAM_INPUT: &str = "/process.Process/StreamInput";
const JSON: (&str, &str) = ("content-type", "application/connect+json");

/// What a pipe holds that was full once.
const PIPE_BYTES: usize = 256 * 1024;

/// Starts a script that reads from a pipe.
async fn reader(agent: &Agent, script: &str) -> (EventStream, u64) {
    let request = json!({ "process": { "cmd": "/bin/sh", "args": ["-c", script] } });
    let mut stream = agent.stream(START, &[], request).await;
    let pid = stream.started().await;
    (stream, pid)
}

fn pipe_of(pid: u64) -> StdinPipe {
    StdinPipe::of(u32::try_from(pid).unwrap())
}

async fn kill(agent: &Agent, stream: EventStream, pid: u64) {
    agent.process("SendSignal", json!({ "process": by_pid(pid), "signal": 9 })).await.assert_ok();
    assert_eq!(stream.all().await.end["status"], "signal: killed");
}

fn send_input(pid: u64, bytes: &[u8]) -> Value {
    json!({ "process": by_pid(pid), "input": { "stdin": STANDARD.encode_to_string(bytes) } })
}

/// The messages that bring these pieces to the process, with a keep-alive after each.
fn messages(pid: u64, pieces: &[Vec<u8>]) -> Vec<StreamInputRequest> {
    let process = Some(ProcessSelector { selector: Some(Selector::Pid(u32::try_from(pid).unwrap())) });
    let mut events = vec![Event::Keepalive(KeepAlive {}), Event::Start(StartEvent { process })];
    for piece in pieces {
        let input = Some(process_input::Input::Stdin(piece.clone().into()));
        events.push(Event::Data(DataEvent { input: Some(ProcessInput { input }) }));
        events.push(Event::Keepalive(KeepAlive {}));
    }
    events.into_iter().map(|event| StreamInputRequest { event: Some(event) }).collect()
}

fn json_frame(message: &StreamInputRequest) -> Vec<u8> {
    frame(0, serde_json::to_vec(message).unwrap())
}

fn proto_frame(message: &StreamInputRequest) -> Vec<u8> {
    frame(0, message.encode_to_vec())
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Pieces of different contents. A pipe is made of pages: only pieces of whole pages fill it to its last byte.
fn pieces(count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| (0..length).map(|at| (at * 31 + number) as u8).collect()).collect()
}

/// What `sha256sum` says about all of it.
fn checksum(pieces: &[Vec<u8>]) -> String {
    Sha256::digest(pieces.concat()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a client stream over HTTP/2; counts the bytes that the transport has taken.
async fn stream_over_http2(agent: &Agent, content_type: &str, body: Vec<Vec<u8>>, taken: Arc<AtomicUsize>) -> Vec<u8> {
    let stream = TcpStream::connect(agent.agent).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = body.into_iter().map(move |bytes| {
        taken.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(bytes)))
    });
    let request = Request::post(format!("http://agent{STREAM_INPUT}")).header("content-type", content_type);
    let request = request.body(StreamBody::new(futures_util::stream::iter(body))).unwrap();
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let whole = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    if content_type == "application/grpc" {
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
    }
    whole.to_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_input_arrives_whole_in_every_protocol() {
    let agent = Agent::start().await;
    let pieces = pieces(100, 30_000);
    for content_type in ["application/connect+json", "application/connect+proto", "application/grpc"] {
        let (stream, pid) = reader(&agent, "exec sha256sum").await;
        let json = content_type.ends_with("json");
        let write = if json { json_frame } else { proto_frame };
        let body = messages(pid, &pieces).iter().map(write).collect();
        let answer = frames(&stream_over_http2(&agent, content_type, body, Arc::default()).await);
        let empty = if json { b"{}".to_vec() } else { Vec::new() };
        let mut expected = vec![(0, empty)];
        if content_type != "application/grpc" {
            expected.push((2, b"{}".to_vec()));
        }
        assert_eq!(answer, expected, "{content_type}");
        agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
        assert_eq!(stream.all().await.stdout(), format!("{}  -\n", checksum(&pieces)), "{content_type}");
    }
}

/// A client that sends 24 MiB over a unix socket, whose own buffer is small, to a process that does not read yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_input_is_read_no_faster_than_the_process_reads() {
    let agent = Agent::start().await;
    let gate = Gate::new();
    let (stream, pid) = reader(&agent, &format!("read line <{}; exec sha256sum", gate.path())).await;
    let pieces = pieces(384, 65_536);
    let head = request("POST", STREAM_INPUT, &[JSON, ("transfer-encoding", "chunked")], b"");
    let sent = Arc::new(AtomicUsize::new(0));
    let client = tokio::spawn({
        let (body, sent) = (messages(pid, &pieces), sent.clone());
        let mut exchange = Exchange::new(UnixStream::connect(&agent.unix).await.unwrap());
        async move {
            exchange.write(&head).await;
            for message in body {
                for part in chunk(&json_frame(&message)).chunks(4096) {
                    timeout(PATIENCE, exchange.stream.write_all(part)).await.unwrap().unwrap();
                    sent.fetch_add(part.len(), Ordering::Relaxed);
                }
            }
            exchange.write(b"0\r\n\r\n").await;
            exchange.receive("POST").await
        }
    });
    pipe_of(pid).full().await;
    // An agent that took everything would take it while it answers these.
    for _ in 0..100 {
        agent.process("List", json!({})).await.assert_ok();
    }
    // The pipe, a message, the buffers of the connection on both sides.
    let stalled = sent.load(Ordering::Relaxed);
    assert!(stalled < 4 << 20, "{stalled} bytes were taken for a process that does not read");
    gate.open();
    let reply = client.await.unwrap();
    assert_eq!(frames(&reply.body), [(0, b"{}".to_vec()), (2, b"{}".to_vec())]);
    agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
    assert_eq!(stream.all().await.stdout(), format!("{}  -\n", checksum(&pieces)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_input_over_grpc_is_held_up_by_its_window() {
    let agent = Agent::start().await;
    let gate = Gate::new();
    let (stream, pid) = reader(&agent, &format!("read line <{}; exec sha256sum", gate.path())).await;
    let pieces = pieces(384, 65_536);
    let body = messages(pid, &pieces).iter().map(proto_frame).collect();
    let sent = Arc::new(AtomicUsize::new(0));
    let feeding = stream_over_http2(&agent, "application/grpc", body, sent.clone());
    let watching = async {
        pipe_of(pid).full().await;
        for _ in 0..100 {
            agent.process("List", json!({})).await.assert_ok();
        }
        let stalled = sent.load(Ordering::Relaxed);
        gate.open();
        stalled
    };
    let (answer, stalled) = tokio::join!(feeding, watching);
    // One stream's window is 1 MiB, and the client has a buffer of its own.
    assert!(stalled < 8 << 20, "{stalled} bytes were taken for a process that does not read");
    assert_eq!(frames(&answer), [(0, Vec::new())]);
    agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
    assert_eq!(stream.all().await.stdout(), format!("{}  -\n", checksum(&pieces)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_unwritten_input_along() {
    let agent = Agent::start().await;
    let megabyte = vec![b'x'; 1 << 20];
    for protocol in ["HTTP/1.1", "HTTP/2", "a stream"] {
        let (stream, pid) = reader(&agent, "exec sleep 1000").await;
        let pipe = pipe_of(pid);
        match protocol {
            "HTTP/1.1" => {
                let mut exchange = agent.connect().await;
                let body = send_input(pid, &megabyte).to_string();
                let json = [("content-type", "application/json")];
                exchange.write(&request("POST", SEND_INPUT, &json, body.as_bytes())).await;
                pipe.full().await;
            }
            "HTTP/2" => {
                let connection = TcpStream::connect(agent.agent).await.unwrap();
                let (mut sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await.unwrap();
                tokio::spawn(connection);
                let input = Some(process_input::Input::Stdin(megabyte.clone().into()));
                let process = Some(ProcessSelector { selector: Some(Selector::Pid(u32::try_from(pid).unwrap())) });
                let message = SendInputRequest { process, input: Some(ProcessInput { input }) };
                let request =
                    Request::post(format!("http://agent{SEND_INPUT}")).header("content-type", "application/grpc");
                let body = http_body_util::Full::new(Bytes::from(frame(0, message.encode_to_vec())));
                let mut call = Box::pin(sender.send_request(request.body(body).unwrap()));
                tokio::select! {
                    response = &mut call => panic!("answered before everything was written: {response:?}"),
                    full = pipe.full() => assert_eq!(full, PIPE_BYTES),
                }
                // One stream is reset; the connection stays.
                drop(call);
                let others = sender.send_request(
                    Request::post("http://agent/process.Process/List")
                        .header("content-type", "application/grpc")
                        .body(http_body_util::Full::new(Bytes::from(frame(0, ""))))
                        .unwrap(),
                );
                assert_eq!(timeout(PATIENCE, others).await.unwrap().unwrap().status(), 200);
            }
            _ => {
                let mut exchange = agent.connect().await;
                let mut bytes = request("POST", STREAM_INPUT, &[JSON, ("transfer-encoding", "chunked")], b"");
                for message in messages(pid, std::slice::from_ref(&megabyte)) {
                    bytes.extend(chunk(&json_frame(&message)));
                }
                exchange.write(&bytes).await;
                pipe.full().await;
            }
        }
        // The close waits behind the call: without a reader it is the end of that call that lets it through.
        agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
        assert_eq!(pipe.hung_up().await, PIPE_BYTES, "{protocol}");
        kill(&agent, stream, pid).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_keeps_its_limit_and_tells_what_it_wrote() {
    let agent = Agent::start().await;
    let (stream, pid) = reader(&agent, "exec sleep 1000").await;
    let pipe = pipe_of(pid);
    let late = |written: usize| format!("context deadline exceeded: {written} bytes of the input were written");
    // A limit may pass before the call has reached the process; then nothing is told but that.
    for limit in (9..).map(|power| (1u64 << power).to_string()) {
        let mut body = Vec::new();
        for message in messages(pid, &pieces(10, 65_536)) {
            body.extend(json_frame(&message));
        }
        let before = pipe.waiting();
        let headers = [JSON, ("connect-timeout-ms", limit.as_str())];
        let reply = EventStream::send(agent.agent, &request("POST", STREAM_INPUT, &headers, &body)).await.all().await;
        let error = &reply.close["error"];
        assert_eq!(error["code"], "deadline_exceeded");
        if error["message"] != "context deadline exceeded" {
            assert_eq!(error["message"], late(pipe.waiting() - before));
        }
        if pipe.waiting() == PIPE_BYTES {
            break;
        }
    }
    for limit in (9..).map(|power| (1u64 << power).to_string()) {
        let headers = [("content-type", "application/json"), ("connect-timeout-ms", limit.as_str())];
        let reply = agent.send("POST", SEND_INPUT, &headers, send_input(pid, b"x").to_string()).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (504, Some("deadline_exceeded")));
        if reply.json()["message"] != "context deadline exceeded" {
            assert_eq!(reply.json()["message"], late(0));
            break;
        }
    }
    kill(&agent, stream, pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_calls_is_bounded_and_small_calls_to_others_go_on() {
    let agent = Agent::start().await;
    let (stream, pid) = reader(&agent, "exec sleep 1000").await;
    let (other, other_pid) = reader(&agent, "exec cat").await;
    let body = send_input(pid, &vec![b'x'; 1 << 20]).to_string();
    let calls = (0..60).map(|_| agent.call(SEND_INPUT, body.as_str()));
    let mut calls: futures_util::stream::FuturesUnordered<_> = calls.collect();
    // One writes, 16 wait.
    for _ in 0..60 - 17 {
        let reply = futures_util::StreamExt::next(&mut calls).await.unwrap();
        reply.assert_rpc_error_begins(409, "aborted", "input was not written: ");
    }
    agent.process("SendInput", send_input(other_pid, b"hello")).await.assert_ok();
    agent.process("CloseStdin", json!({ "process": by_pid(other_pid) })).await.assert_ok();
    assert_eq!(other.all().await.stdout(), "hello");
    kill(&agent, stream, pid).await;
    while let Some(reply) = futures_util::StreamExt::next(&mut calls).await {
        let broken = format!("error writing to stdin: error writing to stdin of process '{pid}': broken pipe");
        reply.assert_rpc_error(500, "internal", &broken);
    }
}
