//! The floor for output and input: a bare copy between a socket and the pipe of a program, with nothing in between.
//!
//! * `pump out PORT COMMAND…` connects to the port on 127.0.0.1 and sends what the command writes.
//! * `pump in PORT COMMAND…` gives the command what comes from the port, then sends back what it wrote.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench has nobody to report to but its own exit status")]

#[path = "../copy.rs"]
mod copy;

use std::{
    env,
    net::TcpStream,
    process::{Command, Stdio},
};

use self::copy::copy;

/// What a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [direction, port, program, arguments @ ..] = arguments.as_slice() else { panic!("in|out PORT COMMAND…") };
    let mut socket = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = match direction.as_str() {
        "out" => command.spawn().unwrap(),
        "in" => {
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            copy(&mut socket, &mut child.stdin.take().unwrap(), PIECE_BYTES);
            child
        }
        other => panic!("in or out, not {other}"),
    };
    copy(&mut child.stdout.take().unwrap(), &mut socket, PIECE_BYTES);
    assert!(child.wait().unwrap().success());
}
