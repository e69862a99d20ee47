//! The file routes, driven in-process with raw requests on temporary directories.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a failed expectation is the test's failure"
)]

mod compose;
mod download;
mod fixture;
mod full_disk;
mod upload;
