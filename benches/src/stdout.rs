//! Output: how fast what a command writes reaches a client, for each way to encode it, against a bare pump from the same
//! command's pipe into a socket. One round of each checks every byte.

use std::{
    env,
    io::BufRead,
    process::id,
    time::{Duration, Instant},
};

use benches::{sum::Sum, text::Text};

use crate::{
    agent::{Agent, program},
    events::{Event, Events},
    figures::{Pairs, print_cpu},
    h2,
    http::Client,
    messages::{Start, Wire},
    procfs::{Usage, print_state, reset_peak, resident_kib},
    pump::Pump,
};

const BYTES: u64 = 512 << 20;
/// With `--full`.
const FULL_BYTES: u64 = 1 << 30;
const ROUNDS: u64 = 3;

/// One way from the command to the client, and its figures.
struct Lane {
    wire: Wire,
    times: Pairs,
    agent: Usage,
    client: Usage,
    grown_kib: u64,
}

/// Measures and prints.
pub(crate) fn run() {
    let bytes = if env::args().any(|argument| argument == "--full") { FULL_BYTES } else { BYTES };
    let agent = Agent::start();
    let (count, child) = (bytes.to_string(), program("CHILD_BINARY"));
    let kinds: [(&str, &str, &[&str], Sum); 2] = [
        ("zeros", "head", &["-c", &count, "/dev/zero"], zeros(bytes)),
        ("text", &child, &["text", &count], text(bytes)),
    ];
    for (kind, program, arguments, expected) in kinds {
        let start = Start::command(program, arguments);
        let mut pump = Usage::default();
        let mut lanes = [Wire::Json, Wire::Proto, Wire::Grpc].map(|wire| Lane {
            wire,
            times: Pairs::default(),
            agent: Usage::default(),
            client: Usage::default(),
            grown_kib: 0,
        });
        for lane in &lanes {
            assert_eq!(receive_and_check(&agent, &start, lane.wire), expected, "{kind} over {}", lane.wire.name());
        }
        for _ in 0..ROUNDS {
            let (bare, used) = bare(program, arguments, bytes);
            pump += used;
            for lane in &mut lanes {
                lane.round(&agent, &start, bytes, bare);
            }
        }
        for lane in &lanes {
            lane.print(kind, bytes, pump);
        }
    }
    print_state(agent.pid());
}

impl Lane {
    fn round(&mut self, agent: &Agent, start: &Start<'_>, bytes: u64, bare: Duration) {
        reset_peak(agent.pid());
        let (before, client_before) = (Usage::of(agent.pid()), Usage::of(id()));
        let resident = resident_kib(agent.pid()).0;
        let began = Instant::now();
        let mut stream = begin(agent, start, self.wire);
        let (status, received) = Events::counting(self.wire).read_to_end(&mut *stream, |_| {});
        self.times.push(began.elapsed(), bare);
        assert_eq!((status.as_str(), received), ("exit status 0", bytes), "{}", self.wire.name());
        self.agent += Usage::of(agent.pid()).since(before);
        self.client += Usage::of(id()).since(client_before);
        self.grown_kib = self.grown_kib.max(resident_kib(agent.pid()).1.saturating_sub(resident));
    }

    fn print(&self, kind: &str, bytes: u64, pump: Usage) {
        let size = bytes >> 20;
        let what = format!("stdout: {size} MiB of {kind}, {}", self.wire.name());
        self.times.print_speeds(&what, "bare pump, pipe to socket", bytes);
        let more = format!("; peak memory +{} KiB", self.grown_kib);
        print_cpu(bytes * ROUNDS, self.agent, pump, self.client, &more);
    }
}

/// Calls `Start` on a new connection.
fn begin(agent: &Agent, start: &Start<'_>, wire: Wire) -> Box<dyn BufRead> {
    if wire == Wire::Grpc {
        let mut client = h2::Client::connect(agent.port);
        client.call("Start", &start.message(wire));
        return Box::new(client);
    }
    let mut client = Client::connect(agent.port);
    client.send(&start.request(wire));
    client.read_head();
    Box::new(client)
}

fn receive_and_check(agent: &Agent, start: &Start<'_>, wire: Wire) -> Sum {
    let (mut stream, mut events, mut sum) = (begin(agent, start, wire), Events::keeping(wire), Sum::default());
    loop {
        match events.next(&mut *stream) {
            Event::Start(_) => {}
            Event::Data(_) => sum.add(&events.output),
            Event::End(status) => assert_eq!(status, "exit status 0"),
            Event::Close => return sum,
        }
    }
}

fn bare(program: &str, arguments: &[&str], bytes: u64) -> (Duration, Usage) {
    let began = Instant::now();
    let mut pump = Pump::start("out", program, arguments);
    assert_eq!(pump.drain(), bytes);
    let elapsed = began.elapsed();
    (elapsed, pump.finish())
}

fn zeros(bytes: u64) -> Sum {
    let (piece, mut sum) = (vec![0; 64 * 1024], Sum::default());
    for _ in 0..bytes / (64 * 1024) {
        sum.add(&piece);
    }
    sum
}

fn text(bytes: u64) -> Sum {
    let (mut text, mut sum) = (Text::new(bytes), Sum::default());
    while let Some(block) = text.next_block() {
        sum.add(block);
    }
    sum
}
