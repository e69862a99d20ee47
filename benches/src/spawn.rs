//! Spawn: `/bin/true` through `Start` on one kept-alive connection, against a bare spawn and wait.

use std::{process::Command, time::Instant};

use crate::{
    agent::{Agent, quiet},
    figures::Pairs,
    http::{Client, start_request},
};

const ROUNDS: usize = 400;
const WARM_UP: usize = 40;

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let mut client = Client::connect(agent.port);
    let request = start_request("/bin/true", &[]);
    let mut pairs = Pairs::default();
    let mut body = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        body.clear();
        let began = Instant::now();
        client.send(&request);
        client.read_response(|piece| body.extend_from_slice(piece));
        let ours = began.elapsed();
        assert!(String::from_utf8_lossy(&body).contains("exit status 0"), "{}", String::from_utf8_lossy(&body));

        let began = Instant::now();
        assert!(quiet(&mut Command::new("/bin/true")).status().unwrap().success());
        let bare = began.elapsed();
        if round >= WARM_UP {
            pairs.push(ours, bare);
        }
    }
    pairs.print_times("spawn: /bin/true through Start", "bare spawn and wait");
}
