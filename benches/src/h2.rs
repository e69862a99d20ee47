//! As much of HTTP/2 (RFC 9113) as a gRPC client without TLS needs: one call at a time on one connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use crate::{
    agent::LIMIT,
    http::as_u64,
    messages::{envelope, field},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// How much a peer may send at most before it hears from us.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
/// What a connection has of it from the start.
const FIRST_WINDOW_BYTES: u32 = 65_535;
/// After so many bytes the window is opened again.
const REFILL_BYTES: u32 = 1 << 28;

/// `grpc-status: 0` in a block of headers, with the Huffman code of HPACK (RFC 7541) and without.
const STATUS_OK: [&[u8]; 2] = [b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x07", b"\x0bgrpc-status\x010"];

/// One connection. Reading from it gives the messages of the call that [`Client::call`] began, to its end.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
    /// The stream of the last call.
    stream: u32,
    /// What is left of a DATA frame.
    left: usize,
    ended: bool,
    /// Bytes since the window was opened.
    received: u32,
}

impl Client {
    /// Connects to a port of 127.0.0.1. Frames keep the size that is the default, 16 KiB; the window is as wide as it
    /// can be.
    pub(crate) fn connect(port: u16) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        // No table of headers, so that a status always comes spelt out; no push; the window of a stream.
        let mut settings = Vec::new();
        for (name, value) in [(1_u16, 0_u32), (2, 0), (4, WINDOW_BYTES)] {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &settings));
        hello.extend(frame(WINDOW_UPDATE, 0, 0, &(WINDOW_BYTES - FIRST_WINDOW_BYTES).to_be_bytes()));
        socket.write_all(&hello).unwrap();
        let reader = BufReader::with_capacity(256 * 1024, socket);
        Self { reader, stream: 0, left: 0, ended: true, received: 0 }
    }

    /// Calls a method of the process service with one message.
    pub(crate) fn call(&mut self, method: &str, message: &[u8]) {
        assert!(self.ended, "one call at a time");
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.ended = false;
        let path = format!("/process.Process/{method}");
        let mut headers = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", &path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            // Not indexed, the name spelt out; a length below 127 is one byte, as it is in protobuf.
            headers.push(0);
            headers.extend(&field(0, name.as_bytes())[1..]);
            headers.extend(&field(0, value.as_bytes())[1..]);
        }
        let mut frames = frame(HEADERS, END_HEADERS, self.stream, &headers);
        frames.extend(frame(DATA, END_STREAM, self.stream, &envelope(message)));
        self.reader.get_mut().write_all(&frames).unwrap();
    }

    /// Reads frames up to the next one with data, or to the end of the call.
    fn next_frame(&mut self) {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        if kind == DATA {
            assert_eq!((u32::from_be_bytes(stream), flags & PADDED), (self.stream, 0), "a DATA frame");
            (self.left, self.ended) = (length, flags & END_STREAM != 0);
            return;
        }
        let mut content = vec![0; length];
        self.reader.read_exact(&mut content).unwrap();
        match kind {
            HEADERS if flags & END_STREAM != 0 => {
                let ok = STATUS_OK.iter().any(|status| content.windows(status.len()).any(|window| window == *status));
                assert!(ok, "trailers without grpc-status 0: {content:?}");
                self.ended = true;
            }
            SETTINGS | PING if flags & ACK == 0 => {
                let answer = if kind == PING { content } else { Vec::new() };
                self.reader.get_mut().write_all(&frame(kind, ACK, 0, &answer)).unwrap();
            }
            RST_STREAM | GOAWAY => panic!("frame {kind}: {}", String::from_utf8_lossy(&content)),
            _ => {}
        }
    }

    fn refill(&mut self, count: usize) {
        self.received += u32::try_from(count).unwrap();
        if self.received >= REFILL_BYTES {
            let more = self.received.to_be_bytes();
            let mut frames = frame(WINDOW_UPDATE, 0, 0, &more);
            frames.extend(frame(WINDOW_UPDATE, 0, self.stream, &more));
            self.reader.get_mut().write_all(&frames).unwrap();
            self.received = 0;
        }
    }
}

impl BufRead for Client {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left == 0 && !self.ended {
            self.next_frame();
        }
        if self.left == 0 {
            return Ok(&[]);
        }
        let there = self.reader.fill_buf()?;
        assert!(!there.is_empty(), "the connection ended within a frame");
        Ok(there.get(..self.left.min(there.len())).unwrap())
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.left -= count;
        self.refill(count);
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut frame = as_u64(content.len()).to_be_bytes()[5..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}
