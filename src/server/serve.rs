//! From accepted connections to handlers: HTTP/1.1 and cleartext HTTP/2 on the same port, and the orderly end.

use std::{convert::Infallible, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{self, Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    begun::{Protocol, begin},
    errors::http::internal,
    handler::{SharedHandler, contain},
    listen::Listener,
    stream::Stream,
    unread,
};
use crate::Body;

/// The most header fields of one request. File metadata alone may come in 409 fields.
const MAX_HEADERS: usize = 512;

/// The most bytes of one request's header. hyper takes the same figure for what may wait on its way to the socket, which a
/// stalled client holds, and for the largest read of a body: as much as keeps a fast connection busy, and no more.
const MAX_HEADER_BYTES: u32 = 256 * 1024;

/// Requests at once on one HTTP/2 connection; an edge may carry all streams of a sandbox over one.
const MAX_STREAMS: u32 = 1024;

/// What an HTTP/2 client may send ahead, for a stream and for the connection: enough for fast uploads.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// How long to wait after the process ran out of file descriptors or memory; accepting again at once would spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// All open connections, over all listeners.
#[derive(Clone)]
pub struct Connections {
    builders: Arc<Builders>,
    tasks: TaskTracker,
    draining: CancellationToken,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Builders {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl Connections {
    /// None yet.
    pub fn new() -> Self {
        let mut http1 = http1::Builder::new();
        // No timer: hyper's limit for reading a header also runs while a kept-alive connection waits for its next
        // request, and proxies expect such connections to last ten minutes and more.
        http1.max_headers(MAX_HEADERS).max_buf_size(MAX_HEADER_BYTES as usize);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Self {
            builders: Arc::new(Builders { http1, http2 }),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts connections until [`Connections::drain`]; then the listener is closed. No error ends it.
    pub async fn accept(&self, listener: Listener, handler: SharedHandler) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.draining.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(stream) => drop(self.tasks.spawn(self.clone().serve(stream, handler.clone()))),
                Err(error) if concerns_one_connection(&error) => debug!(%error, "a client left before it was accepted"),
                Err(error) => {
                    warn!(%error, address = %listener.address(), "cannot accept connections for now");
                    time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    /// Stops accepting, lets every connection finish its requests, and cuts those that take longer than `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.draining.cancel();
        self.tasks.close();
        if time::timeout(limit, self.tasks.wait()).await.is_err() {
            debug!(connections = self.tasks.len(), "cutting connections");
        }
        self.cut.cancel();
    }

    /// Marks the start of the end: no more connections, no more requests on those that are open.
    pub fn stop(&self) {
        self.draining.cancel();
    }

    async fn serve(self, stream: Stream, handler: SharedHandler) {
        let begun = tokio::select! {
            begun = begin(stream) => begun,
            // Nothing was asked yet.
            () = self.draining.cancelled() => return,
        };
        let service = service_fn(move |request: Request<Incoming>| answer(handler.clone(), request));
        let outcome = match begun {
            Ok((Protocol::Http1, stream)) => {
                let connection = self.builders.http1.serve_connection(TokioIo::new(stream), service);
                self.carry(connection, http1::Connection::graceful_shutdown).await
            }
            Ok((Protocol::Http2, stream)) => {
                let connection = self.builders.http2.serve_connection(TokioIo::new(stream), service);
                self.carry(connection, http2::Connection::graceful_shutdown).await
            }
            Err(error) => return debug!(%error, "a connection ended before its first request"),
        };
        if let Err(error) = outcome {
            debug!(%error, "a connection ended early");
        }
    }

    /// Carries a connection to its end.
    async fn carry<C: Future<Output = hyper::Result<()>>>(
        &self,
        connection: C,
        shut_down: impl FnOnce(Pin<&mut C>),
    ) -> hyper::Result<()> {
        tokio::pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.draining.cancelled() => {
                shut_down(connection.as_mut());
                tokio::select! {
                    outcome = connection => outcome,
                    () = self.cut.cancelled() => Ok(()),
                }
            }
        }
    }
}

/// One request. A panic costs this request, not the connection, let alone the process.
async fn answer(handler: SharedHandler, request: Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let (request, unread) = unread::keep(request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = Instant::now();
    let response = contain(|| handler.call(request)).await.unwrap_or_else(internal);
    unread.read().await;
    // The path only: queries carry signatures.
    debug!(%method, path, status = response.status().as_u16(), ms = started.elapsed().as_millis(), "answered");
    Ok(response)
}

/// Whether accept(2) failed for a client's reason rather than for ours.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | PermissionDenied)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
