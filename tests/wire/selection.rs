//! Terminals, tags and settings: which process, and how it feels inside.

use base64_simd::STANDARD;
use serde_json::{Value, json};

use crate::{
    agent::{Agent, CONNECT, START, by_pid, sh},
    stream::EventStream,
};

async fn tagged(agent: &Agent, tag: &str) -> (EventStream, u64) {
    let mut request = sh("exec sleep 600");
    request["tag"] = json!(tag);
    let mut stream = agent.stream(START, &[], request).await;
    let pid = stream.started().await;
    (stream, pid)
}

async fn kill(agent: &Agent, selector: Value) -> u16 {
    agent.process("SendSignal", json!({ "process": selector, "signal": 9 })).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_finds_the_newest_process_that_has_it() {
    let agent = Agent::start().await;
    let mut running = Vec::new();
    for tag in ["a", "b", "c", "a", ""] {
        running.push(tagged(&agent, tag).await);
    }
    for (tag, index) in [("a", 3), ("b", 1), ("c", 2), ("", 4)] {
        let mut stream = agent.stream(CONNECT, &[], json!({ "process": { "tag": tag } })).await;
        assert_eq!(stream.started().await, running[index].1, "{tag:?}");
    }
    assert_eq!(kill(&agent, json!({ "tag": "a" })).await, 200);
    let (newest, pid) = running.remove(3);
    assert_eq!(newest.all().await.end["status"], "signal: killed");
    // The older one lives, and comes before the newer that has ended.
    let mut stream = agent.stream(CONNECT, &[], json!({ "process": { "tag": "a" } })).await;
    assert_eq!(stream.started().await, running[0].1);
    let ended = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await.all().await;
    assert_eq!(ended.end["status"], "signal: killed");
    for (stream, pid) in running {
        assert_eq!(kill(&agent, by_pid(pid)).await, 200);
        stream.all().await;
    }
    // A new process with the tag hides the ended ones.
    let mut request = sh("exit 5");
    request["tag"] = json!("a");
    agent.stream(START, &[], request).await.all().await;
    let told = agent.stream(CONNECT, &[], json!({ "process": { "tag": "a" } })).await.all().await;
    assert_eq!(told.end["exitCode"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one() {
    let agent = Agent::start().await;
    // `stdin` means nothing here, and keys are what the line discipline makes of them.
    let script = "tty; echo via > /dev/tty; echo err >&2; echo term=$TERM; exec sleep 600";
    let request = json!({ "process": { "cmd": "/bin/sh", "args": ["-c", script] }, "pty": {}, "stdin": false });
    let mut stream = agent.stream(START, &[], request).await;
    let pid = stream.started().await;
    let seen = String::from_utf8(stream.until("term=").await).unwrap();
    assert!(seen.contains("/dev/pts/") && seen.contains("via\r\n") && seen.contains("err\r\n"), "{seen:?}");
    assert!(!seen.contains("term=x"), "no terminal type is made up: {seen:?}");
    let key = STANDARD.encode_to_string("\u{3}");
    let input = json!({ "process": by_pid(pid), "input": { "pty": key } });
    // The shell may not have become `sleep` yet; an interrupt ends either.
    assert_eq!(agent.process("SendInput", input).await.text(), "{}");
    let told = stream.all().await;
    assert!(told.stdout.is_empty() && told.stderr.is_empty());
    let status = told.end["status"].as_str().unwrap();
    assert!(["signal: interrupt", "exit status 130"].contains(&status), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_init_are_what_commands_start_with() {
    let agent = Agent::start().await;
    let init = async |body: Value| agent.send("POST", "/init", &[], body.to_string()).await.status;
    let pwd = async || agent.stream(START, &[], sh("pwd")).await.all().await.stdout();
    assert_eq!(init(json!({ "defaultWorkdir": "/usr" })).await, 204);
    assert_eq!(pwd().await, "/usr\n");
    assert_eq!(init(json!({ "defaultWorkdir": "" })).await, 204);
    assert_eq!(pwd().await, "/usr\n", "an empty text changes nothing");
    let stat = agent.filesystem("Stat", json!({ "path": "" })).await.assert_ok();
    assert_eq!(stat["entry"]["path"], "/usr");
    assert_eq!(init(json!({ "defaultWorkdir": "/nope" })).await, 204);
    let told = agent.stream(START, &[], sh("pwd")).await;
    told.assert_spawn_failure("invalid_argument", "cwd '/nope' does not exist", "chdir", "ENOENT").await;
    assert_eq!(init(json!({ "defaultWorkdir": "~" })).await, 204);
    let home = agent.stream(START, &[], sh("printf %s\\\\n \"$HOME\"")).await.all().await.stdout();
    let shown = agent.stream(START, &[], sh("pwd")).await.all().await.stdout();
    assert_eq!(std::fs::canonicalize(home.trim()).unwrap(), std::fs::canonicalize(shown.trim()).unwrap());
    assert_eq!(init(json!({ "envVars": { "A": null, "B": "b" } })).await, 204);
    let told = agent.stream(START, &[], sh("echo \"<$A>$B\"")).await.all().await.stdout();
    assert_eq!(told, "<>b\n");
}
