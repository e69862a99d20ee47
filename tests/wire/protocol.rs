//! What a call can do wrong before its handler, and how answers are framed.

use serde_json::json;

use crate::{
    agent::{Agent, CONNECT, FILESYSTEM_UNARY, PROCESS_UNARY, START},
    http1::Fields,
    stream::{frame, frames, gunzip, gzip},
};

const LIST: &str = "/process.Process/List";
const STAT: &str = "/filesystem.Filesystem/Stat";
const STREAM_INPUT: &str = "/process.Process/StreamInput";
const WATCH: &str = "/filesystem.Filesystem/WatchDir";
const STREAMS: [&str; 4] = [START, CONNECT, STREAM_INPUT, WATCH];
const JSON: (&str, &str) = ("content-type", "application/json");
const STREAM: (&str, &str) = ("content-type", "application/connect+json");

fn unary() -> impl Iterator<Item = String> {
    let process = PROCESS_UNARY.map(|method| format!("/process.Process/{method}"));
    process.into_iter().chain(FILESYSTEM_UNARY.map(|method| format!("/filesystem.Filesystem/{method}")))
}

fn end(code: &str, message: &str) -> Vec<(u8, Vec<u8>)> {
    vec![(2, json!({ "error": { "code": code, "message": message } }).to_string().into_bytes())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_type_that_the_method_does_not_take_is_415_with_those_it_takes() {
    let agent = Agent::start().await;
    for path in unary() {
        for odd in ["", "text/plain", "application/connect+json", "application/json; charset=latin1", "application/xml"]
        {
            let reply = agent.send("POST", &path, &[("content-type", odd)], "{}").await;
            assert_eq!((reply.status, reply.body.len()), (415, 0), "{path} {odd:?}");
            let accepted = reply.header("accept-post").unwrap();
            assert!(accepted.contains("application/json") && accepted.contains("application/proto"), "{accepted}");
        }
        assert_eq!(agent.send("POST", &path, &[], "{}").await.status, 415, "{path} without a type");
    }
    for path in STREAMS {
        for odd in ["", "application/json", "application/proto", "application/connect+xml"] {
            let reply = agent.send("POST", path, &[("content-type", odd)], frame(0, "{}")).await;
            assert_eq!((reply.status, reply.body.len()), (415, 0), "{path} {odd:?}");
            assert!(reply.header("accept-post").unwrap().contains("application/connect+json"));
        }
    }
    // A relative of gRPC with another codec.
    let reply = agent.send("POST", LIST, &[("content-type", "application/grpc+json")], "").await;
    assert_eq!(reply.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_comes_back() {
    let agent = Agent::start().await;
    for content_type in ["application/json", "application/json; charset=utf-8", "application/proto"] {
        let body = if content_type.ends_with("proto") { "" } else { "{}" };
        let reply = agent.send("POST", LIST, &[("content-type", content_type)], body).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)));
        assert_eq!(reply.header("accept-encoding"), Some("gzip"));
        assert_eq!(reply.header("content-encoding"), None);
    }
    for content_type in ["application/connect+json", "application/connect+json; charset=utf-8"] {
        let reply = agent.send("POST", CONNECT, &[("content-type", content_type)], frame(0, "{}")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)));
        assert_eq!(reply.header("connect-accept-encoding"), Some("gzip"));
        assert_eq!(reply.header("connect-content-encoding"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_protocol_headers_get_their_codes() {
    let agent = Agent::start().await;
    for (name, value, code, message) in [
        ("connect-protocol-version", "2", "invalid_argument", r#"Connect-Protocol-Version must be "1": got "2""#),
        ("connect-protocol-version", "x", "invalid_argument", r#"Connect-Protocol-Version must be "1": got "x""#),
        ("connect-timeout-ms", "10000000000", "invalid_argument", r#"parse timeout: "10000000000" has >10 digits"#),
        ("connect-timeout-ms", "1s", "invalid_argument", "parse timeout: "),
        ("connect-timeout-ms", "1.5", "invalid_argument", "parse timeout: "),
        ("connect-timeout-ms", "0", "deadline_exceeded", "context deadline exceeded"),
        ("connect-timeout-ms", "-1", "deadline_exceeded", "context deadline exceeded"),
    ] {
        let status = if code == "deadline_exceeded" { 504 } else { 400 };
        for path in unary() {
            let reply = agent.send("POST", &path, &[JSON, (name, value)], "{}").await;
            reply.assert_rpc_error_begins(status, code, message);
        }
        for path in STREAMS {
            let reply = agent.send("POST", path, &[STREAM, (name, value)], frame(0, "{}")).await;
            let frames = frames(&reply.body);
            assert_eq!((reply.status, frames.len(), frames[0].0), (200, 1, 2), "{path} {name}: {value}");
            let end: serde_json::Value = serde_json::from_slice(&frames[0].1).unwrap();
            assert_eq!(end["error"]["code"], code, "{path} {name}: {value}");
            assert!(end["error"]["message"].as_str().unwrap().starts_with(message), "{end}");
        }
    }
    assert_eq!(agent.call(LIST, "{}").await.text(), "{}", "an expired Start starts nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_compression_is_unimplemented() {
    let agent = Agent::start().await;
    let told = r#"unknown compression "br": supported encodings are gzip"#;
    let reply = agent.send("POST", LIST, &[JSON, ("content-encoding", "br")], "{}").await;
    reply.assert_rpc_error(501, "unimplemented", told);
    let reply = agent.send("POST", START, &[STREAM, ("connect-content-encoding", "br")], frame(0, "{}")).await;
    assert_eq!(frames(&reply.body), end("unimplemented", told));
    // On a stream the plain header says nothing about messages, and `identity` says nothing at all.
    for headers in [
        &[STREAM, ("accept-encoding", "zstd,gzip,br")][..],
        &[STREAM, ("connect-content-encoding", "identity"), ("connect-accept-encoding", "identity")],
        &[STREAM, ("connect-accept-encoding", "br, zstd")],
    ] {
        let reply = agent.send("POST", CONNECT, headers, frame(0, r#"{"process":{"pid":4294967295}}"#)).await;
        assert_eq!(frames(&reply.body), end("not_found", "process with pid 4294967295 not found"));
        assert_eq!((reply.header("content-encoding"), reply.header("connect-content-encoding")), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_used_where_it_is_negotiated() {
    let agent = Agent::start().await;
    let body = json!({ "path": agent.path("") }).to_string();
    for headers in [
        &[JSON, ("accept-encoding", "gzip")][..],
        &[JSON, ("accept-encoding", "br, gzip;q=1, gzip")],
        &[JSON, ("content-encoding", "gzip")],
    ] {
        let packed = headers.contains(&("content-encoding", "gzip"));
        let sent = if packed { gzip(&body) } else { body.clone().into_bytes() };
        let reply = agent.send("POST", STAT, headers, sent).await;
        assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")), "{headers:?}");
        let stat: serde_json::Value = serde_json::from_slice(&gunzip(&reply.body)).unwrap();
        assert_eq!(stat["entry"]["type"], "FILE_TYPE_DIRECTORY");
    }
    // Errors stay readable.
    let reply = agent.send("POST", STAT, &[JSON, ("accept-encoding", "gzip")], r#"{"path":"/nope"}"#).await;
    reply.assert_rpc_error(404, "not_found", "file not found: lstat /nope: no such file or directory");
    let identity = [JSON, ("accept-encoding", "identity"), ("content-encoding", "identity")];
    assert_eq!(agent.send("POST", LIST, &identity, "{}").await.text(), "{}");
    // A stream: every message and the end.
    let headers = [STREAM, ("connect-content-encoding", "gzip"), ("connect-accept-encoding", "gzip")];
    let start = crate::agent::sh("echo hi").to_string();
    for request in [frame(1, gzip(&start)), frame(0, &start)] {
        let reply = agent.send("POST", START, &headers, request).await;
        assert_eq!(reply.header("connect-content-encoding"), Some("gzip"));
        let frames = frames(&reply.body);
        let (last, messages) = frames.split_last().unwrap();
        assert!(messages.len() >= 3 && messages.iter().all(|(flags, _)| *flags == 1), "{frames:?}");
        assert_eq!((last.0, gunzip(&last.1)), (3, b"{}".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_get_their_codes() {
    let agent = Agent::start().await;
    let plain: &[(&str, &str)] = &[STREAM];
    let packed: &[(&str, &str)] = &[STREAM, ("connect-content-encoding", "gzip")];
    let two = [frame(0, "{}"), frame(0, "{}")].concat();
    let rows: [(Fields<'_>, Vec<u8>, &str, &str); 9] = [
        (plain, vec![], "unimplemented", "unary request has zero messages"),
        (plain, two, "unimplemented", "unary request has multiple messages"),
        (plain, frame(4, "{}"), "internal", "protocol error: invalid envelope flags 4"),
        (plain, frame(0x80, "{}"), "internal", "protocol error: invalid envelope flags 128"),
        (
            plain,
            frame(1, gzip("{}")),
            "internal",
            "protocol error: sent compressed message without compression support",
        ),
        (
            plain,
            [&[0, 0, 0, 0, 9][..], b"{}"].concat(),
            "invalid_argument",
            "protocol error: promised 9 bytes in enveloped message, got 2 bytes",
        ),
        (
            plain,
            vec![0, 0xff, 0xff, 0xff, 0xff],
            "resource_exhausted",
            "message size is larger than configured max 67108864",
        ),
        (plain, vec![0, 0, 0], "invalid_argument", "protocol error: incomplete envelope: unexpected EOF"),
        (packed, frame(1, "no gzip"), "invalid_argument", "decompress: "),
    ];
    for path in [START, CONNECT, WATCH] {
        for (headers, body, code, message) in &rows {
            let reply = agent.send("POST", path, headers, body).await;
            let frames = frames(&reply.body);
            assert_eq!((reply.status, frames.len()), (200, 1), "{path} {message}");
            let payload = if frames[0].0 == 3 { gunzip(&frames[0].1) } else { frames[0].1.clone() };
            let end: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(end["error"]["code"], *code, "{path} {end}");
            assert!(end["error"]["message"].as_str().unwrap().starts_with(message), "{path} {end}");
        }
        for odd in ["not json", "[]", "1", "{", "\"\"", "{}{}"] {
            let reply = agent.send("POST", path, plain, frame(0, odd)).await;
            let frames = frames(&reply.body);
            let end: serde_json::Value = serde_json::from_slice(&frames[0].1).unwrap();
            assert_eq!((frames.len(), &end["error"]["code"]), (1, &json!("invalid_argument")), "{odd}");
            assert!(end["error"]["message"].as_str().unwrap().starts_with("unmarshal message: "), "{end}");
        }
    }
    assert_eq!(agent.call(LIST, "{}").await.text(), "{}", "none of these started anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_unary_bodies_are_invalid_arguments() {
    let agent = Agent::start().await;
    for path in unary() {
        for odd in ["not json", "[]", "1", "{", "\"\"", "{}{}", "\u{0}", "{\"path\":}"] {
            agent.call(&path, odd).await.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
        }
        let empty = "unmarshal message: zero-length payload is not a valid JSON object";
        agent.call(&path, "").await.assert_rpc_error(400, "invalid_argument", empty);
        let proto = [("content-type", "application/proto")];
        for odd in [&b"\xff\xff\xff\xff"[..], b"\x0a\x05ab", b"\x07"] {
            let reply = agent.send("POST", &path, &proto, odd).await;
            reply.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
        }
        let reply = agent.send("POST", &path, &[JSON, ("content-encoding", "gzip")], "no gzip").await;
        reply.assert_rpc_error_begins(400, "invalid_argument", "");
    }
    assert_eq!(agent.send("POST", LIST, &[("content-type", "application/proto")], "").await.status, 200);
}
