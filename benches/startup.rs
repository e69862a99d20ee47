//! Start-up: from exec to the first `/health` answer, against the floor of `benches/floor.rs`, interleaved.
//!
//! `ENVD_BINARY` and `FLOOR_BINARY` name the programs; `make bench` sets both.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and a failure is its end")]

mod measure;

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use measure::{Agent, Samples, free_port};

const ROUNDS: usize = 41;
const LIMIT: Duration = Duration::from_secs(20);

/// Asks until somebody answers; the pause is far below what is measured.
fn first_answer(port: u16, began: Instant) -> Duration {
    loop {
        assert!(began.elapsed() < LIMIT, "no answer on port {port} within {LIMIT:?}");
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut answer = [0; 64];
            if asked.is_ok() && stream.read(&mut answer).is_ok_and(|count| count > 0) {
                assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
                return began.elapsed();
            }
        }
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn time(mut command: Command, port: u16) -> Duration {
    let began = Instant::now();
    let mut child: Child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let elapsed = first_answer(port, began);
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}

fn main() {
    let floor_binary = env::var("FLOOR_BINARY").unwrap();
    let kernels = env::temp_dir().join(format!("envd-bench-{}", std::process::id()));
    fs::create_dir(&kernels).unwrap();
    let (mut agent, mut floor) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let port = free_port();
        let mut command = Command::new(&floor_binary);
        command.arg(port.to_string());
        let bare = time(command, port);
        let port = free_port();
        let ours = time(Agent::command(port, free_port(), Path::new(&kernels)), port);
        // The first round warms the page cache.
        if round > 0 {
            floor.push(bare);
            agent.push(ours);
        }
    }
    fs::remove_dir(&kernels).unwrap();
    measure::report("start-up: exec to first /health answer", &agent, "static do-nothing program", &floor);
}
