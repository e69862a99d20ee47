//! Values at and beyond the edge of what fits.

use serde_json::json;

use crate::{
    agent::{Agent, START, sh},
    stream::{frame, frames},
};

const RAW: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_file_can_have_are_told_and_not_made() {
    let agent = Agent::start().await;
    let (name, path) = (agent.path(&"n".repeat(300)), agent.path(&"d/".repeat(3000)));
    for long in [&name, &path] {
        let target = format!("/files?path={long}");
        agent.get(&target).await.assert_http_error_begins(500, "error checking if path exists '");
        let reply = agent.send("POST", &target, &[RAW], "x").await;
        reply.assert_http_error_begins(500, "error ");
        assert!(reply.text().contains("file name too long"), "{}", reply.text());
        for method in ["Stat", "ListDir", "MakeDir", "CreateWatcher"] {
            let reply = agent.filesystem(method, json!({ "path": long })).await;
            reply.assert_rpc_error_begins(500, "internal", "");
        }
        let request = json!({ "process": { "cmd": "true", "cwd": long } });
        let told = agent.stream(START, &[], request).await.all().await;
        assert_eq!(told.close["error"]["code"], "invalid_argument", "{}", told.close);
    }
    for target in ["/files?path=/tmp/a%00b", "/files?path=%00"] {
        let reply = agent.send("POST", target, &[RAW], "x").await;
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!(400)));
    }
    let body = json!({ "source_paths": ["/a\0"], "destination": "/b" }).to_string();
    assert_eq!(agent.send("POST", "/files/compose", &[], body).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_at_the_edge_are_numbers() {
    let agent = Agent::start().await;
    let file = agent.file("ten", "0123456789");
    for (range, statuses) in [
        ("bytes=0-18446744073709551615", [206, 416]),
        ("bytes=0-99999999999999999999999", [206, 416]),
        ("bytes=18446744073709551615-", [416, 416]),
        ("bytes=-0", [416, 416]),
        ("bytes=-18446744073709551616", [206, 416]),
        ("bytes=", [200, 200]),
        ("bytes=,", [200, 200]),
        ("bytes=-", [416, 416]),
        ("bytes=0-0,", [206, 416]),
    ] {
        let reply = agent.send("GET", &format!("/files?path={file}"), &[("range", range)], "").await;
        assert!(statuses.contains(&reply.status), "{range} {}", reply.status);
    }
    let many = format!("bytes={}", vec!["0-0"; 5000].join(","));
    let reply = agent.send("GET", &format!("/files?path={file}"), &[("range", &many)], "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "0123456789"), "more than the whole is the whole");
    let told = agent.stream(START, &[("connect-timeout-ms", "9999999999")], sh("echo hi")).await.all().await;
    assert_eq!((told.stdout().as_str(), told.close), ("hi\n", json!({})));
    for timeout in ["99999999H", "0n"] {
        let headers = [("content-type", "application/grpc-web+proto"), ("grpc-timeout", timeout)];
        let reply = agent.send("POST", "/process.Process/List", &headers, frame(0, "")).await;
        assert_eq!(reply.status, 200, "{timeout}");
    }
    let depth = json!({ "path": agent.path(""), "depth": u32::MAX });
    assert_eq!(agent.filesystem("ListDir", depth).await.status, 200);
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_user_names_are_told_as_they_are() {
    let agent = Agent::start().await;
    for name in ["a\nb", "\u{e4}\u{1f600}", "a\0b", "root\0", &"x".repeat(50_000), "../root", "root:x"] {
        let header = format!("Basic {}", base64_simd::STANDARD.encode_to_string(format!("{name}:")));
        let known = name.split(':').next().unwrap();
        let reply = agent.send("GET", "/health", &[("authorization", &header)], "").await;
        if known == "root" {
            assert_eq!(reply.status, 204, "the name ends at the first colon");
        } else {
            reply.assert_rpc_error(401, "unauthenticated", &format!("invalid username: '{known}'"));
        }
        let headers = [("authorization", &*header), ("content-type", "application/connect+json")];
        let reply = agent.send("POST", START, &headers, frame(0, "{}")).await;
        assert_eq!(frames(&reply.body).last().unwrap().0, 2);
    }
    let binary = format!("Basic {}", base64_simd::STANDARD.encode_to_string(b"\xff\xfe:"));
    assert_eq!(agent.send("GET", "/health", &[("authorization", &binary)], "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_variables_do_not_stop_a_command() {
    let agent = Agent::start().await;
    let long = "v".repeat(100_000);
    let request = json!({ "process": { "cmd": "/bin/sh", "args": ["-c", "echo ${#LONG}"],
        "envs": { "": "x", "A=B": "c", "LONG": long, "\u{e4}": "\n" } } });
    let told = agent.stream(START, &[], request).await.all().await;
    assert_eq!((told.stdout().as_str(), &told.end["status"]), ("100000\n", &json!("exit status 0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_once_into_one_new_tree_all_arrive() {
    let agent = Agent::start().await;
    let uploads = (0..16).map(|number| {
        let target = format!("/files?path={}", agent.path(&format!("new/tree/of/files/{number}")));
        let agent = &agent;
        async move { agent.send("POST", &target, &[RAW], number.to_string()).await.status }
    });
    assert_eq!(futures_util::future::join_all(uploads).await, [200; 16]);
    for number in 0..16 {
        let path = agent.path(&format!("new/tree/of/files/{number}"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_once_to_one_path_do_not_mix() {
    let agent = Agent::start().await;
    let target = format!("/files?path={}", agent.path("f"));
    let uploads =
        (0..8u8).map(|number| {
            let (agent, target) = (&agent, &target);
            async move {
                agent.send("POST", target, &[RAW], vec![b'0' + number; 3_000_000 + usize::from(number)]).await.status
            }
        });
    assert_eq!(futures_util::future::join_all(uploads).await, [200; 8]);
    let content = std::fs::read(agent.path("f")).unwrap();
    assert_eq!(content.len(), 3_000_000 + usize::from(content[0] - b'0'));
    assert!(content.iter().all(|byte| *byte == content[0]), "a mixture");
}
