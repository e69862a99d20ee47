//! How processes end, and what is known about them afterwards.

use std::time::Duration;

use envd::proto::process::*;
use tonic::{Code, Request};

use crate::agent::*;

#[tokio::test]
async fn a_killed_process_is_reaped_and_unlisted_before_its_end_is_told() {
    let agent = Agent::new();
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    assert_eq!(agent.list().await.iter().map(|info| info.pid).collect::<Vec<_>>(), [pid]);
    agent.signal(pid, 9).await.unwrap();
    let told = events.all().await;
    let end = told.end.unwrap();
    assert_eq!((end.exit_code, end.exited, end.status.as_str()), (-1, false, "signal: killed"));
    assert_eq!(end.error.as_deref(), Some("signal: killed"));
    assert!(agent.list().await.is_empty());
    assert!(!exists(pid));
    assert_error(agent.signal(pid, 9).await, Code::NotFound, &format!("process with pid {pid} not found"));
}

#[tokio::test]
async fn what_a_process_says_after_sigterm_is_delivered() {
    let agent = Agent::new();
    let script = "trap 'head -c 50000 /dev/zero; echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut events = agent.start(sh(script)).await.unwrap();
    let pid = events.started().await;
    events.until("ready\n").await;
    agent.signal(pid, 15).await.unwrap();
    let told = events.all().await;
    assert_eq!(told.exit_code(), 7);
    assert_eq!(told.stdout.len(), 50_004);
    assert!(told.stdout.ends_with(b"bye\n"));
}

#[tokio::test]
async fn a_background_child_keeps_the_stream_open() {
    let agent = Agent::new();
    let told = agent.sh("(sleep 0.3; echo late) & echo early").await;
    assert_eq!((told.stdout().as_str(), told.exit_code()), ("early\nlate\n", 0));
}

#[tokio::test]
async fn a_signal_releases_a_reaped_process_from_its_background_child() {
    let agent = Agent::new();
    let mut events = agent.start(sh("sleep 1000 & echo $!; exit 5")).await.unwrap();
    let pid = events.started().await;
    let child: i32 = events.until("\n").await.trim().parse().unwrap();
    while exists(pid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(agent.list().await.len(), 1, "listed while its output is open");
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.exit_code(), 5);
    assert!(exists(child.unsigned_abs()), "only the process itself is signalled");
    let child = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn killing_a_shell_with_running_children_ends_the_stream() {
    let agent = Agent::new();
    let mut events = agent.start(sh("sleep 1000 & echo $!; wait")).await.unwrap();
    let pid = events.started().await;
    let child: i32 = events.until("\n").await.trim().parse().unwrap();
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    let child = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn the_deadline_kills_the_process_and_the_stream_says_so() {
    let agent = Agent::new();
    let events = agent.start_within(command("/bin/sleep", &["1000"]), Duration::from_millis(500)).await.unwrap();
    let told = events.all().await;
    let error = told.error.unwrap();
    assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
    let told = agent.connect(by_pid(told.pid)).await.unwrap().all().await;
    assert_eq!((told.exit_code(), told.status().as_str()), (-1, "signal: killed"));
}

#[tokio::test]
async fn the_deadline_holds_after_the_client_has_left() {
    let agent = Agent::new();
    let request = command("/bin/sleep", &["1000"]);
    let mut events = agent.start_within(request, Duration::from_millis(500)).await.unwrap();
    let pid = events.started().await;
    drop(events);
    let told = agent.connect(by_pid(pid)).await.unwrap().all().await;
    assert_eq!(told.status(), "signal: killed");
}

#[tokio::test]
async fn nothing_starts_after_the_deadline() {
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("started");
    let started = agent.start_within(command("/bin/touch", &[marker.to_str().unwrap()]), Duration::ZERO).await;
    assert_error(started, Code::DeadlineExceeded, "context deadline exceeded");
    assert!(agent.list().await.is_empty());
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_client_that_leaves_harms_nobody() {
    let agent = Agent::new();
    let mut events = agent.start(with_stdin(command("/bin/cat", &[]))).await.unwrap();
    let pid = events.started().await;
    drop(events);
    agent.stdin(pid, "still here").await.unwrap();
    agent.close_stdin(pid).await.unwrap();
    let told = agent.connect(by_pid(pid)).await.unwrap().all().await;
    assert_eq!((told.stdout().as_str(), told.exit_code()), ("still here", 0));
}

#[tokio::test]
async fn an_ended_process_is_remembered_by_pid_and_tag_until_the_tag_is_used_again() {
    let agent = Agent::new();
    let told = agent.start(with_tag(sh("exit 4"), "job")).await.unwrap().all().await;
    for selector in [by_pid(told.pid), by_tag("job")] {
        let again = agent.connect(selector).await.unwrap().all().await;
        assert_eq!((again.pid, again.exit_code(), again.stdout.len()), (told.pid, 4, 0));
    }
    let mut next = agent.start(with_tag(command("/bin/sleep", &["1000"]), "job")).await.unwrap();
    let pid = next.started().await;
    assert_eq!(agent.connect(by_tag("job")).await.unwrap().started().await, pid);
    assert_eq!(agent.connect(by_pid(told.pid)).await.err().unwrap().code(), Code::NotFound);
    agent.signal(pid, 9).await.unwrap();
    next.all().await;
}

#[tokio::test]
async fn tags_find_the_newest_and_every_tag_is_found() {
    let agent = Agent::new();
    let mut pids = Vec::new();
    for tag in ["a", "b", "a", "c"] {
        let mut events = agent.start(with_tag(command("/bin/sleep", &["1000"]), tag)).await.unwrap();
        pids.push(events.started().await);
    }
    for (tag, pid) in [("a", pids[2]), ("b", pids[1]), ("c", pids[3])] {
        assert_eq!(agent.connect(by_tag(tag)).await.unwrap().started().await, pid);
    }
    assert_error(agent.connect(by_tag("d")).await, Code::NotFound, "process with tag d not found");
    let listed = agent.list().await;
    assert!(listed.iter().all(|info| info.tag.is_some() && info.config.as_ref().unwrap().cmd == "/bin/sleep"));
    for pid in pids {
        agent.signal(pid, 9).await.unwrap();
        agent.connect(by_pid(pid)).await.unwrap().all().await;
    }
    assert!(agent.list().await.is_empty());
}

#[tokio::test]
async fn unusual_selectors_and_signals_get_their_codes() {
    let agent = Agent::new();
    let nothing = "invalid input type *process.ProcessSelector";
    for selector in [None, Some(ProcessSelector { selector: None })] {
        let connected = agent.service.clone();
        let request = Request::new(ConnectRequest { process: selector.clone(), ..Default::default() });
        let result = process_server::Process::connect(&connected, request).await;
        assert_error(result, Code::Unimplemented, nothing);
        let request = Request::new(SendSignalRequest { process: selector, signal: 9, ..Default::default() });
        let result = process_server::Process::send_signal(&connected, request).await;
        assert_error(result, Code::Unimplemented, nothing);
    }
    assert_error(agent.signal(999_999_999, 0).await, Code::NotFound, "process with pid 999999999 not found");
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    assert_error(agent.signal(pid, 0).await, Code::Unimplemented, "invalid signal: SIGNAL_UNSPECIFIED");
    assert_error(agent.signal(pid, 77).await, Code::Unimplemented, "invalid signal: 77");
    agent.signal(pid, 15).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: terminated");
}

#[tokio::test]
async fn shutting_down_ends_streams_and_leaves_processes() {
    let agent = Agent::new();
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    agent.processes.shutdown();
    let told = events.all().await;
    assert_eq!(told.error.unwrap().code(), Code::Unavailable);
    assert!(exists(pid));
    agent.signal(pid, 9).await.unwrap();
}

#[tokio::test]
async fn many_short_processes_at_once_all_end_truly() {
    let agent = shared(Agent::new());
    let tasks = (0..200).map(|number| {
        let agent = agent.clone();
        tokio::spawn(async move { (number % 256, agent.sh(&format!("exit {}", number % 256)).await.exit_code()) })
    });
    for task in tasks.collect::<Vec<_>>() {
        let (expected, code) = task.await.unwrap();
        assert_eq!(code, expected);
    }
    assert!(agent.list().await.is_empty());
}
