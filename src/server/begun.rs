//! Which HTTP a connection speaks, from its first bytes.
//!
//! hyper-util can tell too, but then hands hyper the bytes it has looked at alone. hyper makes room for another whole
//! read behind those 24 bytes, in a buffer twice as large as any request here needs, and keeps it for as long as the
//! connection lives. [`Begun`] gives it what has arrived in one piece.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or nothing that is known.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A connection of which the first bytes were looked at; they are read again.
#[derive(Debug)]
pub(super) struct Begun<S = Stream> {
    stream: S,
    first: [u8; PREFACE.len()],
    /// The part of `first` that was received and not read again yet.
    unread: std::ops::Range<u8>,
}

/// Waits for as many bytes as it takes to tell.
///
/// # Errors
/// As read(2).
pub(super) async fn begin<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Protocol, Begun<S>)> {
    let mut first = [0; PREFACE.len()];
    let mut length = 0;
    let protocol = loop {
        let room = first.get_mut(length..).unwrap_or_default();
        let count = stream.read(room).await?;
        length += count;
        match first.get(..length) {
            Some(read) if read == PREFACE => break Protocol::Http2,
            Some(read) if count > 0 && PREFACE.starts_with(read) => {}
            _ => break Protocol::Http1,
        }
    };
    let end = u8::try_from(length).unwrap_or(u8::MAX);
    Ok((protocol, Begun { stream, first, unread: 0..end }))
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let unread = this.first.get(usize::from(this.unread.start)..usize::from(this.unread.end)).unwrap_or_default();
        let part = unread.get(..buffer.remaining()).unwrap_or(unread);
        buffer.put_slice(part);
        this.unread.start += u8::try_from(part.len()).unwrap_or(u8::MAX);
        // Usually the rest of the request is there. What is not, and what fails, comes with the next read.
        if this.unread.is_empty() && buffer.remaining() > 0 {
            let _later = Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_tell_and_are_read_again_with_the_rest() {
        let cases: [(&[u8], Protocol); 7] = [
            (b"", Protocol::Http1),
            (b"P", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Protocol::Http2),
            (b"PRI * HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nbody", Protocol::Http1),
            (b"\0\xff", Protocol::Http1),
        ];
        for (sent, expected) in cases {
            for piece in [1, 7, 1000] {
                let (mut client, server) = duplex(piece);
                let sender = tokio::spawn(async move { client.write_all(sent).await });
                let (protocol, mut begun) = begin(server).await.unwrap();
                assert_eq!(protocol, expected, "{sent:?}");
                let mut read = Vec::new();
                begun.read_to_end(&mut read).await.unwrap();
                assert_eq!(read, sent);
                sender.await.unwrap().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_has_arrived_is_read_at_once() {
        let (mut client, server) = duplex(1000);
        let request = b"POST / HTTP/1.1\r\nHost: x\r\n\r\nbody";
        client.write_all(request).await.unwrap();
        let (_, mut begun) = begin(server).await.unwrap();
        let mut room = [0; 100];
        assert_eq!(begun.read(&mut room).await.unwrap(), request.len());
    }
}
