//! The agent never runs a program of the image with its own privileges: no helper at all, and what a request asks for only
//! after it has become the request's user. Proved by a list of all execve(2) and setresuid(2) calls of the whole agent.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use base64_simd::STANDARD;
use serde_json::{Value, json};

use crate::agent::{Agent, CONNECT, PATIENCE, START};

/// Set only below strace(1).
const TRACED: &str = "ENVD_TEST_TRACED";

/// Whoever is not root, and there everywhere.
const USER: &str = "nobody";

/// What agents of this kind are known to call, and what a shell would.
const TEMPTATIONS: [&str; 24] = [
    "sh", "bash", "env", "nice", "ionice", "chrt", "setsid", "su", "sudo", "setpriv", "mount", "ls", "ps", "id",
    "getent", "stty", "cat", "kill", "pkill", "true", "stat", "whoami", "python3", "tput",
];

fn may(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory of programs that note their name and user, without starting others.
fn poison(dir: &Path, record: &Path) {
    fs::create_dir(dir).unwrap();
    for name in TEMPTATIONS {
        let note = format!("[ \"$name\" = Uid: ] && echo {name} $user >> {}", record.display());
        let script = format!("#!/bin/sh\nwhile read name user rest; do {note}; done < /proc/self/status\nexit 0\n");
        fs::write(dir.join(name), script).unwrap();
        may(&dir.join(name), 0o755);
    }
    may(dir, 0o755);
    fs::write(record, "").unwrap();
    may(record, 0o666);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_image_runs_with_the_agents_privileges_as_root() {
    assert!(rustix::process::geteuid().is_root(), "needs root; leave it out with: cargo test -- --skip as_root");
    if let Some(dir) = std::env::var_os(TRACED) {
        return drive(&PathBuf::from(dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    may(dir.path(), 0o755);
    let (poisoned, record, trace) = (dir.path().join("bin"), dir.path().join("record"), dir.path().join("trace"));
    poison(&poisoned, &record);
    let test = "privileges::nothing_of_the_image_runs_with_the_agents_privileges_as_root";
    let output = Command::new("strace")
        .args(["-f", "-qq", "-s", "256", "-e", "trace=execve,execveat,setresuid", "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(TRACED, dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", poisoned.display()))
        .output()
        .expect("strace(1) starts; it has a package of its own name");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "below strace: {said}");

    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':')).unwrap();
    let uid = entry.split(':').nth(1).unwrap();
    let trace = fs::read_to_string(&trace).unwrap();
    check_trace(&trace, uid);
    for program in ["/usr/bin/true", "bin/id", "/script", "/no/such/program", "/bin/sleep"] {
        let executed = trace.lines().any(|line| line.contains("execve(") && line.contains(&format!("{program}\"")));
        assert!(executed, "{program} was not even tried:\n{trace}");
    }
    // What was asked for by name, as its user, and nothing else.
    assert_eq!(fs::read_to_string(&record).unwrap(), format!("id {uid}\nid {uid}\n"));
}

/// Every execve but the one that starts the agent comes from a process that has become the user.
fn check_trace(trace: &str, uid: &str) {
    let changed = format!("setresuid({uid}, {uid}, {uid})");
    let mut users = HashSet::new();
    let mut calls = 0;
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("setresuid(") {
            assert!(call.starts_with(&changed), "somebody else's user: {line}");
            users.insert(pid);
        } else if call.starts_with("exec") {
            assert!(calls == 0 || users.contains(pid), "with the agent's privileges: {line}\n{trace}");
            calls += 1;
        }
    }
    // A failed change of user ends the child before it executes anything, so that it need not be told from a good one.
    assert!(calls > 6, "{calls} calls of execve:\n{trace}");
}

/// Uses every service, as the user; runs below strace.
async fn drive(dir: &Path) {
    let kernels = dir.join("kernels");
    let (marker, script) = (dir.join("kernel-started"), dir.join("script"));
    fs::create_dir_all(kernels.join("python3")).unwrap();
    fs::write(&marker, "").unwrap();
    may(&marker, 0o666);
    let start = format!("echo {{connection_file}} > {}; exec /bin/sleep 1000", marker.display());
    let spec = json!({ "argv": ["/bin/sh", "-c", start], "display_name": "x", "language": "python" });
    fs::write(kernels.join("python3/kernel.json"), spec.to_string()).unwrap();
    fs::write(&script, "exit 3\n").unwrap();
    may(&script, 0o755);
    let home = dir.join("home");
    fs::create_dir(&home).unwrap();

    let agent = Agent::with(|config| {
        config.user = Some(USER.to_owned());
        config.workdir = Some("/".to_owned());
        config.kernel_dirs = vec![kernels];
    })
    .await;
    let credentials = format!("Basic {}", STANDARD.encode_to_string(format!("{USER}:")));
    let user = [("authorization", credentials.as_str())];
    let run = |cmd: &str, rest: Value| {
        let mut request = json!({ "process": { "cmd": cmd, "cwd": "/" } });
        for (name, value) in rest.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    };
    let script = script.to_str().unwrap();
    for (cmd, code) in
        [("/usr/bin/true", 0), ("id", 0), ("no-such-program", 127), ("/no/such/program", 127), (script, 3)]
    {
        for rest in [json!({ "stdin": false }), json!({ "pty": { "size": { "cols": 80, "rows": 24 } } })] {
            let told = agent.stream(START, &user, run(cmd, rest)).await.all().await;
            assert_eq!(told.end["exitCode"].as_i64().unwrap_or(0), code, "{cmd}: {told:?}");
        }
    }
    let mut running = agent.stream(START, &user, run("/bin/sleep", json!({ "tag": "x", "stdin": true }))).await;
    let pid = running.started().await;
    drop(running);
    let selector = json!({ "tag": "x" });
    agent.process("List", json!({ "details": true })).await.assert_ok();
    // Without an argument it ends by itself.
    assert_eq!(agent.stream(CONNECT, &user, json!({ "process": selector })).await.all().await.pid, pid);

    for (method, body) in [
        ("MakeDir", json!({ "path": home.join("a/b") })),
        ("Stat", json!({ "path": home.join("a") })),
        ("ListDir", json!({ "path": home, "depth": 2 })),
        ("Move", json!({ "source": home.join("a/b"), "destination": home.join("c") })),
        ("CreateWatcher", json!({ "path": home, "recursive": true })),
        ("Remove", json!({ "path": home.join("c") })),
    ] {
        agent.filesystem(method, body).await.assert_ok();
    }
    let target = format!("/files?username={USER}&path={}/file", home.display());
    let reply = agent.send("POST", &target, &[("content-type", "application/octet-stream")], "content").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(agent.get(&target).await.text(), "content");
    assert_eq!(agent.get("/metrics").await.status, 200);
    assert_eq!(agent.send("POST", "/init", &[], "{}").await.status, 204);

    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(&marker).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no kernel was started");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agent.stop().await;
}
