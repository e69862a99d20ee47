//! Latency: a command prints the time every millisecond; how late a client has it, against the same client behind a
//! bare pump.

use std::{io::Read, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    agent::{Agent, program},
    events::{Event, Events},
    figures::Pairs,
    http::Client,
    messages::{Start, Wire},
    procfs::print_state,
    pump::Pump,
};

const ROUNDS: usize = 2;
const LINES: &str = "1000";

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let child = program("CHILD_BINARY");
    let mut pairs = Pairs::default();
    for _ in 0..ROUNDS {
        pairs.extend(ours(&agent, &child), bare(&child));
    }
    pairs.print_times_and_tail("line every millisecond, print to arrival", "bare pump");
    print_state(agent.pid());
}

fn ours(agent: &Agent, child: &str) -> Vec<Duration> {
    let mut client = Client::connect(agent.port);
    client.send(&Start::command(child, &["stamps", LINES]).request(Wire::Json));
    client.read_head();
    let (mut events, mut stamps) = (Events::keeping(Wire::Json), Stamps::default());
    loop {
        match events.next(&mut client) {
            Event::Start(_) => {}
            Event::Data(_) => stamps.arrived(&events.output),
            Event::End(status) => assert_eq!(status, "exit status 0"),
            Event::Close => return stamps.finish(),
        }
    }
}

fn bare(child: &str) -> Vec<Duration> {
    let mut pump = Pump::start("out", child, &["stamps", LINES]);
    let (mut buffer, mut stamps) = (vec![0; 64 * 1024], Stamps::default());
    loop {
        match pump.socket.read(&mut buffer).unwrap() {
            0 => break,
            count => stamps.arrived(buffer.get(..count).unwrap()),
        }
    }
    pump.finish();
    stamps.finish()
}

/// Lines as they arrive, in whatever pieces.
#[derive(Default)]
struct Stamps {
    line: Vec<u8>,
    late: Vec<Duration>,
}

impl Stamps {
    fn arrived(&mut self, bytes: &[u8]) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let printed: u64 = str::from_utf8(&self.line).unwrap().parse().unwrap();
            self.late.push(Duration::from_nanos(now - printed));
            self.line.clear();
        }
    }

    fn finish(self) -> Vec<Duration> {
        assert_eq!(self.late.len().to_string(), LINES, "lines");
        self.late
    }
}
