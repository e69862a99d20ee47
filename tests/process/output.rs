//! No byte is lost, none is told twice, and no client can hurt another.

use std::time::Duration;

use envd::proto::process::process_event::{Event, data_event::Output};
use tokio::time::{Instant, timeout};
use tonic::Request;

use crate::agent::*;

#[tokio::test]
async fn ten_megabytes_arrive_completely() {
    let agent = Agent::new();
    let told = agent.sh("head -c 10000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo end").await;
    assert_eq!((told.stdout.len(), told.stderr.len(), told.exit_code()), (10_000_004, 1_000_000, 0));
    assert!(told.stdout.ends_with(b"end\n"));
}

#[tokio::test]
async fn any_bytes_arrive_unaltered() {
    let agent = Agent::new();
    let told = agent.sh("printf '\\377\\000\\376'").await;
    assert_eq!(told.stdout, [0xff, 0, 0xfe]);
}

#[tokio::test]
async fn a_slow_client_slows_the_process_down_and_loses_nothing() {
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    let script = format!("head -c 30000000 /dev/zero; : > {}", done.display());
    let mut events = agent.start(sh(&script)).await.unwrap();
    events.started().await;
    // The writer cannot get further than the log and the pipe allow, however long we wait.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!done.exists(), "nobody read, yet everything was written");
    let told = events.all().await;
    assert_eq!(told.stdout.len(), 30_000_000);
    assert!(done.exists());
}

#[tokio::test]
async fn a_process_never_waits_for_a_listener() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(sh("read -r line; head -c 20000000 /dev/zero; echo tail"))).await.unwrap();
    let pid = events.started().await;
    drop(events);
    agent.stdin(pid, "go\n").await.unwrap();
    let limit = Instant::now() + PATIENCE;
    while !agent.list().await.is_empty() {
        assert!(Instant::now() < limit, "blocked without a listener");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let told = agent.connect(by_pid(pid)).await.unwrap().all().await;
    assert!(told.stdout.ends_with(b"tail\n"), "the newest output is kept");
    assert!(told.stdout.len() <= 1024 * 1024, "and it is bounded");
    assert_eq!(told.exit_code(), 0);
}

#[tokio::test]
async fn undelivered_output_waits_for_the_next_client_and_is_told_once() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/cat", &[]))).await.unwrap();
    let pid = events.started().await;
    agent.stdin(pid, "one\n").await.unwrap();
    events.until("one\n").await;
    drop(events);
    agent.stdin(pid, "two\n").await.unwrap();
    agent.stdin(pid, "three\n").await.unwrap();
    let mut events = agent.connect(by_pid(pid)).await.unwrap();
    assert_eq!(events.started().await, pid);
    assert_eq!(events.until("three\n").await, "two\nthree\n");
    agent.close_stdin(pid).await.unwrap();
    assert!(events.all().await.stdout.is_empty());
}

#[tokio::test]
async fn a_client_that_dies_with_a_chunk_in_hand_gives_it_back() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/cat", &[]))).await.unwrap();
    let pid = events.started().await;
    agent.stdin(pid, "one\n").await.unwrap();
    events.until("one\n").await;
    // It never asked for what follows, so nobody knows that it could be sent.
    events.die();
    let mut events = agent.connect(by_pid(pid)).await.unwrap();
    events.started().await;
    assert_eq!(events.until("one\n").await, "one\n");
    drop(events);
    agent.close_stdin(pid).await.unwrap();
    assert!(agent.connect(by_pid(pid)).await.unwrap().all().await.stdout.is_empty());
}

#[tokio::test]
async fn a_stalled_client_is_told_what_it_missed_and_harms_nobody() {
    let agent = Agent::new();
    let mut quick = agent.start(with_stdin(sh("read -r line; head -c 20000000 /dev/zero"))).await.unwrap();
    let pid = quick.started().await;
    let mut stalled = agent.connect(by_pid(pid)).await.unwrap();
    stalled.started().await;
    agent.stdin(pid, "go\n").await.unwrap();
    assert_eq!(quick.all().await.stdout.len(), 20_000_000);
    let told = stalled.all().await;
    let error = told.error.unwrap();
    assert_eq!(error.code(), tonic::Code::DataLoss);
    let skipped: usize = error.message().split(' ').next().unwrap().parse().unwrap();
    assert!(skipped > 0 && skipped <= 20_000_000, "{skipped}");
    assert!(told.end.is_none());
}

#[tokio::test]
async fn one_stalled_client_of_ten_changes_nothing_for_the_other_nine() {
    let agent = Agent::new();
    let script = "read -r line; head -c 40000000 /dev/zero; echo; read -r line; exit 7";
    let mut stalled = agent.start(with_stdin(sh(script))).await.unwrap();
    let pid = stalled.started().await;
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(agent.connect(by_pid(pid)).await.unwrap());
    }
    agent.stdin(pid, "go\n").await.unwrap();
    let read = others.into_iter().map(|mut events| async move {
        let mut bytes = 0;
        while bytes < 40_000_001 {
            if let Event::Data(data) = events.next().await.unwrap() {
                let Some(Output::Stdout(data)) = data.output else { panic!("{data:?}") };
                bytes += data.len();
            }
        }
        (events, bytes)
    });
    let others = futures_util::future::join_all(read).await;
    // The process has come to its second question, although one of ten has not taken a byte.
    agent.stdin(pid, "end\n").await.unwrap();
    for (events, bytes) in others {
        assert_eq!(bytes, 40_000_001);
        assert_eq!(events.all().await.exit_code(), 7);
    }
    let error = stalled.all().await.error.unwrap();
    assert_eq!(error.code(), tonic::Code::DataLoss);
    let skipped: usize = error.message().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(skipped, 40_000_001, "a plain Connect would go on where the others are");
}

#[tokio::test]
async fn idle_streams_get_keepalives_also_after_the_output_is_closed() {
    let agent = Agent::new();
    let mut request = Request::new(with_stdin(sh("echo first; exec >&- 2>&-; read -r line")));
    request.metadata_mut().insert("keepalive-ping-interval", "1".parse().unwrap());
    let mut events = agent.start_request(request).await.unwrap();
    let pid = events.started().await;
    events.until("first\n").await;
    for _ in 0..2 {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        assert!(matches!(event, Event::Keepalive(_)), "{event:?}");
    }
    agent.stdin(pid, "x\n").await.unwrap();
    assert_eq!(events.all().await.exit_code(), 0);
}
