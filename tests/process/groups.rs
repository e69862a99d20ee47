//! Control groups of processes, on a cgroup2 mount of the test's own in a mount namespace of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use envd::{
    proto::process::{
        ControlGroup as Requested, SendSignalRequest, SignalScope, StartRequest, process_event::Event,
        process_server::Process,
    },
    system::cgroup::{ControlGroup, ControlGroups, Limits},
};
use tonic::Code;

use crate::agent::*;

/// Set only inside the namespace, so that nothing is mounted over the machine.
const INSIDE: &str = "ENVD_TEST_MOUNT_NAMESPACE";

/// A cgroup2 mount, unless the test has just been run in a mount namespace, and has passed.
fn hierarchy(test: &str) -> Option<tempfile::TempDir> {
    require_root();
    if std::env::var_os(INSIDE).is_none() {
        let output = Command::new("unshare")
            .arg("--mount")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("groups::{test}")])
            .env(INSIDE, "1")
            .output()
            .expect("unshare(1) starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{test} in a mount namespace: {said}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(dir.path()).status();
    assert!(status.expect("mount(8) starts").success());
    Some(dir)
}

fn in_group(mut request: StartRequest, requested: Requested) -> StartRequest {
    request.control_group = Some(requested);
    request
}

/// The groups that an agent in this process has made.
fn groups(root: &Path) -> Vec<PathBuf> {
    let own = root.join(format!("envd-{}", std::process::id()));
    let entries = fs::read_dir(own).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_process_and_its_children_are_in_the_group_from_the_start_as_root() {
    let Some(root) = hierarchy("a_process_and_its_children_are_in_the_group_from_the_start_as_root") else { return };
    let root = root.path();
    let agent = Agent::with_groups(Some(root.to_owned()));
    let script = "grep ^0:: /proc/self/cgroup; (setsid cat /proc/self/cgroup) | grep ^0::";
    let request = with_cwd(in_group(sh(script), Requested::default()), "/");
    let told = agent.start_as(request, "nobody").await.unwrap().all().await;
    let lines: Vec<String> = told.stdout().lines().map(str::to_owned).collect();
    let ending = format!("/envd-{}/process-1", std::process::id());
    assert!(lines.len() == 2 && lines.iter().all(|line| line.ends_with(&ending)), "{lines:?}");
    eventually("the group is gone", || groups(root).is_empty()).await;
    eventually("so is its parent", || !root.join(format!("envd-{}", std::process::id())).exists()).await;
    // Whoever asks for none gets none.
    let told = agent.sh("grep ^0:: /proc/self/cgroup").await.stdout();
    assert!(!told.contains("/envd-"), "{told}");
}

#[tokio::test]
async fn a_group_stays_while_somebody_is_in_it_as_root() {
    let Some(root) = hierarchy("a_group_stays_while_somebody_is_in_it_as_root") else { return };
    let root = root.path();
    let agent = Agent::with_groups(Some(root.to_owned()));
    let request = in_group(sh("sleep 1000 >/dev/null 2>&1 & echo $!"), Requested::default());
    let told = agent.start(request).await.unwrap().all().await;
    assert_eq!(told.exit_code(), 0);
    let background = told.stdout().trim().to_owned();
    let [group] = groups(root).try_into().unwrap();
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap().trim(), background);
    let pid = rustix::process::Pid::from_raw(background.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the group goes with its last process", || groups(root).is_empty()).await;
}

#[tokio::test]
async fn limits_hold_or_are_refused_by_the_controllers_name_as_root() {
    let Some(root) = hierarchy("limits_hold_or_are_refused_by_the_controllers_name_as_root") else { return };
    let root = root.path();
    let agent = Agent::with_groups(Some(root.to_owned()));
    let there = fs::read_to_string(root.join("cgroup.controllers")).unwrap();
    for (controller, file, value, requested) in [
        ("memory", "memory.max", "16777216", Requested { memory_max_bytes: 16 << 20, ..Requested::default() }),
        ("pids", "pids.max", "17", Requested { pids_max: 17, ..Requested::default() }),
        ("cpu", "cpu.max", "25000 100000", Requested { cpu_max_millis: 250, ..Requested::default() }),
    ] {
        let script = format!("cat {}$(sed -n s/^0:://p /proc/self/cgroup)/{file}", root.display());
        let started = agent.start(in_group(sh(&script), requested)).await;
        // Version 1 may have the controller, and only the root of all groups passes it down beside processes.
        match started {
            Ok(events) => assert_eq!(events.all().await.stdout().trim(), value, "{controller}"),
            Err(error) => {
                let usable = root.join(format!("envd-{}", std::process::id())).join(file).exists();
                assert!(!usable, "{controller} is there: {error:?}; controllers: {there}");
                let message =
                    format!("control_group: the '{controller}' controller is not available below '{}'", root.display());
                assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, message.as_str()));
                assert_eq!(spawn_failure(&error).stage, "prepare");
            }
        }
    }
    eventually("nothing is left", || groups(root).is_empty()).await;
}

#[tokio::test]
async fn a_signal_to_the_tree_reaches_who_left_everything_but_the_group_as_root() {
    let test = "a_signal_to_the_tree_reaches_who_left_everything_but_the_group_as_root";
    let Some(root) = hierarchy(test) else { return };
    let root = root.path();
    let agent = Agent::with_groups(Some(root.to_owned()));
    // In a session of its own, and its parent is gone.
    let script = "(setsid sh -c 'echo $$; exec sleep 1000' &) ; exec sleep 1000";
    let mut events = agent.start(in_group(sh(script), Requested::default())).await.unwrap();
    let pid = events.started().await;
    let runaway: u32 = events.until("\n").await.trim().parse().unwrap();
    let request = SendSignalRequest {
        process: Some(by_pid(pid)),
        signal: 9,
        scope: SignalScope::Tree.into(),
        ..SendSignalRequest::default()
    };
    agent.service.send_signal(tonic::Request::new(request)).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    let state = || fs::read_to_string(format!("/proc/{runaway}/stat")).unwrap_or_default();
    eventually("the runaway is gone", || state().is_empty() || state().contains(") Z ")).await;
    eventually("the group is gone", || groups(root).is_empty()).await;
}

#[tokio::test]
async fn a_group_that_cannot_be_had_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::with_groups(Some(dir.path().to_owned()));
    let error = agent.start(in_group(sh("true"), Requested::default())).await;
    let message = format!(
        "control_group: no control groups of version 2 at or below '{}'; mount cgroup2 there or name it with -cgroup-root",
        dir.path().display()
    );
    assert_error(error, Code::FailedPrecondition, &message);
    let agent = Agent::with_groups(None);
    let error = agent.start(in_group(sh("true"), Requested::default())).await;
    let message = "control_group: control groups are switched off; start the agent without -no-cgroups";
    assert_error(error, Code::FailedPrecondition, message);
    assert!(agent.list().await.is_empty());
}

/// A group with a script in it that has told that it is ready.
async fn busy(root: &Path, script: &str) -> (Agent, Events, Arc<ControlGroup>) {
    let agent = Agent::with_groups(Some(root.to_owned()));
    let groups = ControlGroups::below(Some(root.to_owned()));
    let group = Arc::new(groups.create(&Limits::default()).unwrap());
    let script = format!("echo $$ > {}/cgroup.procs; {script}", group.path().display());
    let mut events = agent.start(sh(&script)).await.unwrap();
    events.until("ready").await;
    (agent, events, group)
}

#[tokio::test]
async fn killing_a_group_leaves_nobody_as_root() {
    let Some(root) = hierarchy("killing_a_group_leaves_nobody_as_root") else { return };
    let script = "trap '' TERM INT; setsid sleep 1000 & (sleep 1000 & sleep 1000 &); echo ready; wait";
    let (_agent, events, group) = busy(root.path(), script).await;
    assert_eq!(group.members().unwrap().len(), 4);
    group.kill().unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    eventually("nobody is left", || group.members().unwrap().is_empty()).await;
    group.release();
    eventually("the group is gone", || !group.path().exists()).await;
    assert!(group.members().unwrap().is_empty() && group.signal(9).is_ok());
}

#[tokio::test]
async fn a_signal_reaches_everybody_once_and_nobody_forks_away_as_root() {
    let Some(root) = hierarchy("a_signal_reaches_everybody_once_and_nobody_forks_away_as_root") else { return };
    let script = "trap 'echo got it' USR1; (trap 'echo me too; exit' USR1; echo ready; while :; do sleep 0.01; done) & \
                  while :; do wait; done";
    let (_agent, mut events, group) = busy(root.path(), script).await;
    group.signal(libc_sigusr1()).unwrap();
    let mut seen = String::new();
    while !(seen.contains("got it") && seen.contains("me too")) {
        match events.next().await.unwrap() {
            Event::Data(data) => seen.push_str(&format!("{data:?}")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen.matches("got it").count(), 1, "{seen}");
    group.signal(9).unwrap();
    eventually("nobody is left", || group.members().unwrap().is_empty()).await;

    // Each lives only long enough to start the next.
    let script = "f() { sleep 0.001; f & }; f & f & f & echo ready";
    let (_agent, _events, group) = busy(root.path(), script).await;
    group.signal(9).unwrap();
    eventually("the chain is broken", || group.members().unwrap().is_empty()).await;
}

fn libc_sigusr1() -> i32 {
    rustix::process::Signal::USR1.as_raw()
}
