//! What answers a request, and what stands in when that goes wrong.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, Request, Response, header};
use tonic::Status;

use crate::Body;

/// A response on its way.
pub type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Anything that answers requests; every async function from request to response does.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Errors are responses, too.
    fn call(&self, request: Request<Body>) -> Reply;
}

/// A handler that many connections share.
pub type SharedHandler = Arc<dyn Handler>;

impl<F, R> Handler for F
where
    F: Fn(Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    fn call(&self, request: Request<Body>) -> Reply {
        Box::pin(self(request))
    }
}

/// The remote procedures behind the plain routes, in whatever protocols they are served.
pub trait Procedures: Send + Sync + 'static {
    /// Whether there is a procedure under this path.
    fn has(&self, path: &str) -> bool;

    /// Calls the procedure under the path of the request, which must be one that [`Procedures::has`] names.
    fn call(&self, request: Request<Body>) -> Reply;

    /// An error in the shape that the caller's protocol expects, which the headers of its request tell. Also used for
    /// requests to plain routes.
    fn error(&self, headers: &HeaderMap, status: Status) -> Response<Body>;
}

/// The headers that tell a protocol, kept for [`Procedures::error`] when the request itself is handed on.
pub(super) fn protocol_headers(headers: &HeaderMap) -> HeaderMap {
    let tell = |name: &HeaderName| *name == header::CONTENT_TYPE || name.as_str().starts_with("connect-");
    headers.iter().filter(|(name, _)| tell(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Runs a handler so that a panic inside is its own request's failure only: `None`. The panic hook has logged it.
pub(super) async fn contain(reply: impl FnOnce() -> Reply) -> Option<Response<Body>> {
    // Nothing that the closure borrows is used again after a panic, except behind locks that shrug off poison.
    AssertUnwindSafe(async move { reply().await }).catch_unwind().await.ok()
}
