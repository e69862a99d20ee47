//! Files: the filesystem service, uploads and downloads, watches.

pub mod metadata;
pub mod path;
