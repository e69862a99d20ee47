//! As much of HTTP/1.1 as the benches need, on one kept-alive connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use crate::agent::LIMIT;

/// One connection. Reading from it gives the body of the response that [`Client::read_head`] began.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
    line: String,
    body: Body,
}

/// What is left of a body.
enum Body {
    Length(u64),
    /// What is left of a chunk; the line end behind it has not been read.
    Chunk(u64),
    BeforeFirstChunk,
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        let reader = BufReader::with_capacity(256 * 1024, socket);
        Self { reader, line: String::new(), body: Body::Length(0) }
    }

    /// Sends raw bytes of a request.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// Reads the head of a response, whose status must be 200.
    pub(crate) fn read_head(&mut self) {
        let status = self.read_line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        self.body = Body::BeforeFirstChunk;
        loop {
            let line = self.read_line();
            if line.is_empty() {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                self.body = Body::Length(value.trim().parse().unwrap());
            }
        }
    }

    /// Reads a response with status 200 to its end. Returns how many bytes its body had.
    pub(crate) fn read_response(&mut self) -> u64 {
        self.read_head();
        let mut total = 0;
        loop {
            match self.fill_buf().unwrap().len() {
                0 => return total,
                count => {
                    self.consume(count);
                    total += as_u64(count);
                }
            }
        }
    }

    fn read_line(&mut self) -> &str {
        self.line.clear();
        self.reader.read_line(&mut self.line).unwrap_or_else(|error| panic!("no line within {LIMIT:?}: {error}"));
        self.line.trim_end()
    }

    /// How many bytes are left of what can be read in one piece; 0 at the end of the body.
    fn left(&mut self) -> u64 {
        match self.body {
            Body::Length(left) => return left,
            Body::Chunk(left @ 1..) => return left,
            Body::Chunk(0) => assert!(self.read_line().is_empty()),
            Body::BeforeFirstChunk => {}
        }
        let size = u64::from_str_radix(self.read_line(), 16).unwrap();
        if size == 0 {
            assert!(self.read_line().is_empty());
            self.body = Body::Length(0);
        } else {
            self.body = Body::Chunk(size);
        }
        size
    }
}

impl BufRead for Client {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.left();
        if left == 0 {
            return Ok(&[]);
        }
        let there = self.reader.fill_buf()?;
        assert!(!there.is_empty(), "the body ended {left} bytes early");
        let count = usize::try_from(left).map_or(there.len(), |left| left.min(there.len()));
        Ok(there.get(..count).unwrap())
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        match &mut self.body {
            Body::Length(left) | Body::Chunk(left) => *left -= as_u64(count),
            Body::BeforeFirstChunk => assert_eq!(count, 0),
        }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// A count of bytes as every part of the benches adds them up.
pub(crate) fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}
