//! What answers a request, and what stands in when that goes wrong.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures_util::FutureExt;
use http::{Request, Response};
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

    /// An error in the shape that the caller's protocol expects; `head` has the method, the URI, the version and
    /// the headers that tell the protocol. Also used for requests to plain routes.
    fn error(&self, head: &Request<()>, status: Status) -> Response<Body>;
}

/// What is left of a request for [`Procedures::error`] once the request itself has been handed on.
pub(super) fn head_of(request: &Request<Body>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    *head.version_mut() = request.version();
    // Payload-free: what a protocol is told from, and no credentials.
    for name in ["content-type", "connect-protocol-version", "accept-encoding", "connect-accept-encoding"] {
        for value in request.headers().get_all(name) {
            head.headers_mut().append(name, value.clone());
        }
    }
    head
}

/// Runs a handler so that a panic inside is its own request's failure only: `None`. The panic hook has logged it.
pub(super) async fn contain(reply: impl FnOnce() -> Reply) -> Option<Response<Body>> {
    // Nothing that the closure borrows is used again after a panic, except behind locks that shrug off poison.
    AssertUnwindSafe(async move { reply().await }).catch_unwind().await.ok()
}
