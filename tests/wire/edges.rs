//! Legal but unusual HTTP, and clients that send more than the agent wants to read.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    agent::{Agent, START, by_pid, sh},
    http1::request,
    stream::{EventStream, frame},
};

const RAW: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test(flavor = "multi_thread")]
async fn unusual_requests_are_understood() {
    let agent = Agent::start().await;
    for (text, status) in [
        ("GET http://elsewhere/health HTTP/1.1\r\nhost: x\r\n\r\n", 204),
        ("GET /health?a=b#c HTTP/1.1\r\nhost: x\r\n\r\n", 204),
        (
            "GET /health HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
            204,
        ),
        ("GET /health HTTP/1.1\r\nHOST: x\r\nX-ODD: \x01\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\n\r\n", 204),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        ("CONNECT agent:80 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        ("GET /%68ealth HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ] {
        let mut connection = agent.connect().await;
        connection.write(text.as_bytes()).await;
        assert_eq!(connection.head().await.status, status, "{text:?}");
    }
    let mut old = agent.connect().await;
    old.write(b"GET /health HTTP/1.0\r\n\r\n").await;
    assert!(old.rest().await.starts_with(b"HTTP/1.0 204 "), "an old client is answered and let go");
    let mut close = agent.connect().await;
    close.write(&request("GET", "/health", &[("connection", "close")], b"")).await;
    assert!(close.rest().await.starts_with(b"HTTP/1.1 204 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let agent = Agent::start().await;
    let mut connection = agent.connect().await;
    let target = format!("/files?path={}", agent.path("f"));
    let headers = [RAW, ("expect", "100-continue"), ("content-length", "5")];
    let head = request("PUT", &target, &headers, b"");
    let head = String::from_utf8(head).unwrap().replacen("PUT", "POST", 1);
    connection.write(head.as_bytes()).await;
    assert_eq!(connection.head().await.status, 100);
    connection.write(b"hello").await;
    assert_eq!(connection.receive("POST").await.status, 200);
    assert_eq!(std::fs::read(agent.path("f")).unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_may_come_in_chunks() {
    let agent = Agent::start().await;
    let headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
    for (body, status) in
        [("5\r\n{\"pat\r\n7\r\nh\":\"/\"}\r\n0\r\n\r\n", 200), ("0\r\n\r\n", 400), ("1\r\n{\r\n0\r\n\r\n", 400)]
    {
        let reply = agent.send("POST", "/filesystem.Filesystem/Stat", &headers, body).await;
        assert_eq!(reply.status, status, "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_a_stream() {
    let agent = Agent::start().await;
    let headers = [("content-type", "application/connect+json")];
    let request = request("POST", START, &headers, &frame(0, sh("echo hi").to_string()));
    let mut connection = agent.connect().await;
    for _ in 0..3 {
        connection.write(&request).await;
        let mut stream = EventStream::receive(connection).await;
        stream.until("hi\n").await;
        while stream.message().await.is_some() {}
        connection = stream.exchange;
        assert_eq!(connection.send("GET", "/health", &[], b"").await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_metadata_headers_as_fit_their_limit_are_taken() {
    let agent = Agent::start().await;
    // Eleven of the 4096 bytes each: the prefix of the attribute and two characters.
    let names: Vec<String> = (0..372u32).map(|at| format!("x-metadata-{}", two_letters(at))).collect();
    let mut headers = vec![RAW];
    headers.extend(names.iter().map(|name| (name.as_str(), "")));
    let reply = agent.send("POST", &format!("/files?path={}", agent.path("f")), &headers, "x").await;
    // The disk may have its own limit.
    assert!([200, 507].contains(&reply.status), "{} {}", reply.status, reply.text());
}

fn two_letters(at: u32) -> String {
    let letter = |at: u32| char::from_digit(at % 36, 36).unwrap();
    format!("{}{}", letter(at / 36), letter(at))
}

/// Sends a request whose body nobody wants, and reads the answer meanwhile, as HTTP clients do.
async fn refused(agent: &Agent, target: &str, headers: &[(&str, &str)], length: usize) -> (String, bool) {
    let connection = agent.connect().await;
    let (mut reader, mut writer) = connection.stream.into_split();
    let request = request("POST", target, headers, &vec![b'x'; length]);
    let sending = tokio::spawn(async move {
        let sent = writer.write_all(&request).await.is_ok();
        (writer, sent)
    });
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match tokio::time::timeout(crate::agent::PATIENCE, reader.read_buf(&mut answer)).await.unwrap() {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let (_writer, sent) = tokio::time::timeout(crate::agent::PATIENCE, sending).await.unwrap().unwrap();
    (String::from_utf8_lossy(&answer).into_owned(), sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_although_the_body_was_not_wanted() {
    let agent = Agent::start().await;
    let directory = format!("/files?path={}", agent.path(""));
    assert_eq!(agent.send("POST", "/init", &[], r#"{"accessToken":"tok"}"#).await.status, 204);
    let token = ("x-access-token", "tok");
    for round in 0..5 {
        for length in [100_000, 16 << 20] {
            for (target, headers, status) in [
                (&*directory, &[RAW, token][..], 400),
                (&*directory, &[RAW], 401),
                (&*directory, &[token], 400),
                ("/files?path=/x&username=ghost", &[RAW, token], 401),
                ("/process.Process/List", &[("content-type", "application/json")], 401),
                ("/nope", &[token], 404),
                ("/health", &[token], 405),
            ] {
                let (answer, _) = refused(&agent, target, headers, length).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{round} {target} {length}: {answer:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_unwanted_body_does_not_cost_the_connection() {
    let agent = Agent::start().await;
    let mut connection = agent.connect().await;
    for target in ["/nope", "/health", "/files", "/process.Process/List"] {
        let body = vec![b'x'; 100_000];
        let status = connection.send("POST", target, &[("content-type", "text/plain")], &body).await.status;
        assert!((400..500).contains(&status), "{target} {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_reads_gives_up_at_its_deadline() {
    let agent = Agent::start().await;
    let sleep = json!({ "process": { "cmd": "/bin/sleep", "args": ["600"] } });
    let mut stream = agent.stream(START, &[], sleep).await;
    let pid = stream.started().await;
    let text = base64_simd::STANDARD.encode_to_string(vec![b'x'; 1 << 20]);
    let body = json!({ "process": by_pid(pid), "input": { "stdin": text } }).to_string();
    let headers = [("content-type", "application/json"), ("connect-timeout-ms", "200")];
    let reply = agent.send("POST", "/process.Process/SendInput", &headers, body).await;
    // How much was written follows, if the call got so far: see `feeding`.
    reply.assert_rpc_error_begins(504, "deadline_exceeded", "context deadline exceeded");
    assert_eq!(agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.text(), "{}");
    // A stream of input that never ends has a deadline, too.
    let head = "POST /process.Process/StreamInput HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\n\
                connect-timeout-ms: 1000\r\ntransfer-encoding: chunked\r\n\r\n";
    let stalled = EventStream::send(agent.agent, head.as_bytes()).await;
    let told = "context deadline exceeded: 0 bytes of the input were written";
    stalled.assert_error("deadline_exceeded", told).await;
    agent.process("SendSignal", json!({ "process": by_pid(pid), "signal": 9 })).await.assert_ok();
    assert_eq!(stream.all().await.end["status"], "signal: killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_nesting_is_refused() {
    let agent = Agent::start().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
    for body in [deep("[", "]"), deep(r#"{"process":"#, "}")] {
        for path in ["/process.Process/SendSignal", "/process.Process/CloseStdin"] {
            agent.call(path, &body).await.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
        }
        agent.send("POST", "/files/compose", &[], &body).await.assert_http_error_begins(400, "");
        assert_eq!(agent.send_code("POST", "/execute", &[], &body).await.status, 422);
    }
    // Where nobody looks at it, it may also be skipped.
    let unknown = format!(r#"{{"unknown":{}}}"#, deep("[", "]"));
    for (path, skipped) in [("/process.Process/List", 200), ("/process.Process/SendSignal", 501), ("/init", 204)] {
        let status = agent.call(path, &unknown).await.status;
        assert!(status == 400 || status == skipped, "{path} {status}");
    }
    let groups = vec![0x0b; 200_000];
    let reply = agent.send("POST", "/process.Process/List", &[("content-type", "application/proto")], groups).await;
    assert_eq!(reply.status, 400);
    agent.assert_alive().await;
}
