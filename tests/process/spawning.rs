//! What a started program finds: its arguments, environment, directory, user, descriptors and signals.

use tonic::Code;

use crate::agent::*;

#[tokio::test]
async fn arguments_and_exit_codes_arrive_unchanged() {
    let agent = Agent::new();
    let told = agent.start(command("/bin/sh", &["-c", "printf '%s|' \"$@\"", "sh", "a b", "", "ü\n"])).await.unwrap();
    assert_eq!(told.all().await.stdout(), "a b||ü\n|");
    let told = agent.sh("exit 3").await;
    let end = told.end.unwrap();
    assert_eq!((end.exit_code, end.exited, end.status.as_str()), (3, true, "exit status 3"));
    assert_eq!(end.error.as_deref(), Some("exit status 3"));
    let end = agent.sh("true").await.end.unwrap();
    assert_eq!((end.exit_code, end.exited, end.status.as_str(), end.error), (0, true, "exit status 0", None));
}

#[tokio::test]
async fn the_pid_is_the_programs_own_and_its_parent_is_the_agent() {
    let agent = Agent::new();
    let told = agent.sh("echo $$ $PPID").await;
    assert_eq!(told.stdout(), format!("{} {}\n", told.pid, std::process::id()));
}

#[tokio::test]
async fn a_missing_program_runs_like_a_shell_command_and_ends_with_127() {
    let agent = Agent::new();
    for name in ["no-such-program", "/no/such/program", ""] {
        let told = agent.start(command(name, &["-x"])).await.unwrap().all().await;
        assert!(told.pid > 0);
        assert_eq!((told.exit_code(), told.status().as_str()), (127, "exit status 127"));
        assert_eq!(told.stderr(), format!("envd: {name}: No such file or directory\n"));
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_ends_with_126() {
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, "not a program").unwrap();
    for path in ["/etc", file.to_str().unwrap()] {
        let told = agent.start(command(path, &[])).await.unwrap().all().await;
        assert_eq!(told.exit_code(), 126, "{path}");
        assert_eq!(told.stderr(), format!("envd: {path}: Permission denied\n"));
    }
}

#[tokio::test]
async fn a_script_without_an_interpreter_line_runs_in_the_shell() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "echo \"got $1\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let told = agent.start(command(script.to_str().unwrap(), &["it"])).await.unwrap().all().await;
    assert_eq!((told.stdout().as_str(), told.exit_code()), ("got it\n", 0));
}

#[tokio::test]
async fn the_program_is_looked_for_along_its_own_path() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("mine");
    std::fs::write(&script, "#!/bin/sh\necho found\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("/nonexistent:{}", dir.path().display());
    let told = agent.start(with_env(command("mine", &[]), "PATH", &path)).await.unwrap().all().await;
    assert_eq!(told.stdout(), "found\n");
}

#[tokio::test]
async fn a_program_in_a_directory_that_may_not_be_searched_is_missing_as_root() {
    require_root();
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let path = format!("{}:/usr/bin", dir.path().display());
    for name in ["no-such-program", "id"] {
        let request = with_cwd(with_env(command(name, &["-un"]), "PATH", &path), "/");
        let told = agent.start_as(request, "nobody").await.unwrap().all().await;
        assert_eq!(told.exit_code(), if name == "id" { 0 } else { 127 });
    }
}

#[tokio::test]
async fn the_environment_has_exactly_what_it_should() {
    let agent = Agent::new();
    agent
        .settings
        .set_user_environment([("A", "settings"), ("B", "settings")].map(|(n, v)| (n.into(), v.into())).into());
    let request = with_env(with_cwd(command("/usr/bin/env", &[]), "/tmp"), "A", "request=1\n2");
    let told = agent.start(request).await.unwrap().all().await;
    let user = agent.identity.own();
    let path = std::env::var("PATH").unwrap();
    let mut expected = vec![
        "A=request=1".to_owned(),
        "2".to_owned(),
        "B=settings".to_owned(),
        format!("HOME={}", user.home.display()),
        format!("LOGNAME={}", user.name),
        format!("PATH={path}"),
        "PWD=/tmp".to_owned(),
        format!("USER={}", user.name),
    ];
    let stdout = told.stdout();
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_nul_byte_or_an_oversized_argument_is_an_invalid_argument() {
    let agent = Agent::new();
    let request = with_env(command("true", &["x"]), "A", "b\0c");
    let message = "error starting process 'true x': exec: environment variable contains NUL";
    assert_error(agent.start(request).await, Code::InvalidArgument, message);
    let big = "x".repeat(3 * 1024 * 1024);
    let error = agent.start(command("true", &[&big])).await.err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().ends_with("exec: argument list too long"), "{}", &error.message()[3 * 1024 * 1024..]);
}

#[tokio::test]
async fn the_working_directory_is_entered_or_named_in_the_error() {
    let agent = Agent::new();
    let told = agent.start(with_cwd(sh("pwd"), "/usr")).await.unwrap().all().await;
    assert_eq!(told.stdout(), "/usr\n");
    let error = agent.start(with_cwd(sh("pwd"), "/no/such")).await;
    assert_error(error, Code::InvalidArgument, "cwd '/no/such' does not exist");
    let error = agent.start(with_cwd(sh("pwd"), "/etc/passwd")).await;
    let message = "error starting process '/bin/sh -c pwd': chdir /etc/passwd: not a directory";
    assert_error(error, Code::InvalidArgument, message);
    let error = agent.start(with_pty(with_cwd(sh("pwd"), "/etc/passwd"), 80, 24)).await;
    let message = "error starting pty with command '/bin/sh -c pwd' in dir '/etc/passwd' with '80' cols and '24' rows: \
                   chdir /etc/passwd: not a directory";
    assert_error(error, Code::InvalidArgument, message);
    let told = agent.start(with_cwd(sh("pwd"), "")).await.unwrap().all().await;
    assert_eq!(told.stdout(), "/\n", "the default directory");
    assert!(agent.list().await.is_empty());
}

#[tokio::test]
async fn only_the_standard_descriptors_are_open() {
    let agent = Agent::new();
    // A descriptor that would be inherited.
    let leak = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    for request in [command("/bin/ls", &["/proc/self/fd"]), with_pty(command("/bin/ls", &["/proc/self/fd"]), 80, 24)] {
        let told = agent.start(request).await.unwrap().all().await;
        let output = told.stdout() + &told.pty();
        // The fourth is the directory that ls reads.
        assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
}

#[tokio::test]
async fn a_user_can_open_the_standard_streams_by_name_as_root() {
    require_root();
    let agent = Agent::new();
    let request = with_cwd(sh("echo out > /dev/stdout; echo err > /dev/stderr"), "/");
    let told = agent.start_as(request, "nobody").await.unwrap().all().await;
    assert_eq!((told.stdout().as_str(), told.stderr().as_str()), ("out\n", "err\n"));
}

#[tokio::test]
async fn ended_processes_hold_no_descriptors() {
    let agent = Agent::new();
    let descriptors = || {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("pidfd") || link.starts_with("/dev/ptmx")).count()
    };
    for number in 0..40 {
        let request = if number % 2 == 0 { sh("true") } else { with_pty(sh("true"), 80, 24) };
        agent.start(request).await.unwrap().all().await;
    }
    // Other tests of this file run beside this one.
    assert!(descriptors() < 40, "{}", descriptors());
}

#[tokio::test]
async fn signals_start_at_their_defaults_and_unblocked() {
    let agent = Agent::new();
    let told = agent.start(command("/bin/cat", &["/proc/self/status"])).await.unwrap().all().await;
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = format!("{field}:\t0000000000000000\n");
        assert!(told.stdout().contains(&line), "{field} in {}", told.stdout());
    }
}

#[tokio::test]
async fn a_command_leads_a_group_of_its_own_and_priorities_are_set() {
    let agent = Agent::new();
    let told = agent.start(command("/bin/cat", &["/proc/self/stat", "/proc/self/oom_score_adj"])).await.unwrap();
    let told = told.all().await;
    let stdout = told.stdout();
    let fields: Vec<&str> = stdout.rsplit(')').next().unwrap().split_whitespace().collect();
    let group: u32 = fields[2].parse().unwrap();
    assert_eq!(group, told.pid);
    assert_eq!(fields[16], "0", "nice");
    assert_eq!(stdout.lines().last(), Some("100"));
}

#[tokio::test]
async fn a_user_comes_with_all_groups_and_no_privileges_as_root() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    let nobody = Agent::new().identity.user("nobody").unwrap();
    let passwd = format!("root:x:0:0::/root:/bin/sh\nguest:x:{}:{}::/:/bin/sh\n", nobody.uid, nobody.gid);
    std::fs::write(dir.path().join("passwd"), passwd).unwrap();
    std::fs::write(dir.path().join("group"), "one:x:7001:guest\ntwo:x:7002:other,guest\nthree:x:7003:other\n").unwrap();
    let mut agent = Agent::new();
    agent.identity =
        envd::system::identity::Identity::from_files(dir.path().join("passwd"), dir.path().join("group"), None);
    let request = with_cwd(sh("id -u; id -g; id -G; grep -E 'CapEff' /proc/self/status"), "/");
    let told = agent.start_as(request, "guest").await.unwrap().all().await;
    let expected = format!("{0}\n{1}\n{1} 7001 7002\nCapEff:\t0000000000000000\n", nobody.uid, nobody.gid);
    assert_eq!(told.stdout(), expected);
}

#[tokio::test]
async fn the_directory_is_entered_as_the_user_as_root() {
    require_root();
    let agent = Agent::new();
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().to_str().unwrap();
    std::fs::set_permissions(closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let error = agent.start_as(with_cwd(sh("pwd"), closed), "nobody").await;
    let message = format!("error starting process '/bin/sh -c pwd': chdir {closed}: permission denied");
    assert_error(error, Code::InvalidArgument, &message);
}
