//! Messages and service traits generated from `proto/` at build time.

pub mod json_bytes;
pub mod json_enum;
pub mod timestamp;

/// `process.Process`: programs and terminals.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod process {
    include!(concat!(env!("OUT_DIR"), "/process.rs"));
    include!(concat!(env!("OUT_DIR"), "/process.serde.rs"));
}

/// `filesystem.Filesystem`: entries and watches.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod filesystem {
    include!(concat!(env!("OUT_DIR"), "/filesystem.rs"));
    include!(concat!(env!("OUT_DIR"), "/filesystem.serde.rs"));
}
