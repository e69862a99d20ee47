//! What is told about processes to those who ask, and to nobody else.

use envd::proto::process::{ListRequest, ProcessInfo, StartRequest, process_event::Event, process_server::Process};
use tonic::Request;

use crate::agent::*;

fn with_details(mut request: StartRequest) -> StartRequest {
    request.details = true;
    request
}

async fn list(agent: &Agent, details: bool, include_ended: bool) -> Vec<ProcessInfo> {
    let request = ListRequest { details, include_ended };
    agent.service.list(Request::new(request)).await.unwrap().into_inner().processes
}

#[tokio::test]
async fn the_end_tells_times_and_output_to_those_who_ask() {
    let agent = Agent::new();
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo four; exit 3";
    let told = agent.start(with_details(sh(script))).await.unwrap().all().await;
    let end = told.end.unwrap();
    assert_eq!((end.status.as_str(), end.error.as_deref()), ("exit status 3", Some("exit status 3")));
    let details = end.details.unwrap();
    let (started, ended) = (details.started_at.unwrap(), details.ended_at.unwrap());
    assert!((started.seconds, started.nanos) <= (ended.seconds, ended.nanos));
    assert!(details.user_time_us + details.system_time_us > 10_000, "{details:?}");
    assert_eq!((details.output_bytes, details.signal, details.time_limit_exceeded), (5, 0, false));

    let again = agent.connect(by_pid(told.pid)).await.unwrap().all().await.end.unwrap();
    assert_eq!((again.status.as_str(), again.details), ("exit status 3", None));
    assert_eq!(agent.sh("exit 0").await.end.unwrap().details, None);
}

#[tokio::test]
async fn the_list_tells_what_the_kernel_knows() {
    let agent = Agent::new();
    let mut events = agent
        .start(with_tag(sh("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo four; exec sleep 1000"), "job"))
        .await
        .unwrap();
    let pid = events.started().await;
    events.until("four\n").await;
    let seen = agent.detailed(pid, |seen| seen.state == "S" && seen.output_bytes == 5).await;
    assert!(seen.user_time_us + seen.system_time_us >= 10_000, "{seen:?}");
    assert!(seen.resident_bytes > 0 && seen.peak_resident_bytes >= seen.resident_bytes, "{seen:?}");
    assert!(seen.started_at.is_some() && seen.ended_at.is_none() && seen.end.is_none());
    let plain = agent.list().await;
    assert_eq!((plain.len(), plain[0].details.as_ref()), (1, None));
    let detailed = list(&agent, true, false).await;
    assert_eq!((detailed[0].pid, detailed[0].tag.as_deref()), (pid, Some("job")));
    assert_eq!(detailed[0].config, plain[0].config);
    agent.signal(pid, 9).await.unwrap();
    events.all().await;
}

#[tokio::test]
async fn ended_processes_are_listed_for_those_who_ask() {
    let agent = Agent::new();
    let told = agent.start(with_tag(sh("echo four; exit 3"), "job")).await.unwrap().all().await;
    assert!(agent.list().await.is_empty() && list(&agent, true, false).await.is_empty());
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    let listed = list(&agent, false, true).await;
    assert_eq!(listed.iter().map(|info| info.pid).collect::<Vec<_>>(), [told.pid, pid]);
    assert_eq!(listed[0].tag.as_deref(), Some("job"));
    let details = listed[0].details.as_ref().unwrap();
    assert_eq!((details.state.as_str(), details.output_bytes, details.resident_bytes), ("", 5, 0));
    assert!(details.started_at.is_some() && details.ended_at.is_some());
    let end = details.end.as_ref().unwrap();
    assert_eq!((end.status.as_str(), end.details.as_ref().unwrap().output_bytes), ("exit status 3", 5));
    assert!(listed[1].details.as_ref().unwrap().end.is_none());
    agent.signal(pid, 9).await.unwrap();
    events.all().await;
}

#[tokio::test]
async fn a_reaped_process_whose_output_is_held_open_is_a_zombie_in_the_list() {
    let agent = Agent::new();
    let mut events = agent.start(sh("sleep 1000 & echo $!; exit 5")).await.unwrap();
    let pid = events.started().await;
    let child: i32 = events.until("\n").await.trim().parse().unwrap();
    let seen = agent.detailed(pid, |seen| seen.state == "Z" && seen.ended_at.is_some()).await;
    assert!(seen.end.is_none() && seen.resident_bytes == 0);
    rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert_eq!(events.all().await.exit_code(), 5);
}

#[tokio::test]
async fn keep_alives_go_on_after_the_output_was_closed() {
    let agent = Agent::new();
    let mut request = Request::new(sh("exec >/dev/null 2>&1; exec sleep 1000"));
    request.metadata_mut().insert("keepalive-ping-interval", "1".parse().unwrap());
    let mut events = agent.start_request(request).await.unwrap();
    let pid = events.started().await;
    // The first ones may be from before.
    let mut since_closed = 0;
    while since_closed < 2 {
        assert!(matches!(events.next().await.unwrap(), Event::Keepalive(_)));
        let open = std::fs::read_link(format!("/proc/{pid}/fd/1")).unwrap();
        since_closed += usize::from(open.to_str() == Some("/dev/null"));
    }
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
}
