//! The process service as its clients see it, without a transport: every test calls the service's methods.
//!
//! Runs as whoever runs the tests; what needs root is skipped, with a word, for others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a failed expectation is the test's failure"
)]

#[path = "process/agent.rs"]
mod agent;
#[path = "process/details.rs"]
mod details;
#[path = "process/endings.rs"]
mod endings;
#[path = "process/faults.rs"]
mod faults;
#[path = "process/gate.rs"]
mod gate;
#[path = "process/groups.rs"]
mod groups;
#[path = "process/input.rs"]
mod input;
#[path = "process/kernels.rs"]
mod kernels;
#[path = "process/limits.rs"]
mod limits;
#[path = "process/output.rs"]
mod output;
#[path = "process/replay.rs"]
mod replay;
#[path = "process/resources.rs"]
mod resources;
#[path = "process/signals.rs"]
mod signals;
#[path = "process/spawning.rs"]
mod spawning;
#[path = "process/stdin_pipe.rs"]
mod stdin_pipe;
#[path = "process/terminals.rs"]
mod terminals;
