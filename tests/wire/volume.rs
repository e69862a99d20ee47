//! Much data, through sockets.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::agent::{Agent, CONNECT, START, by_pid};

/// Bytes that repeat nowhere soon.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut noise = Vec::with_capacity(length + 8);
    while noise.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        noise.extend_from_slice(&seed.to_le_bytes());
    }
    noise.truncate(length);
    noise
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_come_back_as_they_went() {
    let agent = Agent::start().await;
    let content = noise(64 << 20, 1);
    let target = format!("/files?path={}", agent.path("big"));
    let reply = agent.send("POST", &target, &[("content-type", "application/octet-stream")], &content).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = agent.get(&target).await;
    assert_eq!(reply.header("content-length"), Some("67108864"));
    assert_eq!(Sha256::digest(&reply.body), Sha256::digest(&content));
    let reply = agent.send("GET", &target, &[("range", "bytes=33554431-33554440")], "").await;
    assert_eq!((reply.status, &reply.body[..]), (206, &content[33_554_431..=33_554_440]));
    // The same in chunks, which tell no length.
    let mut chunked = Vec::with_capacity(content.len() + (1 << 16));
    for piece in content.chunks(1 << 20) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let headers = [("content-type", "application/octet-stream"), ("transfer-encoding", "chunked")];
    assert_eq!(agent.send("POST", &target, &headers, &chunked).await.status, 200);
    assert_eq!(Sha256::digest(std::fs::read(agent.path("big")).unwrap()), Sha256::digest(&content));
}

#[tokio::test(flavor = "multi_thread")]
async fn much_input_comes_back_as_output() {
    let agent = Agent::start().await;
    let content = noise(4 << 20, 2);
    let mut stream = agent.stream(START, &[], json!({ "process": { "cmd": "/bin/cat" } })).await;
    let pid = stream.started().await;
    let mut second = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await;
    second.started().await;
    let writing = async {
        for piece in content.chunks(1 << 20) {
            let text = base64_simd::STANDARD.encode_to_string(piece);
            let body = json!({ "process": by_pid(pid), "input": { "stdin": text } });
            agent.process("SendInput", body).await.assert_ok();
        }
        agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
    };
    let (first, second, ()) = tokio::join!(stream.all(), second.all(), writing);
    for told in [first, second] {
        assert_eq!(Sha256::digest(&told.stdout), Sha256::digest(&content));
        assert_eq!(told.end["status"], "exit status 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_at_once_keep_their_output_apart() {
    let agent = Agent::start().await;
    let runs = (0..100).map(|number| {
        let agent = &agent;
        async move {
            let told = agent.sh(&format!("echo {number}; exit {number}")).await.all().await;
            assert_eq!(told.stdout(), format!("{number}\n"));
            assert_eq!(told.end["exitCode"].as_u64().unwrap_or(0), number);
        }
    });
    futures_util::future::join_all(runs).await;
    assert_eq!(agent.process("List", json!({})).await.text(), "{}");
}
