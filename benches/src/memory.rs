//! Memory: the proportional set size (proc(5)) of an idle agent, and of one that has worked.

use std::{thread, time::Duration};

use crate::{
    agent::Agent,
    events::Events,
    http::Client,
    messages::{Start, Wire},
    procfs::{pss_kib, threads},
};

/// Threads that wait for work leave after a second.
const SETTLE: Duration = Duration::from_millis(1500);

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    print("memory (PSS), idle after start-up", agent.pid());
    for (command, arguments) in [("/bin/true", [].as_slice()), ("head", &["-c", "50000000", "/dev/zero"])] {
        for _ in 0..5 {
            let mut client = Client::connect(agent.port);
            client.send(&Start::command(command, arguments).request(Wire::Json));
            client.read_head();
            Events::counting(Wire::Json).read_to_end(&mut client, |_| {});
        }
    }
    print("memory (PSS), idle after 10 commands", agent.pid());
}

fn print(what: &str, pid: u32) {
    thread::sleep(SETTLE);
    println!("{what:46} {:7} KiB   {} threads", pss_kib(pid), threads(pid));
}
