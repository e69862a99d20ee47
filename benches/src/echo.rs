//! Terminal: one byte through `SendInput` until its echo is on the stream, against a bare terminal pair with the same
//! program.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::{
    agent::{Agent, program},
    base64,
    events::{Event, Events},
    figures::Pairs,
    http::Client,
    messages::{Start, Wire, unary},
    procfs::print_state,
};

const ROUNDS: usize = 1000;
const WARM_UP: usize = 50;

/// Measures and prints.
pub(crate) fn run() {
    let agent = Agent::start();
    let child = program("CHILD_BINARY");
    let (mut ours, mut bare) = (Terminal::start(&agent, &child), Pair::start(&child));
    let mut pairs = Pairs::default();
    for round in 0..WARM_UP + ROUNDS {
        let (ours, bare) = (ours.echo(), bare.echo());
        if round >= WARM_UP {
            pairs.push(ours, bare);
        }
    }
    pairs.print_times_and_tail("echo of a byte in a terminal", "bare terminal pair");
    ours.finish();
    bare.finish();
    print_state(agent.pid());
}

/// A terminal of the agent, its stream and a connection for input.
struct Terminal {
    stream: Client,
    events: Events,
    input: Client,
    pid: u32,
}

impl Terminal {
    fn start(agent: &Agent, child: &str) -> Self {
        let mut stream = Client::connect(agent.port);
        let start = Start { terminal: true, ..Start::command(child, &["echo"]) };
        stream.send(&start.request(Wire::Json));
        stream.read_head();
        let mut events = Events::keeping(Wire::Json);
        let Event::Start(pid) = events.next(&mut stream) else { panic!("no start event") };
        let mut terminal = Self { stream, events, input: Client::connect(agent.port), pid };
        terminal.expect(b"!");
        terminal
    }

    fn type_in(&mut self, byte: u8) {
        let encoded = base64::encode(&[byte]);
        let message = format!(r#"{{"process":{{"pid":{}}},"input":{{"pty":"{encoded}"}}}}"#, self.pid);
        self.input.send(&unary("SendInput", &message));
    }

    fn expect(&mut self, bytes: &[u8]) {
        let event = self.events.next(&mut self.stream);
        assert_eq!((event, self.events.output.as_slice()), (Event::Data(1), bytes));
    }

    fn echo(&mut self) -> Duration {
        let began = Instant::now();
        self.type_in(b'x');
        self.expect(b"x");
        let elapsed = began.elapsed();
        self.input.read_response();
        elapsed
    }

    fn finish(mut self) {
        self.type_in(b'q');
        assert_eq!(self.events.read_to_end(&mut self.stream, |_| {}), ("exit status 0".to_owned(), 0));
        self.input.read_response();
    }
}

/// A terminal without an agent.
struct Pair {
    controller: File,
    child: std::process::Child,
}

impl Pair {
    fn start(child: &str) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let terminal = ioctl_tiocgptpeer(&controller, flags).unwrap();
        let mut command = Command::new(child);
        command.arg("echo").stdin(Stdio::from(terminal.try_clone().unwrap())).stdout(Stdio::from(terminal));
        let mut pair = Self { controller: File::from(controller), child: command.spawn().unwrap() };
        pair.expect(b"!");
        pair
    }

    fn expect(&mut self, bytes: &[u8]) {
        let mut buffer = [0; 64];
        let count = self.controller.read(&mut buffer).unwrap();
        assert_eq!(buffer.get(..count), Some(bytes));
    }

    fn echo(&mut self) -> Duration {
        let began = Instant::now();
        self.controller.write_all(b"x").unwrap();
        self.expect(b"x");
        began.elapsed()
    }

    fn finish(mut self) {
        self.controller.write_all(b"q").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}
