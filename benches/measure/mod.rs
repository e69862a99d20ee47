//! What the benches share: an agent of their own, samples and the line they print.
#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A running agent without kernels, ended on drop.
pub(crate) struct Agent {
    /// The port of its API on 127.0.0.1.
    pub(crate) port: u16,
    child: Child,
    kernels: PathBuf,
}

impl Agent {
    /// The command that serves the current user on two ports of 127.0.0.1.
    pub(crate) fn command(port: u16, code_port: u16, kernels: &Path) -> Command {
        let mut command = Command::new(env::var("ENVD_BINARY").unwrap());
        let user = env::var("USER").unwrap_or_else(|_| "root".to_owned());
        command.args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
        command.args(["--code-listen", &format!("tcp://127.0.0.1:{code_port}")]);
        command.args(["--user", &user, "--kernel-path"]).arg(kernels);
        command
    }

    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        let kernels = env::temp_dir().join(format!("envd-bench-{}", std::process::id()));
        fs::create_dir(&kernels).unwrap();
        let port = free_port();
        let mut command = Self::command(port, free_port(), &kernels);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !answers(port) {
            assert!(began.elapsed() < Duration::from_secs(20), "the agent does not answer on port {port}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { port, child, kernels }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir(&self.kernels);
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = [0; 12];
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"204")
}

/// Durations of one thing, measured several times.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The middle one, in microseconds.
    fn median_us(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).unwrap().as_secs_f64() * 1e6
    }
}

/// Prints the ratio of two medians.
pub(crate) fn report(what: &str, ours: &Samples, floor_name: &str, floor: &Samples) {
    let (a, b) = (ours.median_us(), floor.median_us());
    println!("{what:45} {a:9.0} µs | {floor_name}: {b:.0} µs | ratio {:.2}", a / b);
}
