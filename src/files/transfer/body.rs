//! The body of a download: file contents read ahead by one chunk, off the async threads.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::system::blocking::{self, Running};

/// One read, in bytes: large enough that the hop to another thread does not count.
const CHUNK_BYTES: usize = 256 * 1024;

/// The pace at which a FIFO or terminal with nothing to say is asked again.
const RETRY: Duration = Duration::from_millis(20);

/// A piece of a body. A body of segments, and not of chunks, is what lets a connection send the file parts without
/// reading them.
#[derive(Debug)]
pub(super) enum Segment {
    /// These bytes.
    Bytes(Bytes),
    /// This part of the file, which is there in full.
    Part {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Whatever reading gives until the end: pipes, devices and files that the kernel makes up.
    Rest,
}

/// Reads segments. Blocking.
struct Reader {
    file: File,
    segments: VecDeque<Segment>,
    /// Two, so that one can be refilled while the other is being sent.
    buffers: [BytesMut; 2],
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Whether the encoder holds back what a flush would send.
    unflushed: bool,
}

enum Chunk {
    Data(Bytes),
    /// Nothing to read yet.
    NotReady,
    End,
}

impl Reader {
    fn next(&mut self) -> io::Result<Chunk> {
        loop {
            let chunk = self.read()?;
            let Some(encoder) = &mut self.encoder else { return Ok(chunk) };
            match &chunk {
                Chunk::Data(plain) => encoder.write_all(plain)?,
                // Nothing is held back while a slow writer pauses.
                Chunk::NotReady if self.unflushed => encoder.flush()?,
                Chunk::NotReady => {}
                Chunk::End => encoder.try_finish()?,
            }
            self.unflushed = matches!(chunk, Chunk::Data(_));
            let compressed = std::mem::take(encoder.get_mut());
            if matches!(chunk, Chunk::End) {
                self.encoder = None;
            }
            if !compressed.is_empty() {
                return Ok(Chunk::Data(compressed.into()));
            }
            if !matches!(chunk, Chunk::Data(_)) {
                return Ok(chunk);
            }
        }
    }

    fn read(&mut self) -> io::Result<Chunk> {
        let Some(segment) = self.segments.pop_front() else { return Ok(Chunk::End) };
        let (offset, length) = match segment {
            Segment::Bytes(bytes) => return Ok(Chunk::Data(bytes)),
            Segment::Part { length: 0, .. } => return self.read(),
            Segment::Part { offset, length } => (Some(offset), length),
            Segment::Rest => (None, u64::MAX),
        };
        let want = usize::try_from(length).map_or(CHUNK_BYTES, |length| length.min(CHUNK_BYTES));
        self.buffers.swap(0, 1);
        let [buffer, _] = &mut self.buffers;
        buffer.clear();
        buffer.resize(want, 0);
        let read = loop {
            let attempt = match offset {
                Some(offset) => self.file.read_at(buffer, offset),
                None => self.file.read(buffer),
            };
            match attempt {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = match read {
            Ok(0) if offset.is_some() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return self.read(),
            Err(error) if offset.is_none() && error.kind() == io::ErrorKind::WouldBlock => {
                self.segments.push_front(Segment::Rest);
                return Ok(Chunk::NotReady);
            }
            other => other?,
        };
        match offset {
            Some(offset) => {
                let done = read as u64;
                if done < length {
                    self.segments.push_front(Segment::Part { offset: offset + done, length: length - done });
                }
            }
            None => self.segments.push_front(Segment::Rest),
        }
        Ok(Chunk::Data(buffer.split_to(read).freeze()))
    }
}

type Reading = Running<(Reader, io::Result<Chunk>)>;

enum State {
    Ready(Reader),
    Reading(Reading),
    Waiting(Reader, Pin<Box<Sleep>>),
    Done,
}

/// An [`http_body::Body`] over segments of one file. Dropping it ends the reading after at most one chunk.
pub(super) struct FileBody {
    state: State,
    /// What is still to come, in bytes, where that is known.
    remaining: Option<u64>,
}

impl FileBody {
    /// The segments as they are.
    pub(super) fn plain(file: File, segments: VecDeque<Segment>) -> Self {
        let remaining = segments.iter().try_fold(0_u64, |sum, segment| match segment {
            Segment::Bytes(bytes) => Some(sum + bytes.len() as u64),
            Segment::Part { length, .. } => sum.checked_add(*length),
            Segment::Rest => None,
        });
        Self { state: State::Ready(Reader::new(file, segments, None)), remaining }
    }

    /// The segments as one gzip stream.
    pub(super) fn gzip(file: File, segments: VecDeque<Segment>, level: Compression) -> Self {
        let encoder = GzEncoder::new(Vec::new(), level);
        Self { state: State::Ready(Reader::new(file, segments, Some(encoder))), remaining: None }
    }
}

impl Reader {
    fn new(file: File, segments: VecDeque<Segment>, encoder: Option<GzEncoder<Vec<u8>>>) -> Self {
        Self { file, segments, buffers: Default::default(), encoder, unflushed: false }
    }

    fn spawn(mut self) -> Reading {
        blocking::run(move || {
            let chunk = self.next();
            (self, chunk)
        })
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Ready(reader) => self.state = State::Reading(reader.spawn()),
                State::Waiting(reader, mut pause) => {
                    if pause.as_mut().poll(cx).is_pending() {
                        self.state = State::Waiting(reader, pause);
                        return Poll::Pending;
                    }
                    self.state = State::Ready(reader);
                }
                State::Reading(mut reading) => {
                    let Poll::Ready(joined) = Pin::new(&mut reading).poll(cx) else {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    let (reader, chunk) = joined.map_err(io::Error::other)?;
                    match chunk? {
                        Chunk::End => return Poll::Ready(None),
                        Chunk::NotReady => self.state = State::Waiting(reader, Box::pin(sleep(RETRY))),
                        Chunk::Data(bytes) => {
                            self.remaining = self.remaining.map(|left| left.saturating_sub(bytes.len() as u64));
                            // The next chunk is read while this one is being sent.
                            if self.remaining != Some(0) {
                                self.state = State::Reading(reader.spawn());
                            }
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                    }
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }
}
