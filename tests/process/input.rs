//! Standard input: order, back-pressure, closing and errors.

use std::time::Duration;

use envd::{
    connect::Deadline,
    proto::process::{process_server::Process, *},
};
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::agent::*;

#[tokio::test]
async fn input_arrives_in_order_and_closing_is_the_end_of_file() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/cat", &[]))).await.unwrap();
    let pid = events.started().await;
    for line in ["a\n", "", "b\n"] {
        agent.stdin(pid, line).await.unwrap();
    }
    agent.close_stdin(pid).await.unwrap();
    agent.close_stdin(pid).await.unwrap();
    let closed = "error writing to stdin: stdin not enabled or closed";
    match agent.stdin(pid, "late").await {
        // The process may be gone by then.
        Err(status) if status.code() == Code::NotFound => {}
        result => assert_error(result, Code::Internal, closed),
    }
    assert_eq!(events.all().await.stdout(), "a\nb\n");
    assert_error(agent.close_stdin(pid).await, Code::NotFound, &format!("process with pid {pid} not found"));
}

#[tokio::test]
async fn megabytes_of_input_queue_up_and_closing_waits_its_turn_without_blocking() {
    let agent = shared(Agent::new());
    let mut events = agent.start(with_stdin(sh("sleep 0.3; cat"))).await.unwrap();
    let pid = events.started().await;
    let writer = tokio::spawn({
        let agent = agent.clone();
        async move { agent.stdin(pid, vec![b'x'; 3_000_000]).await }
    });
    // The pipe is full, so that the close has something to queue behind.
    tokio::time::sleep(Duration::from_millis(50)).await;
    agent.close_stdin(pid).await.unwrap();
    let told = events.all().await;
    writer.await.unwrap().unwrap();
    assert_eq!(told.stdout.len(), 3_000_000);
}

#[tokio::test]
async fn a_blocked_write_ends_at_its_deadline_and_frees_the_queue() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/sleep", &["1000"]))).await.unwrap();
    let pid = events.started().await;
    let limit = Duration::from_millis(100);
    let mut request = Request::new(input_request(pid, process_input::Input::Stdin(vec![0; 1_000_000].into())));
    request.extensions_mut().insert(Deadline { at: Instant::now() + limit, limit });
    assert_error(agent.service.send_input(request).await, Code::DeadlineExceeded, "context deadline exceeded");
    agent.close_stdin(pid).await.unwrap();
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
}

#[tokio::test]
async fn without_stdin_a_read_fails_and_writing_is_refused() {
    let agent = Agent::new();
    assert_eq!(agent.sh("read -r line").await.exit_code(), 1);
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    let message = "error writing to stdin: stdin not enabled or closed";
    assert_error(agent.stdin(pid, "x").await, Code::Internal, message);
    agent.close_stdin(pid).await.unwrap();
    let message =
        "error writing to tty: tty not assigned to process — input should be written to the stdin, not the tty";
    assert_error(agent.pty(pid, "x").await, Code::Internal, message);
    assert_error(agent.resize(pid, 1, 1).await, Code::Internal, "error resizing tty: tty not assigned to process");
    let update = UpdateRequest { process: Some(by_pid(pid)), pty: None };
    agent.service.update(Request::new(update)).await.unwrap();
    let empty = SendInputRequest { process: Some(by_pid(pid)), input: None };
    let result = agent.service.send_input(Request::new(empty)).await;
    assert_error(result, Code::Unimplemented, "invalid input type <nil>");
    agent.signal(pid, 9).await.unwrap();
    events.all().await;
}

#[tokio::test]
async fn a_reader_that_is_gone_is_a_broken_pipe() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(sh("exec <&-; echo closed; exec sleep 1000"))).await.unwrap();
    let pid = events.started().await;
    events.until("closed\n").await;
    let message = format!("error writing to stdin: error writing to stdin of process '{pid}': broken pipe");
    // A child of another test, on its way from clone to exec, may hold the reading end for a moment.
    let refusal = loop {
        if let Err(refusal) = agent.stdin(pid, "x").await {
            break refusal;
        }
    };
    assert_error::<()>(Err(refusal), Code::Internal, &message);
    agent.signal(pid, 9).await.unwrap();
    events.all().await;
}
