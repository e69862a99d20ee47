//! The body of an enveloped response.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, metadata::MetadataMap};

use super::{
    codec::{Encodable, WriteJson, encode},
    content_type::Codec,
    error::ProtocolError,
    error_wire::end_of_stream,
    frame::FrameWriter,
    timeout::Deadline,
};

/// One body frame for each message of a handler's stream, so that each leaves at once, then the end-of-stream
/// frame. Dropping the body drops the handler's stream.
pub(super) struct Messages<S, M> {
    stream: Option<Pin<Box<S>>>,
    deadline: Option<Pin<Box<Sleep>>>,
    writer: FrameWriter,
    codec: Codec,
    write_json: WriteJson<M>,
    trailers: MetadataMap,
}

impl<S, M> Messages<S, M> {
    pub(super) fn new(
        stream: S,
        deadline: Option<Deadline>,
        writer: FrameWriter,
        codec: Codec,
        write_json: WriteJson<M>,
        trailers: MetadataMap,
    ) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline.at)));
        Self { stream: Some(Box::pin(stream)), deadline, writer, codec, write_json, trailers }
    }

    fn end(&mut self, failure: Option<&Status>) -> Bytes {
        self.stream = None;
        self.deadline = None;
        self.writer.end(&end_of_stream(failure, std::mem::take(&mut self.trailers)))
    }
}

impl<S, M> Body for Messages<S, M>
where
    S: Stream<Item = Result<M, Status>>,
    M: Encodable,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        // The clock comes first: a stream that always has something to say must end too, and while it says it
        // the timer may get no chance to fire.
        let expired = this
            .deadline
            .as_mut()
            .is_some_and(|sleep| sleep.deadline() <= Instant::now() || sleep.as_mut().poll(cx).is_ready());
        let next = if expired {
            // Asked once more, a stream knows that what it gave before is on its way. It is not heard.
            let _unheard = stream.as_mut().poll_next(cx);
            Poll::Ready(Some(Err(ProtocolError::DeadlineExceeded.into())))
        } else {
            stream.as_mut().poll_next(cx)
        };
        let (codec, write_json) = (this.codec, this.write_json);
        let frame = match next {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => this
                .writer
                .message(|out| encode(codec, &message, write_json, out))
                .unwrap_or_else(|error| this.end(Some(&error.into()))),
            Poll::Ready(Some(Err(status))) => this.end(Some(&status)),
            Poll::Ready(None) => this.end(None),
        };
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }
}

// Nothing is pinned in place: what needs it is boxed.
impl<S, M> Unpin for Messages<S, M> {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::{super::compression::Encoding, *};

    /// The process service takes the question for the receipt of what came before.
    #[tokio::test]
    async fn a_stream_whose_time_is_up_is_asked_once_more_and_not_heard() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let messages = stream::poll_fn(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Some(Ok(())))
        });
        let deadline = Deadline { at: Instant::now(), limit: Duration::ZERO };
        let writer = FrameWriter::new(Encoding::Identity);
        let body = Messages::new(messages, Some(deadline), writer, Codec::Proto, |(), _| Ok(()), MetadataMap::new());
        let told = body.collect().await.unwrap().to_bytes();
        assert_eq!(told.first(), Some(&2), "the frame that ends the stream, and nothing before");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
