//! Signals, time limits and details as JSON: what newer clients send, and what older ones do not see.

use serde_json::{Value, json};

use crate::agent::{Agent, CONNECT, START, by_pid, sh};

async fn signal(agent: &Agent, pid: u64, mut request: Value) -> u16 {
    request["process"] = by_pid(pid);
    agent.process("SendSignal", request).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_numbers_or_names_and_have_scopes() {
    let agent = Agent::start().await;
    let requests = [
        (json!({ "signal": 2, "scope": "SIGNAL_SCOPE_TREE" }), "signal: interrupt"),
        (json!({ "signal": 64, "scope": 1 }), "signal: signal 64"),
        (json!({ "signal": "SIGNAL_SIGTERM", "descendants": true }), "signal: terminated"),
        (json!({ "signal": "SIGNAL_SIGKILL" }), "signal: killed"),
    ];
    for (request, status) in requests {
        let mut stream = agent.stream(START, &[], sh("exec sleep 600")).await;
        let pid = stream.started().await;
        assert_eq!(signal(&agent, pid, json!({ "signal": 65 })).await, 501);
        assert_eq!(signal(&agent, pid, json!({ "signal": 9, "scope": 7 })).await, 400);
        assert_eq!(signal(&agent, pid, request).await, 200);
        assert_eq!(stream.all().await.end["status"], status);
        assert_eq!(signal(&agent, pid, json!({ "signal": 9 })).await, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn details_are_for_those_who_ask() {
    let agent = Agent::start().await;
    let mut request = sh("exec sleep 600");
    request["timeLimit"] = json!({ "limitMs": "50", "graceMs": "600000" });
    request["details"] = json!(true);
    let mut stream = agent.stream(START, &[], request).await;
    let pid = stream.started().await;
    let end = stream.all().await.end;
    assert_eq!(end["status"], "signal: terminated");
    assert_eq!(end["error"], "signal: terminated: time limit exceeded");
    let details = &end["details"];
    assert_eq!((&details["timeLimitExceeded"], &details["signal"]), (&json!(true), &json!(15)));
    for moment in ["startedAt", "endedAt"] {
        assert!(details[moment].as_str().unwrap().ends_with('Z'), "{details}");
    }
    let plain = agent.stream(CONNECT, &[], json!({ "process": by_pid(pid) })).await.all().await.end;
    assert!(plain.get("details").is_none(), "{plain}");
    assert_eq!(plain["status"], "signal: terminated");

    let listed = agent.process("List", json!({})).await.json();
    assert!(listed.get("processes").is_none(), "{listed}");
    let listed = agent.process("List", json!({ "includeEnded": true })).await.json();
    let ended = &listed["processes"][0];
    assert_eq!((&ended["pid"], &ended["details"]["end"]["status"]), (&json!(pid), &json!("signal: terminated")));
}
