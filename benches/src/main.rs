//! The agent's costs, each as a ratio against a floor that is measured in the same run, round by round in turn.
//!
//! `ENVD_BINARY`, `FLOOR_BINARY`, `PUMP_BINARY` and `CHILD_BINARY` name the programs; `benches/run` sets all of them.
//! Arguments name the benches to run, all without any; `--full` moves 1 GiB of output where half of it is the rule.
//! Medians are printed, nothing is a gate: the status only says whether every byte and every status was right.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench prints, and a failure is its end")]

mod agent;
mod base64;
mod copy;
mod costs;
mod echo;
mod events;
mod figures;
mod files;
mod h2;
mod http;
mod idle;
mod input;
mod memory;
mod messages;
mod procfs;
mod pump;
mod spawn;
mod stamps;
mod startup;
mod stdout;

const BENCHES: [(&str, fn()); 9] = [
    ("startup", startup::run),
    ("spawn", spawn::run),
    ("stdout", stdout::run),
    ("stamps", stamps::run),
    ("echo", echo::run),
    ("input", input::run),
    ("idle", idle::run),
    ("files", files::run),
    ("memory", memory::run),
];

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--full").collect();
    for name in &wanted {
        assert!(BENCHES.iter().any(|(bench, _)| bench == name), "no bench is called {name}: {}", names());
    }
    for (name, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}

fn names() -> String {
    BENCHES.map(|(name, _)| name).join(", ")
}
