//! Input: calls of `SendInput` with 64 KiB each, one after the other, until a program has read all of it, against a
//! bare copy from a socket into the pipe of the same program.

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use crate::{
    agent::{Agent, program},
    base64,
    costs::Costs,
    events::{Event, Events},
    http::Client,
    messages::{Start, Wire, field, unary, unary_proto, varint},
    procfs::{Usage, print_state},
    pump::Pump,
};

const PIECE_BYTES: u64 = 64 * 1024;
const PIECES: u64 = 2048;
const ROUNDS: usize = 3;
/// On a machine that is busy otherwise: fewer rounds after this time.
const MOST: Duration = Duration::from_secs(20);

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let child = program("CHILD_BINARY");
    let piece: Vec<u8> = (0..=255).cycle().take(usize::try_from(PIECE_BYTES).unwrap()).collect();
    let mut lanes = [(Wire::Json, "JSON"), (Wire::Proto, "binary")].map(|lane| (lane, Costs::default()));
    let began = Instant::now();
    for round in 0..=ROUNDS {
        if round > 1 && began.elapsed() > MOST {
            break;
        }
        for ((wire, _), costs) in &mut lanes {
            let (floor, ours) = (bare(&child, &piece), || ours(&agent, &child, *wire, &piece));
            // The first round is the warm-up.
            if round == 0 {
                ours();
            } else {
                costs.round(agent.pid(), floor, ours);
            }
        }
    }
    for ((_, encoding), costs) in lanes {
        let what = format!("SendInput of 64 KiB, {encoding}");
        costs.print(&what, "bare copy, socket to pipe", PIECE_BYTES * PIECES, "");
    }
    print_state(agent.pid());
}

fn ours(agent: &Agent, child: &str, wire: Wire, piece: &[u8]) -> Duration {
    let (mut stream, mut input) = (Client::connect(agent.port), Client::connect(agent.port));
    stream.send(&Start { stdin: true, ..Start::command(child, &["sink"]) }.request(Wire::Json));
    stream.read_head();
    let mut events = Events::keeping(Wire::Json);
    let Event::Start(pid) = events.next(&mut stream) else { panic!("no start event") };
    let request = request(wire, pid, piece);

    let began = Instant::now();
    for _ in 0..PIECES {
        input.send(&request);
        input.read_response();
    }
    input.send(&unary("CloseStdin", &format!(r#"{{"process":{{"pid":{pid}}}}}"#)));
    input.read_response();
    let mut output = Vec::new();
    let (status, _) = events.read_to_end(&mut stream, |bytes| output.extend_from_slice(bytes));
    let elapsed = began.elapsed();
    assert_eq!(status, "exit status 0");
    check(&output);
    elapsed
}

fn request(wire: Wire, pid: u32, piece: &[u8]) -> Vec<u8> {
    if wire == Wire::Json {
        let encoded = base64::encode(piece);
        return unary("SendInput", &format!(r#"{{"process":{{"pid":{pid}}},"input":{{"stdin":"{encoded}"}}}}"#));
    }
    // Field 1, a varint.
    let mut selector = vec![8];
    varint(usize::try_from(pid).unwrap(), &mut selector);
    let mut message = field(1, &selector);
    message.extend(field(2, &field(1, piece)));
    unary_proto("SendInput", &message)
}

fn bare(child: &str, piece: &[u8]) -> (Duration, Usage) {
    let mut pump = Pump::start("in", child, &["sink"]);
    let began = Instant::now();
    for _ in 0..PIECES {
        pump.socket.write_all(piece).unwrap();
    }
    pump.socket.shutdown(Shutdown::Write).unwrap();
    let mut output = Vec::new();
    pump.socket.read_to_end(&mut output).unwrap();
    let elapsed = began.elapsed();
    check(&output);
    (elapsed, pump.finish())
}

/// What the program has counted.
fn check(output: &[u8]) {
    assert_eq!(String::from_utf8_lossy(output).trim(), (PIECE_BYTES * PIECES).to_string(), "bytes that arrived");
}
