//! Files: the filesystem service, uploads and downloads, watches.
//!
//! Every operation runs with the agent's own rights; the user of a request decides what `~` and relative paths
//! mean and who owns what is created.

mod creation;
pub mod entry;
pub mod error;
mod legacy;
pub mod links;
mod listing;
pub mod metadata;
mod relocation;
mod removal;
mod service;
pub mod transfer;
pub mod watch;

pub use service::FilesystemService;
