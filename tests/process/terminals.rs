//! Terminals: size, input, ownership, and output to the last byte.

use tonic::Code;

use crate::agent::*;

#[tokio::test]
async fn a_terminal_has_its_size_before_the_program_starts_and_after_a_resize() {
    let agent = Agent::new();
    let script = "stty size; trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut events = agent.start(with_pty(sh(script), 100, 31)).await.unwrap();
    let pid = events.started().await;
    assert_eq!(events.until("ready").await.lines().next(), Some("31 100"));
    agent.resize(pid, 65_536 + 120, 50).await.unwrap();
    let told = events.all().await;
    assert!(told.pty().contains("50 120\r\n"), "{:?}", told.pty());
    assert_eq!(told.exit_code(), 6);
}

#[tokio::test]
async fn a_terminal_without_a_size_has_none() {
    let agent = Agent::new();
    let mut request = sh("stty size");
    request.pty = Some(envd::proto::process::Pty { size: None });
    assert_eq!(agent.start(request).await.unwrap().all().await.pty(), "0 0\r\n");
}

#[tokio::test]
async fn an_interactive_shell_takes_input_and_keeps_running_between_clients() {
    let agent = Agent::new();
    let mut events = agent.start(with_pty(command("/bin/sh", &["-i"]), 80, 24)).await.unwrap();
    let pid = events.started().await;
    agent.pty(pid, "A=4; echo $((A+1))2\n").await.unwrap();
    events.until("52\r\n").await;
    drop(events);
    agent.pty(pid, "echo $((A+5))9; echo over > /dev/tty\n").await.unwrap();
    let mut events = agent.connect(by_pid(pid)).await.unwrap();
    assert_eq!(events.started().await, pid);
    let seen = events.until("over\r\n").await;
    assert!(seen.contains("99\r\n"), "{seen:?}");
    agent.pty(pid, "exit 3\n").await.unwrap();
    let told = events.all().await;
    assert_eq!(told.exit_code(), 3);
    assert!(told.stdout.is_empty() && told.stderr.is_empty());
}

#[tokio::test]
async fn terminals_refuse_stdin_and_closing() {
    let agent = Agent::new();
    let mut events = agent.start(with_pty(command("/bin/cat", &[]), 80, 24)).await.unwrap();
    let pid = events.started().await;
    let message = "error writing to stdin: tty assigned to process — input should be written to the pty, not the stdin";
    assert_error(agent.stdin(pid, "x").await, Code::Internal, message);
    let message = "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead";
    assert_error(agent.close_stdin(pid).await, Code::Unknown, message);
    agent.pty(pid, "x\n\u{4}").await.unwrap();
    let told = events.all().await;
    assert_eq!((told.pty().as_str(), told.exit_code()), ("x\r\nx\r\n", 0));
}

#[tokio::test]
async fn every_byte_of_a_terminal_arrives_before_the_end() {
    let agent = Agent::new();
    let script = "stty -opost; head -c 3000000 /dev/zero; printf last";
    let told = agent.start(with_pty(sh(script), 80, 24)).await.unwrap().all().await;
    assert_eq!((told.pty.len(), told.exit_code()), (3_000_004, 0));
    assert!(told.pty.ends_with(b"last"));
}

#[tokio::test]
async fn megabytes_of_terminal_input_do_not_block() {
    let agent = Agent::new();
    let mut events =
        agent.start(with_pty(sh("stty raw -echo; echo ready; head -c 2000000 | wc -c"), 80, 24)).await.unwrap();
    let pid = events.started().await;
    events.until("ready").await;
    agent.pty(pid, vec![b'x'; 2_000_000]).await.unwrap();
    assert!(events.all().await.pty().contains("2000000"));
}

#[tokio::test]
async fn a_missing_program_is_told_on_the_terminal() {
    let agent = Agent::new();
    let told = agent.start(with_pty(command("no-such-program", &[]), 80, 24)).await.unwrap().all().await;
    assert_eq!(told.pty(), "envd: no-such-program: No such file or directory\r\n");
    assert_eq!(told.exit_code(), 127);
}

#[tokio::test]
async fn the_terminal_belongs_to_the_user_who_can_open_it_by_name() {
    let agent = Agent::new();
    let user = if is_root() { "nobody".to_owned() } else { agent.identity.own().name.clone() };
    let script = "stat -c '%U %a' $(tty); echo by name > $(tty); ps -o tpgid= -p $$ | tr -d ' '; echo $$";
    let request = with_cwd(with_pty(sh(script), 80, 24), "/");
    let told = agent.start_as(request, &user).await.unwrap().all().await;
    let seen = told.pty();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], [format!("{user} 620").as_str(), "by name"]);
    assert_eq!(lines[2], lines[3], "it is the controlling terminal, and the shell is in its foreground");
}

#[tokio::test]
async fn killing_a_terminal_ends_its_stream() {
    let agent = Agent::new();
    let mut events = agent.start(with_pty(command("/bin/sleep", &["1000"]), 80, 24)).await.unwrap();
    let pid = events.started().await;
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    assert!(!exists(pid));
}
