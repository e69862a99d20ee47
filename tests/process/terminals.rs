//! Terminals: size, input, ownership, and output to the last byte.

use futures_util::future::poll_immediate;
use tonic::Code;

use crate::agent::*;

const CTRL_C: &str = "\u{3}";
const CTRL_Z: &str = "\u{1a}";

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

/// Numbered lines, so that a byte that is lost, doubled or out of order shows.
fn numbered(count: usize) -> String {
    (0..count).map(|number| format!("{number:07} of a line that a terminal takes as a whole\n")).collect()
}

#[tokio::test]
async fn megabytes_of_lines_pass_the_line_discipline() {
    let agent = shared(Agent::new());
    // Canonical mode: the terminal holds 4095 bytes until somebody reads a line.
    let mut events = agent.start(with_pty(sh("stty -echo -onlcr; echo ready; exec cat"), 80, 24)).await.unwrap();
    let pid = events.started().await;
    events.until("ready\n").await;
    let lines = numbered(40_000);
    let input = agent.pty_in_background(pid, format!("{lines}\u{4}"));
    let told = events.all().await;
    input.await.unwrap().unwrap();
    assert!(told.pty() == lines, "{} of {} bytes", told.pty.len(), lines.len());
    assert_eq!(told.exit_code(), 0);
}

#[tokio::test]
async fn a_terminal_is_full_in_both_directions_without_a_deadlock() {
    let agent = shared(Agent::new());
    let mut events = agent.start(with_pty(sh("stty raw -echo; echo ready; exec cat"), 80, 24)).await.unwrap();
    let pid = events.started().await;
    events.until("ready\n").await;
    let lines = numbered(100_000);
    // More than the log holds for a client that does not read: input, output and the log are all full by then.
    let input = agent.pty_in_background(pid, lines.clone());
    let mut seen = Vec::new();
    while seen.len() < lines.len() {
        seen.extend(events.pty_data().await);
    }
    input.await.unwrap().unwrap();
    assert!(seen == lines.as_bytes());
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
}

#[tokio::test]
async fn a_terminal_that_nobody_reads_from_holds_up_nothing_but_its_input() {
    let agent = shared(Agent::new());
    let script = "stty raw -echo; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut events = agent.start(with_pty(sh(script), 80, 24)).await.unwrap();
    let pid = events.started().await;
    events.until("ready\n").await;
    let mut first = Box::pin(agent.pty(pid, vec![b'x'; 1_000_000]));
    assert!(poll_immediate(&mut first).await.is_none());
    let second = agent.pty_in_background(pid, "y");
    agent.resize(pid, 132, 50).await.unwrap();
    events.until("50 132\n").await;
    assert_eq!(agent.list().await.len(), 1);
    let mut other = agent.connect(by_pid(pid)).await.unwrap();
    assert_eq!(other.started().await, pid);
    agent.resize(pid, 81, 25).await.unwrap();
    other.until("25 81\n").await;
    assert!(poll_immediate(&mut first).await.is_none());
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    let message = format!("error writing to tty: error writing to tty of process '{pid}': input/output error");
    assert_error(first.await, Code::Internal, &message);
    assert_error(second.await.unwrap(), Code::Internal, &message);
}

#[tokio::test]
async fn a_hundred_terminals_tell_everything_before_they_end() {
    let agent = Agent::new();
    for run in 0..100 {
        let script = "stty -opost; seq -w 1 25000; exit 7";
        let told = agent.start(with_pty(sh(script), 80, 24)).await.unwrap().all().await;
        assert_eq!((told.pty.len(), told.exit_code()), (150_000, 7), "run {run}");
        let seen = told.pty();
        assert!(seen.lines().enumerate().all(|(at, line)| line == format!("{:05}", at + 1)), "run {run}");
    }
}

#[tokio::test]
async fn what_a_killed_terminal_has_said_arrives_without_a_gap() {
    let agent = Agent::new();
    for run in 0..20 {
        let script = "stty -opost; exec seq -w 0 9999999";
        let mut events = agent.start(with_pty(sh(script), 80, 24)).await.unwrap();
        let pid = events.started().await;
        let mut seen = events.until("0000100\n").await;
        agent.signal(pid, 9).await.unwrap();
        let told = events.all().await;
        assert_eq!(told.status(), "signal: killed");
        seen.push_str(&told.pty());
        // The last line may be a part.
        let whole = seen.rsplit_once('\n').unwrap().0;
        assert!(whole.lines().enumerate().all(|(at, line)| line == format!("{at:07}")), "run {run}");
    }
}

#[tokio::test]
async fn a_terminal_keeps_what_nobody_has_seen_for_the_next_client() {
    let agent = Agent::new();
    let script = "stty -echo -opost; echo ready; read line; seq -w 1 50000; read line; exit 4";
    let mut events = agent.start(with_pty(sh(script), 80, 24)).await.unwrap();
    let pid = events.started().await;
    events.until("ready\n").await;
    drop(events);
    agent.pty(pid, "\n").await.unwrap();
    // Everything up to here is kept for one who comes later; how much that is does not matter.
    let mut events = agent.connect(by_pid(pid)).await.unwrap();
    assert_eq!(events.started().await, pid);
    let first = events.until("\n").await;
    drop(events);
    let mut events = agent.connect(by_pid(pid)).await.unwrap();
    assert_eq!(events.started().await, pid);
    let second = events.until("50000\n").await;
    agent.pty(pid, "\n").await.unwrap();
    assert_eq!(events.all().await.exit_code(), 4);
    let expected: String = (1..=50_000).map(|number| format!("{number:05}\n")).collect();
    assert!(first + &second == expected);
}

#[tokio::test]
async fn an_interactive_bash_has_job_control() {
    let agent = Agent::new();
    let bash = with_env(command("/bin/bash", &["--norc", "--noprofile", "-i"]), "PS1", "prompt> ");
    let mut events = agent.start(with_pty(with_env(bash, "TERM", "dumb"), 80, 24)).await.unwrap();
    let pid = events.started().await;
    let greeting = events.until("prompt> ").await;
    // bash says "cannot set terminal process group" and "no job control in this shell" otherwise.
    assert_eq!(greeting.trim(), "prompt>");
    // The arithmetic keeps the echo of the typed line apart from the answer. The program itself says that it is in
    // front: the shell hands over the terminal before it starts or continues a job. Not a shell, which may be stopped
    // inside of vfork(2), where nobody sees it stopped.
    let job = "python3 -c 'import os, signal, time; \
               signal.signal(signal.SIGCONT, lambda *_: os.write(1, b\"cont:%d\" % (2 + 2))); \
               os.write(1, b\"go:%d\" % (1 + 1)); [time.sleep(0.05) for _ in iter(int, 1)]'\n";
    agent.pty(pid, job).await.unwrap();
    events.until("go:2").await;
    agent.pty(pid, CTRL_Z).await.unwrap();
    events.until("Stopped").await;
    agent.pty(pid, "bg\n").await.unwrap();
    events.until("cont:4").await;
    agent
        .pty(pid, "echo running:$(jobs -r | grep -c python3); kill %1; wait; echo left:$(jobs -r | wc -l)\n")
        .await
        .unwrap();
    let seen = events.until("left:0").await;
    assert!(seen.contains("running:1\r\n"), "{seen}");
    agent.pty(pid, job).await.unwrap();
    events.until("go:2").await;
    agent.pty(pid, CTRL_Z).await.unwrap();
    events.until("Stopped").await;
    agent.pty(pid, "fg\n").await.unwrap();
    events.until("cont:4").await;
    agent.pty(pid, CTRL_C).await.unwrap();
    events.until("prompt> ").await;
    agent.pty(pid, "echo status:$?; jobs; exit 9\n").await.unwrap();
    let told = events.all().await;
    assert!(told.pty().contains("status:130\r\n"), "{}", told.pty());
    assert_eq!(told.exit_code(), 9);
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
    let script = "stat -c '%U %G %a' $(tty); echo by name > $(tty); ps -o tpgid= -p $$ | tr -d ' '; echo $$";
    let request = with_cwd(with_pty(sh(script), 80, 24), "/");
    let told = agent.start_as(request, &user).await.unwrap().all().await;
    let seen = told.pty();
    let lines: Vec<&str> = seen.lines().collect();
    // An unprivileged agent leaves the group as devpts was mounted.
    let group = if is_root() { "tty".to_owned() } else { lines[0].split(' ').nth(1).unwrap_or_default().to_owned() };
    assert_eq!(lines[..2], [format!("{user} {group} 620").as_str(), "by name"]);
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
