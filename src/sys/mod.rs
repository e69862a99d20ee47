//! The basement: every unsafe block of the agent, each system call as one safe function.
//!
//! Nothing here knows about services, users or the wire.
#![allow(unsafe_code, reason = "this is the one module that may; each block carries its SAFETY comment")]

pub mod blocks;
pub mod descriptor;
pub mod signal;
pub mod spawn;
pub mod wait;
