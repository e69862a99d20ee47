//! Traffic of real clients, byte for byte.

use envd::proto::process::SpawnFailure;
use prost::Message as _;
use serde_json::json;

use crate::{
    agent::{Agent, CONNECT, START},
    http1::request,
    stream::{EventStream, Told, frame, frames},
};

/// What the Python client sends on a stream besides its content type.
const PYTHON: [(&str, &str); 9] = [
    ("connect-protocol-version", "1"),
    ("connect-accept-encoding", "identity"),
    ("connect-content-encoding", "identity"),
    ("accept-encoding", "zstd,gzip,br"),
    ("connect-timeout-ms", "60000"),
    ("keepalive-ping-interval", "50"),
    ("user-agent", "connectrpc/0.11"),
    ("e2b-sandbox-id", "sbx"),
    ("e2b-sandbox-port", "49983"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_four_frames() {
    let agent = Agent::start().await;
    let json = format!(
        r#"{{"process":{{"cmd":"/bin/sh","args":["-c","echo hi"],"envs":{{"A":"b"}},"cwd":"{}"}},"stdin":false}}"#,
        agent.work().display()
    );
    let mut stream = agent.stream(START, &[], &json).await;
    assert_eq!(stream.head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(stream.head.header("content-type"), Some("application/connect+json"));
    let (flags, start) = stream.frame().await.unwrap();
    let pid: u64 = String::from_utf8(start.clone())
        .unwrap()
        .strip_prefix(r#"{"event":{"start":{"pid":"#)
        .and_then(|rest| rest.strip_suffix("}}}"))
        .unwrap_or_else(|| panic!("{start:?}"))
        .parse()
        .unwrap();
    assert!(flags == 0 && pid > 1);
    for expected in [
        (0, r#"{"event":{"data":{"stdout":"aGkK"}}}"#),
        (0, r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#),
        (2, "{}"),
    ] {
        let (flags, payload) = stream.frame().await.unwrap();
        assert_eq!((flags, String::from_utf8(payload).unwrap().as_str()), expected);
    }
    assert!(stream.frame().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_commands() {
    let agent = Agent::start().await;
    for (script, end) in [
        ("exit 3", json!({"exitCode":3,"exited":true,"status":"exit status 3","error":"exit status 3"})),
        ("exit 255", json!({"exitCode":255,"exited":true,"status":"exit status 255","error":"exit status 255"})),
        ("kill -9 $$", json!({"exitCode":-1,"status":"signal: killed","error":"signal: killed"})),
        ("kill -15 $$", json!({"exitCode":-1,"status":"signal: terminated","error":"signal: terminated"})),
        ("kill -1 $$", json!({"exitCode":-1,"status":"signal: hangup","error":"signal: hangup"})),
        (
            "kill -10 $$",
            json!({"exitCode":-1,"status":"signal: user defined signal 1","error":"signal: user defined signal 1"}),
        ),
        ("true", json!({"exited":true,"status":"exit status 0"})),
    ] {
        let Told { end: told, close, .. } = agent.sh(script).await.all().await;
        assert_eq!((told.to_string(), close), (end.to_string(), json!({})), "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_a_command_that_fails() {
    let agent = Agent::start().await;
    let plain = agent.file("plain", "no program");
    for (cmd, code) in [("no-such-program", 127), ("/no/such/program", 127), ("", 127), (&*plain, 126), ("/", 126)] {
        let told = agent.stream(START, &[], json!({ "process": { "cmd": cmd } })).await.all().await;
        assert_eq!(told.end["exitCode"], code, "{cmd:?}");
        assert!(told.pid > 1 && !told.stderr.is_empty(), "{cmd:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_directories_and_unknown_pids() {
    let agent = Agent::start().await;
    let cwd = agent.path("nope");
    let bad = json!({ "process": { "cmd": "true", "cwd": cwd } }).to_string();
    let reply = agent.send("POST", START, &[("content-type", "application/connect+json")], frame(0, bad)).await;
    // The detail is ours; clients that do not know its type pass it on unread.
    let message = format!("cwd '{cwd}' does not exist");
    let detail = SpawnFailure { stage: "chdir".into(), errno: "ENOENT".into(), message: message.clone() };
    let detail = base64_simd::STANDARD_NO_PAD.encode_to_string(detail.encode_to_vec());
    let detail = format!(r#"{{"type":"process.SpawnFailure","value":"{detail}"}}"#);
    let told = format!(r#"{{"error":{{"code":"invalid_argument","message":"{message}","details":[{detail}]}}}}"#);
    assert_eq!(frames(&reply.body), [(2, told.into_bytes())]);
    let reply = agent.process("CloseStdin", json!({ "process": { "pid": 999999 } })).await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (404, r#"{"code":"not_found","message":"process with pid 999999 not found"}"#)
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_start_and_end() {
    let agent = Agent::start().await;
    // As Go clients call: binary, with gzip on offer.
    let request = b"\x0a\x0b\x0a\x09/bin/true\x20\x00";
    let headers = [("content-type", "application/connect+proto"), ("accept-encoding", "identity")];
    let reply = agent.send("POST", START, &headers, frame(0, request)).await;
    assert_eq!(reply.chunks.len(), 3, "each frame is a chunk");
    let frames = frames(&reply.body);
    let (start, end) = (&frames[0].1, &frames[1].1);
    assert_eq!(usize::from(start[1]), start.len() - 2);
    assert_eq!((start[0], start[2], start[4]), (0x0a, 0x0a, 0x08));
    assert_eq!(end, b"\x0a\x13\x1a\x11\x10\x01\x1a\x0dexit status 0");
    assert_eq!(frames[2], (2, b"{}".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_headers_of_the_python_client_are_understood() {
    let agent = Agent::start().await;
    // The body comes in chunks, cut anywhere.
    let json = r#"{"process": {"cmd": "/bin/sh", "args": ["-c", "echo hi; exit 3"]}, "stdin": false}"#;
    let body = frame(0, json);
    let mut headers = vec![("content-type", "application/connect+json"), ("transfer-encoding", "chunked")];
    headers.extend(PYTHON);
    let mut chunked = Vec::new();
    for piece in [&body[..2], &body[2..7], &body[7..]] {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let stream = EventStream::send(agent.agent, &request("POST", START, &headers, &chunked)).await;
    assert_eq!((stream.head.header("content-encoding"), stream.head.header("connect-content-encoding")), (None, None));
    let told = stream.all().await;
    assert_eq!((told.stdout().as_str(), &told.end["exitCode"]), ("hi\n", &json!(3)));
    let unary = [
        ("content-type", "application/json"),
        ("accept-encoding", "identity"),
        ("content-encoding", "identity"),
        ("connect-timeout-ms", "60000"),
    ];
    let body = r#"{"path": "/", "depth": 0}"#;
    assert_eq!(agent.send("POST", "/filesystem.Filesystem/Stat", &unary, body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_process_can_still_be_connected_to() {
    let agent = Agent::start().await;
    let mut request = crate::agent::sh("exit 7");
    request["tag"] = json!("a tag");
    let told = agent.stream(START, &[], request).await.all().await;
    for selector in [json!({ "pid": told.pid }), json!({ "tag": "a tag" })] {
        let again = agent.stream(CONNECT, &[], json!({ "process": selector })).await.all().await;
        assert_eq!((again.pid, again.end, again.close), (told.pid, told.end.clone(), json!({})));
        let reply = agent.process("SendSignal", json!({ "process": selector, "signal": 9 })).await;
        assert_eq!(reply.status, 404);
    }
    assert_eq!(agent.process("List", json!({})).await.text(), "{}");
    agent
        .stream(CONNECT, &[], json!({ "process": { "tag": "other" } }))
        .await
        .assert_error("not_found", "process with tag other not found")
        .await;
}
