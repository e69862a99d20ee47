//! The agent's costs, each as a ratio against a floor that is measured in the same run, round by round in turn.
//!
//! `ENVD_BINARY` and `FLOOR_BINARY` name the programs; `make bench` sets both. Arguments name the benches to run, all without any. Medians are
//! printed, nothing is a gate.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and a failure is its end")]

mod agent;
mod figures;
mod files;
mod http;
mod memory;
mod output;
mod spawn;
mod startup;

fn main() {
    let benches: [(&str, fn()); 5] = [
        ("startup", startup::run),
        ("spawn", spawn::run),
        ("output", output::run),
        ("files", files::run),
        ("memory", memory::run),
    ];
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    for (name, run) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}
