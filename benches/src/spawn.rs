//! Spawn: how long `Start` takes on one kept-alive connection, to the start event and to the end of the stream, against
//! a bare spawn and wait; and how many a second there are with several clients.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::{Agent, quiet},
    events::{Event, Events},
    figures::Pairs,
    http::Client,
    messages::{Start, Wire},
    procfs::print_state,
};

const ROUNDS: usize = 400;
const SHELL_ROUNDS: usize = 100;
const RATE_ROUNDS: usize = 5;
/// Spawns of all clients together in a round.
const RATE_SPAWNS: u32 = 320;

const FLOOR: &str = "bare spawn and wait";

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let (starts, ends) = times(&agent, &Start::command("/bin/true", &[]), ROUNDS);
    starts.print_times_and_tail("spawn: /bin/true, to the start event", FLOOR);
    ends.print_times_and_tail("spawn: /bin/true, to the end", FLOOR);
    // Without a home, so that only the system's profile is read and not whatever somebody wrote into their own.
    let environment = &[("HOME", "/nonexistent")];
    let shell = Start { environment, ..Start::command("/bin/bash", &["-lc", "true"]) };
    times(&agent, &shell, SHELL_ROUNDS).1.print_times_and_tail("spawn: bash -lc true, to the end", FLOOR);
    for clients in [1, 8, 64] {
        rates(&agent, clients);
    }
    print_state(agent.pid());
}

/// Times to the start event and to the end of the stream, both beside those of a bare spawn.
fn times(agent: &Agent, start: &Start<'_>, rounds: usize) -> (Pairs, Pairs) {
    let mut client = Client::connect(agent.port);
    let request = start.request(Wire::Json);
    let (mut starts, mut ends) = (Pairs::default(), Pairs::default());
    let warm_up = rounds / 10;
    for round in 0..warm_up + rounds {
        let (started, ended) = time(&mut client, &request);
        let began = Instant::now();
        bare(start);
        let floor = began.elapsed();
        if round >= warm_up {
            starts.push(started, floor);
            ends.push(ended, floor);
        }
    }
    (starts, ends)
}

/// One `Start`: the time to the start event, and to the end of the stream.
pub(crate) fn time(client: &mut Client, request: &[u8]) -> (Duration, Duration) {
    let mut events = Events::counting(Wire::Json);
    let began = Instant::now();
    client.send(request);
    client.read_head();
    let first = events.next(client);
    let started = began.elapsed();
    assert!(matches!(first, Event::Start(_)), "{first:?}");
    let (status, _) = events.read_to_end(client, |_| {});
    let ended = began.elapsed();
    assert_eq!(status, "exit status 0");
    (started, ended)
}

/// The same program without an agent, with what the agent gives it of an environment.
fn bare(start: &Start<'_>) {
    let mut command = Command::new(start.program);
    command.args(start.arguments).env_clear();
    command.envs(["PATH", "HOME", "USER", "LOGNAME"].map(|name| (name, std::env::var(name).unwrap_or_default())));
    command.envs(start.environment.iter().copied());
    assert!(quiet(&mut command).status().unwrap().success());
}

fn rates(agent: &Agent, clients: u32) {
    let start = Start::command("/bin/true", &[]);
    let request = start.request(Wire::Json);
    let mut kept: Vec<_> = (0..clients).map(|_| Client::connect(agent.port)).collect();
    let mut pairs = Pairs::default();
    for round in 0..=RATE_ROUNDS {
        let began = Instant::now();
        thread::scope(|scope| {
            for client in &mut kept {
                scope.spawn(|| (0..RATE_SPAWNS / clients).for_each(|_| _ = time(client, &request)));
            }
        });
        let ours = began.elapsed();
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| (0..RATE_SPAWNS / clients).for_each(|_| bare(&start)));
            }
        });
        // The first round is the warm-up.
        if round > 0 {
            pairs.push(ours, began.elapsed());
        }
    }
    pairs.print_rates(
        &format!("spawns a second, clients: {clients}"),
        &format!("bare, threads: {clients}"),
        RATE_SPAWNS,
    );
}
