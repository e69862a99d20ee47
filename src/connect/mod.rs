//! The Connect protocol over HTTP/1.1 and HTTP/2 for any `tonic` service.

use std::time::Duration;

use tokio::time::Instant;

/// When the caller stops waiting; put into the extensions of every request that came with a time limit
/// (`Connect-Timeout-Ms`, `grpc-timeout`).
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment the call expires.
    pub at: Instant,
    /// The limit as the client gave it, counted from the arrival of the request.
    pub limit: Duration,
}
