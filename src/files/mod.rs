//! Files: the filesystem service, uploads and downloads, watches.

pub mod path;
