//! Resource limits of a process, and the typed details of starts that fail.

use envd::proto::process::{ResourceLimit, SpawnFailure, StartRequest};
use tonic::Code;

use crate::agent::*;

fn limit(resource: &str, soft: Option<u64>, hard: Option<u64>) -> ResourceLimit {
    ResourceLimit { resource: resource.to_owned(), soft, hard }
}

fn with_limits(mut request: StartRequest, limits: Vec<ResourceLimit>) -> StartRequest {
    request.resource_limits = limits;
    request
}

fn failure(stage: &str, errno: &str, message: &str) -> SpawnFailure {
    SpawnFailure { stage: stage.to_owned(), errno: errno.to_owned(), message: message.to_owned() }
}

#[tokio::test]
async fn every_limit_is_set_before_the_program_starts() {
    let agent = Agent::new();
    // As /proc/[pid]/limits names them (proc(5)).
    let wanted = [
        ("cpu", "Max cpu time", 1001, 1002),
        ("fsize", "Max file size", 1 << 30, 1 << 31),
        ("data", "Max data size", 1 << 32, 1 << 33),
        ("stack", "Max stack size", 4 << 20, 5 << 20),
        ("core", "Max core file size", 0, 1),
        ("rss", "Max resident set", 1 << 31, 1 << 32),
        ("nproc", "Max processes", 1000, 1001),
        ("nofile", "Max open files", 63, 64),
        ("memlock", "Max locked memory", 4096, 8192),
        ("as", "Max address space", 1 << 34, 1 << 35),
        ("locks", "Max file locks", 7, 8),
        ("sigpending", "Max pending signals", 99, 100),
        ("msgqueue", "Max msgqueue size", 4096, 8192),
        ("nice", "Max nice priority", 0, 0),
        ("rtprio", "Max realtime priority", 0, 0),
        ("rttime", "Max realtime timeout", 1 << 20, 1 << 21),
    ];
    let limits = wanted.iter().map(|(name, _, soft, hard)| limit(name, Some(*soft), Some(*hard))).collect();
    let request = with_limits(command("/bin/cat", &["/proc/self/limits"]), limits);
    let told = agent.start(request).await.unwrap().all().await.stdout();
    for (_, title, soft, hard) in wanted {
        let line = told.lines().find_map(|line| line.strip_prefix(title)).unwrap_or_else(|| panic!("{title}: {told}"));
        let numbers: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(numbers, [soft.to_string(), hard.to_string()], "{title}");
    }
}

#[tokio::test]
async fn a_limit_holds_for_another_user_as_root() {
    require_root();
    let agent = Agent::new();
    let mut request = with_cwd(sh("id -u; ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"), "/");
    // Of two for one resource the later one counts.
    request.resource_limits =
        vec![limit("nofile", Some(11), Some(22)), limit("core", Some(0), None), limit("core", Some(512), Some(1024))];
    let told = agent.start_as(request, "nobody").await.unwrap().all().await.stdout();
    let nobody = agent.identity.user("nobody").unwrap().uid;
    // The shell counts core files in blocks of 512 bytes.
    assert_eq!(told, format!("{nobody}\n11\n22\n1\n2\n"));
}

#[tokio::test]
async fn limits_that_make_no_sense_start_nothing() {
    let agent = Agent::new();
    let error = agent.start(with_limits(sh("true"), vec![limit("RLIMIT_CPU", Some(1), None)])).await.err().unwrap();
    let message = "unknown resource 'RLIMIT_CPU'; resources are: cpu, fsize, data, stack, core, rss, nproc, nofile, \
                   memlock, as, locks, sigpending, msgqueue, nice, rtprio, rttime";
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    assert_eq!(spawn_failure(&error), failure("limits", "", message));
    let error = agent.start(with_limits(sh("true"), vec![limit("cpu", Some(2), Some(1))])).await;
    assert_error(error, Code::InvalidArgument, "the soft limit 2 of 'cpu' is above its hard limit 1");
    // Nobody may have more descriptors than fs.nr_open.
    let error = agent.start(with_limits(sh("true"), vec![limit("nofile", None, None)])).await.err().unwrap();
    let cause = "setrlimit: operation not permitted (a limit is above what the agent may set)";
    let message = format!("error starting process '/bin/sh -c true': {cause}");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message.as_str()));
    assert_eq!(spawn_failure(&error), failure("limits", "EPERM", cause));
    assert!(agent.list().await.is_empty());
}

#[tokio::test]
async fn failed_starts_carry_stage_and_errno() {
    let agent = Agent::new();
    let error = agent.start(with_cwd(sh("pwd"), "/no/such")).await.err().unwrap();
    assert_eq!(spawn_failure(&error), failure("chdir", "ENOENT", "cwd '/no/such' does not exist"));
    let error = agent.start(with_cwd(sh("pwd"), "/etc/passwd")).await.err().unwrap();
    assert_eq!(spawn_failure(&error), failure("chdir", "ENOTDIR", "chdir /etc/passwd: not a directory"));
    let error = agent.start(with_pty(with_cwd(sh("pwd"), "/etc/passwd"), 80, 24)).await.err().unwrap();
    assert_eq!(spawn_failure(&error), failure("chdir", "ENOTDIR", "chdir /etc/passwd: not a directory"));
    let error = agent.start(with_env(sh("true"), "A", "b\0c")).await.err().unwrap();
    assert_eq!(spawn_failure(&error), failure("prepare", "", "exec: environment variable contains NUL"));
    let error = agent.start(command("true", &[&"x".repeat(3 << 20)])).await.err().unwrap();
    assert_eq!(spawn_failure(&error), failure("exec", "E2BIG", "exec: argument list too long"));
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_tells_why_in_the_end() {
    let agent = Agent::new();
    for (name, code, expected) in [
        ("/no/such/program", 127, failure("exec", "ENOENT", "exec: no such file or directory")),
        ("/etc", 126, failure("exec", "EACCES", "exec: permission denied")),
    ] {
        let mut request = command(name, &[]);
        request.details = true;
        let end = agent.start(request).await.unwrap().all().await.end.unwrap();
        assert_eq!(end.exit_code, code);
        assert_eq!(end.details.unwrap().spawn_failure, Some(expected));
    }
    let mut request = sh("exit 127");
    request.details = true;
    let end = agent.start(request).await.unwrap().all().await.end.unwrap();
    assert_eq!((end.exit_code, end.details.unwrap().spawn_failure), (127, None));
}
