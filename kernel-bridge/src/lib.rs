//! Jupyter kernels over ZeroMQ: launch, execute, interrupt, and one honest ending for every cell.
//!
//! The crate knows nothing about HTTP or the agent around it. It starts processes through a [`Spawner`] that
//! its user provides, so that whoever owns processes keeps owning them.
//!
//! A [`Bridge`] holds contexts. A [`Context`] is a language, a working directory, an environment and one queue;
//! it outlives its kernel process, which is replaced when it dies. An [`Execution`] is a stream of [`Event`]s
//! with exactly one [`Event::End`]; dropping it early interrupts running code.
//!
//! # Layout
//!
//! * [`event`]: what an execution reports.
//! * [`spawner`]: the seam through which kernels are started and watched.
//! * `bridge`, `context`: the registry and the handles; `worker`: the task behind each context.
//! * `cell`: the state of one request, without I/O; `outbox`: the bounded way to its client.
//! * `kernel`: one process from start to end; `connection`, `channels`, `wire`: its files, sockets, messages.
//! * [`date`]: dates as messages carry them.
//! * `kernelspec`: what is installed; `python`: what Python kernels get from us.
//!
//! # Limits
//!
//! A client that reads slowly holds back at most 64 MiB of output in this process, plus one message of any
//! size. Beyond that iopub is not read; the kernel's own queue (1,000 messages by ZeroMQ's default) is the next
//! stage, and what does not fit there is lost in the kernel. Idle contexts cause no wake-ups.
#![forbid(unsafe_code)]

mod bridge;
mod cell;
mod channels;
mod connection;
mod context;
pub mod date;
pub mod event;
mod kernel;
mod kernelspec;
mod outbox;
mod python;
pub mod spawner;
mod wire;
mod worker;

pub use bridge::{Bridge, Config, ContextError, CreateError};
pub use context::{Context, ContextRequest, ExecuteRequest};
pub use event::{Channel, Ending, ErrorReport, Event};
pub use kernelspec::{InterruptMode, KernelSpec};
pub use outbox::Execution;
pub use spawner::{KernelCommand, KernelProcess, Spawner};
