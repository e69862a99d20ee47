//! Standard input: order, back-pressure, closing and errors.

use std::time::Duration;

use envd::{
    connect::Deadline,
    proto::process::{process_server::Process, *},
};
use futures_util::future::poll_immediate;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::{agent::*, gate::Gate, stdin_pipe::StdinPipe};

const CLOSED: &str = "error writing to stdin: stdin not enabled or closed";

fn broken_pipe(pid: u32) -> String {
    format!("error writing to stdin: error writing to stdin of process '{pid}': broken pipe")
}

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
    match agent.stdin(pid, "late").await {
        // The process may be gone by then.
        Err(status) if status.code() == Code::NotFound => {}
        result => assert_error(result, Code::Internal, CLOSED),
    }
    assert_eq!(events.all().await.stdout(), "a\nb\n");
    assert_error(agent.close_stdin(pid).await, Code::NotFound, &format!("process with pid {pid} not found"));
}

#[tokio::test]
async fn megabytes_of_input_queue_up_and_closing_waits_its_turn_without_blocking() {
    let agent = shared(Agent::new());
    let gate = Gate::new();
    let mut events = agent.start(with_stdin(sh(&format!("read line <{}; cat", gate.path())))).await.unwrap();
    let pid = events.started().await;
    let writer = agent.send_in_background(pid, vec![b'x'; 3_000_000]);
    StdinPipe::of(pid).full().await;
    agent.close_stdin(pid).await.unwrap();
    assert_error(agent.stdin(pid, "late").await, Code::Internal, CLOSED);
    gate.open();
    let told = events.all().await;
    writer.await.unwrap().unwrap();
    assert_eq!(told.stdout.len(), 3_000_000);
}

#[tokio::test]
async fn a_blocked_write_ends_at_its_deadline_tells_what_it_wrote_and_frees_the_queue() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/sleep", &["1000"]))).await.unwrap();
    let pid = events.started().await;
    let pipe = StdinPipe::of(pid);
    let limit = Duration::from_millis(100);
    let late = |written| format!("context deadline exceeded: {written} bytes of the input were written");
    let mut request = Request::new(input_request(pid, process_input::Input::Stdin(vec![0; 1_000_000].into())));
    request.extensions_mut().insert(Deadline { at: Instant::now() + limit, limit });
    let result = agent.service.send_input(request).await;
    let written = pipe.waiting();
    assert!(written > 0);
    assert_error(result, Code::DeadlineExceeded, &late(written));
    // One that never had its turn: something without a limit is in front of it.
    let mut first = Box::pin(agent.stdin(pid, vec![1; 1_000_000]));
    assert!(poll_immediate(&mut first).await.is_none());
    let mut request = Request::new(input_request(pid, process_input::Input::Stdin("x".into())));
    request.extensions_mut().insert(Deadline { at: Instant::now() + limit, limit });
    assert_error(agent.service.send_input(request).await, Code::DeadlineExceeded, &late(0));
    drop(first);
    agent.close_stdin(pid).await.unwrap();
    assert_eq!(pipe.hung_up().await, written, "nothing followed what was given up");
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
}

#[tokio::test]
async fn the_end_of_the_process_ends_every_call_that_waits() {
    let agent = shared(Agent::new());
    let mut events = agent.start(with_stdin(command("/bin/sleep", &["1000"]))).await.unwrap();
    let pid = events.started().await;
    // While the test holds the reading end, the pipe does not break: it has to be the end of the process.
    let pipe = StdinPipe::of(pid);
    let writers: Vec<_> = (0..5).map(|_| agent.send_in_background(pid, vec![0; 1_000_000])).collect();
    pipe.full().await;
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    for writer in writers {
        match writer.await.unwrap() {
            // It came to its turn only after the end.
            Err(status) if status.code() == Code::NotFound => {}
            result => assert_error(result, Code::Internal, &broken_pipe(pid)),
        }
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_every_call_that_waits() {
    let agent = shared(Agent::new());
    let gate = Gate::new();
    let script = format!("read line <{}; exec <&-; echo closed; exec sleep 1000", gate.path());
    let mut events = agent.start(with_stdin(sh(&script))).await.unwrap();
    let pid = events.started().await;
    let writers: Vec<_> = (0..5).map(|_| agent.send_in_background(pid, vec![0; 1_000_000])).collect();
    StdinPipe::of(pid).full().await;
    gate.open();
    events.until("closed\n").await;
    for writer in writers {
        assert_error(writer.await.unwrap(), Code::Internal, &broken_pipe(pid));
    }
    agent.signal(pid, 9).await.unwrap();
    events.all().await;
}

#[tokio::test]
async fn calls_beyond_what_may_wait_are_told_so() {
    let agent = shared(Agent::new());
    let mut events = agent.start(with_stdin(command("/bin/sleep", &["1000"]))).await.unwrap();
    let pid = events.started().await;
    let mut running = agent.send_in_background(pid, vec![0; 1 << 20]);
    StdinPipe::of(pid).full().await;
    let mut writers: Vec<_> = (0..40).map(|_| agent.send_in_background(pid, vec![0; 1 << 20])).collect();
    // 16 wait, in whatever order they came; the others are answered although nothing moves.
    let mut refused = 0;
    while refused < 24 {
        let (result, at, _) = futures_util::future::select_all(&mut writers).await;
        writers.remove(at);
        let status = result.unwrap().unwrap_err();
        let message = format!(
            "input was not written: 16777216 bytes wait for process '{pid}' already; send it when they have been read"
        );
        assert_eq!((status.code(), status.message()), (Code::Aborted, message.as_str()));
        refused += 1;
    }
    assert!(poll_immediate(&mut running).await.is_none());
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    for writer in writers.into_iter().chain([running]) {
        assert_error(writer.await.unwrap(), Code::Internal, &broken_pipe(pid));
    }
}

#[tokio::test]
async fn without_stdin_a_read_fails_and_writing_is_refused() {
    let agent = Agent::new();
    assert_eq!(agent.sh("read -r line").await.exit_code(), 1);
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    assert_error(agent.stdin(pid, "x").await, Code::Internal, CLOSED);
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
    // A child of another test, on its way from clone to exec, may hold the reading end for a moment.
    let refusal = loop {
        if let Err(refusal) = agent.stdin(pid, "x").await {
            break refusal;
        }
    };
    assert_error::<()>(Err(refusal), Code::Internal, &broken_pipe(pid));
    agent.signal(pid, 9).await.unwrap();
    events.all().await;
}
