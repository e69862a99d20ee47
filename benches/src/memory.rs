//! Memory: the proportional set size (proc(5)) of an idle agent, and of one that has worked.

use std::{fs, thread, time::Duration};

use crate::{
    agent::Agent,
    http::{Client, start_request},
};

/// Threads that wait for work leave after a second.
const SETTLE: Duration = Duration::from_millis(1500);

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    thread::sleep(SETTLE);
    println!("{:34} {:7} KiB", "memory (PSS), idle after start-up", pss_kib(agent.pid()));
    for (command, arguments) in [("/bin/true", [].as_slice()), ("head", &["-c", "50000000", "/dev/zero"])] {
        for _ in 0..5 {
            let mut client = Client::connect(agent.port);
            client.send(&start_request(command, arguments));
            client.read_response(|_| {});
        }
    }
    thread::sleep(SETTLE);
    println!("{:34} {:7} KiB", "memory (PSS), idle after 10 commands", pss_kib(agent.pid()));
}

fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
