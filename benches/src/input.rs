//! Input: calls of `SendInput` with 64 KiB each, one after the other, until a program has read all of it, against a bare copy
//! from a socket into the pipe of the same program.

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use crate::{
    agent::{Agent, program},
    base64,
    events::{Event, Events},
    figures::{Pairs, print_cpu},
    http::Client,
    messages::{Start, Wire, field, unary, unary_proto, varint},
    procfs::{Usage, print_state},
    pump::Pump,
};

const PIECE_BYTES: u64 = 64 * 1024;
const PIECES: u64 = 2048;
const ROUNDS: u32 = 3;

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let child = program("CHILD_BINARY");
    let piece: Vec<u8> = (0..=255).cycle().take(usize::try_from(PIECE_BYTES).unwrap()).collect();
    let mut lanes = [Wire::Json, Wire::Proto].map(|wire| (wire, Pairs::default(), Usage::default(), Usage::default()));
    let mut pump = Usage::default();
    for round in 0..=ROUNDS {
        let (bare, used) = bare(&child, &piece);
        for (wire, pairs, agent_used, client_used) in &mut lanes {
            let before = (Usage::of(agent.pid()), Usage::of(std::process::id()));
            let ours = ours(&agent, &child, *wire, &piece);
            // The first round is the warm-up.
            if round > 0 {
                *agent_used += Usage::of(agent.pid()).since(before.0);
                *client_used += Usage::of(std::process::id()).since(before.1);
                pairs.push(ours, bare);
            }
        }
        if round > 0 {
            pump += used;
        }
    }
    let bytes = PIECE_BYTES * PIECES;
    for (wire, pairs, agent_used, client_used) in lanes {
        let encoding = if wire == Wire::Json { "JSON" } else { "binary" };
        pairs.print_speeds(&format!("SendInput of 64 KiB, {encoding}"), "bare copy, socket to pipe", bytes);
        print_cpu(bytes * u64::from(ROUNDS), agent_used, pump, client_used, "");
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
