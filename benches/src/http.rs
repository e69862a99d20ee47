//! As much of HTTP/1.1 as the benches need, on one kept-alive connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use crate::agent::LIMIT;

/// One connection.
pub(crate) struct Client {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    line: String,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Self {
        let writer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        writer.set_nodelay(true).unwrap();
        writer.set_read_timeout(Some(LIMIT)).unwrap();
        let reader = BufReader::with_capacity(256 * 1024, writer.try_clone().unwrap());
        Self { writer, reader, line: String::new(), buffer: vec![0; 256 * 1024] }
    }

    /// Sends raw bytes of a request.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    /// Reads a response with status 200 to its end. `take` gets the pieces of its body; returns their sum.
    pub(crate) fn read_response(&mut self, mut take: impl FnMut(&[u8])) -> u64 {
        let status = self.read_line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        let mut length = None;
        loop {
            let line = self.read_line();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse().unwrap());
            }
        }
        if let Some(length) = length {
            self.read_body(length, &mut take);
            return length;
        }
        let mut total = 0;
        loop {
            let size = u64::from_str_radix(&self.read_line(), 16).unwrap();
            self.read_body(size, &mut take);
            assert!(self.read_line().is_empty());
            if size == 0 {
                return total;
            }
            total += size;
        }
    }

    fn read_line(&mut self) -> String {
        self.line.clear();
        self.reader.read_line(&mut self.line).unwrap();
        self.line.trim_end().to_owned()
    }

    fn read_body(&mut self, length: u64, take: &mut impl FnMut(&[u8])) {
        let mut body = Read::take(&mut self.reader, length);
        let mut left = length;
        while left > 0 {
            let count = body.read(&mut self.buffer).unwrap();
            assert_ne!(count, 0, "the body ended {left} bytes early");
            take(self.buffer.get(..count).unwrap());
            left -= u64::try_from(count).unwrap();
        }
    }
}

/// `Start` of a command as one envelope of a Connect stream with JSON.
pub(crate) fn start_request(command: &str, arguments: &[&str]) -> Vec<u8> {
    let arguments: Vec<_> = arguments.iter().map(|argument| format!("\"{argument}\"")).collect();
    let message =
        format!(r#"{{"process":{{"cmd":"{command}","args":[{}]}},"stdin":false}}"#, arguments.join(",")).into_bytes();
    let mut request = format!(
        "POST /process.Process/Start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+json\r\n\
         Connect-Protocol-Version: 1\r\nContent-Length: {}\r\n\r\n",
        message.len() + 5
    )
    .into_bytes();
    request.push(0);
    request.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    request.extend(message);
    request
}
