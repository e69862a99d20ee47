//! Envelopes: one byte of flags, four bytes of length, a payload.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;

use super::{
    compression::{Encoding, Gzip, gunzip},
    error::ProtocolError,
};
use crate::{
    Body,
    system::buffers::{Buffer, Lease, Pool},
};

/// Bytes in front of every payload.
pub(super) const HEAD_BYTES: usize = 5;
const COMPRESSED: u8 = 0x01;
const END_STREAM: u8 = 0x02;

/// Enough for the largest message with output, 64 KiB as base64. A few wait for their connections at a time.
pub(super) static FRAMES: Pool = Pool::new(96 * 1024, 16);

/// Reads the messages of a request body: unpacked, at most `max_bytes` each. Memory grows with what arrives,
/// never with what a length promises.
pub(super) struct FrameReader {
    body: Body,
    buffer: BytesMut,
    encoding: Encoding,
    max_bytes: usize,
    ended: bool,
}

impl FrameReader {
    pub(super) fn new(body: Body, encoding: Encoding, max_bytes: usize) -> Self {
        Self { body, buffer: BytesMut::new(), encoding, max_bytes, ended: false }
    }

    /// The next message; `None` at the end, also after an error.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ProtocolError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProtocolError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            match self.parse() {
                Ok(Parsed::Message(payload)) => return Poll::Ready(Some(Ok(payload))),
                Ok(Parsed::End) => {
                    self.ended = true;
                    continue;
                }
                Ok(Parsed::Incomplete) => {}
                Err(error) => return self.fail(error),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return self.fail(ProtocolError::Canceled),
                None => {
                    let left = self.buffer.len();
                    if left == 0 {
                        self.ended = true;
                        continue;
                    }
                    let error = match self.head() {
                        Some((_, promised)) => ProtocolError::ShortEnvelope { promised, got: left - HEAD_BYTES },
                        None => ProtocolError::IncompleteEnvelope,
                    };
                    return self.fail(error);
                }
            }
        }
    }

    fn fail<T>(&mut self, error: ProtocolError) -> Poll<Option<Result<T, ProtocolError>>> {
        self.ended = true;
        self.buffer = BytesMut::new();
        Poll::Ready(Some(Err(error)))
    }

    fn head(&self) -> Option<(u8, usize)> {
        let (flags, rest) = self.buffer.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk()?);
        Some((*flags, usize::try_from(length).unwrap_or(usize::MAX)))
    }

    fn parse(&mut self) -> Result<Parsed, ProtocolError> {
        let Some((flags, length)) = self.head() else {
            return Ok(Parsed::Incomplete);
        };
        if flags & !(COMPRESSED | END_STREAM) != 0 {
            return Err(ProtocolError::EnvelopeFlags(flags));
        }
        if length > self.max_bytes {
            return Err(ProtocolError::TooLarge { max_bytes: self.max_bytes });
        }
        if self.buffer.len() - HEAD_BYTES < length {
            return Ok(Parsed::Incomplete);
        }
        self.buffer.advance(HEAD_BYTES);
        let mut payload = self.buffer.split_to(length).freeze();
        if flags & COMPRESSED != 0 && !payload.is_empty() {
            if self.encoding == Encoding::Identity {
                return Err(ProtocolError::UnannouncedCompression);
            }
            payload = gunzip(&payload, self.max_bytes)?;
        }
        if flags & END_STREAM == 0 {
            return Ok(Parsed::Message(payload));
        }
        // Clients have nothing to say in such a frame, but a well-formed one does end the stream.
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&payload)
            .map(|_| Parsed::End)
            .map_err(ProtocolError::EndStream)
    }
}

enum Parsed {
    Message(Bytes),
    End,
    Incomplete,
}

/// Writes the frames of a response body. Between messages it holds no buffer.
pub(super) struct FrameWriter {
    gzip: Option<Gzip>,
    frames: Lease,
}

impl FrameWriter {
    pub(super) fn new(encoding: Encoding) -> Self {
        let gzip = (encoding == Encoding::Gzip).then(Gzip::new);
        Self { gzip, frames: FRAMES.lease() }
    }

    /// One message, written by `write`.
    pub(super) fn message(
        &mut self,
        write: impl FnOnce(&mut Buffer) -> Result<(), ProtocolError>,
    ) -> Result<Bytes, ProtocolError> {
        self.write(0, write)
    }

    /// The frame that ends a stream.
    pub(super) fn end(&mut self, json: &[u8]) -> Bytes {
        let put = |out: &mut Buffer| {
            out.put(json);
            Ok(())
        };
        self.write(END_STREAM, put).unwrap_or_else(|_| Bytes::from_static(b"\x02\0\0\0\x02{}"))
    }

    fn write(
        &mut self,
        flags: u8,
        write: impl FnOnce(&mut Buffer) -> Result<(), ProtocolError>,
    ) -> Result<Bytes, ProtocolError> {
        let mut frame = self.frames.take();
        frame.put(&[0; HEAD_BYTES]);
        let flags = match &mut self.gzip {
            None => {
                write(&mut frame)?;
                flags
            }
            Some(gzip) => {
                let mut plain = self.frames.take();
                write(&mut plain)?;
                gzip.compress(plain.filled(), &mut frame).map_err(|error| ProtocolError::Marshal(error.to_string()))?;
                flags | COMPRESSED
            }
        };
        let length = frame.len() - HEAD_BYTES;
        let length = u32::try_from(length)
            .map_err(|_| ProtocolError::Marshal(format!("{length} bytes do not fit into an envelope")))?;
        let [a, b, c, d] = length.to_be_bytes();
        if let Some(head) = frame.filled_mut().first_chunk_mut() {
            *head = [flags, a, b, c, d];
        }
        Ok(frame.freeze())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::convert::Infallible;

    use bytes::BufMut as _;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn reader(chunks: Vec<Vec<u8>>, encoding: Encoding) -> FrameReader {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
        FrameReader::new(Body::new(StreamBody::new(stream::iter(frames))), encoding, 1000)
    }

    async fn read(bytes: &[u8], chunk: usize) -> Vec<Result<Bytes, String>> {
        let chunks = bytes.chunks(chunk).map(<[u8]>::to_vec).collect();
        let mut reader = reader(chunks, Encoding::Gzip);
        let mut all = Vec::new();
        while let Some(item) = reader.next().await {
            all.push(item.map_err(|error| error.to_string()));
        }
        all
    }

    #[tokio::test]
    async fn frames_survive_any_chunking() {
        let mut plain = FrameWriter::new(Encoding::Identity);
        let mut packed = FrameWriter::new(Encoding::Gzip);
        let mut wire = BytesMut::new();
        for text in ["one", "", "three"] {
            let put = |out: &mut Buffer| {
                out.put(text.as_bytes());
                Ok(())
            };
            wire.put(plain.message(put).unwrap());
            wire.put(packed.message(put).unwrap());
        }
        wire.put(packed.end(b"{}"));
        wire.put_slice(b"what follows the end is not read");
        for chunk in [1, 2, 5, 7, 1000] {
            let texts: Vec<_> = read(&wire, chunk).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(texts, ["one", "one", "", "", "three", "three"], "chunks of {chunk}");
        }
    }

    #[tokio::test]
    async fn broken_frames_have_their_texts() {
        for (wire, text) in [
            (&b"\x00\x00"[..], "protocol error: incomplete envelope: unexpected EOF"),
            (b"\x00\x00\x00\x00\x05abc", "protocol error: promised 5 bytes in enveloped message, got 3 bytes"),
            (b"\x00\x00\x00\x00\x05", "protocol error: promised 5 bytes in enveloped message, got 0 bytes"),
            (b"\x08\x00\x00\x00\x00", "protocol error: invalid envelope flags 8"),
            (b"\xff\x00\x00\x00\x00", "protocol error: invalid envelope flags 255"),
            (b"\x00\xff\xff\xff\xff", "message size is larger than configured max 1000"),
        ] {
            assert_eq!(read(wire, 3).await, [Err(text.to_owned())]);
        }
        assert!(read(b"\x02\x00\x00\x00\x02[]", 3).await[0].as_ref().unwrap_err().starts_with("unmarshal end stream"));
        let mut reader = reader(vec![b"\x01\x00\x00\x00\x01x".to_vec()], Encoding::Identity);
        let error = reader.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "protocol error: sent compressed message without compression support");
        assert!(reader.next().await.is_none());
    }
}
