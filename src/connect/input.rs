//! Client streams as `tonic::Streaming`.
//!
//! `tonic::Streaming` parses gRPC frames, so it gets a body of clean ones: unpacked, flags zero, one at a
//! time. It would swallow or rewrite errors that come out of a body; ours travel beside the frames, and an
//! empty frame makes the decoder look.

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::{
    Status, Streaming,
    codec::{BufferSettings, DecodeBuf, Decoder},
};

use super::{
    codec::{Decodable, decode},
    content_type::Codec,
    error::ProtocolError,
    frame::{FrameReader, HEAD_BYTES},
};

/// The messages of `reader` for a handler. The first error ends the stream.
pub(super) fn streaming<M: Decodable>(reader: FrameReader, codec: Codec) -> Streaming<M> {
    let fault = Arc::new(Fault::default());
    let body = CleanFrames { reader, payload: None, fault: fault.clone() };
    let decoder = MessageDecoder { codec, fault, message: PhantomData };
    Streaming::new_request(decoder, body, None, Some(usize::MAX))
}

#[derive(Default)]
struct Fault(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Running,
    /// To be told to the handler.
    Failed(ProtocolError),
    Ended,
}

impl Fault {
    fn set(&self, state: State) -> State {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    fn ended(&self) -> bool {
        !matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Running)
    }
}

struct CleanFrames {
    reader: FrameReader,
    payload: Option<Bytes>,
    fault: Arc<Fault>,
}

impl Body for CleanFrames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(payload) = self.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        if self.fault.ended() {
            return Poll::Ready(None);
        }
        let payload = match ready!(self.reader.poll_next(cx)) {
            Some(Ok(payload)) => payload,
            Some(Err(error)) => {
                self.fault.set(State::Failed(error));
                Bytes::new()
            }
            None => return Poll::Ready(None),
        };
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        head.put_u8(0);
        // Unpacked messages are bounded by the router's limit, which fits.
        head.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        self.payload = (!payload.is_empty()).then_some(payload);
        Poll::Ready(Some(Ok(Frame::data(head.freeze()))))
    }
}

struct MessageDecoder<M> {
    codec: Codec,
    fault: Arc<Fault>,
    // Not `M` itself: the decoder holds none, so it is `Send` whatever `M` is.
    message: PhantomData<fn() -> M>,
}

impl<M: Decodable> Decoder for MessageDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        match self.fault.set(State::Running) {
            State::Running => {}
            State::Failed(error) => {
                self.fault.set(State::Ended);
                return Err(error.into());
            }
            // tonic asks again after an error; with the body at its end too, it then ends the stream.
            State::Ended => {
                self.fault.set(State::Ended);
                return Ok(None);
            }
        }
        let payload = source.copy_to_bytes(source.remaining());
        // An empty payload is the empty message in both codecs.
        if payload.is_empty() {
            return Ok(Some(M::default()));
        }
        decode(self.codec, payload).map(Some).map_err(|error| {
            self.fault.set(State::Ended);
            error.into()
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(0, 0)
    }
}
