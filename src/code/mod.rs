//! Code cells: the HTTP face of `kernel-bridge`.
//!
//! * [`service`]: what the port does, in terms of contexts and executions.
//! * `routes`: from a request to the service and back; every status and text that clients see.
//! * `request`, `answer`, `cors`: bodies in, short answers out, cross-origin rules.
//! * `stream`, `results`, `ndjson`, `timestamp`: an execution's events as lines.
//! * `kernels`, `bridge`: what is asked of whoever runs kernels, and the crate that does.
//!
//! Nothing here authenticates: access to this port is the platform's business. Code and the values of variables
//! never reach a log.

mod answer;
mod bridge;
mod cors;
mod kernels;
mod ndjson;
mod request;
mod results;
mod routes;
pub mod service;
mod stream;
mod timestamp;
mod workdir;

#[cfg(test)]
mod tests;

pub use service::{CodeService, Config};
