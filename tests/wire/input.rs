//! Input, signals and sizes: every row of what can be refused.

use base64_simd::STANDARD;
use serde_json::{Value, json};

use crate::{
    agent::{Agent, START, by_pid},
    http1::request,
    stream::{EventStream, frame},
};

const STREAM_INPUT: &str = "/process.Process/StreamInput";

fn stdin(pid: u64, text: &str) -> Value {
    json!({ "process": by_pid(pid), "input": { "stdin": STANDARD.encode_to_string(text) } })
}

fn pty(pid: u64, text: &str) -> Value {
    json!({ "process": by_pid(pid), "input": { "pty": STANDARD.encode_to_string(text) } })
}

async fn cat(agent: &Agent, more: Value) -> (EventStream, u64) {
    let mut request = json!({ "process": { "cmd": "/bin/cat" } });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut stream = agent.stream(START, &[], request).await;
    let pid = stream.started().await;
    (stream, pid)
}

async fn kill(agent: &Agent, stream: EventStream, pid: u64) {
    let reply = agent.process("SendSignal", json!({ "process": by_pid(pid), "signal": "SIGNAL_SIGKILL" })).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    assert_eq!(stream.all().await.end["status"], "signal: killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_selects_nothing_or_nobody() {
    let agent = Agent::start().await;
    let none = "invalid input type *process.ProcessSelector";
    for method in ["SendInput", "SendSignal", "CloseStdin", "Update"] {
        for body in [json!({}), json!({ "process": {} }), json!({ "process": null })] {
            agent.process(method, body).await.assert_rpc_error(501, "unimplemented", none);
        }
        for (selector, told) in [
            (json!({ "pid": 0 }), "process with pid 0 not found"),
            // It exists, but was not started through the service.
            (json!({ "pid": 1 }), "process with pid 1 not found"),
            (json!({ "tag": "a<b>&\u{1f600}" }), "process with tag a<b>&\u{1f600} not found"),
            (json!({ "tag": "" }), "process with tag  not found"),
        ] {
            let mut body = json!({ "process": selector, "signal": 3, "input": { "stdin": "" } });
            if method != "SendInput" {
                body.as_object_mut().unwrap().remove("input");
            }
            agent.process(method, body).await.assert_rpc_error(404, "not_found", told);
        }
    }
    for path in [crate::agent::CONNECT, STREAM_INPUT] {
        let (empty, unknown) = if path == STREAM_INPUT {
            (json!({ "start": {} }), json!({ "start": { "process": { "pid": 1 } } }))
        } else {
            (json!({}), json!({ "process": { "pid": 1 } }))
        };
        agent.stream(path, &[], empty).await.assert_error("unimplemented", none).await;
        agent.stream(path, &[], unknown).await.assert_error("not_found", "process with pid 1 not found").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_for_the_wrong_kind_of_process() {
    let agent = Agent::start().await;
    let (plain, pid) = cat(&agent, json!({})).await;
    let no_tty =
        "error writing to tty: tty not assigned to process — input should be written to the stdin, not the tty";
    agent.process("SendInput", pty(pid, "x")).await.assert_rpc_error(500, "internal", no_tty);
    let missing = "invalid input type <nil>";
    for body in [json!({ "process": by_pid(pid) }), json!({ "process": by_pid(pid), "input": {} })] {
        agent.process("SendInput", body).await.assert_rpc_error(501, "unimplemented", missing);
    }
    let size = json!({ "process": by_pid(pid), "pty": { "size": { "cols": 1, "rows": 1 } } });
    let no_size = "error resizing tty: tty not assigned to process";
    agent.process("Update", size).await.assert_rpc_error(500, "internal", no_size);
    assert_eq!(agent.process("Update", json!({ "process": by_pid(pid) })).await.text(), "{}");
    kill(&agent, plain, pid).await;

    let (terminal, pid) = cat(&agent, json!({ "pty": {} })).await;
    let has_tty = "error writing to stdin: tty assigned to process — input should be written to the pty, not the stdin";
    agent.process("SendInput", stdin(pid, "x")).await.assert_rpc_error(500, "internal", has_tty);
    let close = "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead";
    agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_rpc_error(500, "unknown", close);
    assert_eq!(agent.process("Update", json!({ "process": by_pid(pid), "pty": {} })).await.text(), "{}");
    assert_eq!(agent.process("SendInput", pty(pid, "\u{4}")).await.text(), "{}");
    assert_eq!(terminal.all().await.end["status"], "exit status 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_and_absent_inputs() {
    let agent = Agent::start().await;
    let closed = "error writing to stdin: stdin not enabled or closed";
    let mut without = agent.sh("read line; echo \"$?\"; sleep 600").await;
    let pid = without.started().await;
    assert_eq!(without.until("\n").await, b"1\n", "/dev/null ends at once");
    agent.process("SendInput", stdin(pid, "x")).await.assert_rpc_error(500, "internal", closed);
    for _ in 0..2 {
        assert_eq!(agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.text(), "{}");
    }
    kill(&agent, without, pid).await;

    let (stream, pid) = cat(&agent, json!({})).await;
    assert_eq!(agent.process("SendInput", stdin(pid, "")).await.text(), "{}");
    assert_eq!(agent.process("SendInput", stdin(pid, "a\n")).await.text(), "{}");
    assert_eq!(agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.text(), "{}");
    let told = stream.all().await;
    assert_eq!((told.stdout().as_str(), &told.end["status"]), ("a\n", &json!("exit status 0")));
    let gone = format!("process with pid {pid} not found");
    agent.process("SendInput", stdin(pid, "x")).await.assert_rpc_error(404, "not_found", &gone);
    agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_rpc_error(404, "not_found", &gone);

    // Open, closed, and then a reader that has gone.
    let script = json!({ "process": { "cmd": "/bin/sh", "args": ["-c", "exec 0<&-; echo ready; sleep 600"] } });
    let mut deaf = agent.stream(START, &[], script).await;
    let pid = deaf.started().await;
    deaf.until("ready").await;
    let broken = format!("error writing to stdin: error writing to stdin of process '{pid}': ");
    // A child of another test, on its way from clone to exec, may hold the reading end for a moment.
    let mut reply = agent.process("SendInput", stdin(pid, "x")).await;
    while reply.status == 200 {
        reply = agent.process("SendInput", stdin(pid, "x")).await;
    }
    reply.assert_rpc_error_begins(500, "internal", &broken);
    assert!(reply.text().contains("broken pipe"), "{}", reply.text());
    assert_eq!(agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.text(), "{}");
    agent.process("SendInput", stdin(pid, "x")).await.assert_rpc_error(500, "internal", closed);
    kill(&agent, deaf, pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_no_signals_are_unimplemented() {
    let agent = Agent::start().await;
    let (stream, pid) = cat(&agent, json!({})).await;
    for (signal, told) in [
        (json!(0), "invalid signal: SIGNAL_UNSPECIFIED"),
        (json!(-1), "invalid signal: -1"),
        (json!(2147483647), "invalid signal: 2147483647"),
        (json!(65), "invalid signal: 65"),
    ] {
        let body = json!({ "process": by_pid(pid), "signal": signal });
        agent.process("SendSignal", body).await.assert_rpc_error(501, "unimplemented", told);
    }
    let body = json!({ "process": by_pid(pid) });
    agent.process("SendSignal", body).await.assert_rpc_error(
        501,
        "unimplemented",
        "invalid signal: SIGNAL_UNSPECIFIED",
    );
    let body = json!({ "process": by_pid(pid), "signal": "SIGNAL_SIGTERM" });
    assert_eq!(agent.process("SendSignal", body.clone()).await.text(), "{}");
    assert_eq!(stream.all().await.end["status"], "signal: terminated");
    // Whoever has seen the end no longer finds the process, dead or listed.
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(agent.process("List", json!({})).await.text(), "{}");
    let gone = format!("process with pid {pid} not found");
    agent.process("SendSignal", body).await.assert_rpc_error(404, "not_found", &gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_input_goes_to_whom_it_names() {
    let agent = Agent::start().await;
    let (first, one) = cat(&agent, json!({ "tag": "one" })).await;
    let (second, two) = cat(&agent, json!({})).await;
    let data = |text: &str| json!({ "data": { "input": { "stdin": STANDARD.encode_to_string(text) } } });
    let messages = [
        json!({ "start": { "process": { "tag": "one" } } }),
        data("a"),
        json!({ "keepalive": {} }),
        json!({ "start": { "process": by_pid(two) } }),
        data("b"),
        json!({ "start": { "process": by_pid(one) } }),
        data("c"),
    ];
    let body: Vec<u8> = messages.iter().flat_map(|message| frame(0, message.to_string())).collect();
    let mut reply = feed(&agent, &body).await;
    assert_eq!(reply.message().await, Some(json!({})));
    assert!(reply.all().await.close == json!({}));
    for (stream, pid, output) in [(first, one, "ac"), (second, two, "b")] {
        agent.process("CloseStdin", json!({ "process": by_pid(pid) })).await.assert_ok();
        assert_eq!(stream.all().await.stdout(), output);
    }
    // Nothing at all is a success, too.
    assert_eq!(feed(&agent, b"").await.message().await, Some(json!({})));
    for (messages, code, told) in [
        (vec![data("x")], "failed_precondition", "input before a start event: no process is selected"),
        (vec![json!({})], "unimplemented", "invalid event type <nil>"),
    ] {
        let body: Vec<u8> = messages.iter().flat_map(|message| frame(0, message.to_string())).collect();
        feed(&agent, &body).await.assert_error(code, told).await;
    }
}

async fn feed(agent: &Agent, body: &[u8]) -> EventStream {
    let headers = [("content-type", "application/connect+json")];
    EventStream::send(agent.agent, &request("POST", STREAM_INPUT, &headers, body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_from_the_start_and_changes_it() {
    let agent = Agent::start().await;
    for (pty, size) in [
        (json!({ "size": { "cols": 120, "rows": 40 } }), "40 120"),
        (json!({}), "0 0"),
        (json!({ "size": { "cols": 65616, "rows": 65537 } }), "1 80"),
    ] {
        let request =
            json!({ "process": { "cmd": "/bin/sh", "args": ["-c", "stty size; read x; stty size"] }, "pty": pty });
        let mut stream = agent.stream(START, &[], request).await;
        let pid = stream.started().await;
        assert_eq!(String::from_utf8(stream.until("\n").await).unwrap().trim(), size);
        let update = json!({ "process": by_pid(pid), "pty": { "size": { "cols": 7, "rows": 9 } } });
        assert_eq!(agent.process("Update", update).await.text(), "{}");
        assert_eq!(agent.process("SendInput", pty_line(pid)).await.text(), "{}");
        let told = stream.all().await;
        assert!(String::from_utf8_lossy(&told.pty).contains("9 7"), "{:?}", told.pty);
        assert!(told.stdout.is_empty() && told.stderr.is_empty());
    }
}

fn pty_line(pid: u64) -> Value {
    pty(pid, "\n")
}
