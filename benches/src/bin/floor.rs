//! The floor for start-up: a static program that binds a socket and answers every request with `204`, nothing else.
//!
//! Usage: `floor PORT`.
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report to but its own exit status")]

use std::{
    env,
    io::{Read, Write},
    net::TcpListener,
};

fn main() {
    let port: u16 = env::args().nth(1).unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        if stream.read(&mut request).is_ok() {
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    }
}
