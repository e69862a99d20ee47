//! What moving bytes costs: time and processor time, of the agent, of its floor and of the client.

use std::{process, time::Duration};

use crate::{
    figures::{Pairs, mebibytes},
    procfs::Usage,
};

/// Rounds that each move the same number of bytes.
#[derive(Default)]
pub(crate) struct Costs {
    times: Pairs,
    rounds: u64,
    agent: Usage,
    pump: Usage,
    client: Usage,
}

impl Costs {
    /// Adds a round. The floor comes right before: on a machine that others use as well, a second later is another
    /// time.
    pub(crate) fn round(&mut self, agent: u32, floor: (Duration, Usage), ours: impl FnOnce() -> Duration) {
        let (before, client_before) = (Usage::of(agent), Usage::of(process::id()));
        self.times.push(ours(), floor.0);
        self.agent += Usage::of(agent).since(before);
        self.client += Usage::of(process::id()).since(client_before);
        self.pump += floor.1;
        self.rounds += 1;
    }

    /// Prints the speeds, and then for each GiB processor time, page faults, and how often threads gave way. `bytes`
    /// were moved in each round.
    pub(crate) fn print(&self, what: &str, floor: &str, bytes: u64, more: &str) {
        self.times.print_speeds(what, floor, bytes);
        let gibibytes = mebibytes(bytes * self.rounds) / 1024.0;
        let seconds = |usage: Usage| usage.cpu.as_secs_f64() / gibibytes;
        let count = |count: u64| f64::from(u32::try_from(count).unwrap()) / gibibytes;
        let (agent, pump) = (self.agent, self.pump);
        println!(
            "    for 1 GiB: CPU {:.2} s (pump {:.2}, ratio {:.2}; client {:.2}); faults {:.0}; switches {:.0} (pump {:.0}){more}",
            seconds(agent),
            seconds(pump),
            seconds(agent) / seconds(pump),
            seconds(self.client),
            count(agent.faults),
            count(agent.switches),
            count(pump.switches),
        );
    }
}
