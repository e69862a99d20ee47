//! Output: how fast what a command writes reaches a client as JSON, against a bare pump from the same command's pipe
//! into a socket.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::Agent,
    figures::Pairs,
    http::{Client, start_request},
};

const BYTES: u64 = 200 << 20;
const ROUNDS: usize = 5;

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let mut client = Client::connect(agent.port);
    let count = BYTES.to_string();
    let arguments = ["-c", count.as_str(), "/dev/zero"];
    let request = start_request("head", &arguments);
    let mut pairs = Pairs::default();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        client.send(&request);
        let received = client.read_response(|_| {});
        let ours = began.elapsed();
        assert!(received > BYTES / 3 * 4, "only {received} bytes of JSON");
        pairs.push(ours, bare(&arguments));
    }
    pairs.print_speeds("output of a command as JSON", "bare pump, pipe to socket", BYTES);
}

fn bare(arguments: &[&str]) -> Duration {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let began = Instant::now();
    let mut child = Command::new("head").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let pump = thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match pipe.read(&mut buffer).unwrap() {
                0 => return,
                count => server.write_all(buffer.get(..count).unwrap()).unwrap(),
            }
        }
    });
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        match client.read(&mut buffer).unwrap() {
            0 => break,
            count => received += u64::try_from(count).unwrap(),
        }
    }
    pump.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(received, BYTES);
    began.elapsed()
}
