//! Time limits: who is asked to end, who is killed, and what the end says.

use std::time::Duration;

use envd::proto::process::{SignalScope, StartRequest, TimeLimit};
use tonic::Code;

use crate::{agent::*, signals::gone};

const EXCEEDED: &str = ": time limit exceeded";

fn with_limit(mut request: StartRequest, limit_ms: u64, grace_ms: u64, scope: SignalScope) -> StartRequest {
    request.time_limit = Some(TimeLimit { limit_ms, grace_ms, scope: scope.into(), ..Default::default() });
    request.details = true;
    request
}

/// Runs with ever longer limits until the process was quick enough for what the test is about.
async fn in_time(request: impl Fn(u64) -> StartRequest, in_time: impl Fn(&Told) -> bool) -> Told {
    let agent = Agent::new();
    for limit_ms in (6..=15).map(|power| 1 << power) {
        let told = agent.start(request(limit_ms)).await.unwrap().all().await;
        if in_time(&told) {
            return told;
        }
    }
    panic!("never in time")
}

#[tokio::test]
async fn a_limit_of_its_own_ends_the_process_and_the_stream_tells() {
    let agent = Agent::new();
    let request = with_limit(command("/bin/sleep", &["1000"]), 50, 600_000, SignalScope::Process);
    let end = agent.start(request).await.unwrap().all().await.end.unwrap();
    assert_eq!((end.exit_code, end.exited, end.status.as_str()), (-1, false, "signal: terminated"));
    assert_eq!(end.error.unwrap(), format!("signal: terminated{EXCEEDED}"));
    let details = end.details.unwrap();
    assert!(details.time_limit_exceeded && details.signal == 15);
}

#[tokio::test]
async fn without_a_grace_it_is_killed_at_once() {
    let agent = Agent::new();
    let request = with_limit(command("/bin/sleep", &["1000"]), 50, 0, SignalScope::Process);
    let end = agent.start(request).await.unwrap().all().await.end.unwrap();
    assert_eq!((end.status.as_str(), end.error.unwrap()), ("signal: killed", format!("signal: killed{EXCEEDED}")));
}

#[tokio::test]
async fn the_first_signal_can_be_chosen() {
    let agent = Agent::new();
    let mut request = with_limit(command("/bin/sleep", &["1000"]), 50, 600_000, SignalScope::Process);
    request.time_limit.as_mut().unwrap().signal = 2;
    assert_eq!(agent.start(request).await.unwrap().all().await.status(), "signal: interrupt");
}

#[tokio::test]
async fn who_ends_cleanly_within_the_grace_has_ended_cleanly() {
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let request = |limit| with_limit(sh(script), limit, 600_000, SignalScope::Process);
    let told = in_time(request, |told| told.stdout().contains("ready")).await;
    assert_eq!(told.stdout(), "ready\nbye\n");
    let end = told.end.unwrap();
    assert_eq!((end.exit_code, end.status.as_str(), end.error), (0, "exit status 0", None));
    assert!(end.details.unwrap().time_limit_exceeded);
}

#[tokio::test]
async fn who_does_not_listen_is_killed_after_the_grace() {
    let request = |limit| with_limit(sh("trap '' TERM; echo ready; exec sleep 1000"), limit, 50, SignalScope::Process);
    let told = in_time(request, |told| told.stdout().contains("ready")).await;
    assert_eq!(told.end.unwrap().error.unwrap(), format!("signal: killed{EXCEEDED}"));
}

#[tokio::test]
async fn whoever_is_left_in_the_group_is_killed_after_the_grace() {
    // The child holds no output open, so that the end of the process is told before.
    let script = "(trap '' TERM; exec sleep 1000) >/dev/null 2>&1 & echo $!; exec sleep 1000";
    for scope in [SignalScope::Group, SignalScope::Tree] {
        let told = in_time(|limit| with_limit(sh(script), limit, 50, scope), |told| !told.stdout.is_empty()).await;
        assert_eq!(told.status(), "signal: terminated");
        gone(told.stdout().trim().parse().unwrap()).await;
    }
}

#[tokio::test]
async fn the_group_is_heard_out_within_the_grace() {
    let script = "(trap 'sleep 0.3; echo late; exit' TERM; echo ready; while :; do sleep 0.05; done) & exec sleep 1000";
    let request = |limit| with_limit(sh(script), limit, 600_000, SignalScope::Group);
    let told = in_time(request, |told| told.stdout().contains("ready")).await;
    assert_eq!((told.stdout().as_str(), told.status().as_str()), ("ready\nlate\n", "signal: terminated"));
}

#[tokio::test]
async fn who_ended_in_time_is_only_released_by_the_limit() {
    let request = |limit| with_limit(sh("sleep 1000 & echo $!; exit 5"), limit, 0, SignalScope::Group);
    let told = in_time(request, |told| told.exit_code() == 5).await;
    let child = told.stdout().trim().parse().unwrap();
    let end = told.end.unwrap();
    assert_eq!(end.error.as_deref(), Some("exit status 5"));
    assert!(!end.details.unwrap().time_limit_exceeded);
    gone(child).await;
}

#[tokio::test]
async fn the_calls_limit_can_have_a_grace_too() {
    let agent = Agent::new();
    let request = with_limit(command("/bin/sleep", &["1000"]), 0, 600_000, SignalScope::Process);
    let told = agent.start_within(request, Duration::from_millis(500)).await.unwrap().all().await;
    assert_eq!(told.error.unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(agent.connect(by_pid(told.pid)).await.unwrap().all().await.status(), "signal: terminated");
}

#[tokio::test]
async fn with_a_limit_of_its_own_the_calls_limit_only_ends_the_stream() {
    let agent = Agent::new();
    let request = with_limit(command("/bin/sleep", &["1000"]), u64::MAX, 0, SignalScope::Process);
    let told = agent.start_within(request, Duration::from_millis(500)).await.unwrap().all().await;
    assert_eq!(told.error.unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(agent.list().await.len(), 1);
    assert!(exists(told.pid));
    agent.signal(told.pid, 9).await.unwrap();
    let end = agent.connect(by_pid(told.pid)).await.unwrap().all().await.end.unwrap();
    assert_eq!(end.error.as_deref(), Some("signal: killed"));
}

#[tokio::test]
async fn the_plain_limit_is_named_in_the_error_and_leaves_the_status_alone() {
    let agent = Agent::new();
    let events = agent.start_within(command("/bin/sleep", &["1000"]), Duration::from_millis(500)).await.unwrap();
    let pid = events.all().await.pid;
    let end = agent.connect(by_pid(pid)).await.unwrap().all().await.end.unwrap();
    assert_eq!((end.exit_code, end.exited, end.status.as_str()), (-1, false, "signal: killed"));
    assert_eq!(end.error.unwrap(), format!("signal: killed{EXCEEDED}"));
}

#[tokio::test]
async fn a_limit_that_means_nothing_starts_nothing() {
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("started");
    let refused = |signal, scope, message: &'static str| {
        let mut request = command("/bin/touch", &[marker.to_str().unwrap()]);
        request.time_limit = Some(TimeLimit { limit_ms: 1000, signal, scope, ..Default::default() });
        let started = agent.start(request);
        async move { assert_error(started.await, Code::InvalidArgument, message) }
    };
    refused(65, 0, "invalid time limit: 65 is no signal from 1 to 64").await;
    refused(0, 3, "invalid signal scope: 3").await;
    assert!(agent.list().await.is_empty() && !marker.exists());
}
