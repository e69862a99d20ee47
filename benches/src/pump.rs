//! The floor's side of output and input: a `pump` (see `src/bin/pump.rs`) at the other end of a connection.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::{
    agent::{LIMIT, program},
    http::as_u64,
    procfs::Usage,
};

/// A running pump and the connection to it.
pub(crate) struct Pump {
    /// The connection.
    pub(crate) socket: TcpStream,
    child: Child,
}

impl Pump {
    /// Starts one. `direction` is `out` or `in`.
    pub(crate) fn start(direction: &str, run: &str, arguments: &[&str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut command = Command::new(program("PUMP_BINARY"));
        let child = command.args([direction, &port.to_string(), run]).args(arguments).spawn().unwrap();
        let socket = listener.accept().unwrap().0;
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket, child }
    }

    /// Reads to the end. Returns how many bytes there were.
    pub(crate) fn drain(&mut self) -> u64 {
        let (mut buffer, mut total) = (vec![0; 256 * 1024], 0);
        loop {
            match self.socket.read(&mut buffer).unwrap() {
                0 => return total,
                count => total += as_u64(count),
            }
        }
    }

    /// Waits for its end. Returns what it used, without the program that it ran.
    pub(crate) fn finish(mut self) -> Usage {
        let pid = Pid::from_child(&self.child);
        // The figures are there until somebody has really waited.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let usage = Usage::of(self.child.id());
        assert!(self.child.wait().unwrap().success());
        usage
    }
}
