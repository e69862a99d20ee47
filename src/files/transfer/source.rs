//! The bytes of an upload as they were before the client compressed them.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
};

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;

/// Decompressed bytes come in buffers of this size.
const BUFFER_BYTES: usize = 64 * 1024;

/// A buffer with less room than this is replaced, in bytes.
const SMALL_ROOM: usize = 4 * 1024;

/// What the client is told when its body breaks off.
pub(super) const CUT_OFF: &str = "unexpected EOF";

/// How a request body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As announced.
    Complete,
    /// The connection broke.
    Broken,
}

/// Some of a request body.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) chunks: Vec<Bytes>,
    pub(super) ending: Option<Ending>,
}

/// What has arrived and was not taken yet. Reading an empty queue before the end would block.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    ending: Option<Ending>,
}

impl BufRead for Queue {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        match (self.chunks.front(), self.ending) {
            (Some(chunk), _) => Ok(chunk),
            (None, Some(Ending::Complete)) => Ok(&[]),
            (None, Some(Ending::Broken)) => Err(io::ErrorKind::UnexpectedEof.into()),
            (None, None) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn consume(&mut self, amount: usize) {
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.advance(amount.min(chunk.len()));
        }
    }
}

impl Read for Queue {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

/// What the next look at a source gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    /// Nothing until more is fed.
    Wait,
    End,
}

/// A request body, decompressed on the way; never more than a buffer ahead of its reader.
pub(super) struct Source {
    kind: Kind,
}

enum Kind {
    Plain(Queue),
    Gzip(Box<MultiGzDecoder<Queue>>, BytesMut),
}

impl Source {
    /// A body that is what it is.
    pub(super) fn plain(first: Batch) -> Self {
        Self { kind: Kind::Plain(first.into()) }
    }

    /// A gzip stream of any number of members, or why it is none.
    pub(super) fn gzip(first: Batch) -> Result<Self, &'static str> {
        let start: Vec<u8> = first.chunks.iter().flatten().copied().take(10).collect();
        let magic = [0x1F, 0x8B, 8];
        match start.len() {
            0 => return Err("EOF"),
            1..10 => return Err(CUT_OFF),
            _ if !start.starts_with(&magic) => return Err("gzip: invalid header"),
            _ => {}
        }
        Ok(Self { kind: Kind::Gzip(Box::new(MultiGzDecoder::new(first.into())), BytesMut::new()) })
    }

    /// Adds what has arrived.
    pub(super) fn feed(&mut self, batch: Batch) {
        let queue = match &mut self.kind {
            Kind::Plain(queue) => queue,
            Kind::Gzip(decoder, _) => decoder.get_mut(),
        };
        queue.chunks.extend(batch.chunks);
        queue.ending = batch.ending;
    }

    /// The next bytes; the error is what the client is told.
    pub(super) fn next(&mut self) -> Result<Piece, String> {
        let attempt = match &mut self.kind {
            Kind::Plain(queue) => match queue.fill_buf() {
                Ok([]) => return Ok(Piece::End),
                Ok(_) => return Ok(queue.chunks.pop_front().map_or(Piece::End, Piece::Data)),
                Err(error) => Err(error),
            },
            Kind::Gzip(decoder, buffer) => {
                if buffer.len() < SMALL_ROOM {
                    *buffer = BytesMut::zeroed(BUFFER_BYTES);
                }
                match decoder.read(buffer) {
                    Ok(0) => return Ok(Piece::End),
                    Ok(read) => return Ok(Piece::Data(buffer.split_to(read).freeze())),
                    Err(error) => Err(error),
                }
            }
        };
        match attempt {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Piece::Wait),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(CUT_OFF.to_owned()),
            Err(error) => Err(error.to_string()),
            Ok(piece) => Ok(piece),
        }
    }
}

impl From<Batch> for Queue {
    fn from(batch: Batch) -> Self {
        Self { chunks: batch.chunks.into(), ending: batch.ending }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn compress(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn whole(bytes: &[u8]) -> Batch {
        Batch { chunks: vec![Bytes::copy_from_slice(bytes)], ending: Some(Ending::Complete) }
    }

    fn drain(source: &mut Source) -> Result<(Vec<u8>, Piece), String> {
        let mut content = Vec::new();
        loop {
            match source.next()? {
                Piece::Data(bytes) => content.extend_from_slice(&bytes),
                end => return Ok((content, end)),
            }
        }
    }

    #[test]
    fn gzip_arrives_in_any_pieces_and_any_number_of_members() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut compressed = compress(&plain);
        compressed.extend(compress(b"second"));
        let (first, rest) = compressed.split_at(10);
        let mut source = Source::gzip(Batch { chunks: vec![Bytes::copy_from_slice(first)], ending: None }).unwrap();
        let mut content = Vec::new();
        for chunk in rest.chunks(777) {
            let (bytes, end) = drain(&mut source).unwrap();
            content.extend(bytes);
            assert_eq!(end, Piece::Wait);
            source.feed(Batch { chunks: vec![Bytes::copy_from_slice(chunk)], ending: None });
        }
        source.feed(Batch { chunks: vec![], ending: Some(Ending::Complete) });
        let (bytes, end) = drain(&mut source).unwrap();
        content.extend(bytes);
        assert_eq!(end, Piece::End);
        assert!(content == [&plain[..], b"second"].concat());
    }

    #[test]
    fn what_is_not_gzip_is_told_at_the_start() {
        for (bytes, cause) in
            [(&b""[..], "EOF"), (b"\x1f\x8b\x08", "unexpected EOF"), (b"not gzip at all", "gzip: invalid header")]
        {
            assert_eq!(Source::gzip(whole(bytes)).err(), Some(cause));
        }
    }

    #[test]
    fn a_truncated_or_damaged_stream_is_an_error() {
        let compressed = compress(&[7; 100_000]);
        for length in 10..compressed.len() {
            let mut source = Source::gzip(whole(&compressed[..length])).unwrap();
            assert_eq!(drain(&mut source).unwrap_err(), "unexpected EOF", "{length}");
        }
        let mut damaged = compressed.clone();
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        assert!(drain(&mut Source::gzip(whole(&damaged)).unwrap()).is_err());
    }

    #[test]
    fn a_broken_body_is_not_an_end() {
        let batch = Batch { chunks: vec![Bytes::from_static(b"abc")], ending: Some(Ending::Broken) };
        assert_eq!(drain(&mut Source::plain(batch)).unwrap_err(), "unexpected EOF");
    }
}
