//! The one place where module errors become wire errors.
//!
//! Modules below `server` define their errors with `thiserror`; here each one gets its code, and the message
//! that users see is its `Display` text.

mod auth;
mod caller;
mod filesystem;
pub mod http;
mod process;
mod transfer;
