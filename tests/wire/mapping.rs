//! JSON and binary messages, both ways.

use serde_json::json;

use crate::{
    agent::{Agent, START},
    stream::{frame, frames},
};

const LIST: &str = "/process.Process/List";
const SIGNAL: &str = "/process.Process/SendSignal";

#[tokio::test(flavor = "multi_thread")]
async fn both_spellings_nulls_and_unknown_fields_are_taken() {
    let agent = Agent::start().await;
    agent.file("a", "");
    let body =
        json!({ "path": agent.path(""), "includeEntry": true, "recursive": null, "unknown": { "x": [1, null] } });
    for key in ["includeEntry", "include_entry"] {
        let body = body.to_string().replace("includeEntry", key);
        let id = agent.call("/filesystem.Filesystem/CreateWatcher", body).await.assert_ok();
        let id = id["watcherId"].as_str().unwrap().to_owned();
        assert!(id.len() == 21 && id.starts_with('w'), "{id}");
        agent.file("a", "b");
        for name in ["watcherId", "watcher_id"] {
            let reply = agent.filesystem("GetWatcherEvents", json!({ name: id })).await;
            let events = reply.assert_ok();
            if name == "watcherId" {
                assert_eq!(events["events"][0]["entry"]["path"], agent.path("a"), "{events}");
            } else {
                assert_eq!(events, json!({}), "events are told once");
            }
        }
        assert_eq!(agent.filesystem("RemoveWatcher", json!({ "watcher_id": id })).await.text(), "{}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_left_out_and_long_integers_are_texts() {
    let agent = Agent::start().await;
    let path = agent.file("full", "0123456789abc");
    let entry = agent.filesystem("Stat", json!({ "path": path })).await.assert_ok()["entry"].take();
    assert_eq!(entry["size"], "13");
    assert_eq!(entry["mode"], 0o644);
    assert!(entry.get("symlinkTarget").is_none() && entry.get("metadata").is_none(), "{entry}");
    let path = agent.file("empty", "");
    let entry = agent.filesystem("Stat", json!({ "path": path })).await.assert_ok()["entry"].take();
    assert!(entry.get("size").is_none(), "{entry}");
    let time = entry["modifiedTime"].as_str().unwrap();
    assert!(time.ends_with('Z') && matches!(time.len(), 20 | 24 | 27 | 30), "{time}");
    let keys: Vec<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["name", "type", "path", "mode", "permissions", "owner", "group", "modifiedTime"]);
    assert_eq!(agent.filesystem("ListDir", json!({ "path": "/proc/self/task/0" })).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_taken_as_texts_and_checked() {
    let agent = Agent::start().await;
    let pid = |pid: serde_json::Value| json!({ "process": { "pid": pid }, "signal": "SIGNAL_SIGKILL" });
    for given in [json!(4294967295u32), json!("4294967295"), json!(4294967295.0)] {
        agent.call(SIGNAL, pid(given)).await.assert_rpc_error(
            404,
            "not_found",
            "process with pid 4294967295 not found",
        );
    }
    for odd in [json!(4294967296u64), json!(-1), json!("x"), json!(1.5), json!(true), json!([]), json!("")] {
        let reply = agent.call(SIGNAL, pid(odd)).await;
        reply.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enumerations_come_as_names_or_numbers_and_unknown_names_vanish() {
    let agent = Agent::start().await;
    let mut process = agent.sh("sleep 600").await;
    let pid = process.started().await;
    let signal = async |signal: serde_json::Value| {
        agent.call(SIGNAL, json!({ "process": { "pid": pid }, "signal": signal })).await
    };
    let unset = "invalid signal: SIGNAL_UNSPECIFIED";
    for none in [json!("SIGNAL_SIGNOPE"), json!(0), json!(null), json!("SIGNAL_UNSPECIFIED")] {
        signal(none).await.assert_rpc_error(501, "unimplemented", unset);
    }
    signal(json!(65)).await.assert_rpc_error(501, "unimplemented", "invalid signal: 65");
    signal(json!(1.5)).await.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
    assert_eq!(signal(json!(9)).await.text(), "{}");
    assert_eq!(process.all().await.end["status"], "signal: killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_taken_in_every_base64_alphabet() {
    let agent = Agent::start().await;
    let cat = json!({ "process": { "cmd": "/bin/cat" }, "stdin": true });
    let mut process = agent.stream(START, &[], cat).await;
    let pid = process.started().await;
    // "??>" and "?~" are where the alphabets and the padding differ.
    for text in ["Pz8+", "Pz8-", "P34=", "P34", ""] {
        let body = json!({ "process": { "pid": pid }, "input": { "stdin": text } });
        assert_eq!(agent.process("SendInput", body).await.text(), "{}", "{text}");
    }
    for odd in ["!", "A", "Pz8=+", "Pz 8+"] {
        let body = json!({ "process": { "pid": pid }, "input": { "stdin": odd } });
        let reply = agent.process("SendInput", body).await;
        reply.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
    }
    assert_eq!(agent.process("CloseStdin", json!({ "process": { "pid": pid } })).await.text(), "{}");
    assert_eq!(process.all().await.stdout, b"??>??>?~?~");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_of_one_choice_are_refused() {
    let agent = Agent::start().await;
    for (method, body) in [
        ("SendSignal", json!({ "process": { "pid": 1, "tag": "a" }, "signal": 9 })),
        ("SendInput", json!({ "process": { "pid": 1 }, "input": { "stdin": "", "pty": "" } })),
    ] {
        let reply = agent.process(method, body).await;
        reply.assert_rpc_error_begins(400, "invalid_argument", "unmarshal message: ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn optional_fields_are_told_even_when_empty() {
    let agent = Agent::start().await;
    let request =
        json!({ "process": { "cmd": "/bin/sleep", "args": ["600"], "cwd": "", "envs": {"A": ""} }, "tag": "" });
    let mut process = agent.stream(START, &[], &request).await;
    let pid = process.started().await;
    let mut untagged = agent.sh("sleep 600").await;
    let other = untagged.started().await;
    let list = agent.process("List", json!({})).await.assert_ok();
    let find = |pid: u64| list["processes"].as_array().unwrap().iter().find(|info| info["pid"] == pid).unwrap();
    assert_eq!(find(pid), &json!({ "config": request["process"], "pid": pid, "tag": "" }));
    assert!(find(other).get("tag").is_none());
    for pid in [pid, other] {
        agent.process("SendSignal", json!({ "process": { "pid": pid }, "signal": 9 })).await.assert_ok();
    }
    process.all().await;
    untagged.all().await;
    assert_eq!(agent.call(LIST, "{}").await.text(), "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_messages_are_exact() {
    let agent = Agent::start().await;
    // StartRequest: process { cmd: "/bin/sh", args: ["-c", "kill -9 $$"] }, stdin: false.
    let script = b"kill -9 $$";
    let config = [&b"\x0a\x07/bin/sh\x12\x02-c\x12"[..], &[script.len() as u8], script].concat();
    let request = [&[0x0a, config.len() as u8][..], &config, &[0x20, 0]].concat();
    let reply = agent.send("POST", START, &[("content-type", "application/connect+proto")], frame(0, &request)).await;
    let frames = frames(&reply.body);
    assert_eq!(frames.len(), 3, "{frames:?}");
    let start = &frames[0].1;
    assert_eq!((start[0], usize::from(start[1]), &start[2..3]), (0x0a, start.len() - 2, &[0x0a][..]));
    // exit_code is a zig-zag -1, `exited` is left out, status and error are fields 3 and 4.
    let end = b"\x0a\x24\x1a\x22\x08\x01\x1a\x0esignal: killed\x22\x0esignal: killed";
    assert_eq!(frames[1], (0, end.to_vec()));
    assert_eq!(frames[2], (2, b"{}".to_vec()));
    // SendInputRequest and StreamInputRequest: data is field 2, its input field 2.
    let proto = [("content-type", "application/connect+proto")];
    let data = frame(0, b"\x12\x05\x12\x03\x0a\x01x");
    let reply = agent.send("POST", "/process.Process/StreamInput", &proto, data).await;
    assert!(reply.text().contains("failed_precondition"), "{}", reply.text());
    // List as bytes, and an error is JSON even so.
    let unary = [("content-type", "application/proto")];
    assert_eq!(agent.send("POST", LIST, &unary, "").await.body, b"");
    let reply = agent.send("POST", SIGNAL, &unary, b"\x0a\x04\x08\xff\xff\x03").await;
    reply.assert_rpc_error(404, "not_found", "process with pid 65535 not found");
}
