//! Output: how fast what a command writes reaches a client, for each way to encode it, against a bare pump from the
//! same command's pipe into a socket. One round of each checks every byte.

use std::{
    env,
    io::BufRead,
    time::{Duration, Instant},
};

use benches::{sum::Sum, text::Text};

use crate::{
    agent::{Agent, program},
    costs::Costs,
    events::{Event, Events},
    h2,
    http::Client,
    messages::{Start, Wire},
    procfs::{Usage, print_state, reset_peak, resident_kib},
    pump::Pump,
};

const BYTES: u64 = 512 << 20;
/// With `--full`.
const FULL_BYTES: u64 = 1 << 30;
const ROUNDS: usize = 3;
/// On a machine that is busy otherwise: fewer rounds after this time.
const MOST: Duration = Duration::from_secs(30);

/// One way from the command to the client, and its figures.
struct Lane {
    wire: Wire,
    costs: Costs,
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
        let mut lanes =
            [Wire::Json, Wire::Proto, Wire::Grpc].map(|wire| Lane { wire, costs: Costs::default(), grown_kib: 0 });
        for lane in &lanes {
            assert_eq!(receive_and_check(&agent, &start, lane.wire), expected, "{kind} over {}", lane.wire.name());
        }
        let began = Instant::now();
        for round in 0..ROUNDS {
            if round > 0 && began.elapsed() > MOST {
                break;
            }
            for lane in &mut lanes {
                lane.round(&agent, &start, bytes);
            }
        }
        for lane in &lanes {
            lane.print(kind, bytes);
        }
    }
    print_state(agent.pid());
}

impl Lane {
    fn round(&mut self, agent: &Agent, start: &Start<'_>, bytes: u64) {
        let wire = self.wire;
        reset_peak(agent.pid());
        let resident = resident_kib(agent.pid()).0;
        self.costs.round(agent.pid(), bare(start, bytes), || {
            let began = Instant::now();
            let mut stream = begin(agent, start, wire);
            let (status, received) = Events::counting(wire).read_to_end(&mut *stream, |_| {});
            let elapsed = began.elapsed();
            assert_eq!((status.as_str(), received), ("exit status 0", bytes), "{}", wire.name());
            elapsed
        });
        self.grown_kib = self.grown_kib.max(resident_kib(agent.pid()).1.saturating_sub(resident));
    }

    fn print(&self, kind: &str, bytes: u64) {
        let what = format!("stdout: {} MiB of {kind}, {}", bytes >> 20, self.wire.name());
        let more = format!("; peak memory +{} KiB", self.grown_kib);
        self.costs.print(&what, "bare pump, pipe to socket", bytes, &more);
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

fn bare(start: &Start<'_>, bytes: u64) -> (Duration, Usage) {
    let began = Instant::now();
    let mut pump = Pump::start("out", start.program, start.arguments);
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
