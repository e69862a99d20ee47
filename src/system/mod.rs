//! The machine around us: who its users are and what the platform has set.

pub mod caller;
pub mod identity;
pub mod settings;
