//! Request bodies that nobody wants.
//!
//! An HTTP/1.1 connection whose request was not read to its end has to be closed, and a client that is still sending
//! may then see a reset in place of the answer. So a short rest is read and forgotten before the answer leaves.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{sync::oneshot, time};

use crate::Body;

/// The largest body that is read for politeness only, in bytes; a longer one ends the connection.
const MAX_BYTES: u64 = 256 << 10;

/// How long the client may take to send it.
const LIMIT: Duration = Duration::from_secs(1);

/// The rest of a request body, once its handler has dropped it.
pub(super) struct Unread(Option<oneshot::Receiver<Incoming>>);

/// The request for its handler, and what may be left of it.
pub(super) fn keep(request: Request<Incoming>) -> (Request<Body>, Unread) {
    if !is_polite(&request) {
        return (request.map(Body::new), Unread(None));
    }
    let (back, unread) = oneshot::channel();
    let request = request.map(|body| Body::new(Kept { body: Some(body), back: Some(back) }));
    (request, Unread(Some(unread)))
}

/// Whether the rest of the body would be read: it is known to be short, and the client does not wait to be asked for
/// it. HTTP/2 ends one stream without the connection.
fn is_polite(request: &Request<Incoming>) -> bool {
    let length = content_length(request.headers());
    request.version() < Version::HTTP_2
        && length.is_some_and(|length| (1..=MAX_BYTES).contains(&length))
        && !request.headers().contains_key(header::EXPECT)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Unread {
    /// Reads what the handler has left, within limits.
    pub(super) async fn read(self) {
        let Some(mut body) = self.0.and_then(|mut unread| unread.try_recv().ok()) else { return };
        let rest = async { while matches!(body.frame().await, Some(Ok(_))) {} };
        // A client that is too slow loses its connection, nothing else.
        let _ = time::timeout(LIMIT, rest).await;
    }
}

/// A body that goes back when it is dropped before its end.
struct Kept {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            // Nobody takes it back where the answer has left already.
            drop(back.send(body));
        }
    }
}
