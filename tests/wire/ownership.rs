//! Whose commands and files they are. Only root can act for others.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use serde_json::{Value, json};

use crate::agent::{Agent, START, sh};

/// Exists wherever there is a user database.
const OTHER: &str = "nobody";
/// `nobody:`.
const BASIC: (&str, &str) = ("authorization", "Basic bm9ib2R5Og==");

/// An agent that can act for others, and the uid of one. The tests here end in `as_root` and are left out by that
/// name where nobody has the privileges.
async fn agent() -> (Agent, u32) {
    assert!(rustix::process::geteuid().is_root(), "needs root; leave it out with: cargo test -- --skip as_root");
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let uid = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == OTHER).then(|| fields.nth(1)?.parse().ok())?
    });
    (Agent::start().await, uid.expect("a user called nobody"))
}

fn open(agent: &Agent) {
    let parent = agent.work();
    fs::set_permissions(parent.parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_as_the_named_user_as_root() {
    let (agent, uid) = agent().await;
    open(&agent);
    let told = agent.stream(START, &[BASIC], sh("id -u; id -un; echo $USER $LOGNAME")).await.all().await;
    assert_eq!(told.stdout(), format!("{uid}\n{OTHER}\n{OTHER} {OTHER}\n"));
    // The directory is entered with the rights of that user.
    let secret = agent.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).unwrap();
    let request = json!({ "process": { "cmd": "true", "cwd": secret } });
    let error = agent.stream(START, &[BASIC], request).await.all().await.close["error"].take();
    assert_eq!(error["code"], "invalid_argument", "{error}");
    assert!(error["message"].as_str().unwrap().ends_with("permission denied"), "{error}");
    // Whoever may call may also end the processes of others.
    let mut stream = agent.stream(START, &[BASIC], sh("exec sleep 600")).await;
    let pid = stream.started().await;
    let body = json!({ "process": { "pid": pid }, "signal": 9 });
    agent.process("SendSignal", body).await.assert_ok();
    assert_eq!(stream.all().await.end["status"], "signal: killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_for_a_user_belongs_to_the_user_as_root() {
    let (agent, uid) = agent().await;
    let existing = agent.path("existing");
    fs::create_dir(&existing).unwrap();
    let target = format!("/files?path={existing}/new/f&username={OTHER}");
    let raw = [("content-type", "application/octet-stream")];
    assert_eq!(agent.send("POST", &target, &raw, "x").await.status, 200);
    let body = json!({ "path": format!("{existing}/made/deep") }).to_string();
    let made = agent
        .send("POST", "/filesystem.Filesystem/MakeDir", &[BASIC, ("content-type", "application/json")], body)
        .await
        .assert_ok();
    assert_eq!(made["entry"]["owner"], OTHER);
    for (path, owner) in [("", 0), ("/new", uid), ("/new/f", uid), ("/made", uid), ("/made/deep", uid)] {
        assert_eq!(fs::metadata(format!("{existing}{path}")).unwrap().uid(), owner, "{path}");
    }
    // An existing file changes its owner, not its mode.
    let file = agent.file("file", "");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(agent.send("POST", &format!("/files?path={file}&username={OTHER}"), &raw, "x").await.status, 200);
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (uid, 0o640));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_starts_with_a_clean_slate_as_root() {
    let agent = Agent::start().await;
    let status = agent.sh("cat /proc/self/status; cat /proc/self/oom_score_adj; nice; ulimit -c").await.all().await;
    let text = status.stdout();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for name in ["SigBlk:", "SigIgn:"] {
        assert_eq!(u64::from_str_radix(&field(name), 16).unwrap(), 0, "{name}");
    }
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let privileges = own.lines().find_map(|line| line.strip_prefix("NoNewPrivs:")).unwrap();
    assert_eq!(field("NoNewPrivs:"), privileges.trim(), "sudo works as far as it did before");
    let rest: Vec<&str> = text.lines().skip_while(|line| line.contains(':')).collect();
    assert_eq!(
        &rest[..2],
        ["100", "0"],
        "the first to go when memory is short, with an ordinary share of the processor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_of_the_agent_do_not_leak_as_root() {
    let agent = Agent::start().await;
    let _watch = agent.stream("/filesystem.Filesystem/WatchDir", &[], json!({ "path": "/" })).await;
    let _other = agent.stream(START, &[], json!({ "process": { "cmd": "/bin/cat" }, "pty": {} })).await;
    for pty in [Value::Null, json!({})] {
        let request = json!({ "process": { "cmd": "/bin/ls", "args": ["/proc/self/fd"] }, "pty": pty });
        let told = agent.stream(START, &[], request).await.all().await;
        let output = if pty.is_null() { told.stdout } else { told.pty };
        // The last one is the directory that is listed.
        let listed: Vec<_> = String::from_utf8(output).unwrap().split_whitespace().map(str::to_owned).collect();
        assert_eq!(listed.len(), 4, "{listed:?}");
    }
}
