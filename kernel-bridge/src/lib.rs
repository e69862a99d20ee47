//! Jupyter kernels over ZeroMQ: launch, execute, interrupt, and one honest ending for every cell.
//!
//! The crate knows nothing about HTTP or the agent around it. It starts processes through a [`Spawner`] that
//! its user provides, so that whoever owns processes keeps owning them.
//!
//! # Layout
//!
//! * [`event`]: what an execution reports.
//! * [`spawner`]: the seam through which kernels are started and watched.
#![forbid(unsafe_code)]

pub mod event;
pub mod spawner;

pub use event::{Channel, Ending, ErrorReport, Event};
pub use spawner::{KernelCommand, KernelProcess, Spawner};
