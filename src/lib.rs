//! The in-guest agent for AI sandboxes.
//!
//! # Layout
//!
//! * [`config`]: the command line as one checked struct.
//! * [`server`]: the door. Listeners, HTTP, who may call, the route table, errors to statuses.
//! * [`process`]: commands and terminals. The one place that forks, the one place that waits, the output log.
//! * [`files`]: the filesystem service, uploads and downloads, watches.
//! * [`code`]: code cells. The HTTP face of the `kernel-bridge` crate.
//! * [`connect`]: the Connect protocol for any `tonic` service; knows none of ours.
//! * [`system`]: users, settings and figures of the machine around us.
//! * [`sys`]: every unsafe block, each system call as one safe function.
//! * [`proto`]: messages and service traits generated from `proto/`.
//!
//! Dependencies point downwards only: services never import each other, `server` knows all services, `sys`
//! knows nobody.

pub mod code;
pub mod config;
pub mod connect;
pub mod files;
pub mod process;
pub mod proto;
pub mod server;
pub mod sys;
pub mod system;

/// That of the binary, for the library's own tests. Whoever uses the library chooses for himself.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: sys::blocks::Allocator = sys::blocks::Allocator;

/// The body of every HTTP request and response inside the agent: boxed, streamed, transport-agnostic.
pub type Body = tonic::body::Body;
