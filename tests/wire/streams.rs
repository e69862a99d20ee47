//! Time limits, keep-alives, clients that leave and clients that do not read.

use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use serde_json::json;
use tokio::net::TcpSocket;

use crate::{
    agent::{Agent, CONNECT, PATIENCE, START, by_pid, sh},
    http1::{Exchange, request},
    stream::{EventStream, frame},
};

const WATCH: &str = "/filesystem.Filesystem/WatchDir";
const EXPIRED: &str = r#"{"error":{"code":"deadline_exceeded","message":"context deadline exceeded"}}"#;

/// Waits for something to become true; the limit is for failures.
async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn list(agent: &Agent) -> String {
    agent.process("List", json!({})).await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_event_leaves_before_there_is_any_output() {
    let agent = Agent::start().await;
    // One for each line: a writer that has not closed yet would let the next reader in, and then end its file.
    let (first, second) = (agent.path("first"), agent.path("second"));
    assert!(std::process::Command::new("mkfifo").args([&first, &second]).status().unwrap().success());
    // The command writes only after the test, which has seen the start, lets it.
    let mut stream =
        agent.sh(&format!("read line < {first}; echo $line; read line < {second}; echo $line; exit 4")).await;
    stream.started().await;
    for (fifo, line) in [(first, "one\n"), (second, "two\n")] {
        let line = line.to_owned();
        let sent = line.clone();
        tokio::task::spawn_blocking(move || std::fs::write(fifo, sent).unwrap()).await.unwrap();
        // Each event is a chunk of its own and is not held back for the next: `frame` insists.
        assert_eq!(stream.until("\n").await, line.as_bytes());
    }
    assert_eq!(stream.all().await.end["exitCode"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_carries_keepalives() {
    let agent = Agent::start().await;
    let headers = [("keepalive-ping-interval", "1")];
    let mut start = agent.stream(START, &headers, sh("exec >&- 2>&-; sleep 600")).await;
    let pid = start.started().await;
    let mut connect = agent.stream(CONNECT, &headers, json!({ "process": by_pid(pid) })).await;
    assert_eq!(connect.started().await, pid);
    let mut watch = agent.stream(WATCH, &headers, json!({ "path": agent.path("") })).await;
    assert_eq!(watch.event_of("start").await, json!({}));
    for _ in 0..2 {
        assert_eq!(start.message().await.unwrap(), json!({ "event": { "keepalive": {} } }));
        assert_eq!(connect.message().await.unwrap(), json!({ "event": { "keepalive": {} } }));
        assert_eq!(watch.message().await.unwrap(), json!({ "keepalive": {} }));
    }
    agent.process("SendSignal", json!({ "process": by_pid(pid), "signal": 9 })).await.assert_ok();
    assert_eq!(start.all().await.end["status"], "signal: killed");
    assert_eq!(connect.all().await.end["status"], "signal: killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keepalive_intervals_hurt_nobody() {
    let agent = Agent::start().await;
    for interval in ["0", "-1", "x", "", "1.5", "99999999999999999999", "4294967295"] {
        let headers = [("keepalive-ping-interval", interval)];
        let told = agent.stream(START, &headers, sh("echo hi")).await.all().await;
        assert_eq!((told.stdout().as_str(), told.keepalives), ("hi\n", 0), "{interval:?}");
        let again = agent.stream(CONNECT, &headers, json!({ "process": by_pid(told.pid) })).await.all().await;
        assert_eq!(again.end, told.end);
        let mut watch = agent.stream(WATCH, &headers, json!({ "path": "/" })).await;
        assert_eq!(watch.event_of("start").await, json!({}), "{interval:?}");
    }
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_start_ends_the_stream_and_kills_the_process() {
    let agent = Agent::start().await;
    let mut stream = agent.stream(START, &[("connect-timeout-ms", "3000")], sh("exec sleep 600")).await;
    let pid = stream.started().await;
    let told = stream.all().await;
    assert_eq!((told.close.to_string().as_str(), told.end), (EXPIRED, json!(null)));
    eventually("the process is gone", async || list(&agent).await == "{}").await;
    let after = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await.all().await;
    let error = "signal: killed: time limit exceeded";
    assert_eq!(after.end, json!({ "exitCode": -1, "status": "signal: killed", "error": error }));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_tell_where_each_piece_belongs() {
    let agent = Agent::start().await;
    let mut request = sh("read line; head -c 300000 /dev/zero; read line; echo end");
    request["stdin"] = json!(true);
    let mut plain = agent.stream(START, &[], request).await;
    let pid = plain.started().await;
    let connect = json!({ "process": by_pid(pid), "replayFrom": "0" });
    let mut stream = agent.stream(CONNECT, &[], connect).await;
    assert_eq!(stream.event().await, json!({ "start": { "pid": pid, "offset": "0" } }));
    let input = json!({ "process": by_pid(pid), "input": { "stdin": STANDARD.encode_to_string("\n") } });
    agent.process("SendInput", input.clone()).await.assert_ok();
    let mut next = 0;
    while next < 300_000 {
        let data = stream.event().await["data"].take();
        assert_eq!(data["offset"], next.to_string());
        next += STANDARD.decode_to_vec(data["stdout"].as_str().unwrap()).unwrap().len();
    }
    let connect = json!({ "process": by_pid(pid), "replayFrom": 300_001 });
    let refused = agent.stream(CONNECT, &[], connect).await;
    let text = format!("cannot replay the output of process {pid} from byte 300001: 300000 bytes were written so far");
    refused.assert_error("out_of_range", &text).await;
    agent.process("SendInput", input).await.assert_ok();
    assert_eq!(stream.event().await, json!({ "data": { "stdout": "ZW5kCg==", "offset": "300000" } }));
    let told = plain.all().await;
    assert_eq!((told.stdout.len(), told.end["status"].as_str()), (300_004, Some("exit status 0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_start_holds_even_when_the_client_has_left() {
    let agent = Agent::start().await;
    let mut stream = agent.stream(START, &[("connect-timeout-ms", "2000")], sh("exec sleep 600")).await;
    let pid = stream.started().await;
    drop(stream);
    // Connecting does not extend it, and has no deadline of its own.
    let told = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await.all().await;
    assert_eq!((told.end["status"].as_str(), told.close), (Some("signal: killed"), json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_other_streams_ends_only_them() {
    let agent = Agent::start().await;
    let mut stream = agent.sh("read line; sleep 600").await;
    let pid = stream.started().await;
    let limit = [("connect-timeout-ms", "500")];
    let told = agent.stream(CONNECT, &limit, json!({ "process": by_pid(pid) })).await.all().await;
    assert_eq!((told.pid, told.close.to_string().as_str()), (pid, EXPIRED));
    let mut watch = agent.stream(WATCH, &limit, json!({ "path": "/" })).await;
    assert_eq!(watch.event_of("start").await, json!({}));
    assert!(watch.message().await.is_none());
    assert!(list(&agent).await.contains(&pid.to_string()), "the process runs on");
    agent.process("SendSignal", json!({ "process": by_pid(pid), "signal": 9 })).await.assert_ok();
    assert_eq!(stream.all().await.end["status"], "signal: killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_start_starts_nothing() {
    let agent = Agent::start().await;
    let mark = agent.path("mark");
    for limit in ["0", "-1"] {
        let told =
            agent.stream(START, &[("connect-timeout-ms", limit)], sh(&format!("touch {mark}"))).await.all().await;
        assert_eq!((told.pid, told.close.to_string().as_str()), (0, EXPIRED));
    }
    assert_eq!(list(&agent).await, "{}");
    assert!(!std::path::Path::new(&mark).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_take_its_process_along() {
    let agent = Agent::start().await;
    let cat = json!({ "process": { "cmd": "/bin/cat" }, "tag": "cat" });
    let mut stream = agent.stream(START, &[], cat).await;
    let pid = stream.started().await;
    drop(stream);
    for round in ["one", "two"] {
        let mut again = agent.stream(CONNECT, &[], json!({ "process": { "tag": "cat" } })).await;
        assert_eq!(again.started().await, pid);
        let input =
            json!({ "process": by_pid(pid), "input": { "stdin": base64_simd::STANDARD.encode_to_string(round) } });
        agent.process("SendInput", input).await.assert_ok();
        again.until(round).await;
    }
    let last = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await;
    agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
    assert_eq!(last.all().await.end["status"], "exit status 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stalls_nobody() {
    let agent = Agent::start().await;
    let go = agent.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
    let mut fast = agent.sh("read line < fifo; head -c 33554432 /dev/zero; echo; echo done").await;
    let pid = fast.started().await;
    // A subscriber with a small buffer that never reads.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = Exchange::new(socket.connect(agent.agent).await.unwrap());
    let selector = frame(0, json!({ "process": by_pid(pid) }).to_string());
    slow.write(&request("POST", CONNECT, &[("content-type", "application/connect+json")], &selector)).await;
    assert_eq!(slow.head().await.status, 200);
    assert!(slow.chunk().await.is_some(), "its start event");
    // Both are subscribed.
    tokio::task::spawn_blocking(move || std::fs::write(go, "go\n").unwrap()).await.unwrap();
    let told = fast.all().await;
    assert_eq!(told.stdout.len(), 33_554_432 + "\ndone\n".len());
    assert_eq!(told.end["status"], "exit status 0");
    drop(slow);
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscriber_sees_all_that_comes_and_the_end() {
    let agent = Agent::start().await;
    let cat = json!({ "process": { "cmd": "/bin/cat" } });
    let mut first = agent.stream(START, &[], cat).await;
    let pid = first.started().await;
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut other: EventStream = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await;
        assert_eq!(other.started().await, pid);
        others.push(other);
    }
    let input = json!({ "process": by_pid(pid), "input": { "stdin": "aGVsbG8=" } });
    agent.process("SendInput", input).await.assert_ok();
    agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
    others.push(first);
    for other in others {
        let told = other.all().await;
        assert_eq!((told.stdout().as_str(), told.end["status"].as_str()), ("hello", Some("exit status 0")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_child_keeps_the_stream_open_and_a_kill_releases_it() {
    let agent = Agent::start().await;
    let mut stream = agent.sh("sleep 600 & echo $!").await;
    let pid = stream.started().await;
    let child = String::from_utf8(stream.until("\n").await).unwrap();
    let own = std::path::PathBuf::from(format!("/proc/{pid}"));
    eventually("the shell is reaped", async || !own.exists()).await;
    assert!(list(&agent).await.contains(&pid.to_string()), "listed while its output is open");
    agent.process("SendSignal", json!({ "process": by_pid(pid), "signal": 9 })).await.assert_ok();
    assert_eq!(stream.all().await.end["status"], "exit status 0", "its own end, not the signal's");
    let status = std::process::Command::new("kill").args(["-9", child.trim()]).status().unwrap();
    assert!(status.success(), "only the process itself is signalled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_ends_its_streams_properly() {
    let agent = Agent::start().await;
    let mut stream = agent.sh("exec sleep 5").await;
    stream.started().await;
    let mut watch = agent.stream(WATCH, &[], json!({ "path": "/" })).await;
    assert_eq!(watch.event_of("start").await, json!({}));
    let (told, rest, ()) = tokio::join!(stream.all(), watch.message(), agent.stop());
    assert_eq!(told.close["error"]["code"], "unavailable", "the process runs on: {told:?}");
    assert_eq!(rest, None);
}
