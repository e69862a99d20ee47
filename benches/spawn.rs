//! Spawn: `/bin/true` through `Start` on one kept-alive connection, against a bare spawn and wait, interleaved.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and a failure is its end")]

mod measure;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use measure::{Agent, Samples};

const ROUNDS: usize = 400;
const WARM_UP: usize = 40;

/// `Start` of `/bin/true` as one envelope of a Connect stream with JSON.
fn request() -> Vec<u8> {
    let message = br#"{"process":{"cmd":"/bin/true"},"stdin":false}"#;
    let mut envelope = vec![0];
    envelope.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    envelope.extend(message);
    let mut request = format!(
        "POST /process.Process/Start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+json\r\n\
         Connect-Protocol-Version: 1\r\nContent-Length: {}\r\n\r\n",
        envelope.len()
    )
    .into_bytes();
    request.extend(envelope);
    request
}

/// Reads a chunked response to its last chunk and returns the body.
fn read_response(reader: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let mut body = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(chunk.get(..size).unwrap());
    }
}

fn bare() -> Duration {
    let began = Instant::now();
    let mut command = Command::new("/bin/true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    began.elapsed()
}

fn main() {
    let agent = Agent::start();
    let stream = TcpStream::connect(("127.0.0.1", agent.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let request = request();

    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + ROUNDS {
        let began = Instant::now();
        writer.write_all(&request).unwrap();
        let body = read_response(&mut reader);
        let elapsed = began.elapsed();
        assert!(String::from_utf8_lossy(&body).contains("exit status 0"), "{}", String::from_utf8_lossy(&body));
        let direct = bare();
        if round >= WARM_UP {
            ours.push(elapsed);
            floor.push(direct);
        }
    }
    drop(agent);
    measure::report("spawn: /bin/true through Start", &ours, "bare spawn and wait", &floor);
}
