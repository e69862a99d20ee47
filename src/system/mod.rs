//! The machine around us: who its users are, what their paths mean, what the platform has set, its clock, its buffers
//! and its figures.

pub mod buffers;
pub mod caller;
pub mod cgroup;
pub mod clock;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod path;
pub mod runtime_dir;
pub mod settings;
