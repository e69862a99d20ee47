//! The assembled agent as clients meet it: every byte goes through a socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a failed expectation is the test's failure"
)]

mod agent;
mod code_port;
mod downloads;
mod edges;
mod extended_endings;
mod extremes;
mod feeding;
mod filesystem;
mod fuzz;
mod gate;
mod golden;
mod grpc;
#[path = "../process/gate.rs"]
mod hold;
mod http1;
mod input;
mod leaks;
mod listener;
mod mapping;
mod ownership;
mod privileges;
mod protocol;
mod selection;
mod signatures;
mod start;
#[path = "../process/stdin_pipe.rs"]
mod stdin_pipe;
mod stream;
mod streams;
mod uploads;
mod users;
mod volume;
mod watching;
