//! The command as people and platforms run it: output, exit status, signals.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed expectation is the test's failure")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

fn envd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_envd"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    envd(arguments).output().unwrap()
}

/// An agent on a free port and a socket file, with the address of the port.
fn start(socket: &Path) -> (Child, BufReader<ChildStderr>, String) {
    start_through(envd(&[]), socket)
}

/// The same with a command that becomes the agent once it has the arguments.
fn start_through(mut command: Command, socket: &Path) -> (Child, BufReader<ChildStderr>, String) {
    let unix = format!("unix:{}", socket.display());
    let arguments =
        ["-isnotfc", "--log", "error", "--kernel-path", "/nonexistent", "--listen", "tcp://127.0.0.1:0", "--listen"];
    command.args(arguments).args([&unix, "--code-listen", "tcp://127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.ends_with(" (code)\n")) {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the agent ended: {lines:?}");
        lines.push(line);
    }
    let (_, first) = lines[0].split_once("listening on tcp://").unwrap();
    let address = first.strip_suffix(" (agent)\n").unwrap().to_owned();
    assert!(lines[1].ends_with(&format!("listening on {unix} (agent)\n")), "{lines:?}");
    (child, log, address)
}

#[test]
fn the_version_is_all_that_is_printed() {
    for flag in ["-version", "--version"] {
        let output = run(&[flag]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"0.6.13\n"[..]));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_wrong_command_line_is_status_64_and_one_line() {
    let output = run(&["--bogus"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("envd: unknown option '--bogus'; ") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_taken_address_is_status_1_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    let output = run(&["--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with(&format!("envd: cannot listen on {address}: ")) && text.lines().count() == 1, "{text}");
}

#[test]
fn an_empty_umask_is_replaced_and_a_chosen_one_kept() {
    for (given, kept) in [("0", "0022"), ("077", "0077")] {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("umask {given}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_envd")]);
        let (mut child, _log, _address) = start_through(shell, &dir.path().join("agent.sock"));
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let runtime_dir = runtime_dir(child.id());
        let mode = fs::metadata(&runtime_dir).unwrap().permissions().mode();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        assert!(status.contains(&format!("Umask:\t{kept}\n")), "{status}");
        assert_eq!(mode & 0o777, 0o711, "kernels of other users must get through");
        assert!(!runtime_dir.exists());
    }
}

/// Where the agent with this pid keeps its sockets. An earlier one with the same pid may have left its own behind.
fn runtime_dir(pid: u32) -> PathBuf {
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = [Some(PathBuf::from("/run")), own, Some(env::temp_dir())].into_iter().flatten();
    let names = std::iter::once(format!("envd-{pid}")).chain((1..100).map(|attempt| format!("envd-{pid}-{attempt}")));
    let names: Vec<String> = names.collect();
    let dirs = places.flat_map(|place| names.iter().map(move |name| place.join(name)).collect::<Vec<_>>());
    dirs.filter(|dir| dir.exists()).max_by_key(|dir| fs::metadata(dir).unwrap().modified().unwrap()).unwrap()
}

#[test]
fn both_signals_end_it_with_status_0_and_take_the_socket_file_along() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let (mut child, mut log, address) = start(&socket);
        assert!(socket.exists());
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 204");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal:?}");
        assert!(!socket.exists());
        assert!(TcpStream::connect(&address).is_err());
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("panicked"), "{rest}");
    }
}
