//! Start-up: from exec to the first `/health` answer, against a static program that does nothing but answer.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    agent::{EmptyFolder, command, first_answer, free_port, program, quiet},
    figures::Pairs,
};

const ROUNDS: usize = 60;

/// Measures and prints.
pub(crate) fn run() {
    let floor = program("FLOOR_BINARY");
    let kernels = EmptyFolder::create();
    let mut pairs = Pairs::default();
    for round in 0..=ROUNDS {
        let port = free_port();
        let bare = time(Command::new(&floor).arg(port.to_string()), port);
        let port = free_port();
        let ours = time(&mut command(port, kernels.path()), port);
        // The first round warms the page cache.
        if round > 0 {
            pairs.push(ours, bare);
        }
    }
    pairs.print_times("start-up to first /health answer", "static program that only answers");
}

fn time(command: &mut Command, port: u16) -> Duration {
    let began = Instant::now();
    let mut child = quiet(command).spawn().unwrap();
    let elapsed = first_answer(port, began);
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}
