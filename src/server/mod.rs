//! The door: listeners, HTTP, who may call, the route table.

pub mod errors;
