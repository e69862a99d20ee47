//! Signals: all of them, to a process, its group and everything it has started.

use std::time::Duration;

use envd::proto::process::{
    CloseStdinRequest, ListRequest, ProcessDetails, SendSignalRequest, SignalScope, process_server::Process,
};
use tonic::{Code, Request, Status};

use crate::agent::*;

const KILL: i32 = 9;
const TERM: i32 = 15;

impl Agent {
    pub(crate) async fn signal_scope(&self, pid: u32, signal: i32, scope: SignalScope) -> Result<(), Status> {
        let process = Some(by_pid(pid));
        let request = SendSignalRequest { process, signal, scope: scope.into(), ..Default::default() };
        self.service.send_signal(Request::new(request)).await.map(|_| ())
    }

    /// What the list says about this process, when it says what the test waits for.
    pub(crate) async fn detailed(&self, pid: u32, wanted: impl Fn(&ProcessDetails) -> bool) -> ProcessDetails {
        let looking = async {
            loop {
                let request = ListRequest { details: true, include_ended: true };
                let listed = self.service.list(Request::new(request)).await.unwrap().into_inner().processes;
                let details = listed.into_iter().find(|info| info.pid == pid).and_then(|info| info.details);
                match details {
                    Some(details) if wanted(&details) => return details,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("the list never says so")
    }
}

/// Waits until the process has ended, whoever reaps it.
pub(crate) async fn gone(pid: u32) {
    let looking = async {
        while let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("the process lives on");
}

fn pid_in(text: &str) -> u32 {
    text.trim().parse().unwrap()
}

#[tokio::test]
async fn killing_twice_is_a_success_and_then_no_such_process() {
    let agent = Agent::new();
    for _ in 0..50 {
        let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
        let pid = events.started().await;
        agent.signal(pid, KILL).await.unwrap();
        let missing = format!("process with pid {pid} not found");
        assert_error(agent.signal(pid, KILL).await, Code::NotFound, &missing);
        assert!(!exists(pid));
        assert_eq!(events.all().await.status(), "signal: killed");
    }
}

#[tokio::test]
async fn a_killed_process_is_not_found_while_its_last_output_waits_for_its_reader() {
    let agent = Agent::new();
    let mut events = agent.start(command("/usr/bin/yes", &[])).await.unwrap();
    let pid = events.started().await;
    // The reader takes nothing, so that the log is full and the process waits.
    let seen = agent.detailed(pid, |seen| seen.output_bytes > 4_000_000 && seen.state == "S").await;
    assert!(seen.resident_bytes > 0);
    agent.signal(pid, KILL).await.unwrap();
    let missing = format!("process with pid {pid} not found");
    for signal in [KILL, TERM] {
        assert_error(agent.signal(pid, signal).await, Code::NotFound, &missing);
    }
    let request = CloseStdinRequest { process: Some(by_pid(pid)) };
    assert_error(agent.service.close_stdin(Request::new(request)).await, Code::NotFound, &missing);
    assert!(agent.list().await.is_empty());
    // Its stream has everything nevertheless.
    let told = events.all().await;
    assert_eq!(told.status(), "signal: killed");
    assert!(told.stdout.len() as u64 >= seen.output_bytes);
}

#[tokio::test]
async fn every_signal_arrives() {
    let agent = Agent::new();
    // Those that are ignored or stop by default come below.
    let ending = (1..=64).filter(|signal| !(17..=23).contains(signal) && *signal != 28);
    for signal in ending {
        let mut request = command("/bin/sleep", &["1000"]);
        request.details = true;
        let mut events = agent.start(request).await.unwrap();
        let pid = events.started().await;
        agent.signal(pid, signal).await.unwrap();
        let end = events.all().await.end.unwrap();
        assert_eq!((end.exit_code, end.details.unwrap().signal), (-1, signal.unsigned_abs()), "{}", end.status);
    }
}

#[tokio::test]
async fn a_process_is_stopped_and_continued() {
    let agent = Agent::new();
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    for scope in [SignalScope::Process, SignalScope::Group, SignalScope::Tree] {
        agent.signal_scope(pid, 19, scope).await.unwrap();
        agent.detailed(pid, |seen| seen.state == "T").await;
        agent.signal_scope(pid, 18, scope).await.unwrap();
        agent.detailed(pid, |seen| seen.state == "S").await;
    }
    agent.signal(pid, KILL).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
}

#[tokio::test]
async fn a_signal_that_is_not_for_ending_does_not_release_the_stream() {
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let script = format!("mkfifo {0}; (read line <{0}; echo late) & exit 5", gate.display());
    let mut events = agent.start(sh(&script)).await.unwrap();
    let pid = events.started().await;
    agent.detailed(pid, |seen| seen.state == "Z").await;
    agent.signal(pid, 1).await.unwrap();
    assert_eq!(agent.list().await.len(), 1);
    std::fs::write(gate, "go\n").unwrap();
    let told = events.all().await;
    assert_eq!((told.exit_code(), told.stdout().as_str()), (5, "late\n"));
}

#[tokio::test]
async fn a_group_is_signalled_with_its_leader() {
    let agent = Agent::new();
    for (descendants, scope) in [(true, SignalScope::Process), (false, SignalScope::Group)] {
        let mut events = agent.start(sh("sleep 1000 & echo $!; wait")).await.unwrap();
        let pid = events.started().await;
        let child = pid_in(&events.until("\n").await);
        let process = Some(by_pid(pid));
        let request = SendSignalRequest { process, signal: KILL, descendants, scope: scope.into() };
        agent.service.send_signal(Request::new(request)).await.unwrap();
        assert_eq!(events.all().await.status(), "signal: killed");
        gone(child).await;
    }
}

#[tokio::test]
async fn a_group_outlives_its_leader_and_is_still_reached() {
    let agent = Agent::new();
    for scope in [SignalScope::Group, SignalScope::Tree] {
        let script = "(trap 'echo heard' USR1; echo ready; while :; do sleep 0.05; done) & echo $!; exit 5";
        let mut events = agent.start(sh(script)).await.unwrap();
        let pid = events.started().await;
        events.until("ready\n").await;
        agent.detailed(pid, |seen| seen.state == "Z").await;
        agent.signal_scope(pid, 10, scope).await.unwrap();
        events.until("heard\n").await;
        agent.signal_scope(pid, KILL, scope).await.unwrap();
        assert_eq!(events.all().await.exit_code(), 5);
        assert!(agent.list().await.is_empty());
    }
}

#[tokio::test]
async fn a_tree_includes_what_left_the_group() {
    let agent = Agent::new();
    let script = "setsid sh -c 'setsid sleep 1000 & echo $!; wait' & wait";
    let mut events = agent.start(sh(script)).await.unwrap();
    let pid = events.started().await;
    let grandchild = pid_in(&events.until("\n").await);
    agent.signal_scope(pid, 18, SignalScope::Tree).await.unwrap();
    agent.signal_scope(pid, KILL, SignalScope::Group).await.unwrap();
    assert!(exists(grandchild), "it is in no group of the process");
    assert_eq!(events.all().await.status(), "signal: killed");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(grandchild.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();

    let mut events = agent.start(sh(script)).await.unwrap();
    let pid = events.started().await;
    let grandchild = pid_in(&events.until("\n").await);
    agent.signal_scope(pid, KILL, SignalScope::Tree).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    gone(grandchild).await;
}

#[tokio::test]
async fn a_tree_asked_to_end_may_say_good_bye() {
    let agent = Agent::new();
    let script = "trap 'wait; echo parent; exit 3' TERM
        setsid sh -c 'trap \"echo child; exit\" TERM; echo ready; while :; do sleep 0.05; done' &
        while :; do sleep 0.05; done";
    let mut events = agent.start(sh(script)).await.unwrap();
    let pid = events.started().await;
    events.until("ready\n").await;
    agent.signal_scope(pid, TERM, SignalScope::Tree).await.unwrap();
    let told = events.all().await;
    assert_eq!((told.stdout().as_str(), told.exit_code()), ("child\nparent\n", 3));
}

#[tokio::test]
async fn the_jobs_of_a_terminal_belong_to_its_tree() {
    let agent = Agent::new();
    // The shell gives each job a group of its own, and the job outlives it.
    let script = "set -m; trap '' HUP; sleep 1000 & echo job $!; exit 0";
    let mut events = agent.start(with_pty(sh(script), 80, 24)).await.unwrap();
    let pid = events.started().await;
    let said = events.until("\n").await;
    let job = pid_in(said.rsplit("job ").next().unwrap());
    agent.detailed(pid, |seen| seen.state == "Z").await;
    assert!(exists(job));
    agent.signal_scope(pid, KILL, SignalScope::Tree).await.unwrap();
    assert_eq!(events.all().await.exit_code(), 0);
    gone(job).await;
}

#[tokio::test]
async fn a_process_that_goes_on_making_children_does_not_outrun_the_signal() {
    let agent = Agent::new();
    // Children with sessions of their own, as fast as they can be made; the number is only a safety net.
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); setsid sleep 1000 & echo $!; done; wait";
    let mut events = agent.start(sh(script)).await.unwrap();
    let pid = events.started().await;
    let mut said = events.until("\n").await;
    agent.signal_scope(pid, KILL, SignalScope::Tree).await.unwrap();
    let told = events.all().await;
    assert_eq!(told.status(), "signal: killed");
    said += &told.stdout();
    for child in said.lines().filter_map(|line| line.parse().ok()) {
        gone(child).await;
    }
}

#[tokio::test]
async fn a_chain_of_forks_is_caught() {
    let agent = Agent::new();
    for scope in [SignalScope::Group, SignalScope::Tree] {
        // Each makes its successor and leaves: at no moment does anybody stand still.
        let mut events = agent.start(sh("chain() { chain & }; chain; echo started")).await.unwrap();
        let pid = events.started().await;
        events.until("started\n").await;
        agent.detailed(pid, |seen| seen.state == "Z").await;
        agent.signal_scope(pid, KILL, scope).await.unwrap();
        assert_eq!(events.all().await.exit_code(), 0);
        // Once nobody is in it, nobody will be.
        let members = || {
            let stats = std::fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
            let of_group = |stat: &String| {
                let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
                !matches!(fields.next(), Some("Z" | "X")) && fields.nth(1) == Some(pid.to_string().as_str())
            };
            stats.filter(of_group).count()
        };
        let looking = async {
            while members() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("the chain goes on");
    }
}

#[tokio::test]
async fn a_neighbour_is_left_alone() {
    let agent = Agent::new();
    let mut neighbour = agent.start(sh("sleep 1000 & echo $!; wait")).await.unwrap();
    let neighbour_pid = neighbour.started().await;
    let neighbour_child = pid_in(&neighbour.until("\n").await);
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    agent.signal_scope(pid, KILL, SignalScope::Tree).await.unwrap();
    events.all().await;
    let seen = agent.detailed(neighbour_pid, |_| true).await;
    assert!(seen.ended_at.is_none() && exists(neighbour_child));
    agent.signal_scope(neighbour_pid, KILL, SignalScope::Tree).await.unwrap();
    gone(neighbour_child).await;
}

#[tokio::test]
async fn an_unknown_scope_is_refused_after_the_process_was_found() {
    let agent = Agent::new();
    let send = |pid: u32, signal| {
        let request = SendSignalRequest { process: Some(by_pid(pid)), signal, scope: 9, ..Default::default() };
        agent.service.send_signal(Request::new(request))
    };
    assert_eq!(send(999_999_999, 9).await.unwrap_err().code(), Code::NotFound);
    let mut events = agent.start(command("/bin/sleep", &["1000"])).await.unwrap();
    let pid = events.started().await;
    assert_error(send(pid, 65).await, Code::Unimplemented, "invalid signal: 65");
    assert_error(send(pid, 9).await, Code::InvalidArgument, "invalid signal scope: 9");
    assert!(exists(pid));
    agent.signal(pid, KILL).await.unwrap();
    events.all().await;
}
