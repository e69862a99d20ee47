//! The Connect layer seen from outside the crate: a service of its own, driven with raw requests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a failed expectation is the test's failure"
)]

mod client;
mod compression;
mod errors;
mod framing;
mod malice;
mod mapping;
mod negotiation;
mod service;
mod streams;
mod timeouts;
mod unary;
