//! Output from an offset, for clients that lost their connection, and what clients that ask for details are told.

use envd::proto::process::{
    ConnectRequest,
    process_event::{DataEvent, Event, data_event::Output},
};
use tonic::Code;

use crate::agent::*;

fn from(pid: u32, offset: u64) -> ConnectRequest {
    ConnectRequest { process: Some(by_pid(pid)), replay_from: Some(offset), details: false }
}

fn with_details(pid: u32) -> ConnectRequest {
    ConnectRequest { process: Some(by_pid(pid)), replay_from: None, details: true }
}

/// The offset of the start event.
async fn start_of(events: &mut Events) -> Option<u64> {
    match events.next().await.unwrap() {
        Event::Start(start) => start.offset,
        other => panic!("{other:?} came before the start"),
    }
}

/// The next piece of output with its offset.
async fn piece(events: &mut Events) -> (Option<u64>, String) {
    match events.next().await.unwrap() {
        Event::Data(DataEvent { output: Some(Output::Stdout(data)), offset }) => {
            (offset, String::from_utf8(data.to_vec()).unwrap())
        }
        other => panic!("{other:?} instead of output"),
    }
}

#[tokio::test]
async fn a_client_goes_on_where_it_lost_its_connection() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/cat", &[]))).await.unwrap();
    let pid = events.started().await;
    agent.stdin(pid, "one\n").await.unwrap();
    events.until("one\n").await;
    agent.stdin(pid, "two\n").await.unwrap();
    events.until("two\n").await;
    drop(events);

    // In the middle of a piece: the first one is the rest of it.
    let mut replay = agent.connect_request(from(pid, 2)).await.unwrap();
    assert_eq!(start_of(&mut replay).await, Some(2));
    assert_eq!(piece(&mut replay).await, (Some(2), "e\n".into()));
    assert_eq!(piece(&mut replay).await, (Some(4), "two\n".into()));
    // A plain client still gets nothing twice.
    let mut plain = agent.connect(by_pid(pid)).await.unwrap();
    assert_eq!(start_of(&mut plain).await, None);
    plain.nothing_yet();
    agent.stdin(pid, "three\n").await.unwrap();
    assert_eq!(piece(&mut replay).await, (Some(8), "three\n".into()));
    assert_eq!(piece(&mut plain).await, (None, "three\n".into()));
    let mut detailed = agent.connect_request(with_details(pid)).await.unwrap();
    assert_eq!(start_of(&mut detailed).await, Some(8), "nobody is known to have received the last piece");
    drop(detailed);

    assert_error(
        agent.connect_request(from(pid, 15)).await,
        Code::OutOfRange,
        &format!("cannot replay the output of process {pid} from byte 15: 14 bytes were written so far"),
    );
    let mut end = agent.connect_request(from(pid, 14)).await.unwrap();
    assert_eq!(start_of(&mut end).await, Some(14));
    end.nothing_yet();
    agent.close_stdin(pid).await.unwrap();
    assert!(end.all().await.stdout.is_empty());

    let told = agent.connect_request(from(pid, 0)).await.unwrap().all().await;
    assert_eq!((told.stdout().as_str(), told.exit_code()), ("one\ntwo\nthree\n", 0), "also after the end");
}

#[tokio::test]
async fn what_is_kept_no_longer_is_told_by_the_offset() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(sh("head -c 3000000 /dev/zero; echo; read -r line"))).await.unwrap();
    let pid = events.started().await;
    events.until("\n").await;
    events.nothing_yet();
    let mut replay = agent.connect_request(from(pid, 1)).await.unwrap();
    let offset = start_of(&mut replay).await.unwrap();
    assert!(offset <= 3_000_001 - 60_000, "the last 64 KiB are there, less what keeping them costs: {offset}");
    assert!(offset >= 3_000_001 - 256 * 1024, "but not everything: {offset}");
    let mut next = offset;
    while next < 3_000_001 {
        let (at, data) = piece(&mut replay).await;
        assert_eq!(at, Some(next));
        next += data.len() as u64;
    }
    agent.stdin(pid, "x\n").await.unwrap();
    assert_eq!(replay.all().await.exit_code(), 0);
}

#[tokio::test]
async fn what_came_before_an_error_on_the_same_stream_is_received() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/cat", &[]))).await.unwrap();
    let pid = events.started().await;
    agent.stdin(pid, "one\n").await.unwrap();
    events.until("one\n").await;
    agent.processes.shutdown();
    assert_eq!(events.next().await.unwrap_err().code(), Code::Unavailable);
    drop(events);
    let mut detailed = agent.connect_request(with_details(pid)).await.unwrap();
    assert_eq!(start_of(&mut detailed).await, Some(4));
    agent.signal(pid, libc::SIGKILL).await.unwrap();
}

#[tokio::test]
async fn details_come_only_to_clients_that_ask() {
    let agent = Agent::new();
    let mut request = sh("echo one");
    request.details = true;
    let mut events = agent.start(request).await.unwrap();
    assert_eq!(start_of(&mut events).await, Some(0));
    assert_eq!(piece(&mut events).await, (Some(0), "one\n".into()));
    events.all().await;

    let mut events = agent.start(sh("echo one")).await.unwrap();
    assert_eq!(start_of(&mut events).await, None);
    assert_eq!(piece(&mut events).await, (None, "one\n".into()));
    assert_eq!(events.all().await.end.unwrap().details, None);
}

#[tokio::test]
async fn a_program_that_writes_for_ever_is_followed_by_its_newest_output() {
    let agent = Agent::new();
    let mut events = agent.start(command("yes", &[])).await.unwrap();
    let pid = events.started().await;
    drop(events);
    // Each client leaves at once and sees how far the program has come without it.
    let mut newest = 0;
    while newest < 50_000_000 {
        let mut events = agent.connect_request(with_details(pid)).await.unwrap();
        let offset = start_of(&mut events).await.unwrap();
        assert!(offset >= newest);
        newest = offset;
        drop(events);
        tokio::task::yield_now().await;
    }
    let events = agent.connect_request(with_details(pid)).await.unwrap();
    agent.signal(pid, libc::SIGKILL).await.unwrap();
    let told = events.all().await;
    assert_eq!(told.status(), "signal: killed");
    assert!(told.stdout.chunks(2).all(|line| b"y\n".starts_with(line) || b"\ny".starts_with(line)));
}
